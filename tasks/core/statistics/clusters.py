"""Images clustered by subject: sums per subject, effective sample size, unknown subjects.

A selection of images is a column of zeros and ones. Hundreds of groups are one sparse matrix, so
that a table costs one product and not a loop over groups.

An image with a blank `subject_id` does not count as a subject: ten images of one child would count
as ten children (simulated false alarm rates: .24 to .51 with all ids missing, .11 to .17 with a
third missing). A share is computed from all images, but its variance from known subjects only. A
difference is computed from images of known subjects only.
"""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

Values: TypeAlias = np.ndarray | sparse.csr_array  # one row per image, one column per quantity
NOBODY_KNOWN = (
    "not tested: who is in the images is not known (give subject_id, or say that every image shows "
    "another person)"
)
MOST_UNKNOWN = 1 / 3  # of a side's images; with more, the known ones may not be representative
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
    """The subjects of some images.

    `subject` has one value per image; only equality of the values matters.
    """

    def __init__(self, subject: pd.Series) -> None:
        self.codes, names = pd.factorize(subject)
        self.people = len(names)

    def by_person(self, values: Values) -> Any:
        """Sum `(n, k)` values over each subject's images: `(people, k)`, sparse like the input.

        Subjects are in the order of their first image.
        """
        n = len(self.codes)
        indicator = sparse.csr_array((np.ones(n), (self.codes, np.arange(n))), (self.people, n))
        return indicator @ (values if sparse.issparse(values) else np.asarray(values, dtype=float))

    def count(self, members: sparse.csr_array) -> np.ndarray:
        """Count the subjects in each selection: `(n, k)` zeros and ones in, `(k,)` integers out."""
        columns = self.by_person(members).nonzero()[1]
        return np.bincount(columns, minlength=members.shape[1])


def effective(images: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the effective number of subjects of each selection; 0 for an empty one.

    It is the number of subjects with equally many images that would be as informative (L. Kish
    1965, Survey Sampling, section 11.7). One subject with half of the images leaves fewer than four
    effective subjects, however many others there are.

    Parameters
    ----------
    images, squares
        `(k,)` sums over subjects: of their image counts, and of the squares of these.
    """
    images, squares = np.asarray(images, dtype=float), np.asarray(squares, dtype=float)
    return np.asarray(np.divide(images**2, squares, out=np.zeros_like(images), where=squares > 0))


def whole(sums: np.ndarray) -> np.ndarray:
    """Round sums of zeros and ones, which are stored as floats, to int64."""
    integers: np.ndarray = np.rint(np.asarray(sums)).astype(np.int64)
    return integers


def independent_images(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with one known subject per image, named by `image_id`.

    For callers who know that no two images show the same person. All statistics then treat images
    as independent.
    """
    return table.assign(subject_id=table["image_id"].astype("str"), subject_known=True)


def known_subjects(judged: pd.DataFrame) -> pd.DataFrame:
    """Return the images of known subjects, or all images if no subject is known.

    A table without the column `subject_known` has known subjects only.
    """
    known = _known(judged)
    return judged[known] if known.any() else judged


def without_verdicts(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Blank limits and p-values where too few subjects are known, and note it in `method`.

    Parameters
    ----------
    table
        Computed from `known_subjects(judged)`: one row per figure, with `model, protocol, method`.
    judged
        One row per model, protocol and image.
    """
    table = table.astype({"method": object})
    ends = ("p_value", "p_adjusted")
    verdicts = [name for name in map(str, table.columns) if "ci_" in name or name.endswith(ends)]
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        unknown = ~_known(part)
        rows = (table["model"] == model) & (table["protocol"] == protocol)
        if not unknown.any() or not rows.any():
            continue
        if unknown.mean() > MOST_UNKNOWN:
            table.loc[rows, verdicts] = float("nan")
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
