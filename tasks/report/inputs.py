"""Everything that the report reads, loaded once; what may be absent is None or empty."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core import safe_yaml
from tasks.core.errors import DataError
from tasks.core.paths import MODELS, STAGE_OUTS, Paths
from tasks.core.tables import GROUP_COLUMNS, read_csv, read_table

FIGURES: tuple[str, ...] = (
    "strategies",
    "factors",
    "recall",
    "before_after",
    "calibration",
    "confusion",
    "crops",
    "augmentation",
    *(f"lime_{name}" for name in MODELS),
)
REJECTING: tuple[str, ...] = ("ingest", "check", "crop")
_UI = "http://127.0.0.1:5000"  # where `make ui` serves
# The tables that some runs cannot make: empty where they are absent.
FURTHER: tuple[str, ...] = (
    "strategies",
    "choice",
    "factors",
    "standardised",
    "fairness",
    "calibration",
    "confusion_gaps",
    "intersections",
    "predictive_values",
    "sensitivity",
    "published",
    "pretraining",
)
# Columns that hold words, also where all groups have figures for names.
_WORDS = {
    *("model", "protocol", "dataset", "split", "dimension", "group", "group_a", "group_b"),
    *("emotion", "y_pred", "emotions", "left_out_emotions", "shared_datasets", "family"),
    *("method", "correction", "notice", "note", "bin", "factor", "level", "reference"),
    *("standardised_to", "metric", "worst_group", "best_group", "left_out_groups"),
    *("strategy", "validation_worst_group", "our_model", "source", "table", "page", "training_set"),
    *("attribute", "dimensions", *GROUP_COLUMNS),
}


@dataclass(frozen=True)
class Inputs:
    """What the sections are made from.

    Attributes
    ----------
    manifest
        One row a picture that was ingested.
    predictions
        Each model's predictions, one row a picture.
    groups, gaps, before_after, confusion, counts
        The audit's tables that every run has.
    further
        The other tables, by name: those of `FURTHER`, each empty where it is absent.
    rejects
        What each stage left out.
    checks
        Results of the expectations, or None.
    histories
        Training curves of each model; empty where it was not trained here.
    specs
        Each model's description; empty where there is none.
    lime
        Each model's table of explained groups, or None.
    figures
        Figures that other stages drew, by name; None where one is absent.
    runs
        Tracking runs by stage: `id`, and `link` to it in the pages that `make ui` serves.
    params, params_text
        params.yaml as a mapping and as it is written.
    """

    manifest: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]
    groups: pd.DataFrame
    gaps: pd.DataFrame
    before_after: pd.DataFrame
    confusion: pd.DataFrame
    counts: pd.DataFrame
    further: Mapping[str, pd.DataFrame]
    rejects: Mapping[str, pd.DataFrame]
    checks: list[dict[str, Any]] | None
    histories: Mapping[str, pd.DataFrame]
    specs: Mapping[str, Mapping[str, Any]]
    lime: Mapping[str, pd.DataFrame | None]
    figures: Mapping[str, Path | None]
    runs: Mapping[str, Mapping[str, str]]
    params: Mapping[str, Any]
    params_text: str

    @property
    def by(self) -> list[str]:
        """Return the dimensions that the audit compared, in its order."""
        return [name for name in dict.fromkeys(self.confusion["dimension"]) if name != "all"]

    @property
    def min_n(self) -> int:
        """Return how many pictures params ask of a group that is named; 1 without params."""
        return int((self.params.get("audit") or {}).get("min_n", 1))

    @property
    def datasets(self) -> list[str]:
        """Return the data sets of the pictures that were audited, sorted."""
        return sorted(set(self.manifest["dataset"]))


def load(paths: Paths) -> Inputs:
    """Read what the report needs.

    Raises
    ------
    DataError
        Where the manifest, the predictions or one of the audit's tables is missing.
    """
    text = paths.params.read_text(encoding="utf-8") if paths.params.is_file() else ""
    figures = {name: paths.figures / f"{name}.png" for name in FIGURES}
    return Inputs(
        manifest=read_table(paths.manifest),
        predictions={name: read_table(paths.predictions(name)) for name in MODELS},
        groups=_table(paths, "groups"),
        gaps=_table(paths, "gaps"),
        before_after=_table(paths, "before_after"),
        confusion=_table(paths, "confusion"),
        counts=_table(paths, "counts"),
        further={name: _labelled(paths.tables / f"{name}.csv") for name in FURTHER},
        rejects={name: _csv(paths.rejects(name), text_only=True) for name in REJECTING},
        checks=_json(paths.check_results),
        histories={name: _csv(paths.model(name) / "history.csv") for name in MODELS},
        specs={name: _json(paths.model(name) / "model.json") or {} for name in MODELS},
        lime={name: _optional(paths.tables / f"lime_{name}.csv") for name in MODELS},
        figures={name: path if path.is_file() else None for name, path in figures.items()},
        runs=_runs(paths),
        params=safe_yaml.load(text) or {},
        params_text=text,
    )


def _table(paths: Paths, name: str) -> pd.DataFrame:
    path = paths.tables / f"{name}.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    return _labelled(path)


def _labelled(path: Path) -> pd.DataFrame:
    """Read a table of the audit: words as they are written, figures as numbers, yes and no."""
    frame = _csv(path, text_only=True)  # "NA" or "None" may be a group's name
    return frame.assign(
        **{str(name): _figures(frame[name]) for name in frame.columns if name not in _WORDS}
    )


def _figures(column: pd.Series) -> pd.Series:
    """Turn a column of texts to booleans or numbers where all that is there is one."""
    there = set(column) - {""}
    if there and there <= {"True", "False"}:
        return column == "True"
    numbers = pd.to_numeric(column.where(column != ""), errors="coerce")
    return numbers if (numbers.notna() == (column != "")).all() else column


def _csv(path: Path, text_only: bool = False) -> pd.DataFrame:
    """Read a CSV; an absent or empty one gives an empty table."""
    if not path.is_file():
        return pd.DataFrame()
    try:
        if text_only:
            return read_csv(path, dtype="str", keep_default_na=False)
        return read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _optional(path: Path) -> pd.DataFrame | None:
    return _csv(path) if path.is_file() else None


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _runs(paths: Paths) -> dict[str, dict[str, str]]:
    """Return the tracking run of each stage, in the order of the pipeline."""
    runs = {}
    for stage in STAGE_OUTS:
        record = _json(paths.run_record(stage)) if stage != "report" else None
        if record:
            run = str(record["run_id"])
            link = f"{_UI}/#/experiments/{record.get('experiment_id', '1')}/runs/{run}"
            runs[stage] = {"id": run, "link": link}
    return runs
