"""Assigns each image to training, validation or test.

Reads `data/crops.parquet`; writes `data/split.parquet` (the same rows and columns, and `split`)
and `reports/tables/splits.csv` (what each split holds of each stratum), and raises DataError where
a split has no image at all. A subject's split is a function of the seed and the subject alone,
so that new data never moves an old image from the test into the training; the strata are
reported, not forced (docs/decisions/0001-split-by-hash.md).
"""

from typing import Literal

import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator

from tasks.core.errors import DataError
from tasks.core.labels import SPLITS, credit_line
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import (
    GROUP_COLUMNS,
    check_conservation,
    read_schema,
    read_table,
    write_csv,
    write_table,
)
from tasks.split.subject_split import as_metrics, assign_splits, count_by_stratum, describe


class Parts(Section):
    """The relative sizes of the three splits."""

    train: float = Field(gt=0, allow_inf_nan=False)
    validation: float = Field(gt=0, allow_inf_nan=False)
    test: float = Field(gt=0, allow_inf_nan=False)


class Params(Section):
    """The section `split` of params.yaml, which says what each key is."""

    seed: int
    unit: Literal["subject", "image"]
    ratios: Parts
    report_by: list[str] = Field(min_length=1)

    @field_validator("report_by")
    @classmethod
    def _groups(cls, report_by: list[str]) -> list[str]:
        known = ("dataset", "emotion", *GROUP_COLUMNS)
        if len(set(report_by)) < len(report_by) or not set(report_by) <= set(known):
            raise ValueError(f"each once, out of {', '.join(known)}")
        return report_by


def run(params: Params, paths: Paths) -> StageResult:
    """Add `split` to the crops table; see the module's text."""
    crops = read_table(paths.crops)
    parts = {name: getattr(params.ratios, name) for name in SPLITS}
    split = assign_splits(crops, params.seed, params.unit == "subject", parts)
    _check_none_empty(split, params)
    table = crops.assign(split=split)
    counts = count_by_stratum(table, params.report_by, parts, params.unit)
    check_conservation("split", len(crops), len(table), 0)
    schema = pa.schema([*read_schema(paths.crops), ("split", pa.string())])
    write_table(table, paths.split, schema)
    notice = credit_line(crops["dataset"])
    write_csv(counts.assign(notice=notice), paths.tables / "splits.csv")
    return StageResult(
        metrics=as_metrics(counts),
        artifacts=[paths.tables / "splits.csv"],
        summary=describe(counts, params.unit, bool(crops["subject_known"].all())),
    )


def _check_none_empty(split: "pd.Series[str]", params: Params) -> None:
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise DataError(
            f"split: of {len(split)} pictures none falls into {' or '.join(empty)}; add subjects, "
            f"or try another split.seed (now {params.seed}) or other split.ratios"
        )
