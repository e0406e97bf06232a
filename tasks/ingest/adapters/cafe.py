"""Adapter `cafe`: the Child Affective Facial Expression set, 154 children of 2 to 8 years.

V. LoBue, C. Thrasher (2015), Frontiers in Psychology 5:1532,
https://doi.org/10.3389/fpsyg.2014.01532; images: Databrary, volume 30,
https://doi.org/10.17910/B7301K, for researchers authorized by Databrary. The images must not be
published.

`angryopen_F-EA-19b.jpg` is angry with open mouth, a girl, European American, number 19. A subject
is gender, race and number; `b` and `-2` distinguish takes, and a number before the emotion is that
of the Databrary asset. The mouth is open where the word says so (`…open`, `disgustwithtongue`) and
in `surprise`, which was only posed with an open mouth; else it is closed.

Ages are in a separate spreadsheet (CSV or XLSX), which may be in the folder: any table with a
column of children or images and one of ages in years (or months) is read. Without it, or for a
child that is not in it, the age is the range that the set states, 2 to 8 years.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.ingest.label import AdapterResult, Fault, Label, age_range, base_name, unreadable
from tasks.ingest.participants import WHO, Participants, find_spreadsheets, read_participants
from tasks.ingest.spreadsheet import Record, plain

_STEM = (
    r"(?:\d+-)?(?P<emotion>[a-z]+)_(?P<subject>(?P<sex>[FM])-(?P<race>AA|AS|EA|LA|SA|PI)-\d{2})b?"
    r"(?:-2)?"
)
_NAME = re.compile(_STEM + r"\.jpe?g", re.ASCII | re.IGNORECASE)
_CELL_CODE = re.compile(
    r"(?<![A-Z])(?P<sex>[FM])[-_ ]?(?P<race>AA|AS|EA|LA|SA|PI)[-_ ]?(?P<number>\d{1,2})", re.ASCII
)
_RACES: Mapping[str, str] = {
    "AA": "African American",
    "AS": "Asian",
    "EA": "European American",
    "LA": "Latino",
    "SA": "South Asian",
    "PI": "Pacific Islander",
}
_RACE_WORDS: Mapping[str, str] = {
    **{plain(word): code for code, word in _RACES.items()},
    **{code.lower(): code for code in _RACES},
    **{"caucasian": "EA", "caucasianeuropeanamerican": "EA", "latina": "LA"},
}
_EMOTIONS: Mapping[str, tuple[str, str]] = {  # the set's word: emotion, mouth
    "angry": ("anger", "closed"),
    "angryopen": ("anger", "open"),
    "disgust": ("disgust", "closed"),
    "disgustwithtongue": ("disgust", "open"),
    "fearful": ("fear", "closed"),
    "fearfulopen": ("fear", "open"),
    "happy": ("happiness", "closed"),
    "happyopen": ("happiness", "open"),
    "neutral": ("neutral", "closed"),
    "neutralopen": ("neutral", "open"),
    "sad": ("sadness", "closed"),
    "sadopen": ("sadness", "open"),
    "surprise": ("surprise", "open"),
}
_AGES = age_range(2, 8)


def read_cafe(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from names, and ages from a spreadsheet (`read_participants`) if there is one.

    Faults are `unreadable_name` and `unknown_label`.
    """
    sheets = find_spreadsheets(files)
    people = read_participants(folder, sheets, _keys_of, _AGES)
    labels = {path: _read_name(base_name(path), people) for path in files if path not in sheets}
    return AdapterResult(labels, frozenset(sheets), notes=people.notes)


def _read_name(name: str, people: Participants) -> Label | Fault:
    parts = _NAME.fullmatch(name)
    if parts is None:
        return unreadable("angryopen_F-EA-19b.jpg")
    word = parts["emotion"].lower()
    if word not in _EMOTIONS:
        return Fault("unknown_label", f"emotion '{parts['emotion']}'")
    emotion, mouth = _EMOTIONS[word]
    subject = parts["subject"].upper()
    age_years = people.ages_years.get(_key(name), people.ages_years.get(subject))
    return Label(
        emotion=emotion,
        emotion_raw=parts["emotion"],
        subject=subject,
        age_years=age_years,
        age_range=_AGES if age_years is None else None,
        age_source="dataset" if age_years is None else "recorded",
        gender=GENDER_WORDS[parts["sex"].lower()],
        ethnicity=_RACES[parts["race"].upper()],
        mouth=mouth,
    )


def _key(name: str) -> str:
    """Return an image's name in lower case, without the asset's number and the suffix."""
    return re.sub(r"^\d+-|\.jpe?g$", "", name.strip().lower())


def _keys_of(record: Record) -> list[str]:
    """Return the keys of a record's image (if it names one) and child; [] without either."""
    for cell in (base_name(record.cells[name]) for name in WHO):
        if code := _CELL_CODE.search(cell.upper()):
            subject = f"{code['sex']}-{code['race']}-{int(code['number']):02}"
            image = re.fullmatch(_STEM + r"(?:\.jpe?g)?", cell, re.ASCII | re.IGNORECASE)
            return [_key(cell), subject] if image else [subject]
    return _from_columns(record)


def _from_columns(record: Record) -> list[str]:
    """Return a child's code, composed of a number and the columns of gender and race."""
    gender = GENDER_WORDS.get(record.cells["gender"].casefold(), UNKNOWN)
    race = _RACE_WORDS.get(plain(record.cells["race"]))
    cell = record.cells["subject"] or record.cells["number"]
    number = re.fullmatch(r"(\d{1,2})(?:\.0)?", cell)
    if gender == UNKNOWN or race is None or number is None:
        return []
    return [f"{gender[0].upper()}-{race}-{int(number[1]):02}"]
