"""Recall of many groups at once, each with an interval that counts people and not pictures."""

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.intervals import WILSON_PEOPLE, WILSON_UNKNOWN, wilson
from tasks.core.statistics.people import whole
from tasks.core.statistics.resample import Resampled, ratio, share_interval
from tasks.core.statistics.unknown_people import SOME_UNKNOWN

BOOTSTRAP = "cluster bootstrap by subject, on the scale of log-odds, with Student's t"


def recalls(
    sampled: Resampled,
    members: sparse.csr_array,
    correct: np.ndarray,
    known: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return recall with its interval for every group.

    Parameters
    ----------
    sampled
        The people of the pictures, drawn again and again.
    members
        `(pictures, k)` zeros and ones: which picture is in which group; no group is empty.
    correct
        `(pictures,)` booleans.
    known
        `(pictures,)` booleans: whether it is known who is in the picture.
    confidence
        Level of the intervals.

    Returns
    -------
    pandas.DataFrame
        `(k, 7)`: `n, correct, recall, ci_low, ci_high, subjects, method`. The interval is the
        cluster bootstrap's where anybody of the group is known, otherwise Wilson's.
    """
    return shares(sampled, members, selected(members, correct), known, confidence)


def shares(
    sampled: Resampled,
    members: sparse.csr_array,
    hits: sparse.csr_array,
    known: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return the share of each group's pictures that counts, such as those read right.

    Parameters
    ----------
    hits
        `(pictures, k)` zeros and ones: which of the `members` count, another rule for each group.
    sampled, members, known, confidence
        As in `recalls`, and so is what is returned.
    """
    n, right = np.asarray(members.sum(axis=0)), np.asarray(hits.sum(axis=0))
    subjects, share = sampled.count(members), right / n
    low, high = wilson(right, n, confidence)
    known_n = np.asarray(known.astype(float) @ members)
    method = np.where(known_n > 0, WILSON_PEOPLE, WILSON_UNKNOWN).astype(object)
    for place in sampled.blocks(np.flatnonzero(known_n > 0), 2):
        draws = ratio(sampled.sums(hits[:, place]), sampled.sums(members[:, place]))
        low[place], high[place], drawn = share_interval(
            share[place], draws, subjects[place], confidence
        )
        method[place[drawn]] = BOOTSTRAP
    some = (known_n > 0) & (known_n < n)
    method[some] = method[some] + SOME_UNKNOWN
    figures = {"n": whole(n), "correct": whole(right), "recall": share}
    limits = {"ci_low": low, "ci_high": high}
    return pd.DataFrame({**figures, **limits, "subjects": subjects, "method": method})


def selected(members: sparse.csr_array, which: np.ndarray) -> sparse.csr_array:
    """Keep the pictures for which `which` is True, `(pictures,)` booleans."""
    return sparse.csr_array(sparse.diags_array(which.astype(float)) @ members)
