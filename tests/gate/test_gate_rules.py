"""The gate on models with known harm: what it must stop, and what it must pass."""

import numpy as np
import pandas as pd
import pytest
from gate_world import SEEN, SHOWN, answers, images, judge, rule

from tasks.gate.compare import compare, group_names, membership
from tasks.gate.decision import (
    BEST,
    CALIBRATION,
    GROUP,
    HELD,
    LISTED,
    NOT_JUDGED,
    NOT_SHOWN,
    OVERALL,
    ROBUSTNESS,
    UNSEEN,
)
from tasks.gate.score import Scores


@pytest.fixture(scope="module")
def table():
    return images()


def girls(test):
    """Mask of images that a model gets wrong: girls labeled anger or disgust."""
    wrong = test["emotion"].isin(["anger", "disgust"])
    return (test["age_band"] == "child") & (test["gender"] == "female") & wrong


def test_harm_to_one_group_is_refused_and_the_group_and_figures_are_named(table):
    decision = judge(table, answers(table, spoilt=girls), answers(table), protected=GIRLS)
    assert decision.outcome == "refuse"
    harmed = rule(decision, GROUP, "child × female")
    assert harmed["outcome"] == "fail" and harmed["ci_high"] < 0
    assert rule(decision, GROUP, "child × male")["outcome"] == LISTED
    named = [reason for reason in decision.reasons if "child × female (as recorded)" in reason]
    assert len(named) == 1
    test = table[table["split"] == "test"]
    old, new = answers(table).table, answers(table, spoilt=girls).table
    mask = ((test["age_band"] == "child") & (test["gender"] == "female")).to_numpy()
    before, after = (
        ((one["y_pred"].to_numpy() == test["emotion"]) & mask).sum() for one in (old, new)
    )
    assert f"fell from {before:.1f}\u202f% to {after:.1f}\u202f%" in named[0]  # of 100 pictures
    assert "100 frozen test pictures of 10 people" in named[0]


GIRLS = [{"age_band": ["child"], "gender": ["female"]}]
WIDE = dict.fromkeys(["overall", "group", "calibration", "robustness"], 0.9)


def test_a_margin_decides_whether_a_harm_that_is_shown_is_tolerated(table):
    few = lambda test: test["image_id"].isin(test["image_id"][::12])  # noqa: E731
    wide = judge(table, answers(table, spoilt=few), answers(table), margins=WIDE)
    row = rule(wide, OVERALL)
    assert row["ci_high"] < 0 and row["outcome"] == "pass"
    assert row["note"] == "worse, but more than the margin is ruled out"
    narrow = {**WIDE, "overall": 0.03}
    refused = judge(table, answers(table, spoilt=few), answers(table), margins=narrow)
    row = rule(refused, OVERALL)
    assert (row["outcome"], row["ci_high"] < 0, row["ci_low"] < -0.03) == ("fail", True, True)
    assert "harm is shown" in refused.reasons[0]


def test_one_image_read_worse_shows_nothing_whatever_the_margin(table):
    one = lambda test: test["image_id"].isin(right_ones(table)[:1])  # noqa: E731
    none = {**WIDE, "group": 0.0, "overall": 0.0}
    decision = judge(table, answers(table, spoilt=one), answers(table), margins=none)
    row = rule(decision, OVERALL)
    assert row["outcome"] == NOT_SHOWN and row["ci_low"] < row["change"] < 0 <= row["ci_high"]
    assert decision.passed and not decision.waits
    waits = judge(table, answers(table, spoilt=one), answers(table), margins=none, not_shown="wait")
    assert waits.needs_a_person and any("neither harm nor" in line for line in waits.waits)
    options = {"margins": none, "not_shown": "wait_beyond_margin"}
    beyond = judge(table, answers(table, spoilt=one), answers(table), **options)
    assert beyond.needs_a_person and "the fall is beyond the margin" in beyond.waits[0]
    wide = judge(table, answers(table, spoilt=one), answers(table), **options | {"margins": WIDE})
    assert wide.passed and not wide.waits
    alike = judge(table, answers(table), answers(table), **options)
    assert alike.passed and not alike.waits


def test_a_harm_shown_by_this_look_alone_waits_for_a_person(table):
    """A later look has less of the error rate left; between the two a person decides."""
    some = lambda test: girls(test) & test["image_id"].isin(test["image_id"][::2])  # noqa: E731
    both = answers(table, spoilt=some), answers(table)
    first, later = (judge(table, *both, protected=GIRLS, looks=looks) for looks in (1.0, 20.0))
    assert rule(first, GROUP, "child × female")["outcome"] == "fail"
    row = rule(later, GROUP, "child × female")
    assert row["outcome"] == HELD and row["ci_high"] < 0
    assert later.passed and later.needs_a_person and "this look alone" in later.waits[0]
    assert (first.errors["spent"], later.errors["spent"]) == (
        0.1,
        0.00025,
    )


def right_ones(table):
    test = table[table["split"] == "test"]
    mask = answers(table).table
    return mask["image_id"][mask["y_pred"].to_numpy() == test["emotion"].to_numpy()].to_numpy()


def test_a_model_like_the_one_in_use_and_a_better_one_pass(table):
    assert judge(table, answers(table), answers(table)).outcome == "pass"
    better = judge(table, answers(table), answers(table, spoilt=girls), protected=GIRLS)
    assert better.outcome == "pass" and better.reasons == ()
    assert rule(better, GROUP, "child × female")["change"] > 0.1


@pytest.mark.parametrize(
    ("changed", "failed"),
    [({"sure": 0.35}, CALIBRATION), ({"flips": 0.2}, ROBUSTNESS)],
)
def test_worse_probabilities_and_less_steady_answers_are_refused(table, changed, failed):
    decision = judge(table, answers(table, **changed), answers(table))
    rules = set(decision.table["rule"][decision.table["outcome"] == "fail"])
    assert rules == {failed}


def test_the_brier_score_is_the_sum_over_labels(table):
    row = rule(judge(table, answers(table, right=1.0), None), CALIBRATION)
    assert row["challenger"] == pytest.approx(0.2**2 + 6 * (0.2 / 6) ** 2, abs=1e-6)


def test_the_worst_group_that_is_shown_is_the_lowest_of_all_large_enough(table):
    boys = lambda test: girls(test.assign(gender=test["gender"].map(OTHER)))  # noqa: E731
    decision = judge(table, answers(table, spoilt=boys), answers(table, spoilt=girls), margins=WIDE)
    groups = decision.table[decision.table["rule"] == GROUP]
    assert decision.worst_group == "child × male"
    assert decision.worst_recall == groups["challenger"].min()


OTHER = {"female": "male", "male": "female"}


def test_groups_too_small_are_listed_and_do_not_decide(table):
    few = images(people=4, each=10, batch="few-")
    few = few[(few["split"] == "test") & (few["age_band"] == "child") & (few["gender"] == "female")]
    both = pd.concat([table, few.assign(age_band="adolescent")], ignore_index=True)
    spoilt = lambda test: test["age_band"] == "adolescent"  # noqa: E731
    decision = judge(both, answers(both, spoilt=spoilt), answers(both), margins=WIDE)
    row = rule(decision, GROUP, "adolescent × female")
    assert (row["outcome"], row["n"], row["subjects"]) == (NOT_JUDGED, 40, 4)
    assert row["challenger"] == 0 and "too small" in row["note"]
    unseen = rule(decision, GROUP, "infant × female")  # no test picture at all
    assert (unseen["outcome"], unseen["n"]) == (NOT_JUDGED, 0)
    assert "adolescent" not in decision.worst_group
    few_only = few.assign(age_band="adolescent")
    nothing = judge(few_only, answers(few_only), answers(few_only))
    assert not nothing.passed  # nothing is promoted on four people
    assert "Too few to judge: 40 frozen test pictures of 4 people" in nothing.reasons[0]


def test_images_of_an_unknown_group_count_in_the_whole_and_in_no_group(table):
    unknown = table.assign(gender=table["gender"].mask(table["age_band"] == "adult", "unknown"))
    decision = judge(unknown, answers(unknown), answers(unknown))
    assert rule(decision, OVERALL)["n"] == 400
    groups = decision.table["group"][decision.table["rule"] == GROUP]
    assert not groups.str.contains("unknown").any()
    assert decision.counts["in no combined group: age, gender or the like unknown"] == 200


def test_new_images_are_judged_apart_by_the_same_rules(table):
    fresh = images(people=6, batch="new-")
    both = pd.concat([table, fresh[fresh["split"] == "test"]], ignore_index=True)
    harmed = lambda test: girls(test) & test["image_id"].str.startswith("new-")  # noqa: E731
    harmed_in_all = lambda test: (  # noqa: E731
        (test["gender"] == "female") & test["image_id"].str.startswith("new-")
    )
    frozen = table["image_id"]
    decision = judge(
        both, answers(both, spoilt=harmed_in_all), answers(both), frozen, protected=GIRLS
    )
    assert rule(decision, OVERALL)["change"] == 0  # the frozen ones are as they were
    assert rule(decision, GROUP, "all", "new")["outcome"] == "fail"
    assert "240 new test pictures of 24 people" in decision.reasons[0]
    assert rule(decision, GROUP, "child × female", "new")["n"] == 60
    small = judge(both, answers(both, spoilt=harmed), answers(both), frozen, min_n=61)
    assert rule(small, GROUP, "child × female", "new")["outcome"] == NOT_JUDGED


def test_a_challenger_that_saw_a_test_person_is_refused(table):
    seen = pd.DataFrame({"subject_id": ["set/trained", "set/child-male-3"]})
    decision = judge(table, answers(table), answers(table), seen=seen)
    row = rule(decision, UNSEEN)
    assert (row["outcome"], row["champion"], row["challenger"]) == ("fail", 0, 1)
    assert decision.outcome == "refuse" and "1 person" in decision.reasons[0]
    other = judge(table, answers(table), answers(table), champion_seen=seen)
    assert other.passed and "in its favour" in rule(other, UNSEEN)["note"]
    nobody = judge(table, answers(table), answers(table), seen=SEEN[:0])
    assert not nobody.passed and "cannot be shown" in nobody.reasons[0]


def test_the_first_model_is_held_to_floors(table):
    assert judge(table, answers(table)).outcome == "pass"
    low = judge(table, answers(table, right=0.4))
    assert "Overall recall is 4" in low.reasons[0] and "below the floor of 50.0" in low.reasons[0]
    bad = judge(table, answers(table, spoilt=lambda test: test["age_band"] == "child"))
    assert {row["group"] for _, row in bad.table[bad.table["outcome"] == "fail"].iterrows()} >= {
        "child × female",
        "child × male",
    }
    unsteady = judge(table, answers(table, flips=0.36))
    assert "above the floor of 35.0" in unsteady.reasons[0]


def test_labels_that_the_model_in_use_lacks_are_left_out_and_counted(table):
    fewer = answers(table, labels=SHOWN[:5])
    compared = compare(table, table["image_id"], answers(table), fewer, ["age_band", "gender"])
    lacking = table["emotion"].isin(SHOWN[5:]) & (table["split"] == "test")
    assert compared.counts["left out: a label that the model in use lacks"] == lacking.sum() > 0
    assert compared.counts["compared"] == 400 - lacking.sum() == len(compared.images)


def test_a_label_that_the_challenger_lost_is_read_wrong_and_named(table):
    decision = judge(table, answers(table, labels=SHOWN[:6]), answers(table, labels=SHOWN))
    lost = int(((table["emotion"] == SHOWN[6]) & (table["split"] == "test")).sum())
    assert rule(decision, OVERALL)["n"] == 400 and not decision.passed
    message = f"It cannot answer {SHOWN[6]} any more: {lost} pictures with that label count as read"
    assert any(message in reason for reason in decision.reasons)
    wrong = answers(table, right=0.0, sure=1.0, labels=SHOWN[:6])
    images = compare(table, table["image_id"], wrong, answers(table), ["gender"]).images
    brier = images["brier_challenger"][images["emotion"] == SHOWN[6]]
    assert set(brier) == {2.0}  # all on another label, and nothing on the one it lacks


def test_a_image_in_which_a_model_finds_no_face_is_read_wrong_by_it(table):
    found = answers(table)
    gone = table["image_id"][(table["age_band"] == "child") & (table["gender"] == "female")]
    blind = Scores(found.labels, found.table[~found.table["image_id"].isin(gone)])
    decision = judge(table, blind, found, protected=GIRLS)
    row = rule(decision, GROUP, "child × female")
    assert (row["outcome"], row["n"], row["challenger"]) == ("fail", 100, 0)
    assert "It finds no face in 100 test pictures: they count as read wrong." in decision.reasons
    assert decision.counts["read wrong: no face found by the challenger"] == 100
    assert rule(decision, ROBUSTNESS, "all small changes")["n"] == 300  # what both answered
    assert (decision.answers["answer"] == "").sum() == 100
    assert judge(table, found, blind).passed


def test_children_of_unknown_gender_are_judged_as_children(table):
    odd = images(people=6, batch="odd-")
    odd = odd[(odd["age_band"] == "child") & (odd["split"] == "test")].assign(gender="unknown")
    both = pd.concat([table, odd], ignore_index=True)
    spoilt = lambda test: test["image_id"].str.startswith("odd-")  # noqa: E731
    decision = judge(both, answers(both, spoilt=spoilt), answers(both))
    assert rule(decision, GROUP, "child")["outcome"] == "fail"
    assert rule(decision, GROUP, "child × female")["change"] == 0
    assert any("Recall of child (as recorded) fell" in reason for reason in decision.reasons)
    nobody = both.assign(age_band=both["age_band"].mask(both["gender"] == "unknown"))
    counts = compare(nobody, both["image_id"], answers(both), None, ["age_band", "gender"]).counts
    assert counts["in no group at all"] == len(odd)


def test_two_dimensions_with_the_same_value_are_told_apart():
    table = pd.DataFrame({"gaze": ["left", "away"], "pose": ["right", "left"]})
    names = group_names(table, ["gaze", "pose"])
    assert list(names["group: gaze"]) == ["left (gaze)", "away"]
    assert list(names["group: pose"]) == ["right", "left (pose)"]
    assert membership(names, ["left (gaze)", "away × left"]).tolist() == [[1, 0], [0, 1]]


def test_every_version_is_held_to_the_floors(table):
    low = answers(table, right=0.45)
    decision = judge(table, low, low)
    assert not decision.passed
    assert rule(decision, OVERALL)["note"].startswith("below the floor of 50.0\u202f%")
    row = rule(decision, OVERALL)
    assert row["own_low"] < row["challenger"] < row["own_high"]
    assert ("its interval reaches the floor" in decision.reasons[0]) == (row["own_high"] >= 0.5)


def test_many_small_falls_are_measured_against_every_version_ever_in_use(table):
    """No single step is significant; their sum is."""
    test = table[table["split"] == "test"].reset_index(drop=True)
    theirs = test.index[(test["age_band"] == "child") & (test["gender"] == "female")]
    versions = {}
    for number in range(1, 5):
        gone = theirs[(np.arange(len(theirs)) % 10) < 2 * (number - 1)]  # of each girl two more
        one = [place for place in gone if place % 3 == 0 or number > 3]
        spoilt = lambda rows, n=one: rows["image_id"].isin(test["image_id"][n])  # noqa: E731
        versions[number] = answers(table, right=1.0, spoilt=spoilt)
    predictions = {
        number: scores.table.set_index("image_id")["y_pred"] for number, scores in versions.items()
    }
    tolerant = {**WIDE, "group": 0.5}
    step = judge(table, versions[4], versions[3], margins=tolerant, protected=GIRLS)
    assert step.passed and rule(step, GROUP, "child × female")["outcome"] != "fail"
    earlier = {1: predictions[1], 2: predictions[2]}
    decision = judge(
        table, versions[4], versions[3], earlier=earlier, margins=tolerant, protected=GIRLS
    )
    row = rule(decision, BEST, "child × female")
    assert (row["champion"], row["outcome"]) == (1.0, "fail") and row["ci_high"] < 0
    assert any("fell most is version 1" in one for one in decision.reasons)
    few = {1: predictions[1][:10]}  # too few common images
    fewer = judge(table, versions[4], versions[3], earlier=few, margins=tolerant, protected=GIRLS)
    assert BEST not in set(fewer.table["rule"])


@pytest.mark.parametrize(("people", "missing"), [(4, True), (5, False)])
def test_a_version_for_children_of_whom_nothing_can_be_told_waits(table, people, missing):
    few = table[(table["age_band"] != "child") | table["subject_id"].isin(kids(table, people))]
    needed = {
        "finetune.subset": {"age_band": ["child"]},
        "retrain.child_age_bands": {"age_band": ["child"]},
    }
    decision = judge(few, answers(few), answers(few), needed=needed)
    assert decision.passed and decision.needs_a_person == missing
    if missing:
        assert "child (finetune.subset and retrain.child_age_bands)" in decision.waits[0]
        assert "40 frozen test pictures of 4 people" in decision.waits[0]
        first = judge(few, answers(few), needed=needed)
        assert first.passed and first.waits == decision.waits  # the first model ever, too
        free = judge(few, answers(few), answers(few), needed=needed, not_judged="promote")
        assert not free.needs_a_person
    nobody = few[few["age_band"] != "child"]  # none in the data: nothing was made for children
    assert not judge(nobody, answers(nobody), answers(nobody), needed=needed).needs_a_person


def kids(table, people):
    children = table.loc[table["age_band"] == "child", "subject_id"]
    return sorted(children.unique())[:people]


def test_one_person_with_most_images_does_not_make_a_group_of_five(table):
    few = table[(table["age_band"] != "child") | table["subject_id"].isin(kids(table, 5))]
    one = few[few["subject_id"] == kids(table, 1)[0]]
    more = [one.assign(image_id=one["image_id"] + f"-{copy}") for copy in range(8)]
    many = pd.concat([few, *more], ignore_index=True)
    row = rule(judge(many, answers(many), answers(many)), GROUP, "child")
    assert (row["subjects"], row["outcome"]) == (5, NOT_JUDGED)
    assert row["effective"] == pytest.approx(130**2 / (90**2 + 4 * 10**2), abs=1e-5)


@pytest.mark.parametrize("champion", [True, False])
def test_a_figure_that_is_no_number_fails(table, champion):
    broken = answers(table, sure=float("nan"))
    decision = judge(table, broken, answers(table) if champion else None)
    assert rule(decision, CALIBRATION)["outcome"] == "fail"
    assert "The Brier score cannot be judged: the figure is no number" in decision.reasons[0]


def test_without_frozen_images_nothing_is_promoted(table):
    gone = pd.Series(["gone-1", "gone-2"])
    decision = judge(table, answers(table), answers(table), frozen=gone)
    assert not decision.passed and "nothing can be compared" in decision.reasons[0]
    assert decision.counts["frozen pictures that are no longer there"] == 2


def test_people_are_drawn_and_not_images():
    """The same harm is significant if spread over subjects, and not if it is one subject's."""
    table = images(people=12, each=10)
    test = table[table["split"] == "test"]
    one = set(test["image_id"][test["subject_id"] == "set/child-male-0"])
    spread = set(test["image_id"][np.arange(len(test)) % 48 == 0])
    assert len(one) == len(spread) == 10
    high = {}
    for name, chosen in (("one", one), ("spread", spread)):

        def spoilt(rows, chosen=chosen):
            return rows["image_id"].isin(chosen)

        decision = judge(table, answers(table, right=1.0, spoilt=spoilt), answers(table, right=1.0))
        high[name] = rule(decision, OVERALL)["ci_high"]
    assert high["spread"] < 0 <= high["one"]
