"""Stage `audit`: recall by group, gaps and what explains them, what fine-tuning changed.

Reads `data/predictions/<model>.parquet` of every model and the table of stage `choose`; writes the
audit's tables and figures. The base and the fine-tuned model are audited in full; the strategies
that the latter was chosen from are compared in `strategies.csv`. Images whose label a
model does not have are counted as left out.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from tasks.audit.audit import audit_predictions, uncalibrated
from tasks.audit.figures.strategies import strategies_figure
from tasks.audit.measures.group_cube import dimensions
from tasks.audit.measures.model_comparison import why_not_paired
from tasks.audit.references.pretraining_data import pretraining_table
from tasks.audit.references.published_results import NAIVE, published_table
from tasks.audit.settings import NUMBERS, Settings
from tasks.audit.strategy_comparison import strategies_table
from tasks.audit.write_outputs import MissingReasons, credit_of, write_figures, write_tables
from tasks.core.errors import DataError, ParamsError
from tasks.core.gap_sentences import gap_sentence, largest_gap, no_gap_sentence
from tasks.core.labels import ALL, HELD_OUT
from tasks.core.paths import EVALUATED, MODELS, STRATEGIES, Paths
from tasks.core.stages import StageResult
from tasks.core.tables import (
    GROUP_COLUMNS,
    MANIFEST_SCHEMA,
    check_conservation,
    read_csv,
    read_table,
)

Params = Settings


def run(params: Params, paths: Paths) -> StageResult:
    """Audit the predictions of every model.

    Raises DataError where predictions are missing, empty or hold an image twice, and ParamsError
    where a key of `audit` names something unknown.
    """
    frames = {name: read_table(paths.predictions(name)) for name in EVALUATED}
    frame = pd.concat([frames[name] for name in MODELS], ignore_index=True)
    _check_names(params, frame)
    pair = (MODELS[0], MODELS[1])
    tables = audit_predictions(frame, params, pair)
    for name in MODELS:
        _check_account(tables, name, len(frames[name]))
    choice = _choice(paths.tables / "choice.csv")
    tables["strategies"] = strategies_table(frames, STRATEGIES, choice, params)
    tables["published"] = published_table(tables["groups"], frames[NAIVE], params)
    tables["pretraining"] = pretraining_table(frame, params)
    why = MissingReasons(why_not_paired(frame, pair, HELD_OUT), uncalibrated(frame))
    figures = write_figures(tables, params.by, pair, why, paths.figures)
    figures.append(paths.figures / "strategies.png")
    strategies_figure(tables["strategies"], credit_of(tables), figures[-1])
    written = write_tables(tables, paths.tables)
    return StageResult(
        metrics={**_metrics(tables["groups"], params.by), **_gains(tables["strategies"])},
        artifacts=[*written, *figures],
        summary=_summary(tables["gaps"]),
    )


def _check_names(params: Params, frame: pd.DataFrame) -> None:
    """Reject columns that no data set has: a typo would be left out as not recorded."""
    known = [*MANIFEST_SCHEMA.names, *NUMBERS, *frame.columns]
    for key in ("factors", "standardize_to"):
        wrong = [name for name in getattr(params, key) if name not in known]
        if wrong:
            usual = ", ".join([*GROUP_COLUMNS, "dataset", "emotion", *NUMBERS])
            raise ParamsError(f"audit.{key}: no data set has {', '.join(wrong)}; known are {usual}")


def _choice(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    return read_csv(path)


def _check_account(tables: Mapping[str, pd.DataFrame], model: str, rows_in: int) -> None:
    """Check that every image is judged or counted as left out."""
    counts, groups = tables["counts"], tables["groups"]
    pooled = counts[counts["model"] == model].iloc[0]
    judged = groups[(groups["model"] == model) & (groups["protocol"] == ALL)].iloc[0]
    check_conservation("audit", rows_in, int(judged["n"]), int(pooled["left_out"]))


def _metrics(groups: pd.DataFrame, by: list[str]) -> dict[str, float]:
    """Pick the figures to track: held-out recall of each model, overall and by the first group."""
    pooled = [name for name in dimensions(by) if name != by[0]]
    rows = groups[(groups[pooled] == ALL).all(axis=1) & (groups["protocol"] == HELD_OUT)]
    return {
        f"{row['model']}.recall_score.{row[by[0]]}": float(row["recall"])
        for _, row in rows.iterrows()
    }


def _gains(strategies: pd.DataFrame) -> dict[str, float]:
    """Return each strategy's change by group, as metrics."""
    return {
        f"{row['strategy']}.recall_change.{row['group']}": row["change"]
        for _, row in strategies.iterrows()
    }


def _summary(gaps: pd.DataFrame) -> str:
    """Return a sentence on the largest gap of the base model."""
    gap = largest_gap(gaps, MODELS[0], single_emotions=False)
    gap = largest_gap(gaps, MODELS[0], single_emotions=True) if gap is None else gap
    if gap is None:
        return no_gap_sentence(gaps, MODELS[0])
    return gap_sentence(gap, f"the {MODELS[0]} model")
