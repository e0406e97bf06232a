"""Adapter `london`: the Face Research Lab London Set, photographs of 102 adults.

L. DeBruine and B. Jones (2017), figshare, https://doi.org/10.6084/m9.figshare.5047666, CC BY 4.0.
`neutral_front/NNN_03.jpg` is a neutral face and `smiling_front/NNN_08.jpg` a smile, which counts
as happiness. Age, gender and ethnicity are self-reported, in `london_faces_info.csv` (or
`london_info.csv`). Templates of landmarks (`.tem`) and the table of ratings are side files.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS, UNKNOWN
from tasks.core.text import clean
from tasks.ingest.label import AdapterResult, Fault, Label, parse_age, parse_gender

INFO_NAMES: tuple[str, ...] = ("london_faces_info.csv", "london_info.csv")
_OTHER_SIDE_FILES = frozenset(["london_faces_ratings.csv"])
_TEMPLATE = ".tem"

_NAME = re.compile(
    r"(?:.*/)?(?:neutral_front/(?P<neutral>\d{3})_03|smiling_front/(?P<smiling>\d{3})_08)\.jpe?g",
    re.ASCII | re.IGNORECASE,
)


class _Person(NamedTuple):
    age_years: float | None
    gender: str
    ethnicity: str | None


_UNLISTED = _Person(None, UNKNOWN, None)


def read_london(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from folders, names and the table of subjects; DataError without a table.

    The only fault is `unreadable_name`. Age and gender of faces that are not in the table are
    unknown.
    """
    tables = [name for name in INFO_NAMES if name in files]
    if not tables:
        raise DataError(
            f"{folder}: no {INFO_NAMES[0]} (nor {INFO_NAMES[1]}); put the set's table of age, "
            "gender and ethnicity there"
        )
    people = _read_people(folder / tables[0])
    side_files = frozenset(
        path
        for path in files
        if path in INFO_NAMES or path in _OTHER_SIDE_FILES or path.endswith(_TEMPLATE)
    )
    labels = {path: _read_name(path, people) for path in files if path not in side_files}
    return AdapterResult(labels, side_files)


def _read_people(path: Path) -> dict[str, _Person]:
    people: dict[str, _Person] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            for row in csv.DictReader(handle):
                face = clean(row["face_id"]).lstrip("Xx").zfill(3)  # X001 in some copies
                people[face] = _read_person(row, f"{path}: face {face}")
    except (KeyError, AttributeError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: must be UTF-8 with the columns face_id, face_age, face_gender, face_eth "
            f"({type(error).__name__}: {error})"
        ) from None
    return people


def _read_person(row: Mapping[str, str], where: str) -> _Person:
    gender = row["face_gender"] if "face_gender" in row else row["face_sex"]  # older copies
    return _Person(
        age_years=parse_age(row["face_age"], where),
        gender=parse_gender(gender, where),
        ethnicity=clean(row["face_eth"]),
    )


def _read_name(path: str, people: Mapping[str, _Person]) -> Label | Fault:
    parts = _NAME.fullmatch(path)
    if parts is None:
        return Fault("unreadable_name", "not neutral_front/NNN_03.jpg or smiling_front/NNN_08.jpg")
    face = parts["neutral"] or parts["smiling"]
    view = "neutral" if parts["neutral"] else "smiling"
    person = people.get(face, _UNLISTED)
    return Label(
        emotion=EMOTION_WORDS[view],
        emotion_raw=view,
        subject=face,
        age_years=person.age_years,
        age_source=None if person.age_years is None else "recorded",
        gender=person.gender,
        ethnicity=person.ethnicity,
        pose="frontal",
    )
