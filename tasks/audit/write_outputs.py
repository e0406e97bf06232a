"""Writes the audit's tables and figures, for the stage and for another system's predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.audit.figures.calibration import calibration_figure
from tasks.audit.figures.odds_ratios import factors_figure
from tasks.audit.figures.recall import (
    change_figure,
    confusion_figure,
    long_recalls,
    protocols_shown,
    recall_figure,
    shared_words,
)
from tasks.core.labels import ALL, credit_line
from tasks.core.paths import MODELS
from tasks.core.plotting.style import empty_figure
from tasks.core.statistics.clusters import SHARE_NOBODY_KNOWN
from tasks.core.tables import write_csv

_PROTOCOL_WORDS = {
    "held_out": "on pictures that the model was not trained on",
    ALL: "on every picture (training pictures may be among them)",
}


@dataclass(frozen=True)
class MissingReasons:
    """Reasons for missing results.

    `change` is why no two models are compared. `calibration` maps a model to why its calibration is
    not estimated.
    """

    change: str
    calibration: Mapping[str, str]


def credit_of(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return the notices and credits of the data sets that were audited."""
    return credit_line(name for name in tables["groups"]["dataset"] if name != ALL)


def write_tables(tables: Mapping[str, pd.DataFrame], folder: Path) -> list[Path]:
    """Write each table as `<name>.csv`, with the data sets' notices; return the paths."""
    notice, paths = credit_of(tables), []
    for name, table in tables.items():
        write_csv(table.assign(notice=notice) if notice else table, folder / f"{name}.csv")
        paths.append(folder / f"{name}.csv")
    return paths


def write_figures(
    tables: Mapping[str, pd.DataFrame],
    by: Sequence[str],
    pair: tuple[str, str] | None,
    why: MissingReasons,
    folder: Path,
) -> list[Path]:
    """Draw recall, confusions, factors, calibration and, of two models, the change.

    `tables` is the result of `audit_predictions`. The groups of the first column in `by` get the
    confusion matrices. `pair` names the models of `before_after`; `why` explains missing results.
    """
    groups, change, confusion = tables["groups"], tables["before_after"], tables["confusion"]
    credit = credit_of(tables)
    protocol = next(protocols_shown(groups))
    recalls = recall_rows(tables, pair)
    words = f"Recall by group, {_PROTOCOL_WORDS[protocol]}"
    if pair is not None and not change.empty:
        how = "before and after" if pair == MODELS else "of both models"
        words = f"Recall by group {how}, {shared_words(change)}"
    paths = [folder / "recall.png", folder / "confusion.png"]
    confidence = 100 * float(groups["confidence"].iloc[0])
    bars = f"bars: {confidence:g} % intervals, {_interval_words(groups['method'])}"
    recall_figure(recalls, by, f"{words}\n({bars})", credit, paths[0])
    displayed = confusion[confusion["protocol"] == protocol]
    words = _PROTOCOL_WORDS[protocol]
    confusion_figure(displayed, by[0] if by else ALL, words, credit, paths[1])
    if groups["model"].nunique() > 1:
        paths.append(folder / "before_after.png")
        if pair is None or change.empty:
            empty_figure(paths[-1], f"No change to show: {why.change}", credit)
        else:
            change_figure(change, by, pair, credit, paths[-1])
    factors, calibration = (
        tables[name][tables[name]["protocol"] == protocol] for name in ("factors", "calibration")
    )
    paths += [folder / "factors.png", folder / "calibration.png"]
    factors_figure(factors, words, credit, paths[-2])
    calibration_figure(calibration, words, credit, paths[-1], why.calibration)
    return paths


def recall_rows(tables: Mapping[str, pd.DataFrame], pair: tuple[str, str] | None) -> pd.DataFrame:
    """Return what `recall.png` shows: both models' recalls where two are compared."""
    groups, change = tables["groups"], tables["before_after"]
    if pair is None or change.empty:
        return groups[groups["protocol"] == next(protocols_shown(groups))]
    return long_recalls(change, pair)


def _interval_words(methods: pd.Series) -> str:
    """Return a short description of a figure's intervals."""
    if methods.str.contains("at the user's word", regex=False).any():
        return "images taken as independent at the user's word"
    if methods.str.startswith(SHARE_NOBODY_KNOWN).all():
        return "as wide as for one person, because subjects are not known"
    return "clustered by subject"
