"""Everything that the report reads, loaded once; what may be absent is None or empty."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tasks.core.errors import DataError
from tasks.core.paths import MODELS, STAGE_OUTS, Paths
from tasks.core.tables import read_table

FIGURES: tuple[str, ...] = (
    "recall",
    "before_after",
    "confusion",
    "crops",
    *(f"lime_{name}" for name in MODELS),
)
REJECTING: tuple[str, ...] = ("ingest", "check", "crop")
_UI = "http://127.0.0.1:5000"  # where `make ui` serves
_COUNTS = {"n", "n_a", "pictures"}  # the first figure of each table
_TEXTS = {"emotions", "left_out_emotions", "shared_datasets", "family", "method"}


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
        The audit's tables.
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
        rejects={name: _csv(paths.rejects(name), text_only=True) for name in REJECTING},
        checks=_json(paths.check_results),
        histories={name: _csv(paths.model(name) / "history.csv") for name in MODELS},
        specs={name: _json(paths.model(name) / "model.json") or {} for name in MODELS},
        lime={name: _optional(paths.tables / f"lime_{name}.csv") for name in MODELS},
        figures={name: path if path.is_file() else None for name, path in figures.items()},
        runs=_runs(paths),
        params=yaml.safe_load(text) or {},
        params_text=text,
    )


def _table(paths: Paths, name: str) -> pd.DataFrame:
    path = paths.tables / f"{name}.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such table; run `affectgap run` (or `dvc repro`) first")
    # "NA" or "None" may be a group's name: only empty figures are missing.
    frame = pd.read_csv(path, keep_default_na=False, na_values={"p_holm": [""], "p_value": [""]})
    # Every column before the counts is a label, also where all groups have figures for names.
    counts = [place for place, column in enumerate(frame.columns) if column in _COUNTS]
    labels = [*frame.columns[: counts[0]], *(_TEXTS & set(frame.columns)), *_further(frame)]
    return frame.astype({column: "str" for column in labels})


def _further(groups: pd.DataFrame) -> list[str]:
    """Name the dimensions that `groups.csv` has after its figures."""
    names = list(groups.columns)
    if "subjects" not in names or "ci_high" not in names or "change" in names:
        return []
    return names[names.index("ci_high") + 1 : names.index("subjects")]


def _csv(path: Path, text_only: bool = False) -> pd.DataFrame:
    """Read a CSV; an absent or empty one gives an empty table."""
    if not path.is_file():
        return pd.DataFrame()
    try:
        if text_only:
            return pd.read_csv(path, dtype="str", keep_default_na=False)
        return pd.read_csv(path)
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
