"""Adapter `fairface`: FairFace, 108,501 pictures with age group, gender and race.

K. Kärkkäinen, J. Joo (2021), WACV 2021:1548-1558; https://github.com/joojs/fairface; CC BY 4.0.

Tables `fairface_label_train.csv` and `fairface_label_val.csv` with the columns `file` (such as
`train/1.jpg`), `age`, `gender`, `race`. Ages are groups (0-2, 3-9, 10-19 … more than 70) that
annotators estimated. There is no emotion: the set can be counted, not ingested. Where the folder
holds the tables and no picture at all, their rows are counted.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.text import clean, clean_or_none
from tasks.ingest.label import AgeRange, Fault, Label, Reading, age_range, parse_gender
from tasks.ingest.sheet import Record, each, read_records

_COLUMNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(name) for name in ("file", "age", "gender", "race")
}
_GROUP = re.compile(r"(?P<youngest>\d+)-(?P<oldest>\d+)", re.ASCII)
_OLDEST = "more than 70"


def read_fairface(folder: Path, files: Sequence[str]) -> Reading:
    """Read age groups, genders and races from the tables.

    Parameters
    ----------
    folder
        The data set's folder.
    files
        Paths below the folder.

    Returns
    -------
    Reading
        Labels without emotion, or faults with reason `no_label` or `unknown_label`; pictures of a
        table that are not there are `missing_file`.

    Raises
    ------
    DataError
        One line where there is no table, or one cannot be read.
    """
    tables = [path for path in files if path.lower().endswith(".csv")]
    if not tables:
        raise DataError(f"{folder}: no fairface_label_train.csv; put the set's tables there")
    pictures = [path for path in files if path not in tables]
    by_end = {clean("/".join(path.split("/")[-2:])): path for path in pictures}
    labels: dict[str, Label | Fault] = {
        path: Fault("no_label", "is in no table") for path in pictures
    }
    missing: dict[str, Fault] = {}
    for table in tables:
        for record in read_records(folder / table, _COLUMNS, each(_COLUMNS)):
            name = clean(record.cells["file"])
            path = by_end.get(name) if by_end else name
            if path is None:
                missing[name] = Fault("missing_file", f"in {table}, not there")
            else:
                labels[path] = _label(record, f"{folder / table}: row {record.number}")
    return Reading(labels, frozenset(tables), missing)


def _label(record: Record, where: str) -> Label | Fault:
    age = clean_or_none(record.cells["age"])
    ages = None if age is None else _ages(age)
    if age is not None and ages is None:
        return Fault("unknown_label", f"{where}: age '{record.cells['age']}'")
    return Label(
        emotion=None,
        emotion_raw="",
        age_range=ages,
        age_source=None if ages is None else "estimated",
        gender=parse_gender(record.cells["gender"], where),
        ethnicity=record.cells["race"],
    )


def _ages(group: str) -> AgeRange | None:
    if group == _OLDEST:
        return age_range(70, None, group)
    parts = _GROUP.fullmatch(group)
    return age_range(int(parts["youngest"]), int(parts["oldest"]), group) if parts else None
