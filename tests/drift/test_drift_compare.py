"""Drift: effects of the known size, intervals over people and not images, and notes on gaps."""

import numpy as np
import pandas as pd
import pytest

from tasks.drift.compare import COHENS_H, CONFIDENCE, NUMBERS, compare, largest_effect
from tasks.drift.drift_report import drift_page
from tasks.drift.settings import Params

PARAMS = Params(min_n=30, large_effect=0.5, confidence=0.95, resamples=400, seed=8)


def people(n: int, images: int, seed: int, **shift: float) -> pd.DataFrame:
    """Pictures of adults, half of them labelled anger; each number is standard normal + shift."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "subject_id": np.repeat([f"set/{seed}-{person}" for person in range(n)], images),
            "emotion": ["anger", "happiness"] * (n * images // 2),
            "age_band": "adult",
            "gender": np.repeat(["female", "male"], n * images // 2),
        }
    )
    for name in ("age_years", "detector_score", "brightness", CONFIDENCE):
        table[name] = rng.standard_normal(len(table)) + shift.get(name, 0.0)
    table["sharpness"] = np.exp(rng.standard_normal(len(table)) + 5 + shift.get("sharpness", 0.0))
    return table


def effect(compared: pd.DataFrame, feature: str, level: str = "") -> pd.Series:
    return compared[(compared["feature"] == feature) & (compared["level"] == level)].iloc[0]


def test_shifts_are_found_in_their_size_and_nothing_else_is_large():
    shifts = {"detector_score": -0.8, "sharpness": 1.0}
    compared = compare(people(100, 6, 1, **shifts), people(300, 6, 2), PARAMS)
    for name, shift in shifts.items():
        row = effect(compared, name)
        assert row["effect"] == pytest.approx(shift, abs=0.12)
        assert row["ci_low"] < row["effect"] < row["ci_high"] and row["large"]
    assert set(compared.loc[compared["large"], "feature"]) == set(shifts)
    assert largest_effect(compared) == pytest.approx(1.0, abs=0.12)


def test_swapped_shares_are_reported_with_cohens_h():
    batch, training = people(40, 10, 1), people(80, 10, 2)
    batch["emotion"] = ["anger"] * 300 + ["happiness"] * 100
    row = effect(compare(batch, training, PARAMS), "emotion", "anger")
    assert (row["batch"], row["training"]) == (0.75, 0.5)
    assert row["effect"] == pytest.approx(2 * (np.arcsin(0.75**0.5) - np.arcsin(0.5**0.5)))
    assert row["effect_kind"] == "Cohen's h"


def test_intervals_count_people_and_not_images():
    rng = np.random.default_rng(3)

    def alike(images: int) -> pd.Series:
        """The same 20 people, each with one value in every picture."""
        values = np.repeat(np.random.default_rng(5).standard_normal(20), images)
        batch = pd.DataFrame({"subject_id": np.repeat(np.arange(20), images).astype(str)})
        batch["brightness"] = values + 1e-9 * rng.standard_normal(len(values))
        return effect(compare(batch, people(300, 2, 2), PARAMS), "brightness")

    few, many = alike(1), alike(50)
    width = few["ci_high"] - few["ci_low"]
    assert many["n_batch"] == 1000 and many["subjects_batch"] == 20
    assert many["ci_high"] - many["ci_low"] > 0.8 * width


def test_a_group_that_is_missing_is_large_only_with_enough_people():
    training = people(200, 4, 2)
    for n_people, large in ((4, False), (60, True)):
        batch = people(n_people, 4, 1).assign(gender="female")
        row = effect(compare(batch, training, PARAMS), "gender", "male")
        assert row["batch"] == 0 and row["effect"] < -1
        assert row["large"] == large


def test_a_batch_that_does_not_differ_has_seldom_a_large_row():
    reports = []
    for seed in range(24):
        sides = [varied(12, 2 * seed), varied(80, 2 * seed + 1)]
        reports.append(compare(*sides, PARAMS.model_copy(update={"resamples": 200})))
    beyond = [report["effect"].abs().max() >= PARAMS.large_effect for report in reports]
    assert np.mean(beyond) > 0.3  # by chance: some row of seventeen reaches it
    assert sum(report["large"].any() for report in reports) <= 2


def varied(n: int, seed: int) -> pd.DataFrame:
    """People of any age band, gender and label, whose numbers are alike in their pictures."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(n), 5)
    bands = rng.choice(["child", "adolescent", "adult"], p=[0.1, 0.3, 0.6], size=n)
    labels = rng.choice(["anger", "fear", "happiness", "neutral", "sadness"], size=len(person))
    columns = {"subject_id": [f"{seed}-{one}" for one in person], "emotion": labels}
    table = pd.DataFrame(columns).assign(age_band=bands[person])
    table["gender"] = rng.choice(["female", "male"], size=n)[person]
    for name in NUMBERS:
        table[name] = np.exp(0.7 * rng.standard_normal(n)[person] + rng.standard_normal(len(table)))
    return table


def test_every_effect_is_in_its_interval_in_irregular_tables():
    seen = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        sides = [
            varied(int(rng.choice([1, 2, 3, 6, 12])), 100 + 2 * seed + side) for side in (0, 1)
        ]
        for side in sides:
            for name in ("gender", "age_band", "brightness", "age_years"):
                if rng.random() < 0.3:  # nothing varies on this side
                    side[name] = side[name].iloc[0]
            unknown = rng.random(len(side)) < 0.2
            side.loc[unknown, ["confidence", "gender"]] = [np.nan, None]
        table = compare(*sides, PARAMS.model_copy(update={"resamples": 100}))
        rows = table[table["effect"].notna()]
        assert rows[["ci_low", "ci_high"]].notna().all(axis=None), seed
        assert (rows["ci_low"] <= rows["effect"]).all(), seed
        assert (rows["effect"] <= rows["ci_high"]).all(), seed
        assert rows.loc[rows["effect_kind"] == COHENS_H, "ci_low"].ge(-np.pi).all()
        assert table.loc[table["effect"].isna(), "note"].ne("").all()
        seen += len(rows)
    assert seen > 100


def test_features_that_cannot_be_compared_have_a_note():
    batch, training = people(30, 2, 1), people(30, 2, 2)
    batch["age_years"] = np.nan
    training = training.drop(columns=CONFIDENCE).assign(brightness=100.0)
    batch["brightness"] = 100.0
    compared = compare(batch, training, PARAMS)
    assert effect(compared, "age_years")["note"] == "no value in the batch"
    assert effect(compared, CONFIDENCE)["note"] == "no value in the training"
    assert effect(compared, "brightness")["note"] == "every picture has the same value"
    single = compare(people(1, 40, 1).assign(gender="female"), training, PARAMS)
    assert largest_effect(single) is None and set(single["note"]) > {
        "fewer than two people on one side"
    }


def test_the_page_names_the_large_ones_first():
    compared = compare(people(100, 6, 1, detector_score=-0.8), people(300, 6, 2), PARAMS)
    page = drift_page("site-3", compared, PARAMS, ["600 pictures."])
    sentence = next(line for line in page if line.startswith("Large differences"))
    assert "face detector's score" in sentence and "brightness" not in sentence
    assert "600 pictures of 100 people against" in sentence and "(effect -0.8" in sentence
    row = effect(compared, "detector_score")
    assert f"{row['ci_low']:+.2f} to {row['ci_high']:+.2f})" in sentence
    rows = [line for line in page if line.startswith("| ") and "what" not in line]
    assert rows[0].startswith("| face detector's score |") and "**-0.8" in rows[0]
    nothing = drift_page("b", compared.iloc[:0], PARAMS, ["Fewer than 30 pictures."])
    assert "Fewer than 30 pictures." in nothing
