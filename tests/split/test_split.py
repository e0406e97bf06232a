"""Splits: stable, by subject, of the wanted sizes, and honest about what they could not balance."""

import random
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from spellings import random_id, respelled

from tasks.core.errors import DataError, ParamsError
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_table
from tasks.split.stage import Params, run
from tasks.split.subject_split import (
    SHARED_NOTE,
    assign_splits,
    count_by_stratum,
    draw,
    lacking_strata,
    split_of,
)

PARTS = {"train": 6.0, "validation": 2.0, "test": 2.0}
EMOTIONS = ("neutral", "happiness", "sadness")
SECTION = {
    "seed": 7,
    "unit": "subject",
    "ratios": {"train": 6, "validation": 2, "test": 2},
    "report_by": ["emotion", "age_band", "gender"],
}


def images(subjects: int) -> pd.DataFrame:
    """Three pictures a subject; a third of the subjects are children."""
    rows = [
        {
            "image_id": f"{subject:06d}{emotion}",
            "dataset": "set",
            "subject_id": f"set/S{subject}",
            "subject_known": True,
            "emotion": emotion,
            "age_band": "child" if subject % 3 == 0 else "adult",
            "gender": "female" if subject % 2 else "male",
        }
        for subject in range(subjects)
        for emotion in EMOTIONS
    ]
    return pd.DataFrame(rows)


def parse(**changes: object) -> Params:
    return parse_section("split", {"split": {**SECTION, **changes}}, Params, Path("p.yaml"))


def as_project(root: Path, table: pd.DataFrame) -> Paths:
    paths = Paths(root)
    boxes = [[1.0, 2.0, 3.0, 4.0]] * len(table)
    crops = table.assign(box_xyxy_px=boxes, landmarks_xy_px=None)
    landmarks = pa.schema([("landmarks_xy_px", pa.list_(pa.list_(pa.float64())))])
    write_table(crops, paths.crops, landmarks)
    return paths


def test_a_image_keeps_its_split_when_others_come_go_or_move():
    table = images(120)
    before = assign_splits(table, 7, True, PARTS)
    shuffled = table.sample(frac=1.0, random_state=1)
    assert assign_splits(shuffled, 7, True, PARTS).sort_index().equals(before)
    fewer = table[table["image_id"].str.contains("7")]
    assert assign_splits(fewer, 7, True, PARTS).equals(before[fewer.index])
    more = images(300)
    assert assign_splits(more, 7, True, PARTS).head(len(table)).equals(before)


def test_a_relabelled_image_keeps_its_split():
    table = images(60)
    relabelled = table.assign(age_band="adolescent", gender="unknown", emotion="pain")
    assert assign_splits(relabelled, 7, True, PARTS).equals(assign_splits(table, 7, True, PARTS))


def test_the_draw_is_the_same_on_every_machine():
    # Recorded: a change here would move every user's pictures between training and test.
    assert draw(7, "drawn/D0001") == 0.28774796173327444
    assert [split_of(7, f"drawn/D{n:04d}", PARTS) for n in (1, 5, 8)] == [
        "train",
        "test",
        "train",
    ]


def test_no_subject_is_in_two_splits_and_seeds_differ():
    table = images(200)
    split = assign_splits(table, 7, True, PARTS)
    assert (split.groupby(table["subject_id"]).nunique() == 1).all()
    assert (assign_splits(table, 8, True, PARTS) != split).mean() > 0.3


def test_shares_are_within_binomial_bounds():
    subjects = 5000
    keys = [f"set/S{number}" for number in range(subjects)]
    for seed in range(5):
        counts = pd.Series([split_of(seed, key, PARTS) for key in keys]).value_counts()
        for name, part in PARTS.items():
            p = part / 10
            assert abs(counts[name] - p * subjects) < 4 * np.sqrt(subjects * p * (1 - p))


def test_the_split_is_that_of_the_clean_spelling():
    rng = random.Random(5)
    table = images(400)
    ids = {name: f"set/{random_id(rng)}" for name in table["subject_id"].unique()}
    table["subject_id"] = table["subject_id"].map(ids)
    names = [name.partition("/")[2] for name in table["subject_id"]]
    spelled = table.assign(subject_id=[f"set/{respelled(rng, name)}" for name in names])
    assert (spelled["subject_id"] != table["subject_id"]).mean() > 0.8
    assert assign_splits(spelled, 7, True, PARTS).equals(assign_splits(table, 7, True, PARTS))


def test_images_of_people_called_na_are_drawn_one_by_one():
    words = ["NA", "nan", "None", "n/a", "-", "unknown", "", " ", "없음", "미상"]
    table = images(100)
    table = table.assign(subject_id=[f"set/{words[n % len(words)]}" for n in range(len(table))])
    split = assign_splits(table, 7, True, PARTS)
    assert split.equals(assign_splits(table.assign(subject_known=False), 7, True, PARTS))
    assert split.value_counts().min() > 30


def test_unknown_subjects_are_drawn_image_by_image():
    table = images(100).assign(subject_id="set/unknown", subject_known=False)
    split = assign_splits(table, 7, True, PARTS)
    assert split.value_counts().min() > 30
    assert split.equals(assign_splits(table, 7, False, PARTS))


def test_the_stage_adds_one_column_and_keeps_every_row(tmp_path):
    paths = as_project(tmp_path, images(120))
    result = run(parse(), paths)
    before, after = read_table(paths.crops), read_table(paths.split)
    assert list(after.columns) == [*before.columns, "split"]
    pd.testing.assert_frame_equal(after[before.columns], before)
    assert result.metrics["subjects_train"] + result.metrics["subjects_validation"] + (
        result.metrics["subjects_test"]
    ) == len(set(before["subject_id"]))
    assert SHARED_NOTE not in result.summary
    for name in (
        "train",
        "validation",
        "test",
    ):  # how many people each split has is what a small study has to see
        people = after.loc[after["split"] == name, "subject_id"].nunique()
        assert re.search(rf"{name} \d+ \(\d+%, {people} people\)", result.summary)


def test_where_nobody_is_known_no_people_are_counted(tmp_path):
    table = images(120).assign(subject_known=False)
    assert "people" not in run(parse(), as_project(tmp_path, table)).summary


def test_the_table_counts_each_stratum_against_the_wanted_shares(tmp_path):
    paths = as_project(tmp_path, images(120))
    run(parse(), paths)
    table = read_table(paths.split)
    counts = pd.read_csv(paths.tables / "splits.csv", keep_default_na=False)
    assert len(counts) == 3 * (1 + 3 * 2 * 2)
    row = counts[
        (counts["emotion"] == "sadness")
        & (counts["age_band"] == "child")
        & (counts["gender"] == "female")
        & (counts["split"] == "validation")
    ].iloc[0]
    inside = table[
        (table["emotion"] == "sadness")
        & (table["age_band"] == "child")
        & (table["gender"] == "female")
    ]
    n = (inside["split"] == "validation").sum()
    assert row["images"] == row["subjects"] == n
    assert row["share"] == pytest.approx(n / len(inside), rel=1e-5)
    assert row["deviation"] == pytest.approx(n / len(inside) - 0.2, abs=1e-5)


def test_by_image_says_that_subjects_are_on_both_sides(tmp_path):
    paths = as_project(tmp_path, images(120))
    result = run(parse(unit="image"), paths)
    table = read_table(paths.split)
    assert table.groupby("subject_id")["split"].nunique().max() > 1
    assert SHARED_NOTE in result.summary
    assert (pd.read_csv(paths.tables / "splits.csv")["note"] == SHARED_NOTE).all()


def test_strata_without_a_image_in_some_split_are_named(tmp_path):
    table = images(60)
    lone = table.head(1).assign(image_id="lone", subject_id="set/lone", gender=None, emotion="pain")
    paths = as_project(tmp_path, pd.concat([table, lone], ignore_index=True))
    result = run(parse(), paths)
    assert result.metrics["strata_lacking_a_split"] >= 1
    counts = count_by_stratum(read_table(paths.split), ["emotion", "gender"], PARTS, "subject")
    named = [text for text in lacking_strata(counts) if text.startswith("pain unknown: ")]
    assert len(named) == 1 and named[0].count(",") == 1
    assert "no picture in a split" in result.summary


def test_an_empty_split_stops_with_one_line(tmp_path):
    paths = as_project(tmp_path, images(1))
    with pytest.raises(DataError, match=r"none falls into .* another split\.seed") as caught:
        run(parse(), paths)
    assert "\n" not in str(caught.value)
    assert not paths.split.exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unit": "picture"}, "split.unit"),
        ({"ratios": {"train": 8, "test": 2}}, "split.ratios.validation is missing"),
        ({"ratios": {"train": 8, "validation": 0, "test": 2}}, "split.ratios.validation"),
        ({"ratios": {"train": 8, "valid": 1, "test": 2}}, "split.ratios.valid is not a parameter"),
        ({"report_by": []}, "split.report_by"),
    ],
)
def test_wrong_params_name_their_key(changes, says):
    with pytest.raises(ParamsError, match=says):
        parse(**changes)


@pytest.mark.parametrize("report_by", [["hair"], ["age_years"], ["gender", "gender"]])
def test_a_column_that_makes_no_groups_is_refused(report_by):
    with pytest.raises(ParamsError, match=r"split\.report_by.*each once, out of .*gender"):
        parse(report_by=report_by)
