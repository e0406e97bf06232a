"""Adapter `liris-cse`: LIRIS-CSE, frames of clips of 12 children, spontaneous.

R. A. Khan, A. Crenn, A. Meyer, S. Bouakaz (2019), Image and Vision Computing 83-84:61-69,
https://doi.org/10.1016/j.imavis.2019.02.004. For research, on request:
https://childrenfacialexpression.projet.liris.cnrs.fr/.

`S10_fear_1_f3.png` is frame 3 of the clip `S10_fear_1`: child S10, fear. Also `S10_fear_1/3.png`.
The raters labeled clips, not frames.

Quirks: the first frame of a clip may precede the expression and is left out (others have labeled it
neutral). Clips with two words (`fear_surprise`) show two emotions and are left out, too. `suprise`
and `surpsrise` are misspellings; `aloud`, `movingPerson` and numbers are remarks.

Ages and genders come from a table of participants in the folder (CSV or XLSX with columns such as
subject, age, gender). Without it, the age is a range, 4 to 12 years, which spans two bands of the
default params. The paper's abstract says 6 to 12, but its mean, 7.3, is that of twelve recorded
ages from 4 to 12.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.labels import UNKNOWN
from tasks.ingest.label import AdapterResult, Fault, Label, age_range, unreadable
from tasks.ingest.participants import Participants, find_spreadsheets, read_participants
from tasks.ingest.spreadsheet import Record

_CLIP = r"(?P<subject>S\d{1,2})_(?P<words>[A-Za-z]+(?:_[A-Za-z0-9]+)*?)"
_FRAME_NAME = re.compile(_CLIP + r"_f(?P<frame>\d+)", re.ASCII | re.IGNORECASE)
_FOLDER_NAME = re.compile(_CLIP, re.ASCII | re.IGNORECASE)
_FRAME = re.compile(r"(?:frame|f)?[_-]?(?P<frame>\d+)", re.ASCII | re.IGNORECASE)
_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".bmp"])
_WORDS: Mapping[str, str] = {
    "anger": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprise": "surprise",
    "suprise": "surprise",
    "surpsrise": "surprise",
}
_REMARKS = frozenset(["aloud", "movingperson"])
_FIRST_FRAMES = frozenset([0, 1])  # some tools count from 0
_AGES = age_range(4, 12)


def read_liris_cse(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from names, and ages and genders from a table (see `read_participants`).

    Faults are `unreadable_name`, `unlabelled_frame` and `two_labels`.
    """
    sheets = find_spreadsheets(files)
    people = read_participants(folder, sheets, _keys_of, _AGES)
    images = [path for path in files if path not in sheets]
    labels = {path: _read_path(PurePosixPath(path), people) for path in images}
    return AdapterResult(labels, frozenset(sheets), notes=people.notes)


def _read_path(path: PurePosixPath, people: Participants) -> Label | Fault:
    clip = frame = _FRAME_NAME.fullmatch(path.stem)
    if clip is None:
        clip, frame = _FOLDER_NAME.fullmatch(path.parent.name), _FRAME.fullmatch(path.stem)
    if clip is None or frame is None or path.suffix.lower() not in _SUFFIXES:
        return unreadable("S10_fear_1_f3.png")
    words = [word for word in clip["words"].lower().split("_") if not word.isdecimal()]
    words = [word for word in words if word not in _REMARKS]
    if not words or any(word not in _WORDS for word in words):
        return Fault("unreadable_name", f"'{clip['words']}' is not an emotion of the set")
    emotions = sorted({_WORDS[word] for word in words})
    if len(emotions) > 1:
        return Fault("two_labels", f"the clip shows {' and '.join(emotions)}")
    if int(frame["frame"]) in _FIRST_FRAMES:
        return Fault("unlabelled_frame", "the first frame may precede the expression")
    subject = clip["subject"].upper()
    age_years = people.ages_years.get(subject)
    return Label(
        emotion=emotions[0],
        emotion_raw=clip["words"],
        subject=subject,
        age_years=age_years,
        age_range=_AGES if age_years is None else None,
        age_source="dataset" if age_years is None else "recorded",
        gender=people.genders.get(subject, UNKNOWN),
    )


def _keys_of(record: Record) -> list[str]:
    cell = record.cells["subject"] or record.cells["number"]
    number = re.fullmatch(r"(?:S|subject)?[ _-]*0*(\d{1,2})(?:\.0)?", cell, re.IGNORECASE)
    return [f"S{number[1]}"] if number else []
