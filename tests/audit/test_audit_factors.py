"""Odds ratios of factors: against other estimators, against truth, and what is left out and why."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from matplotlib.image import imread
from scipy.stats import t

from tasks.audit.figures.odds_ratios import factors_figure
from tasks.audit.measures.clustered_logistic import fit_clustered
from tasks.audit.measures.factor_model import factors_table


def images(seed=0, people=80, per_person=8, age=-1.0, gender=0.0, size=0.5, alike=0.2):
    """Answers whose log-odds are known: of age, gender and (by standard deviation) face size."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(people), per_person)
    child, male = person % 5 < 2, person // 2 % 2 == 1
    # Children have smaller faces in these pictures, so that size explains a part of the gap.
    side = rng.normal(np.where(child, 90, 120), 15)
    spread = (side - side.mean()) / side.std()
    # With this chance a picture's luck is its person's: outcomes of a person are alike.
    luck = np.where(rng.random(len(person)) < alike, rng.random(people)[person], 2.0)
    luck = np.where(luck > 1, rng.random(len(person)), luck)
    log_odds = 1 + age * child + gender * male + size * spread
    return pd.DataFrame(
        {
            "subject_id": [f"person{number}" for number in person],
            "age_band": np.where(child, "child", "adult"),
            "gender": np.where(male, "male", "female"),
            "emotion": rng.choice(["fear", "neutral"], len(person)),
            "face_side_px": side,
            "correct": luck < 1 / (1 + np.exp(-log_odds)),
            "model": "base",
            "protocol": "all",
            "dataset": "invented",
        }
    )


@pytest.fixture
def table_of(settings_of):
    def make(frame, factors=("age_band", "gender", "emotion", "face_side_px"), **changes):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # nothing may reach the user's screen
            return factors_table(frame, settings_of(factors=list(factors), **changes))

    return make


def row_of(table, factor, level=None):
    rows = table[table["factor"] == factor]
    return (rows if level is None else rows[rows["level"] == level]).iloc[0]


def test_known_odds_ratios_are_found_with_the_others_held_equal(table_of):
    table = table_of(images(people=2000, per_person=4))
    age, size = row_of(table, "age_band", "child"), row_of(table, "face_side_px")
    assert age["reference"] == "adult"
    assert np.log(age["odds_ratio"]) == pytest.approx(-1, abs=0.2)
    assert np.log(size["odds_ratio"]) == pytest.approx(0.5, abs=0.1)
    assert row_of(table, "gender")["ci_low"] < 1 < row_of(table, "gender")["ci_high"]
    crude = table_of(images(people=2000, per_person=4), ["age_band"])
    assert row_of(crude, "age_band")["odds_ratio"] < 0.8 * age["odds_ratio"]


def test_one_image_per_person_is_logistic_regression_with_robust_errors(table_of):
    frame = images(people=300, per_person=1).assign(right=lambda rows: rows["correct"].astype(int))
    table = table_of(frame, ["age_band", "gender"])
    model = smf.logit("right ~ C(age_band) + C(gender)", frame).fit(disp=0, cov_type="HC0")
    for name, factor in (("C(age_band)[T.child]", "age_band"), ("C(gender)[T.male]", "gender")):
        row = row_of(table, factor)
        error = (np.log(row["ci_high"]) - np.log(row["ci_low"])) / 2
        assert np.log(row["odds_ratio"]) == pytest.approx(model.params[name], abs=1e-5)
        assert error == pytest.approx(1.968 * model.bse[name], rel=2e-2)  # but bias-reduced
    assert "one image per subject" in table["method"].iloc[0]


def test_repeated_images_of_a_person_add_nothing(table_of):
    frame = images(people=100, per_person=1)
    once, often = (
        row_of(table_of(part, ["age_band"]), "age_band")
        for part in (frame, pd.concat([frame] * 5, ignore_index=True))
    )
    assert often["odds_ratio"] == pytest.approx(once["odds_ratio"], rel=1e-4)
    assert often["p_value"] == pytest.approx(once["p_value"], rel=0.02)


def test_errors_are_those_of_mancl_and_derouen():
    """The same errors as statsmodels has, without a matrix as large as a subject's images."""
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(30), rng.integers(2, 9, 30))
    level = (np.arange(30) < 6)[subject].astype(float)
    columns = np.column_stack([np.ones(len(subject)), level, rng.normal(size=len(subject))])
    outcome = (rng.random(len(subject)) < rng.beta(4, 2, 30)[subject]).astype(float)
    fit = fit_clustered(outcome, columns, subject)
    model = sm.GEE(
        outcome,
        columns,
        groups=subject,
        family=sm.families.Binomial(),
        cov_struct=sm.cov_struct.Exchangeable(),
    ).fit(cov_type="bias_reduced")
    assert fit.coefficients == pytest.approx(model.params, abs=1e-6)
    assert fit.errors == pytest.approx(model.bse, rel=1e-6)
    assert fit.freedom[1] < 7 < 12 < fit.freedom[2]  # the 6 subjects of the level, not all 30


def test_five_subjects_against_sixty_raise_no_more_alarms_than_promised():
    """By total subjects, 65 would be enough for the usual errors: 11 to 13 % false alarms."""
    rng, alarms, cohorts = np.random.default_rng(6), 0, 150
    for _ in range(cohorts):
        subject = np.repeat(np.arange(65), 6)
        outcome = (rng.random(len(subject)) < rng.beta(2.4, 1, 65)[subject]).astype(float)
        columns = np.column_stack([np.ones(len(subject)), (subject < 5).astype(float)])
        fit = fit_clustered(outcome, columns, subject)
        ratio = abs(fit.coefficients[1] / fit.errors[1])
        alarms += 2 * t.sf(ratio, fit.freedom[1]) < 0.05
    assert alarms / cohorts <= 0.085


def test_a_level_of_hardly_any_subjects_is_not_tested(table_of):
    frame = images(people=40)
    few = frame["subject_id"].isin(frame["subject_id"].unique()[:2])
    table = table_of(frame.assign(gaze=np.where(few, "left", "right")), factors=["gaze"])
    row = table.iloc[0]
    assert "effective subjects" in row["note"]
    assert np.isnan(row["p_value"]) and np.isnan(row["odds_ratio"])


def test_images_of_unknown_subjects_are_left_out_of_the_model(table_of):
    frame = images(people=40)
    nameless = np.arange(len(frame)) % 5 == 0
    table = table_of(frame.assign(subject_known=~nameless))
    assert table["method"].str.contains(f"{nameless.sum()} images of unknown subjects").any()
    table = table_of(frame.assign(subject_known=False))
    assert list(table["factor"]) == ["(no model)"]


def test_factors_without_an_estimate_have_a_row_with_the_reason(table_of):
    frame = images().assign(ethnicity=None, gaze="away", pose="frontal")
    frame["set"] = np.where(frame["age_band"] == "child", "kids", "grown")
    frame.loc[frame.index % 3 != 0, "gaze"] = "unknown"
    table = table_of(frame, ["age_band", "set", "ethnicity", "gaze", "pose", "sharpness", "gender"])
    notes = table[table["odds_ratio"].isna()].set_index("factor")["note"]
    assert notes["set"] == "cannot be told apart from age_band"
    assert notes["ethnicity"] == "recorded for no picture"
    assert notes["gaze"] == "unknown for 426 of 640 pictures"
    assert notes["pose"] == "the same for every picture that remains"
    assert notes["sharpness"] == "the predictions have no such column"
    assert set(table[table["odds_ratio"].notna()]["factor"]) == {"age_band", "gender"}


def test_two_factors_that_make_up_a_third_are_named(table_of):
    frame = images()
    frame["brightness"] = 50 + 9 * (frame["age_band"] == "child") + 4 * (frame["gender"] == "male")
    notes = table_of(frame, ["age_band", "gender", "brightness"]).set_index("factor")["note"]
    assert notes["brightness"] == "cannot be told apart from age_band and gender together"


def test_a_level_that_is_always_right_is_named_and_changes_no_other(table_of):
    frame = images()
    always = frame.head(40).assign(emotion="happiness", correct=True)
    table = table_of(pd.concat([frame, always], ignore_index=True))
    row = row_of(table, "emotion", "happiness")
    assert row["note"].startswith("all 40 pictures are read right")
    assert np.isnan(row["odds_ratio"]) and np.isnan(row["p_adjusted"])
    single = row_of(table_of(frame), "age_band")
    assert row_of(table, "age_band")["odds_ratio"] == pytest.approx(single["odds_ratio"])


def test_images_of_unknown_value_are_left_out_and_counted(table_of):
    frame = images()
    frame.loc[:63, "gender"] = "unknown"
    frame.loc[600:, "face_side_px"] = np.nan
    table = table_of(frame)
    assert row_of(table, "face_side_px")["n"] == 640 - 64 - 40
    assert row_of(table, "gender")["note"].startswith("64 pictures")
    assert row_of(table, "age_band")["note"] == ""


def test_sharpness_enters_by_its_logarithm(table_of):
    frame = images()
    frame["sharpness"] = np.exp(frame["face_side_px"] / 20)
    one, other = (
        row_of(table_of(frame, ["age_band", name]), name) for name in ("sharpness", "face_side_px")
    )
    assert one["odds_ratio"] == pytest.approx(other["odds_ratio"], rel=1e-6)
    assert one["level"].startswith("per SD (times ") and other["level"].endswith(" px)")


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (images(people=9), "9 people are too few"),
        (images().assign(correct=True), "every picture is read right"),
        (images(people=12, per_person=1), "too few people or wrong answers"),
        (images().assign(correct=lambda rows: rows["emotion"] == "fear"), "no picture is left"),
    ],
)
def test_a_missing_model_is_explained_in_one_row(table_of, frame, says):
    table = table_of(frame)
    row = row_of(table, "(no model)")
    assert says in row["note"] and table["odds_ratio"].isna().all()


def test_answers_that_are_all_one_way_in_a_combination_give_no_figure(table_of):
    frame = images(people=200, age=0)
    hard = (frame["age_band"] == "child") & (frame["face_side_px"] < 100)
    frame["correct"] = np.where(frame["face_side_px"] < 105, False, True)
    table = table_of(frame[~hard | (frame.index % 2 == 0)], ["age_band", "face_side_px"])
    assert table["odds_ratio"].isna().all() and (table["note"] != "").any()


def test_p_values_are_corrected_over_the_model(table_of):
    table = table_of(images(), correction="holm")
    rows = table.sort_values("p_value")
    assert rows["p_adjusted"].iloc[0] == pytest.approx(4 * rows["p_value"].iloc[0])
    gentle = table_of(images(), correction="benjamini_hochberg")
    assert (gentle["p_adjusted"] <= table["p_adjusted"] + 1e-12).all()


def test_models_share_the_reference(table_of):
    frame = images()
    adults = frame["age_band"] == "adult"
    other = frame[~adults | (frame.index % 16 < 4)].assign(model="finetuned")
    table = table_of(pd.concat([frame.assign(model="base"), frame[adults], other]), ["age_band"])
    assert set(table["reference"]) == {"adult"}


def test_the_figure_is_drawn_with_and_without_a_model(table_of, tmp_path):
    path = tmp_path / "factors.png"
    two = pd.concat([images(), images(1).assign(model="finetuned")], ignore_index=True)
    factors_figure(table_of(two.assign(gaze=None), ["age_band", "gaze"]), "", "credit", path)
    drawn = path.read_bytes()
    factors_figure(table_of(two.assign(gaze=None), ["age_band", "gaze"]), "", "credit", path)
    assert path.read_bytes() == drawn
    factors_figure(table_of(images(people=9)), "", "credit", path)
    assert imread(path).shape[1] == 1800


@pytest.mark.slow
@pytest.mark.parametrize(
    ("people", "least", "most"),
    [(30, 0.93, 1.0), (80, 0.925, 0.975)],  # the bias-reduced covariance errs on the wide side
)
def test_the_interval_holds_the_odds_ratio_in_95_of_100_cohorts(table_of, people, least, most):
    held = 0
    for seed in range(300):
        frame = images(seed, people=people, per_person=4)
        row = row_of(table_of(frame, ["age_band", "face_side_px"]), "age_band")
        held += np.log(row["ci_low"]) <= -1 <= np.log(row["ci_high"])
    assert least <= held / 300 <= most


def two_sets():
    """Children of one set, whose ethnicity is recorded, and adults of another, whose gaze is."""
    frame = images()
    child = (frame["age_band"] == "child").to_numpy()
    frame["dataset"] = np.where(child, "kids", "grown")
    frame["ethnicity"] = np.where(child, np.where(frame.index % 2, "x", "y"), "unknown")
    frame["gaze"] = np.where(child, None, np.where(frame.index % 3, "away", "direct"))
    # As many of each, so that neither column is unknown for more than half.
    return pd.concat([frame[child], frame[~child].head(child.sum())], ignore_index=True)


def test_a_column_of_one_data_set_does_not_take_the_other_out(table_of):
    frame = two_sets()
    assert frame[["ethnicity", "gaze"]].replace("unknown", None).isna().mean().max() <= 0.5
    table = table_of(frame, ["age_band", "gender", "dataset", "ethnicity", "gaze", "emotion"])
    notes = table[table["odds_ratio"].isna()].set_index("factor")["note"]
    assert notes["ethnicity"] == "recorded for age_band child only: it cannot be compared"
    assert notes["gaze"] == "recorded for age_band adult only: it cannot be compared"
    assert notes["dataset"] == "cannot be told apart from age_band"
    assert row_of(table, "age_band", "adult")["n"] == (frame["age_band"] == "adult").sum()
    assert set(table[table["odds_ratio"].notna()]["factor"]) == {"age_band", "gender", "emotion"}


def test_a_few_stray_images_do_not_make_a_column_comparable(table_of):
    frame = two_sets()
    adults = frame.index[frame["age_band"] == "adult"]
    frame.loc[adults[:3], "ethnicity"] = "x"
    row = row_of(table_of(frame, ["age_band", "gender", "ethnicity"]), "ethnicity")
    assert row["note"] == "recorded for age_band child almost only: it cannot be compared"
    frame.loc[adults[:100], "ethnicity"] = "x"
    assert row_of(table_of(frame, ["age_band", "gender", "ethnicity"]), "ethnicity")["note"] != ""
    assert row_of(table_of(frame, ["age_band", "ethnicity"]), "ethnicity")["odds_ratio"] > 0
