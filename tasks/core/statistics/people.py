"""Who stands behind the pictures: sums over each person's pictures, and how many people there are.

A selection of pictures is a column of zeros and ones. Hundreds of groups are one sparse matrix, so
that a table costs one product and not a loop over groups.
"""

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from scipy import sparse

Values: TypeAlias = (
    np.ndarray | sparse.csr_array
)  # one row a picture, a column a selection or a figure


class People:
    """The people of some pictures.

    Parameters
    ----------
    subject
        `(n,)` who is in each picture; order and values decide nothing but who is the same.
    """

    def __init__(self, subject: pd.Series) -> None:
        self.codes, names = pd.factorize(subject)
        self.people = len(names)

    def by_person(self, values: Values) -> Any:
        """Sum columns over each person's pictures: `(n, k)` in, `(people, k)` out, sparse as given.

        The people come in the order in which `subject` names them first.
        """
        n = len(self.codes)
        own = sparse.csr_array((np.ones(n), (self.codes, np.arange(n))), (self.people, n))
        return own @ (values if sparse.issparse(values) else np.asarray(values, dtype=float))

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
