"""What an adapter says of each file of a data set: labels, or why there are none."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.core.text import clean, clean_or_none, is_missing, printable

# A data set's name is a folder's name, a column's value and a command's argument.
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

# Of a label: values that may be missing, and text that is there in any case.
_OPTIONAL = ("subject", "age_band", "ethnicity", "gaze", "mouth", "pose")
_TEXT = ("emotion_raw", "batch")
_LIFESPAN_YEARS = 123  # nobody is recorded to have been older


class AgeRange(NamedTuple):
    """An age that is known as a range only: `[from_years, to_years)`, and how the set writes it."""

    from_years: float
    to_years: float
    words: str


def age_range(youngest: int, oldest: int | None, words: str | None = None) -> AgeRange:
    """Make a range from ages in completed years, both included; `oldest` None: no upper end."""
    to_years = _LIFESPAN_YEARS if oldest is None else oldest + 1
    given = f"{youngest}+" if oldest is None else f"{youngest}-{oldest}"
    return AgeRange(float(youngest), float(to_years), words or given)


@dataclass(frozen=True, slots=True)
class Label:
    """The labels of one picture, in the project's words.

    Every text is cleaned here (see `tasks.core.text`), whichever adapter it comes from: spellings
    that look alike are one value, and a word for missing is None. A batch is named by a folder, so
    that its name is never missing.

    Attributes
    ----------
    emotion
        One of `labels.EMOTIONS`; None in a data set that has no emotions.
    emotion_raw
        The label as the data set writes it; "" without one.
    subject
        The person's name within the data set, or None where it is not known.
    age_years
        Age in years, or None where it is not recorded.
    age_band
        The band's name where a data set records bands and no years; else None.
    age_range
        The range where a data set states one and no years; it becomes a band only where the whole
        range lies in one.
    age_source
        One of `labels.AGE_SOURCES`; None without an age.
    gender
        As recorded by the data set: female, male or unknown.
    ethnicity, gaze, mouth, pose
        In the data set's own words, or None.
    batch
        The name of the delivery that the picture came with, or "".
    """

    emotion: str | None
    emotion_raw: str
    subject: str | None = None
    age_years: float | None = None
    age_band: str | None = None
    age_range: AgeRange | None = None
    age_source: str | None = None
    gender: str = "unknown"
    ethnicity: str | None = None
    gaze: str | None = None
    mouth: str | None = None
    pose: str | None = None
    batch: str = ""

    def __post_init__(self) -> None:
        """Clean the texts."""
        for name in _OPTIONAL:
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, clean_or_none(text))
        for name in _TEXT:
            object.__setattr__(self, name, clean(getattr(self, name)))


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file cannot become a row: `reason` is a fixed word, `detail` says more."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Reading:
    """What an adapter made of a folder.

    Attributes
    ----------
    labels
        For every file that is no side file, its labels or its fault; by path below the folder.
    side_files
        Files that describe the pictures and are none themselves.
    missing
        Files that a side file lists and the folder lacks, with what says so.
    notes
        What was not understood in a side file that is used all the same, a line each.
    """

    labels: dict[str, Label | Fault]
    side_files: frozenset[str] = frozenset()
    missing: dict[str, Fault] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def base_name(path: str) -> str:
    """Return the last part of a path below a data set's folder, cleaned: to be read, not opened."""
    return clean(path.rsplit("/", 1)[-1])


def unreadable(form: str) -> Fault:
    """Return the fault of a name that no rule reads; `form` shows a name that one would."""
    return Fault("unreadable_name", f"not of the form {form}")


def parse_age(text: str, where: str) -> float | None:
    """Read an age in years; None for a cell that is missing (see `tasks.core.text`).

    Raises
    ------
    DataError
        One line that names the place, for anything that is no age.
    """
    if is_missing(text):
        return None
    try:
        age_years = float(clean(text))
    except ValueError:
        age_years = -1.0
    if not 0 <= age_years < 200:
        raise DataError(f"{where}: age '{text}' is no number of years; leave it empty if unknown")
    return age_years


def parse_gender(text: str, where: str) -> str:
    """Read a recorded gender, "unknown" where it is missing.

    Raises DataError with one line for a word that is not known.
    """
    try:
        return UNKNOWN if is_missing(text) else GENDER_WORDS[clean(text).casefold()]
    except KeyError:
        raise DataError(f"{where}: gender '{text}'; write female, male or unknown") from None


def shown(path: Path | str) -> str:
    r"""Return a path as printable UTF-8 in one line.

    Bytes of other encodings are shown as `\xNN`, and so are control characters.
    """
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(text)
