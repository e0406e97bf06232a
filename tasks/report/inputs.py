"""Loads all inputs of the report; optional ones are None or empty if absent."""

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
# Tables that some runs cannot make; empty if absent.
FURTHER: tuple[str, ...] = (
    "strategies",
    "choice",
    "factors",
    "standardized",
    "fairness",
    "calibration",
    "confusion_gaps",
    "intersections",
    "predictive_values",
    "sensitivity",
    "published",
    "pretraining",
)
# Columns that hold text, even if all group names are numbers.
_TEXT_COLUMNS = {
    *("model", "protocol", "dataset", "split", "dimension", "group", "group_a", "group_b"),
    *("emotion", "y_pred", "emotions", "left_out_emotions", "datasets_with_both", "family"),
    *("method", "correction", "notice", "note", "bin", "factor", "level", "reference"),
    *("standardized_to", "metric", "worst_group", "best_group", "left_out_groups"),
    *(
        "strategy",
        "validation_worst_group",
        "compared_model",
        "source",
        "table",
        "page",
        "training_set",
    ),
    *("attribute", "dimensions", *GROUP_COLUMNS),
}


@dataclass(frozen=True)
class Inputs:
    """The inputs of the sections; optional ones that are absent are empty or None."""

    manifest: pd.DataFrame  # one row per ingested image
    predictions: Mapping[str, pd.DataFrame]  # by model, one row per image
    groups: pd.DataFrame
    gaps: pd.DataFrame
    before_after: pd.DataFrame
    confusion: pd.DataFrame
    counts: pd.DataFrame
    further: Mapping[str, pd.DataFrame]  # the tables of `FURTHER`
    rejects: Mapping[str, pd.DataFrame]  # by stage
    checks: list[dict[str, Any]] | None  # results of the expectations
    histories: Mapping[str, pd.DataFrame]  # by model; empty if it was not trained here
    specs: Mapping[str, Mapping[str, Any]]  # model.json by model
    lime: Mapping[str, pd.DataFrame | None]  # explained groups by model
    figures: Mapping[str, Path | None]  # those of other stages
    runs: Mapping[str, Mapping[str, str]]  # by stage: `id`, and `link` for `make ui`
    params: Mapping[str, Any]
    params_text: str  # params.yaml as written

    @property
    def by(self) -> list[str]:
        """Return the dimensions that the audit compared, in order."""
        return [name for name in dict.fromkeys(self.confusion["dimension"]) if name != "all"]

    @property
    def min_n(self) -> int:
        """Return the smallest group that is named in sentences; 1 without params."""
        return int((self.params.get("audit") or {}).get("min_n", 1))

    @property
    def n_unknown_subjects(self) -> int:
        """Return how many images have no recorded subject."""
        return int((~self.manifest["subject_known"].astype(bool)).sum())

    @property
    def split_by_image(self) -> bool:
        """Return whether a person may be in several splits."""
        return (self.params.get("split") or {}).get("unit") == "image"

    @property
    def datasets(self) -> list[str]:
        """Return the data sets of the audited images, sorted."""
        return sorted(set(self.manifest["dataset"]))


def load(paths: Paths) -> Inputs:
    """Read the inputs; raise DataError if one that every run has is missing."""
    text = paths.params.read_text(encoding="utf-8") if paths.params.is_file() else ""
    figures = {name: paths.figures / f"{name}.png" for name in FIGURES}
    return Inputs(
        manifest=read_table(paths.manifest),
        predictions={name: read_table(paths.predictions(name)) for name in MODELS},
        groups=_required_table(paths, "groups"),
        gaps=_required_table(paths, "gaps"),
        before_after=_required_table(paths, "before_after"),
        confusion=_required_table(paths, "confusion"),
        counts=_required_table(paths, "counts"),
        further={name: _audit_table(paths.tables / f"{name}.csv") for name in FURTHER},
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


def _required_table(paths: Paths, name: str) -> pd.DataFrame:
    path = paths.tables / f"{name}.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    return _audit_table(path)


def _audit_table(path: Path) -> pd.DataFrame:
    """Read a table of the audit: text as written, numbers and booleans converted."""
    frame = _csv(path, text_only=True)  # "NA" or "None" may be the name of a group
    return frame.assign(
        **{str(name): _parsed(frame[name]) for name in frame.columns if name not in _TEXT_COLUMNS}
    )


def _parsed(column: pd.Series) -> pd.Series:
    """Convert a text column to booleans or numbers if all values allow it."""
    present = set(column) - {""}
    if present and present <= {"True", "False"}:
        return column == "True"
    numbers = pd.to_numeric(column.where(column != ""), errors="coerce")
    return numbers if (numbers.notna() == (column != "")).all() else column


def _csv(path: Path, text_only: bool = False) -> pd.DataFrame:
    """Read a CSV; return an empty table if it is absent or empty."""
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
    runs = {}
    for stage in STAGE_OUTS:
        record = _json(paths.run_record(stage)) if stage != "report" else None
        if record:
            run = str(record["run_id"])
            link = f"{_UI}/#/experiments/{record.get('experiment_id', '1')}/runs/{run}"
            runs[stage] = {"id": run, "link": link}
    return runs
