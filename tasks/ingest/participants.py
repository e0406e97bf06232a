"""A data set's table of participants, with their ages and recorded genders.

Rows are matched by a key that the adapter reads from a cell: a subject's code or an image's name.
Rows that are not understood are reported in one line, and the ages stay unknown.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tasks.core.errors import DataError
from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.core.spreadsheets.cells import decimal_point, why_spoiled
from tasks.core.text import clean_or_none
from tasks.ingest.label import AgeRange
from tasks.ingest.spreadsheet import SUFFIXES, Record, read_records

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
_MONTHS_PER_YEAR = 12

Value = TypeVar("Value")


@dataclass(frozen=True)
class Participants:
    """Ages and genders by key, without ambiguous ones; `notes` lists what was not understood."""

    ages_years: Mapping[str, float]
    genders: Mapping[str, str]
    notes: tuple[str, ...] = ()


NO_PARTICIPANTS = Participants({}, {})


def find_spreadsheets(files: Sequence[str]) -> list[str]:
    """Return the files that can be a table of participants."""
    return [path for path in files if PurePosixPath(path).suffix.lower() in SUFFIXES]


def read_participants(
    folder: Path, sheets: Sequence[str], keys_of: Callable[[Record], list[str]], stated: AgeRange
) -> Participants:
    """Read the table of participants in a data set's folder.

    Parameters
    ----------
    sheets
        Tables below the folder; without any, the result is `NOBODY`. The one with participants and
        ages is read; the notes list the others.
    keys_of
        Returns the keys of a record (image, subject); none where it understands neither.
    stated
        The ages that the data set states; ages outside are not understood.

    Raises
    ------
    DataError
        For two such tables, none among `sheets`, or a table without a row that is understood.
    """
    tables: dict[str, list[Record]] = {}
    faults: list[DataError] = []
    for sheet in sheets:
        try:
            records = read_records(folder / sheet, _COLUMNS, _NEEDED)
            tables[sheet] = [_without_missing(record) for record in records]
        except DataError as error:
            faults.append(error)
    if not tables and faults:
        raise faults[0]
    if len(tables) > 1:
        raise DataError(f"{folder}: {' and '.join(tables)} both have ages; remove all but one")
    if not tables:
        return NO_PARTICIPANTS
    (sheet, records) = next(iter(tables.items()))
    people = _people(folder / sheet, records, keys_of, stated)
    unused = tuple(f"{other}: not used" for other in sheets if other != sheet)
    return Participants(people.ages_years, people.genders, (*people.notes, *unused))


def _without_missing(record: Record) -> Record:
    """Return a record with clean cells, "" for missing values."""
    cells = {name: clean_or_none(cell) or "" for name, cell in record.cells.items()}
    return Record(record.number, cells)


def _people(
    path: Path, records: list[Record], keys_of: Callable[[Record], list[str]], stated: AgeRange
) -> Participants:
    ages: dict[str, set[float]] = defaultdict(set)
    genders: dict[str, set[str]] = defaultdict(set)
    rejected: list[str] = []
    for record in records:
        keys, age_years = keys_of(record), _age_years(record, stated)
        if isinstance(age_years, str) or not keys:
            who = ", ".join(cell for name in WHO if (cell := record.cells[name]))
            reason = age_years if isinstance(age_years, str) else f"who is '{who}'"
            rejected.append(f"row {record.number}: {reason}")
            continue
        gender = GENDER_WORDS.get(record.cells["gender"].casefold(), UNKNOWN)
        for key in keys:
            ages[key] |= set() if age_years is None else {age_years}
            genders[key] |= {gender} - {UNKNOWN}
    n_rows = len(records)
    if len(rejected) == n_rows:
        example = rejected[0] if rejected else "it has none"
        raise DataError(f"{path}: none of its {n_rows} rows was understood ({example})")
    return Participants(_unique(ages), _unique(genders), _notes(path.name, n_rows, rejected, ages))


def _notes(
    sheet: str, n_rows: int, rejected: Sequence[str], ages: Mapping[str, set[float]]
) -> tuple[str, ...]:
    notes = []
    if rejected:
        notes.append(f"{sheet}: {len(rejected)} of {n_rows} rows not understood ({rejected[0]})")
    if ambiguous := sorted(key for key, values in ages.items() if len(values) > 1):
        notes.append(
            f"{sheet}: {len(ambiguous)} with several ages, taken as unknown ({ambiguous[0]})"
        )
    return tuple(notes)


def _age_years(record: Record, stated: AgeRange) -> float | str | None:
    """Return the age, None where it is missing, or the reason why it is invalid."""
    in_months = not record.cells["age"]
    text = record.cells["age in months"] if in_months else record.cells["age"]
    if not text:
        return None
    try:
        # Ages have no thousands separators: any comma is a decimal comma.
        age_years = float(decimal_point(text, ";")) / (_MONTHS_PER_YEAR if in_months else 1)
    except ValueError:
        return f"age {why_spoiled(text, in_ids=False) or repr(text)}"
    if not stated.from_years <= age_years < stated.to_years:
        return f"age '{text}', where the set states {stated.words} years"
    return age_years


def _unique(values: Mapping[str, set[Value]]) -> dict[str, Value]:
    return {key: next(iter(some)) for key, some in values.items() if len(some) == 1}
