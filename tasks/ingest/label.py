"""Labels and faults that an adapter returns for the files of a data set."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tasks.core.errors import DataError
from tasks.core.labels import GENDER_WORDS, UNKNOWN
from tasks.core.text import clean, clean_or_none, is_missing, printable

# A data set's name is a folder's name, a column's value and a command's argument.
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

_OPTIONAL = ("subject", "age_band", "ethnicity", "gaze", "mouth", "pose")  # None where missing
_TEXT = ("emotion_raw", "batch")
_LIFESPAN_YEARS = 123  # the highest recorded age


class AgeRange(NamedTuple):
    """A range of ages, `[from_years, to_years)`, and its name in the data set."""

    from_years: float
    to_years: float
    words: str


def age_range(youngest: int, oldest: int | None, words: str | None = None) -> AgeRange:
    """Return the range of ages in completed years, both included; `oldest` None: no upper end."""
    to_years = _LIFESPAN_YEARS if oldest is None else oldest + 1
    default = f"{youngest}+" if oldest is None else f"{youngest}-{oldest}"
    return AgeRange(float(youngest), float(to_years), words or default)


@dataclass(frozen=True, slots=True)
class Label:
    """The labels of one image; None where unknown.

    Every text is cleaned here (see `tasks.core.text`): spellings that look alike become one value,
    and words for missing values become None, except in `emotion_raw` and `batch`.

    Attributes
    ----------
    emotion
        One of `labels.EMOTIONS`; None in a data set without emotions.
    emotion_raw
        The label as the data set writes it; "" without one.
    subject
        The subject's ID within the data set.
    age_band
        Name of the band where a data set records bands instead of years.
    age_range
        The range where a data set states one instead of years; it becomes a band only if it lies
        entirely in one.
    age_source
        One of `labels.AGE_SOURCES`; None without an age.
    gender
        As recorded by the data set: female, male or unknown.
    ethnicity, gaze, mouth, pose
        In the data set's words.
    batch
        Name of the delivery that contained the image, or "".
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
    """Why a file has no row in the manifest: a reason from a fixed list, and a detail."""

    reason: str
    detail: str


@dataclass(frozen=True)
class AdapterResult:
    """Result of an adapter, by path below the folder.

    Attributes
    ----------
    labels
        The label or fault of every file except side files.
    side_files
        Files that describe the images.
    missing
        Files that a side file lists but the folder lacks.
    notes
        One line for each part of a side file that was not understood and is ignored.
    """

    labels: dict[str, Label | Fault]
    side_files: frozenset[str] = frozenset()
    missing: dict[str, Fault] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def base_name(path: str) -> str:
    """Return the cleaned last part of a path, for parsing; it may differ from the name on disk."""
    return clean(path.rsplit("/", 1)[-1])


def unreadable(form: str) -> Fault:
    """Return the fault of a name that cannot be parsed; `form` is an example of a valid name."""
    return Fault("unreadable_name", f"not of the form {form}")


def parse_age(text: str, where: str) -> float | None:
    """Parse an age in years; None for a missing value (see `tasks.core.text`).

    Raises DataError, with the location `where`, for anything else.
    """
    if is_missing(text):
        return None
    try:
        age_years = float(clean(text))
    except ValueError:
        age_years = -1.0
    if not 0 <= age_years < 200:
        raise DataError(
            f"{where}: age '{text}' is not a number of years; leave it empty if unknown"
        )
    return age_years


def parse_gender(text: str, where: str) -> str:
    """Parse a recorded gender, "unknown" where it is missing; DataError for an unknown word."""
    try:
        return UNKNOWN if is_missing(text) else GENDER_WORDS[clean(text).casefold()]
    except KeyError:
        raise DataError(f"{where}: gender '{text}'; write female, male or unknown") from None


def printable_path(path: Path | str) -> str:
    r"""Return a path as printable UTF-8, with other bytes and control characters as `\xNN`."""
    text = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(text)
