"""Checks on a batch: each limit keeps it out and says what was found and what to do."""

import re

import pandas as pd
import pytest
from manifests import good_manifest, params_with

from tasks.check.batch_checks import BatchLimits, batch_faults, pipeline_faults

REQUIRED = ("age_band", "gender")
WIDE = BatchLimits(1, 0.0, 0.0, 1.0, REQUIRED)
WHOLE = "[a-z_]+: expected .+; found .+; .+"


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """A batch of one child, and of nobody else."""
    manifest = good_manifest(1)
    return manifest[manifest["age_band"] == "child"].reset_index(drop=True)


def faults(
    rows: pd.DataFrame,
    limits: BatchLimits = WIDE,
    left_out: dict[str, int] | None = None,
    repeated: int = 0,
) -> list[str]:
    return batch_faults(rows, left_out or {}, repeated, limits, params_with())


def only(lines: list[str]) -> str:
    assert len(lines) == 1, lines
    return lines[0]


def test_a_good_batch_passes_however_small(rows: pd.DataFrame) -> None:
    assert faults(rows) == []


@pytest.mark.parametrize("left_out", [{}, {"damaged": 2, "no_label": 1}])
def test_a_batch_without_images(rows: pd.DataFrame, left_out: dict[str, int]) -> None:
    line = only(faults(rows.iloc[:0], left_out=left_out))
    assert "at least 1" in line and ("2 damaged, 1 no_label" in line or not left_out)


def test_every_limit_is_judged_at_its_value(rows: pd.DataFrame) -> None:
    count = len(rows)
    at_limit = BatchLimits(count, 1 / (count + 1), 1 / count, 1 / count, REQUIRED)
    assert faults(rows, at_limit, {"damaged": 1}, repeated=1) == []
    beyond = faults(rows, at_limit, {"damaged": 2}, repeated=2)
    assert [line.split(":")[0] for line in beyond] == ["faulty", "repeated"]
    assert "2 damaged" in beyond[0]
    few, unequal = faults(rows, BatchLimits(count + 1, 0.0, 0.0, 1 / count - 0.01, REQUIRED))
    assert f"at least {count + 1} usable" in few
    assert unequal.startswith("label_balance_of_the_batch: ")


def test_rows_that_the_stage_would_quarantine_are_faults() -> None:
    rows = good_manifest(1)
    first, second, *_ = rows.index
    rows.loc[first, "age_years"] = 200.0
    rows.loc[second, "emotion"] = "contempt"
    line = only(faults(rows))
    assert "1 implausible_age" in line and "1 unexpected_emotion" in line


def test_unknown_columns_are_counted_and_an_example_named(rows: pd.DataFrame) -> None:
    unknown = rows.assign(gender=["unknown", *rows["gender"][1:]])
    line = only(faults(unknown))
    assert line.startswith("known_gender: ") and rows["path"][0] in line
    nobody = unknown.assign(subject_known=False)  # of an unknown gender, which is not asked for
    line = only(faults(nobody, BatchLimits(1, 0.0, 0.0, 1.0, ("age_band", "subject_id"))))
    assert f"unknown_subject_id {len(rows)}" in line


def test_what_the_batch_would_stop_and_what_stops_already(rows: pd.DataFrame) -> None:
    there = good_manifest()
    new = rows.assign(
        path="set/later/" + rows["path"],
        subject_id="set/later",
        sha256=[f"{number:02x}" * 32 for number in range(len(rows))],
        image_id=[f"{number:02x}" * 8 for number in range(len(rows))],
    )
    adults = there[there["age_band"] != "child"].reset_index(drop=True)
    # Too few rows stop it today, with the batch or without: no fault of the batch's.
    lines = pipeline_faults(adults, new, params_with(min_rows=1000))
    assert [line.split(":")[0] for line in lines] == ["images_per_group", "subjects_per_group"]


def test_every_line_says_what_was_expected_found_and_advised(rows: pd.DataFrame) -> None:
    lines = faults(
        rows.assign(gender="unknown"), BatchLimits(99, 0.0, 0.0, 0.1, REQUIRED), {"empty": 3}, 1
    )
    assert len(lines) == 5
    assert all(re.fullmatch(WHOLE, line) for line in lines)
