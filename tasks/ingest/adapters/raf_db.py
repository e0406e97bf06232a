"""Adapter `raf-db`: RAF-DB, the basic emotions of 15,339 pictures from the web.

S. Li, W. Deng, J. Du (2017), CVPR 2017:2584-2593, https://doi.org/10.1109/CVPR.2017.277. For
non-commercial research, on request: http://www.whdeld.cn/RAF/model1.html.

`EmoLabel/list_patition_label.txt` (that spelling) has a line `train_00001.jpg 5` a picture: 1
surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral. The pictures are
`Image/original/train_00001.jpg` and, cut and aligned, `Image/aligned/train_00001_aligned.jpg`:
where both are there, the original is taken. `Annotation/manual/train_00001_manu_attri.txt` ends in
three lines: gender (0 male, 1 female, 2 unsure), race (0 Caucasian, 1 African-American, 2 Asian)
and age class (0-3, 4-19, 20-39, 40-69, 70+).

Quirks: age classes are what annotators estimated. 4-19 spans three bands of the default params, so
that its band is unknown. No person is known.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import UNKNOWN
from tasks.ingest.label import AgeRange, Fault, Label, Reading, age_range, base_name, unreadable

LIST_NAMES: frozenset[str] = frozenset(["list_patition_label.txt", "list_partition_label.txt"])
_NAME = re.compile(r"(?P<picture>(?:train|test)_\d{5})(?P<aligned>_aligned)?\.(?:jpe?g|png)")
_LINE = re.compile(r"(?P<picture>(?:train|test)_\d{5})\.jpg\s+(?P<code>\d+)")
_ATTRIBUTES = "_manu_attri.txt"
_SIDE_SUFFIXES = frozenset([".txt", ".mat"])
_EMOTIONS: Mapping[str, str] = {
    "1": "surprise",
    "2": "fear",
    "3": "disgust",
    "4": "happiness",
    "5": "sadness",
    "6": "anger",
    "7": "neutral",
}
_GENDERS = ("male", "female", UNKNOWN)
_RACES = ("Caucasian", "African-American", "Asian")
_AGES = (
    age_range(0, 3),
    age_range(4, 19),
    age_range(20, 39),
    age_range(40, 69),
    age_range(70, None),
)


class _Person(NamedTuple):
    gender: str
    race: str | None
    ages: AgeRange | None


_NOT_ANNOTATED = _Person(UNKNOWN, None, None)


def read_raf_db(folder: Path, files: Sequence[str]) -> Reading:
    """Read emotions from the list, and people from the manual annotations.

    Parameters
    ----------
    folder
        The data set's folder.
    files
        Paths below the folder.

    Returns
    -------
    Reading
        Labels, or faults with reason `unreadable_name`, `no_label`, `unknown_label` or
        `other_version` (aligned, where the original is there); pictures of the list that are not
        there are `missing_file`.

    Raises
    ------
    DataError
        One line where the list is missing, or it or an annotation cannot be read.
    """
    side_files = frozenset(
        path for path in files if PurePosixPath(path).suffix.lower() in _SIDE_SUFFIXES
    )
    lists = [path for path in sorted(side_files) if base_name(path) in LIST_NAMES]
    if not lists:
        raise DataError(f"{folder}: no EmoLabel/list_patition_label.txt; put the set's list there")
    codes = _read_list(folder / lists[0])
    annotated = {
        base_name(path).removesuffix(_ATTRIBUTES): folder / path
        for path in side_files
        if path.endswith(_ATTRIBUTES)
    }
    pictures = [path for path in files if path not in side_files]
    parts = {path: _NAME.fullmatch(base_name(path)) for path in pictures}
    originals = {part["picture"] for part in parts.values() if part and not part["aligned"]}
    labels: dict[str, Label | Fault] = {}
    for path, part in parts.items():
        labels[path] = _label(part, codes, annotated, originals)
    there = {part["picture"] for part in parts.values() if part}
    missing = {
        f"{picture}.jpg": Fault("missing_file", f"listed in {lists[0]}, not there")
        for picture in codes
        if picture not in there
    }
    return Reading(labels, side_files, missing)


def _label(
    part: re.Match[str] | None,
    codes: Mapping[str, str],
    annotated: Mapping[str, Path],
    originals: set[str],
) -> Label | Fault:
    if part is None:
        return unreadable("train_00001.jpg or train_00001_aligned.jpg")
    picture = part["picture"]
    if part["aligned"] and picture in originals:
        return Fault("other_version", f"{picture}.jpg, the original, is there and is taken")
    if picture not in codes:
        return Fault("no_label", "is not in the set's list of labels")
    if codes[picture] not in _EMOTIONS:
        return Fault("unknown_label", f"code {codes[picture]}, where 1 to 7 are labels")
    emotion = _EMOTIONS[codes[picture]]
    person = _read_person(annotated[picture]) if picture in annotated else _NOT_ANNOTATED
    return Label(
        emotion=emotion,
        emotion_raw=codes[picture],
        age_range=person.ages,
        age_source="estimated" if person.ages else None,
        gender=person.gender,
        ethnicity=person.race,
    )


def _read_list(path: Path) -> dict[str, str]:
    codes: dict[str, str] = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        parts = _LINE.fullmatch(line.strip())
        if parts is None:
            raise DataError(f"{path}: line {number} '{line[:60]}' is not like 'train_00001.jpg 5'")
        codes[parts["picture"]] = parts["code"]
    return codes


def _read_person(path: Path) -> _Person:
    lines = path.read_text("utf-8", "replace").split("\n")
    try:
        *_, gender, race, ages = (int(line) for line in lines[5:] if line.strip())
        if min(gender, race, ages) < 0:
            raise IndexError
        return _Person(_GENDERS[gender], _RACES[race], _AGES[ages])
    except (ValueError, IndexError):
        raise DataError(
            f"{path}: does not end in three lines of codes: gender 0-2, race 0-2, age class 0-4"
        ) from None
