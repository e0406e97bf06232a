"""Loads the tables that the study page is made from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.spec import select_rows
from tasks.core.paths import Paths
from tasks.core.tables import read_csv, read_table

TABLES = ("runs", "curves", "arms", "seeds", "choices")
PUBLISHED_TABLES = ("published_rates", "published_pairs", "agreement")
TEST, LOOKS = "study/test.csv", "study/test_looks.csv"
_TEXT_COLUMNS = (
    "round",
    "arm",
    "chosen",
    "best",
    "within",
    "before",
    "failed",
    "method",
    "why",
    "group",
)


@dataclass(frozen=True)
class StudyInputs:
    """The tables and settings of a study."""

    tables: Mapping[str, pd.DataFrame]  # `TABLES`, and `PUBLISHED_TABLES` if a study is named
    test: pd.DataFrame  # the winner on the test split
    looks: pd.DataFrame  # all looks at the test split so far; empty if the ledger is missing
    summary: Mapping[str, Any]  # study.json: the settings, the winner and the epochs
    datasets: tuple[str, ...]  # of the images that were used
    people: Mapping[str, int]  # by split
    params_text: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return section `study` of params.yaml as it was during the study."""
        settings: Mapping[str, Any] = self.summary["settings"]
        return settings

    @property
    def published(self) -> bool:
        """Return whether the study repeats the published protocol."""
        return bool(self.settings["protocol"] == "published")

    @property
    def choices(self) -> pd.DataFrame:
        """Return the choice of each round."""
        return self.tables["choices"]


def load_study(paths: Paths) -> StudyInputs:
    """Read a finished study; raise a one-line DataError if a table is missing."""
    folder = paths.at("study/tables")
    try:
        summary = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        names = [*TABLES, *(PUBLISHED_TABLES if summary["settings"]["published"] else ())]
        tables = {name: _read(folder / f"{name}.csv") for name in names}
        test = _read(paths.at(TEST))
        looks = _read(paths.at(LOOKS)) if paths.at(LOOKS).is_file() else pd.DataFrame()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; run `affectgap study`") from None
    columns = ["dataset", "split", "subject_id", *summary["settings"]["subset"]]
    rows = select_rows(
        read_table(paths.split, list(dict.fromkeys(columns))),
        summary["settings"]["subset"],
        "study.subset",
    )
    people = rows.groupby("split")["subject_id"].nunique().to_dict()
    datasets = tuple(sorted(set(rows["dataset"].astype(str))))
    params_text = paths.params.read_text(encoding="utf-8")
    return StudyInputs(tables, test, looks, summary, datasets, people, params_text)


def _read(path: Any) -> pd.DataFrame:
    """Read a table; empty cells are "" in text columns and NaN in numeric ones."""
    table = read_csv(path)
    for name in _TEXT_COLUMNS:
        if name in table and table[name].dtype != bool:
            table[name] = table[name].astype("object").fillna("").astype(str)
    return table
