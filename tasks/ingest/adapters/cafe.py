"""Adapter `cafe`: the Child Affective Facial Expression set, 154 children of 2 to 8 years.

V. LoBue, C. Thrasher (2015), Frontiers in Psychology 5:1532,
https://doi.org/10.3389/fpsyg.2014.01532; pictures: Databrary, volume 30,
https://doi.org/10.17910/B7301K, for researchers whom Databrary authorises. The pictures must not be
published.

`angryopen_F-EA-19b.jpg` is angry with open mouth, a girl, European American, number 19. A subject
is gender, race and number; `b` and `-2` tell takes apart, and a number before the emotion is the
asset's at Databrary. The mouth is open where the word says so (`…open`, `disgustwithtongue`) and in
`surprise`, which was posed with an open mouth only; else it is closed.

Ages are in a separate spreadsheet (CSV or XLSX), which may lie in the folder: any table with a
column of children or pictures and one of ages in years (or months) is read. Without it, or for a
child that it lacks, the age is the range that the set states, 2 to 8 years.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.ingest.label import Fault, Label, Reading, age_range, base_name, unreadable
from tasks.ingest.people_sheet import WHO, People, find_sheets, read_people
from tasks.ingest.sheet import Record, plain

_PICTURE = (
    r"(?:\d+-)?(?P<emotion>[a-z]+)_(?P<subject>(?P<sex>[FM])-(?P<race>AA|AS|EA|LA|SA|PI)-\d{2})b?"
    r"(?:-2)?"
)
_NAME = re.compile(_PICTURE + r"\.jpe?g", re.ASCII | re.IGNORECASE)
_IN_A_CELL = re.compile(
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


def read_cafe(folder: Path, files: Sequence[str]) -> Reading:
    """Read labels from names, and ages from the spreadsheet if there is one.

    Parameters
    ----------
    folder
        The data set's folder.
    files
        Paths below the folder.

    Returns
    -------
    Reading
        Labels, or faults with reason `unreadable_name` or `unknown_label`; `notes` says which rows
        of the spreadsheet were not understood.

    Raises
    ------
    DataError
        One line for a spreadsheet of which nothing is understood, or two of them.
    """
    sheets = find_sheets(files)
    people = read_people(folder, sheets, _keys_of, _AGES)
    pictures = [path for path in files if path not in sheets]
    labels = {path: _read_name(base_name(path), people) for path in pictures}
    return Reading(labels, frozenset(sheets), notes=people.notes)


def _read_name(name: str, people: People) -> Label | Fault:
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
    """Return a picture's name without the asset's number and the suffix, in lower case."""
    return re.sub(r"^\d+-|\.jpe?g$", "", name.strip().lower())


def _keys_of(record: Record) -> list[str]:
    """Return a record's picture (where it names one) and its child; [] where neither is read."""
    for who in (base_name(record.cells[name]) for name in WHO):
        if code := _IN_A_CELL.search(who.upper()):
            subject = f"{code['sex']}-{code['race']}-{int(code['number']):02}"
            pattern = _PICTURE + r"(?:\.jpe?g)?"
            picture = re.fullmatch(pattern, who, re.ASCII | re.IGNORECASE)
            return [_key(who), subject] if picture else [subject]
    return _from_columns(record)


def _from_columns(record: Record) -> list[str]:
    """Put a child's code together from a number and the columns of gender and race."""
    gender = GENDER_WORDS.get(record.cells["gender"].casefold(), UNKNOWN)
    race = _RACE_WORDS.get(plain(record.cells["race"]))
    who = record.cells["subject"] or record.cells["number"]
    number = re.fullmatch(r"(\d{1,2})(?:\.0)?", who)
    if gender == UNKNOWN or race is None or number is None:
        return []
    return [f"{gender[0].upper()}-{race}-{int(number[1]):02}"]
