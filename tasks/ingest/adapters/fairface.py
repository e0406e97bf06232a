"""Adapters of sets without emotions, which can only be counted: FairFace and UTKFace.

Adapter `fairface`: FairFace, 108,501 images with age group, gender and race.

K. Kärkkäinen, J. Joo (2021), WACV 2021:1548-1558; https://github.com/joojs/fairface; CC BY 4.0.

Tables `fairface_label_train.csv` and `fairface_label_val.csv` with the columns `file` (such as
`train/1.jpg`), `age`, `gender`, `race`. Ages are groups (0-2, 3-9, 10-19 … more than 70) estimated
by annotators. There are no emotions: the set can only be counted. In a folder without images, the
rows of the tables are counted.

Adapter `utkface`: UTKFace, 23,708 images from the web with age, gender and race.

Z. Zhang, Y. Song, H. Qi (2017), CVPR 2017:4352-4360, https://doi.org/10.1109/CVPR.2017.463. For
non-commercial research: https://susanqq.github.io/UTKFace/.

`26_1_2_20170116174525125.jpg` (aligned copies end in `.jpg.chip.jpg`) is 26 years, gender 1 (0 is
male, 1 female), race 2 (0 White, 1 Black, 2 Asian, 3 Indian, 4 Others) and a time. Ages were
estimated by a model and then by people. There are no emotions: the set can only be counted. A few
names lack a part; they are rejects.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.text import clean, clean_or_none
from tasks.ingest.label import (
    AdapterResult,
    AgeRange,
    Fault,
    Label,
    age_range,
    parse_gender,
    unreadable,
)
from tasks.ingest.spreadsheet import Record, each, read_records

_COLUMNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(name) for name in ("file", "age", "gender", "race")
}
_GROUP = re.compile(r"(?P<youngest>\d+)-(?P<oldest>\d+)", re.ASCII)
_OLDEST = "more than 70"
_NAME = re.compile(
    r"(?P<age>\d{1,3})_(?P<gender>[01])_(?P<race>[0-4])_\d{17}\.jpe?g(?:\.chip\.jpe?g)?",
    re.ASCII | re.IGNORECASE,
)
_GENDERS = ("male", "female")
_RACES = ("White", "Black", "Asian", "Indian", "Others")


def read_fairface(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read age groups, genders and races from the tables; DataError without any.

    Faults are `no_label`, `unknown_label` and `missing_file` (listed in a table).
    """
    tables = [path for path in files if path.lower().endswith(".csv")]
    if not tables:
        raise DataError(f"{folder}: no fairface_label_train.csv; put the set's tables there")
    images = [path for path in files if path not in tables]
    by_end = {clean("/".join(path.split("/")[-2:])): path for path in images}
    labels: dict[str, Label | Fault] = {
        path: Fault("no_label", "is not in any table") for path in images
    }
    missing: dict[str, Fault] = {}
    for table in tables:
        for record in read_records(folder / table, _COLUMNS, each(_COLUMNS)):
            name = clean(record.cells["file"])
            path = by_end.get(name) if by_end else name
            if path is None:
                missing[name] = Fault("missing_file", f"listed in {table}")
            else:
                labels[path] = _label(record, f"{folder / table}: row {record.number}")
    return AdapterResult(labels, frozenset(tables), missing)


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


def read_utkface_name(name: str) -> Label | Fault:
    """Read age, gender and race from a name; the only fault is `unreadable_name`."""
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("26_1_2_20170116174525125.jpg")
    return Label(
        emotion=None,
        emotion_raw="",
        age_years=float(parts["age"]),
        age_source="estimated",
        gender=_GENDERS[int(parts["gender"])],
        ethnicity=_RACES[int(parts["race"])],
    )
