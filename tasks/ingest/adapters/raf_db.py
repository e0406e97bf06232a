"""Adapter `raf-db`: RAF-DB, the basic emotions of 15,339 images from the web.

S. Li, W. Deng, J. Du (2017), CVPR 2017:2584-2593, https://doi.org/10.1109/CVPR.2017.277. For
non-commercial research, on request: http://www.whdeld.cn/RAF/model1.html.

`EmoLabel/list_patition_label.txt` (that spelling) has one line per image, such as
`train_00001.jpg 5`: 1 surprise, 2 fear, 3 disgust, 4 happiness, 5 sadness, 6 anger, 7 neutral. The
images are `Image/original/train_00001.jpg` and, cropped and aligned,
`Image/aligned/train_00001_aligned.jpg`; the original is preferred.
`Annotation/manual/train_00001_manu_attri.txt` ends in three lines: gender (0 male, 1 female,
2 unsure), race (0 Caucasian, 1 African-American, 2 Asian) and age class (0-3, 4-19, 20-39, 40-69,
70+).

Quirks: annotators estimated the age classes. 4-19 spans three bands of the default params, so that
its band is unknown. Subjects are unknown.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import UNKNOWN
from tasks.ingest.label import (
    AdapterResult,
    AgeRange,
    Fault,
    Label,
    age_range,
    base_name,
    unreadable,
)

LIST_NAMES: frozenset[str] = frozenset(["list_patition_label.txt", "list_partition_label.txt"])
_NAME = re.compile(r"(?P<image>(?:train|test)_\d{5})(?P<aligned>_aligned)?\.(?:jpe?g|png)")
_LINE = re.compile(r"(?P<image>(?:train|test)_\d{5})\.jpg\s+(?P<code>\d+)")
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


def read_raf_db(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read emotions from the list, which is required, and subjects from manual annotations.

    Faults are `unreadable_name`, `no_label`, `unknown_label`, `other_version` (an aligned copy) and
    `missing_file` (in the list). Raises DataError for a missing or invalid list or annotation.
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
    parts = {path: _NAME.fullmatch(base_name(path)) for path in files if path not in side_files}
    originals = {part["image"] for part in parts.values() if part and not part["aligned"]}
    labels = {path: _label(part, codes, annotated, originals) for path, part in parts.items()}
    existing = {part["image"] for part in parts.values() if part}
    missing = {
        f"{image}.jpg": Fault("missing_file", f"listed in {lists[0]}")
        for image in codes
        if image not in existing
    }
    return AdapterResult(labels, side_files, missing)


def _label(
    part: re.Match[str] | None,
    codes: Mapping[str, str],
    annotated: Mapping[str, Path],
    originals: set[str],
) -> Label | Fault:
    if part is None:
        return unreadable("train_00001.jpg or train_00001_aligned.jpg")
    image = part["image"]
    if part["aligned"] and image in originals:
        return Fault("other_version", f"the original, {image}.jpg, is used")
    if image not in codes:
        return Fault("no_label", "is not in the set's list of labels")
    code = codes[image]
    if code not in _EMOTIONS:
        return Fault("unknown_label", f"code {code}; labels are 1 to 7")
    person = _read_person(annotated[image]) if image in annotated else _NOT_ANNOTATED
    return Label(
        emotion=_EMOTIONS[code],
        emotion_raw=code,
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
        codes[parts["image"]] = parts["code"]
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
