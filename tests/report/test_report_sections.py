"""The sections on strategies, factors, fairness, the published study: what a reader must find."""

import json
import re

import pandas as pd
import pytest

from tasks.core.tables import write_csv


@pytest.fixture(scope="module")
def sections(drawn):
    """Every section's text, without tags."""
    found = re.findall(r'<section id="(\w+)">(.*?)</section>', drawn[0], re.S)
    return {name: _plain(text) for name, text in found}


def _changed(paths, name, **columns):
    """Write a table of the audit again with other values in some columns."""
    path = paths.tables / f"{name}.csv"
    table = pd.read_csv(path, keep_default_na=False)
    write_csv(table.assign(**columns), path)


def _plain(text):
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("\u00a0", " ").split())


def test_the_choice_is_told_with_what_it_went_by_and_that_test_images_had_no_part(sections):
    text = sections["strategies"]
    assert "Chosen: replay, out of base, naive and replay, by the worst group on validation" in text
    assert "children, with a mean recall over emotions of 92.0 % (129 of 140 pictures" in text
    assert "+36.0 points compared with the base model" in text and "(standard error 3.0)" in text
    assert "more than 6.0 were needed to replace it" in text
    assert "too high, here by about 1.2 points: corrected it is 90.8 %" in text
    assert "took no part in the choice" in text
    assert "Not carried out: head (params leave it out)." in text


def test_a_base_model_that_was_kept_is_told_with_what_was_lacking(tmp_path, project, report):
    paths = project(tmp_path)
    choice = pd.read_csv(paths.tables / "choice.csv")
    near = {"advantage": 0.02, "threshold": 0.06}
    near = {name: choice[name].where(choice[name].isna(), value) for name, value in near.items()}
    _changed(paths, "choice", chosen=choice["strategy"] == "base", **near)
    page, _ = report(paths)
    text = _plain(page.split('<section id="strategies">')[1].split("</section>")[0])
    assert (
        "No strategy is better than the base model by more than its error, so that it was" in text
    )
    assert "The closest, naive, differs by +2.0 points; more than 6.0 were needed." in text
    assert "corrected it is" not in text


def test_gain_and_loss_of_the_chosen_and_the_plain_strategy_stand_together(sections):
    text = sections["strategies"]
    assert "children +39.6 points (95 % interval +37.6 to +42.6, n = 154); that is +0.6" in text
    assert "replay does least well for adults: −0.4 points" in text
    assert "naive does least well for adults: −11.0 points" in text


def test_the_choice_is_a_card_and_in_the_metrics(drawn):
    page, paths, _ = drawn
    card = _plain(page.split('<div class="cards">')[1].split("<section")[0])
    assert "replay strategy of fine-tuning" in card and "adults −0.4 points" in card
    numbers = json.loads(paths.metrics.read_text(encoding="utf-8"))
    assert numbers["strategies"]["chosen"] == "replay"
    replay = numbers["strategies"]["by_strategy"]["replay"]
    assert replay["change_for"][0]["group"] == {"age_band": "child"}
    assert replay["change_for"][0]["n"] == 154 and replay["change_for"][0]["ci_low"] == 0.376
    assert replay["worst_other_change"]["change"] == -0.004
    mixes = {row["standardized_to"]: row["gap"] for row in numbers["standardized_gaps"]}
    assert mixes == {"nothing (raw)": -0.4, "emotion": -0.31, "emotion, mouth": -0.27}


def test_fine_tuning_that_was_for_no_single_group_is_said(tmp_path, project, report):
    paths = project(tmp_path)
    _changed(paths, "strategies", is_target_group=False, note="everybody was fine-tuned on")
    page, _ = report(paths)
    text = _plain(page)
    said = "No group is marked as the one that fine-tuning was for: everybody was fine-tuned on."
    assert said in text
    both = (
        "Replay, the strategy that was chosen, does most for children: +39.6 points (95 % interval"
    )
    assert both in text and ", and least for adults: −0.4 points" in text
    assert "Naive does most for children: +39.0 points" in text
    assert "Of the other groups" not in text and "more gained by the group" not in text
    card = _plain(page.split('<div class="cards">')[1].split("<section")[0])
    assert "least for adults −0.4 points" in card and "not for one group alone" in card
    numbers = json.loads(paths.metrics.read_text(encoding="utf-8"))["strategies"]
    assert numbers["target_groups"] == []
    assert numbers["by_strategy"]["naive"]["change_for"] == []
    assert numbers["by_strategy"]["naive"]["worst_other_change"]["change"] == -0.11


def test_where_nothing_was_fine_tuned_the_base_model_is_named_and_why(tmp_path, project, report):
    paths = project(tmp_path)
    columns = pd.read_csv(paths.tables / "choice.csv").columns
    rows = [{"strategy": "base", "chosen": True, "note": "there was no choice"}]
    rows += [{"strategy": "replay", "chosen": False, "note": "no pictures of finetune.subset yet"}]
    write_csv(pd.DataFrame(rows).reindex(columns=columns), paths.tables / "choice.csv")
    strategies = pd.read_csv(paths.tables / "strategies.csv")
    write_csv(strategies.iloc[:0], paths.tables / "strategies.csv")
    page, _ = report(paths)
    text = _plain(page.split('<section id="strategies">')[1].split("</section>")[0])
    assert "Kept: base. There was no choice." in text
    assert "Not carried out: replay (no pictures of finetune.subset yet)." in text


def test_groups_that_no_data_set_shares_are_named_beside_the_factors(
    tmp_path, project, report, sections
):
    assert "cannot be told apart" not in sections["factors"]
    paths = project(tmp_path)
    _changed(paths, "gaps", datasets_with_both="")
    page, _ = report(paths)
    factors = _plain(page.split('<section id="factors">')[1].split("</section>")[0])
    said = "No data set holds both children and adults: age band and data set cannot be told apart"
    assert factors.count(said) == 1


def test_the_training_curve_is_named_after_what_it_holds(tmp_path, drawn, project, report):
    assert "fine-tuned model, which is replay, mean recall of the worst group" in _plain(drawn[0])
    paths = project(tmp_path)
    choice = pd.read_csv(paths.tables / "choice.csv")
    _changed(paths, "choice", chosen=choice["strategy"] == "naive")
    page, _ = report(paths)
    assert "the highest mean recall on validation pictures, ties by" in _plain(page)


def test_the_standardized_gap_stands_beside_the_raw_one(sections):
    text = sections["factors"]
    raw = "Children against adults, base model: raw −40.0 points (95 % interval −50.0 to −30.0"
    assert raw in text
    assert "at the same mix of emotion −31.0 points" in text
    assert "at the same mix of emotion and mouth −27.0 points" in text
    assert "age band child against adult (odds ratio 0.050, 95 % interval 0.010 to 0.20" in text
    assert "Left out of that model: gaze (recorded for no picture)." in text


def test_a_gap_that_was_not_shown_has_the_smallest_that_could_have_been(unshown):
    page = unshown[0]
    summary = _plain(page.split('id="summary"')[1].split("<section")[0])
    assert "the smallest that these pictures could have shown is one of 12.3 points" in summary
    gaps = page.split('id="gaps"')[1].split("</section>")[0]
    assert re.search(r"<td>0\.400</td><td>12\.3</td>", gaps)
    assert "with 80 % power" in _plain(gaps)


def test_fairness_and_calibration_name_groups_and_counts(sections):
    assert (
        "child 40.0 % 25.0 to 57.0 adult 80.0 % 63.0 to 91.0 40.0 +20.0 to +60.0 0.50 "
        "0.30 to 0.76 0.002 38" in sections["fairness"]
    )
    text = sections["calibration"]
    assert "furthest off for children, with a mean probability of 90.0 % where 40.0 %" in text
    assert "50.0 points surer than right" in text


def test_disgust_and_anger_are_always_shown_and_others_where_they_differ(drawn):
    confusion = drawn[0].split('id="confusion"')[1].split("</section>")[0]
    rows = re.findall(r"<tr><td[^>]*>(\w+)</td><td[^>]*>(\w+)</td>", confusion)
    assert set(rows) == {("happiness", "neutral"), ("disgust", "anger")}
    assert "1 of 3 confusions differ" in _plain(confusion)


def test_printed_figures_stand_beside_ours_with_what_does_not_add_up(sections):
    text = sections["study"]
    assert "Of the printed figures, 1 do not add up" in text
    assert "drawn, child base 20 of 40 86 % base 20 of 40 50.0 %" in text
    assert "drawn, child fine-tuned 20 of 40 92 % naive 30 of 40 75.0 %" in text
    assert "3; p. 9; does not add up: 20 of 40 is 50.0 %, printed is 86 %" in text
    assert "Its fine-tuned model is set beside our naive strategy" in text
    assert (
        "evaluated on the pictures that its model was trained on; ours was trained on the" in text
    )
    assert "the one that this run chose (replay); the study" in text
    assert "20 of 40 is 50.0 %, printed is 86 %" in text
    assert text.count("20 of 40 50.0 %, 30.0 to 70.0") == 2  # under both protocols
    assert "VGGFace2 age 0-12 years – 0.01 %" in sections["pretraining"]
    assert "no ages are published with it" in sections["pretraining"]


def test_how_figures_were_made_is_said_in_the_words_of_the_tables(sections):
    for name in ("strategies", "factors", "calibration", "confusion"):
        assert "Cluster bootstrap by subject." in sections[name], name
    assert "McNemar" not in " ".join(sections.values())
