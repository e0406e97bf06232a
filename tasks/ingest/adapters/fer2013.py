"""Adapter `fer2013`: FER2013, 35,887 grayscale images of 48 x 48 px from the web, and FER+ labels.

I. J. Goodfellow et al. (2013), https://arxiv.org/abs/1307.0414; from Kaggle as `fer2013.csv` or
`icml_face_data.csv`, which contain the pixels; `affectgap intake` converts them to images
(`fer2013_csv.py`). FER+: E. Barsoum, C. Zhang, C. Canton Ferrer, Z. Zhang (2016),
https://arxiv.org/abs/1608.01041, `fer2013new.csv` of https://github.com/microsoft/FERPlus.

`fer0000012.png` is row 12 of the CSV, counted from 0, as in FER+. Labels of FER2013: 0 angry,
1 disgust, 2 fear, 3 happy, 4 sad, 5 surprise, 6 neutral. If `fer2013new.csv` is in the folder, its
labels are used instead: the emotion with most of the ten votes. Images with a tie, or with most
votes for "unknown" or "NF" (no face), are left out with that reason.

Quirks: many images occur several times, some under two labels; ingest uses one or none of them.
Subjects, ages and genders are unknown.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS
from tasks.ingest.label import AdapterResult, Fault, Label, base_name, unreadable
from tasks.ingest.spreadsheet import (
    LABELS_NAME,
    TABLE_NAMES,
    Record,
    each,
    image_name,
    read_records,
)

PLUS_NAME = "fer2013new.csv"
_SIDE_NAMES = frozenset([PLUS_NAME, LABELS_NAME, *TABLE_NAMES])
_NAME = re.compile(r"fer\d{7}\.png", re.ASCII)
_EMOTIONS: Mapping[str, str] = {
    "0": "anger",
    "1": "disgust",
    "2": "fear",
    "3": "happiness",
    "4": "sadness",
    "5": "surprise",
    "6": "neutral",
}
_VOTES: tuple[str, ...] = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "nf"),
)
_VOTE_COLUMNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(name) for name in ("imagename", *_VOTES)
}
_LABEL_COLUMNS: Mapping[str, re.Pattern[str]] = {"emotion": re.compile("emotion")}


def read_fer2013(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from the table in the folder, FER+ if there is one; DataError without any.

    Faults are `unreadable_name`, `no_label`, `unknown_label`, `no_emotion`, `tied_votes` and
    `missing_file` (listed in the table).
    """
    side_files = frozenset(path for path in files if base_name(path) in _SIDE_NAMES)
    # FER+ precedes the labels that intake wrote, and these the table of pixels.
    order = (PLUS_NAME, LABELS_NAME, *TABLE_NAMES)
    tables = sorted(side_files, key=lambda path: order.index(base_name(path)))
    if not tables:
        raise DataError(f"{folder}: none of {', '.join(order)}; put one there")
    read = _read_votes if base_name(tables[0]) == PLUS_NAME else _read_codes
    by_name = dict(read(folder / tables[0]))
    labels: dict[str, Label | Fault] = {}
    existing = set()
    for path in (path for path in files if path not in side_files):
        name = base_name(path)
        existing.add(name)
        label = by_name.get(name, Fault("no_label", f"has no row in {tables[0]}"))
        labels[path] = label if _NAME.fullmatch(name) else unreadable("fer0000012.png")
    missing = {
        name: Fault("missing_file", f"listed in {tables[0]}")
        for name in by_name
        if name not in existing
    }
    return AdapterResult(labels, side_files, missing)


def _read_codes(path: Path) -> Iterator[tuple[str, Label | Fault]]:
    records = read_records(path, _LABEL_COLUMNS, each(_LABEL_COLUMNS))
    for number, record in enumerate(records):
        code = record.cells["emotion"]
        if code in _EMOTIONS:
            yield image_name(number), Label(_EMOTIONS[code], code)
        else:
            yield image_name(number), Fault("unknown_label", f"{path.name}: emotion '{code}'")


def _read_votes(path: Path) -> Iterator[tuple[str, Label | Fault]]:
    for number, record in enumerate(read_records(path, _VOTE_COLUMNS, each(_VOTE_COLUMNS))):
        # Images without a face according to FER+ have no name; the row is their number.
        name = record.cells["imagename"] or image_name(number)
        yield name, _majority(record, path)


def _majority(record: Record, path: Path) -> Label | Fault:
    try:
        votes = {name: int(record.cells[name]) for name in _VOTES}
    except ValueError:
        raise DataError(f"{path}: row {record.number}: votes must be whole numbers") from None
    most = max(votes.values())
    winners = [name for name, count in votes.items() if count == most]
    if len(winners) > 1:
        return Fault("tied_votes", f"{most} votes each for {', '.join(winners)}")
    if winners[0] not in EMOTION_WORDS:
        winner = "no face" if winners[0] == "nf" else winners[0]
        return Fault("no_emotion", f"most of the FER+ votes ({most}) are for '{winner}'")
    return Label(EMOTION_WORDS[winners[0]], winners[0])
