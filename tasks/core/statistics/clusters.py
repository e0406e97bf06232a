"""Subjects behind the images: sums per subject, how many there are, and images of unknown subjects.

A selection of images is a column of zeros and ones. Hundreds of groups are one sparse matrix, so
that a table costs one product and not a loop over groups.

A blank `subject_id` is no subject of its own: ten images of one child would count as ten children
(simulated: false alarms of .24 to .51 where all ids are missing, .11 to .17 with a third of them).
A share is still one over all images, but how much it varies is told by known subjects alone; a
difference rests on images of known subjects.
"""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

Values: TypeAlias = (
    np.ndarray | sparse.csr_array
)  # one row per image, a column per selection or a figure
NOBODY_KNOWN = (
    "not tested: who is in the images is not known (give subject_id, or say that every image shows "
    "another person)"
)
MOST_UNKNOWN = 1 / 3  # of a side's images; with more, those who are left may not stand for the rest
TOO_MANY_UNKNOWN = (
    "not tested: of more than a third of the images on a side it is not known who is in them; "
    "figures are of the others"
)
SHARE_NOBODY_KNOWN = (
    "Wilson score interval of one person, because who is in the images is not known; give "
    "subject_id, or say that every image shows another person"
)
SHARE_SOME_UNKNOWN = "; how people vary is told by the images whose subject is known"


class People:
    """The people of some images.

    Parameters
    ----------
    subject
        `(n,)` who is in each image; order and values decide nothing but who is the same.
    """

    def __init__(self, subject: pd.Series) -> None:
        self.codes, names = pd.factorize(subject)
        self.people = len(names)

    def by_person(self, values: Values) -> Any:
        """Sum columns over each person's images: `(n, k)` in, `(people, k)` out, sparse as given.

        The people come in the order in which `subject` names them first.
        """
        n = len(self.codes)
        indicator = sparse.csr_array((np.ones(n), (self.codes, np.arange(n))), (self.people, n))
        return indicator @ (values if sparse.issparse(values) else np.asarray(values, dtype=float))

    def count(self, members: sparse.csr_array) -> np.ndarray:
        """Count the people in each selection: `(n, k)` zeros and ones in, `(k,)` integers out."""
        people = self.by_person(members).nonzero()[1]
        return np.bincount(people, minlength=members.shape[1])


def effective(images: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return how many subjects with equal numbers of images would tell as much.

    Parameters
    ----------
    images, squares
        `(k,)` sums over the subjects of each selection: of their images, and of the squares of
        these. 0 where nobody is in the selection.

    Notes
    -----
    L. Kish (1965), Survey Sampling, section 11.7: one person with half of the images leaves less
    than four effective subjects, however many others there are.
    """
    images, squares = np.asarray(images, dtype=float), np.asarray(squares, dtype=float)
    return np.asarray(np.divide(images**2, squares, out=np.zeros_like(images), where=squares > 0))


def whole(sums: np.ndarray) -> np.ndarray:
    """Turn sums of zeros and ones, which are kept as floats, into integers."""
    integers: np.ndarray = np.rint(np.asarray(sums)).astype(np.int64)
    return integers


def independent_images(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with every image as a known person of its own.

    For callers who know that no two images show the same person, such as a collection with one
    image per person and no ids. Everything in the project then treats images as independent.

    Parameters
    ----------
    table
        One row per image, with `image_id`.
    """
    return table.assign(subject_id=table["image_id"].astype("str"), subject_known=True)


def known_subjects(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the images of known subjects; all of them where nobody is known.

    Parameters
    ----------
    judged
        One row per image; `subject_known` (booleans) where there is one, else all are known.
    """
    known = _known(judged)
    return judged[known] if known.any() else judged


def without_verdicts(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Take the limits and p-values out of a table where too few subjects are known, and say it.

    Parameters
    ----------
    table
        Made of `known_subjects(judged)`: one row per figure, with `model, protocol, method`.
    judged
        One row per model, protocol and image.
    """
    table = table.astype({"method": object})
    ends = ("p_value", "p_adjusted")
    unsure = [name for name in map(str, table.columns) if "ci_" in name or name.endswith(ends)]
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        unknown = ~_known(part)
        rows = (table["model"] == model) & (table["protocol"] == protocol)
        if not unknown.any() or not rows.any():
            continue
        if unknown.mean() > MOST_UNKNOWN:
            table.loc[rows, unsure] = float("nan")
            note = NOBODY_KNOWN if unknown.all() else TOO_MANY_UNKNOWN
        else:
            note = f"{int(unknown.sum())} images of unknown subjects are left out"
        table.loc[rows, "method"] = [
            f"{text}; {note}" if isinstance(text, str) and text else note
            for text in table.loc[rows, "method"]
        ]
    return table


def _known(part: pd.DataFrame) -> "pd.Series[bool]":
    if "subject_known" not in part.columns:
        return pd.Series(True, index=part.index)
    return part["subject_known"].astype(bool)
