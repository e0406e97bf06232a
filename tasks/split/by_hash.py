"""Draws each subject's split from a hash of the seed and the subject, and of nothing else.

So a subject keeps its split whatever is added, removed or reordered; see
docs/decisions/0001-split-by-hash.md for what that costs in balance.
"""

from collections.abc import Mapping
from hashlib import sha256

import pandas as pd

from tasks.core.tables import current_subjects


def draw(seed: int, key: str) -> float:
    """Return a number in [0, 1), even over keys and the same on every machine."""
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)  # what a float holds exactly


def split_of(seed: int, key: str, parts: Mapping[str, float]) -> str:
    """Choose a split for a key with probabilities in proportion to the parts."""
    left = draw(seed, key) * sum(parts.values())
    for name, part in parts.items():
        if left < part:
            return name
        left -= part
    return list(parts)[-1]  # a rounding error beyond the last boundary


def assign_splits(
    pictures: pd.DataFrame, seed: int, by_subject: bool, parts: Mapping[str, float]
) -> "pd.Series[str]":
    """Choose every picture's split.

    Parameters
    ----------
    pictures
        One row per picture: `image_id`, `subject_id` and `subject_known`. However an id is spelled
        (see `current_subjects`), the split is that of today's spelling.
    seed
        Another seed is another split.
    by_subject
        Whether pictures of a known subject stay together; a picture of an unknown one, and with
        False every picture, is drawn for itself.
    parts
        Split name to its relative size, in the order in which [0, 1) is cut up.

    Returns
    -------
    Series
        Split names on the table's index.
    """
    pictures = current_subjects(pictures)
    keys = pictures["image_id"]
    if by_subject:
        keys = keys.mask(pictures["subject_known"].astype(bool), pictures["subject_id"])
    splits = {key: split_of(seed, key, parts) for key in keys.unique()}
    return keys.map(splits)
