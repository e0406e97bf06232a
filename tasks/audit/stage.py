"""Stage `audit`: recall by group and emotion, gaps between groups, and what fine-tuning changed.

Reads `data/predictions/<model>.parquet` of every model; writes the five tables and three figures
of the audit. No picture is lost: those whose label a model does not have are counted as left out.
"""

import re
from typing import Annotated

import pandas as pd
from pydantic import Field, field_validator

from tasks.audit.by_group import HELD_OUT, audit_predictions
from tasks.audit.cube import dimensions
from tasks.audit.outputs import write_figures, write_tables
from tasks.core.headline import gap_sentence, largest_gap, no_gap_sentence
from tasks.core.labels import ALL
from tasks.core.params import Section
from tasks.core.paths import MODELS, Paths
from tasks.core.result import StageResult
from tasks.core.tables import GROUP_COLUMNS, check_conservation, read_table

_NOT_IN_NAMES = re.compile(r"[^\w.\- /]")  # characters that names of metrics may not have


class Params(Section):
    """The section `audit` of params.yaml."""

    by: Annotated[list[str], Field(min_length=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    min_n: Annotated[int, Field(ge=1)]

    @field_validator("by")
    @classmethod
    def _groups(cls, by: list[str]) -> list[str]:
        if len(set(by)) < len(by) or not set(by) <= set(GROUP_COLUMNS):
            raise ValueError(f"each once, out of {', '.join(GROUP_COLUMNS)}")
        return by


def run(params: Params, paths: Paths) -> StageResult:
    """Audit the predictions of every model; see the module's text.

    Raises
    ------
    DataError
        Where predictions are missing, empty or hold a picture twice.
    ParamsError
        Where `audit.by` names a column that the predictions lack.
    """
    frames = [read_table(paths.predictions(name)) for name in MODELS]
    frame = pd.concat(frames, ignore_index=True)
    pair = (MODELS[0], MODELS[1])
    tables = audit_predictions(frame, params.by, params.confidence, params.min_n, pair)
    for name, part in zip(MODELS, frames, strict=True):
        _check_account(tables, name, len(part))
    figures = write_figures(tables, params.by, pair, paths.figures)
    written = write_tables(tables, paths.tables)
    return StageResult(
        metrics=_metrics(tables["groups"], params.by),
        artifacts=[*written, *figures],
        summary=_summary(tables["gaps"]),
    )


def _check_account(tables: dict[str, pd.DataFrame], model: str, rows_in: int) -> None:
    """Hold the tables to account: every picture is judged or counted as left out."""
    counts, groups = tables["counts"], tables["groups"]
    pooled = counts[counts["model"] == model].iloc[0]
    judged = groups[(groups["model"] == model) & (groups["protocol"] == ALL)].iloc[0]
    check_conservation("audit", rows_in, int(judged["n"]), int(pooled["left_out"]))


def _metrics(groups: pd.DataFrame, by: list[str]) -> dict[str, float]:
    """Pick the figures to track: held-out recall of each model, overall and by the first group."""
    pooled = [name for name in dimensions(by) if name != by[0]]
    rows = groups[(groups[pooled] == ALL).all(axis=1) & (groups["protocol"] == HELD_OUT)]
    return {
        f"{row['model']}.recall_score.{_NOT_IN_NAMES.sub('_', row[by[0]])}": float(row["recall"])
        for _, row in rows.iterrows()
    }


def _summary(gaps: pd.DataFrame) -> str:
    """Say the largest gap of the base model, pooled over emotions or else on one emotion."""
    gap = largest_gap(gaps, MODELS[0], single_emotions=False)
    gap = largest_gap(gaps, MODELS[0], single_emotions=True) if gap is None else gap
    if gap is None:
        return no_gap_sentence(gaps, MODELS[0])
    return gap_sentence(gap, f"the {MODELS[0]} model")
