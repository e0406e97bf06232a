"""What the page of a study is made from: the tables that the study wrote."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.core.selection import select_rows
from tasks.core.tables import read_csv, read_table

TABLES = ("runs", "curves", "arms", "seeds", "choices")
PUBLISHED_TABLES = ("published_rates", "published_pairs", "agreement")
TEST, LOOKS = "study/test.csv", "study/test_looks.csv"
_WORDS = ("round", "arm", "chosen", "best", "within", "before", "failed", "method", "why", "group")


@dataclass(frozen=True)
class StudyInputs:
    """The study's tables by name, and what stands for it as a whole.

    Attributes
    ----------
    tables
        `TABLES` and, where a published study is named, `PUBLISHED_TABLES`.
    test
        The winner on the test split.
    looks
        The ledger of all looks at the test split so far; empty where it is not at hand.
    whole
        `study.json`: the settings, the winner, and the epochs.
    datasets
        Names of the data sets whose pictures took part.
    people
        Split to the people in it.
    params_text
        The file params.yaml.
    """

    tables: Mapping[str, pd.DataFrame]
    test: pd.DataFrame
    looks: pd.DataFrame
    whole: Mapping[str, Any]
    datasets: tuple[str, ...]
    people: Mapping[str, int]
    params_text: str

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return section `study` as it was."""
        settings: Mapping[str, Any] = self.whole["settings"]
        return settings

    @property
    def published(self) -> bool:
        """Tell whether it repeats the published protocol."""
        return bool(self.settings["protocol"] == "published")

    @property
    def choices(self) -> pd.DataFrame:
        """Return the rounds."""
        return self.tables["choices"]


def load_study(paths: Paths) -> StudyInputs:
    """Read a finished study; raises DataError, one line, where a table is missing."""
    folder = paths.at("study/tables")
    try:
        whole = json.loads((folder / "study.json").read_text(encoding="utf-8"))
        names = [*TABLES, *(PUBLISHED_TABLES if whole["settings"]["published"] else ())]
        tables = {name: _read(folder / f"{name}.csv") for name in names}
        test = _read(paths.at(TEST))
        looks = _read(paths.at(LOOKS)) if paths.at(LOOKS).is_file() else pd.DataFrame()
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: no such file; run `affectgap study`") from None
    columns = ["dataset", "split", "subject_id", *whole["settings"]["group"]]
    rows = select_rows(read_table(paths.split, list(dict.fromkeys(columns))), *_group(whole))
    people = rows.groupby("split")["subject_id"].nunique().to_dict()
    datasets = tuple(sorted(set(rows["dataset"].astype(str))))
    params_text = paths.params.read_text(encoding="utf-8")
    return StudyInputs(tables, test, looks, whole, datasets, people, params_text)


def _group(whole: Mapping[str, Any]) -> tuple[Mapping[str, list[str]], str]:
    return whole["settings"]["group"], "study.group"


def _read(path: Any) -> pd.DataFrame:
    """Read a table; an empty cell of a column of words is "" and of numbers NaN."""
    table = read_csv(path)
    for name in _WORDS:
        if name in table and table[name].dtype != bool:
            table[name] = table[name].astype("object").fillna("").astype(str)
    return table
