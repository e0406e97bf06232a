"""Ledger of looks at the test split: study/test_looks.csv, one row per winner and test images.

The first test figure of a study took no part in any choice. Whoever reads it, changes the study and
asks again chooses by test images, a little more each time. So each look is written down, and the
intervals share their error: look k gets 6 / (pi^2 k^2) of it, which adds up to all of it over any
number of looks (the spending of error over a sequence of tests, as in D. P. Foster and R. A. Stine
2008, J. R. Stat. Soc. B 70, 429-444). The intervals of all looks then hold together at the level of
the settings.

The file is no output of DVC, which removes outputs before it makes them again; git keeps it with
the study. Rows are only added. The same models asked about the same images are the same look.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from tasks.core.errors import DataError
from tasks.core.tables import read_csv, write_csv

LOOKS = "study/test_looks.csv"
_DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Look:
    """One look at test images.

    Attributes
    ----------
    look
        Its number in the ledger, from 1.
    at
        When, in UTC.
    winner
        Keys of the runs whose models were asked.
    models, images
        Digests of these models' weights, and of the test images with their labels.
    pictures, people
        How many test images, and of how many subjects.
    mean_recall
        What was found; NaN before it is known.
    """

    look: int
    at: str
    winner: str
    models: str
    images: str
    pictures: int
    people: int
    mean_recall: float


_WORDS = ("at", "winner", "models", "images")


def digest(parts: Iterable[str]) -> str:
    """Digest texts, whatever their order."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:_DIGEST_LENGTH]


def images_digest(pictures: pd.DataFrame) -> str:
    """Digest test images by `image_id` and `emotion`."""
    return digest(pictures["image_id"].astype(str) + " " + pictures["emotion"].astype(str))


def read_looks(path: Path) -> list[Look]:
    """Read the ledger; none where there is no file yet.

    Raises
    ------
    DataError
        One line for a file that is no such ledger.
    """
    if not path.is_file():
        return []
    names = [field.name for field in fields(Look)]
    try:
        table = read_csv(path, dtype=dict.fromkeys(_WORDS, "str"), keep_default_na=False)
        rows = [Look(**dict(zip(names, row, strict=True))) for row in _rows(table[names])]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}); restore it from git") from None
    if [look.look for look in rows] != list(range(1, len(rows) + 1)):
        raise DataError(f"{path}: looks are missing or changed; restore it from git")
    return rows


def _rows(table: pd.DataFrame) -> Iterable[tuple[object, ...]]:
    numbers = {"look": int, "pictures": int, "people": int, "mean_recall": float}
    return table.astype(numbers).itertuples(index=False, name=None)


def number_of(looks: Sequence[Look], models: str, images: str) -> int:
    """Return which look it is to ask these models about these images: an earlier one, or a new."""
    same = (look.look for look in looks if (look.models, look.images) == (models, images))
    return next(same, len(looks) + 1)


def add_look(path: Path, look: Look) -> None:
    """Write a look at the end of the ledger, unless it is there already."""
    looks = read_looks(path)
    if number_of(looks, look.models, look.images) <= len(looks):
        return
    write_csv(pd.DataFrame([asdict(each) for each in (*looks, look)]), path)


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def level_of(look: int, confidence: float) -> float:
    """Return the level of a look's intervals, so that those of all looks hold at `confidence`."""
    return 1 - (1 - confidence) * 6 / (math.pi * look) ** 2


def level_words(look: int, confidence: float) -> str:
    """Describe a look's level, for the column `method`."""
    return (
        f"; look {look} at test images: each interval has the level "
        f"{100 * level_of(look, confidence):.2f} %, so that those of all looks together hold at "
        f"{100 * confidence:g} %"
    )
