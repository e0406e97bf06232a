"""The table of people beside the pictures: who is how old, and of which recorded gender.

Rows are matched by a key that the adapter reads from a cell: a subject's code or a picture's name.
What is not understood is said in one line and leaves the age of that person unknown; it is never
guessed at.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tasks.core.errors import DataError
from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.core.table_cells import decimal_point, why_spoiled
from tasks.core.text import clean_or_none
from tasks.ingest.label import AgeRange
from tasks.ingest.sheet import SUFFIXES, Record, read_records

_COLUMNS: Mapping[str, re.Pattern[str]] = {
    "picture": re.compile(
        r"(?:image|photo|picture|file|stimulus|asset|face)s?(?:id|no|number|code|name)?"
    ),
    "subject": re.compile(
        r"(?:subject|model|child|participant|person)s?(?:id|no|number|code|name)?"
    ),
    "number": re.compile(r"id|no|number|code|name"),
    "age": re.compile(r"(?:(?:model|child)s?)?ages?(?:in|at)?(?:years|yrs?|y|photo)?|years"),
    "age in months": re.compile(r"(?:(?:model|child)s?)?age(?:in)?(?:months|mos?)|months"),
    "gender": re.compile(r"(?:(?:model|child)s?)?(?:gender|sex)"),
    "race": re.compile(r"(?:(?:model|child)s?)?(?:race|ethnicity|raceethnicity|ethnicgroup)"),
}
WHO: tuple[str, ...] = ("picture", "subject", "number")
_NEEDED = (frozenset(WHO), frozenset(["age", "age in months"]))
_MONTHS_A_YEAR = 12

Value = TypeVar("Value")


@dataclass(frozen=True)
class People:
    """What a table says, by key; keys with two ages have none. `notes`: what was not understood."""

    ages_years: Mapping[str, float]
    genders: Mapping[str, str]
    notes: tuple[str, ...] = ()


NOBODY = People({}, {})


def find_sheets(files: Sequence[str]) -> list[str]:
    """Return the files that can be such a table."""
    return [path for path in files if PurePosixPath(path).suffix.lower() in SUFFIXES]


def read_people(
    folder: Path, sheets: Sequence[str], keys_of: Callable[[Record], list[str]], stated: AgeRange
) -> People:
    """Read the table of people that lies in a data set's folder.

    Parameters
    ----------
    folder
        The data set's folder.
    sheets
        Tables below it; none gives `NOBODY`. Of several, the one that has people and ages is read
        and the others are named in the notes.
    keys_of
        Reads the keys of a record (its picture, its subject); none where it understands neither.
    stated
        The ages that the set states; an age outside is not understood.

    Raises
    ------
    DataError
        One line: two such tables, none among those that are there, or not one row understood.
    """
    found: dict[str, list[Record]] = {}
    faults: list[DataError] = []
    for sheet in sheets:
        try:
            records = read_records(folder / sheet, _COLUMNS, _NEEDED)
            found[sheet] = [_without_missing(record) for record in records]
        except DataError as error:
            faults.append(error)
    if not found and faults:
        raise faults[0]
    if len(found) > 1:
        raise DataError(f"{folder}: {' and '.join(found)} both have ages; leave one of them there")
    if not found:
        return NOBODY
    (sheet, records) = next(iter(found.items()))
    people = _people(folder / sheet, records, keys_of, stated)
    unused = tuple(f"{other}: not used" for other in sheets if other != sheet)
    return People(people.ages_years, people.genders, (*people.notes, *unused))


def _without_missing(record: Record) -> Record:
    """Return a record of clean cells, "" for one that is missing."""
    cells = {name: clean_or_none(cell) or "" for name, cell in record.cells.items()}
    return Record(record.number, cells)


def _people(
    path: Path, records: list[Record], keys_of: Callable[[Record], list[str]], stated: AgeRange
) -> People:
    ages: dict[str, set[float]] = defaultdict(set)
    genders: dict[str, set[str]] = defaultdict(set)
    strange: list[str] = []
    for record in records:
        keys, age_years = keys_of(record), _age_years(record, stated)
        if isinstance(age_years, str) or not keys:
            who = ", ".join(cell for name in WHO if (cell := record.cells[name]))
            why = age_years if isinstance(age_years, str) else f"who is '{who}'"
            strange.append(f"row {record.number}: {why}")
            continue
        gender = GENDER_WORDS.get(record.cells["gender"].casefold(), UNKNOWN)
        for key in keys:
            ages[key] |= set() if age_years is None else {age_years}
            genders[key] |= {gender} - {UNKNOWN}
    n_rows = len(records)
    if len(strange) == n_rows:
        example = strange[0] if strange else "it has none"
        raise DataError(f"{path}: none of its {n_rows} rows was understood ({example})")
    return People(_single(ages), _single(genders), _notes(path.name, n_rows, strange, ages))


def _notes(
    sheet: str, n_rows: int, strange: Sequence[str], ages: Mapping[str, set[float]]
) -> tuple[str, ...]:
    notes = []
    if strange:
        notes.append(f"{sheet}: {len(strange)} of {n_rows} rows not understood ({strange[0]})")
    if torn := sorted(key for key, found in ages.items() if len(found) > 1):
        notes.append(f"{sheet}: {len(torn)} with several ages, taken as unknown ({torn[0]})")
    return tuple(notes)


def _age_years(record: Record, stated: AgeRange) -> float | str | None:
    """Return the age, None where the cell says that there is none, or why it is no age."""
    in_months = not record.cells["age"]
    text = record.cells["age in months"] if in_months else record.cells["age"]
    if not text:
        return None
    try:
        # An age has no thousands: a comma in it is a decimal comma.
        age_years = float(decimal_point(text, ";")) / (_MONTHS_A_YEAR if in_months else 1)
    except ValueError:
        return f"age {why_spoiled(text, in_ids=False) or repr(text)}"
    if not stated.from_years <= age_years < stated.to_years:
        return f"age '{text}', where the set states {stated.words} years"
    return age_years


def _single(values: Mapping[str, set[Value]]) -> dict[str, Value]:
    return {key: next(iter(found)) for key, found in values.items() if len(found) == 1}
