"""Recall of many groups at once, with intervals clustered by subject.

The variance of a share is that of its subjects' influences, with the bias correction CR2 of R. M.
Bell and D. F. McCaffrey (2002), Surv. Methodol. 28, 169-181: a subject with many of the images
pulls the share towards itself, which makes its own deviation look small. The degrees of freedom are
the effective subjects minus one. Near 0 or 1 a few subjects show too little variance, so half a
correct and half a wrong subject are added. The interval is built on the log-odds scale with
Student's t (E. L. Korn, B. I. Graubard 1998, Surv. Methodol. 24, 193-201). It is never wider than
the Wilson interval of as many effective subjects, which holds if all images of a subject agree.
Simulated coverage of a nominal 95 % interval (`benchmarks/error_rates.py --part recalls`): .93 to
.99.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit, logit
from scipy.stats import t
from statsmodels.stats.proportion import proportion_confint

from tasks.core.statistics.clusters import (
    SHARE_NOBODY_KNOWN,
    SHARE_SOME_UNKNOWN,
    People,
    effective,
    whole,
)

WILSON_UNKNOWN = (
    "Wilson score interval; who is on the pictures is not known, so each counts as a person of its "
    "own (likely too narrow)"
)
WILSON_PEOPLE = (
    "Wilson score interval with each person counted once (all or none correct, or one person)"
)
CLUSTERED = "cluster variance by subject, on the scale of log-odds, with Student's t"
WILSON_EFFECTIVE = (
    "Wilson score interval of the effective subjects (all or none correct, or too few subjects "
    "to show how they vary)"
)
_ROUNDING = 1e-12  # variances up to this are 0
_PSEUDO = 0.5  # correct subjects, and as many wrong ones, that smooth a variance


def wilson(count: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval (low, high) of `count` successes in `n > 0` trials.

    E. B. Wilson (1927), J. Am. Stat. Assoc. 22, 209. Trials count as independent: with several
    images per subject the interval is likely too narrow.
    """
    low, high = proportion_confint(
        np.asarray(count, dtype=float), np.asarray(n, dtype=float), 1 - confidence, "wilson"
    )
    # Rounding leaves 1e-17 where the limit is 0 or 1 exactly.
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def recalls(
    sampled: People,
    members: sparse.csr_array,
    correct: np.ndarray,
    known: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return recall with its interval for every group.

    Parameters
    ----------
    members
        `(images, k)` zeros and ones: which image is in which group; no group is empty.
    correct, known
        `(images,)` booleans: whether the answer is correct, and whether the subject is known.

    Returns
    -------
    pandas.DataFrame
        `(k, 12)`: `n, correct, recall, ci_low, ci_high, subjects, method, effective_subjects,
        n_unknown, recall_per_subject, per_subject_ci_low, per_subject_ci_high`. `recall` counts all
        images of the group. Its variance comes from the images of known subjects; without any, the
        interval is that of one subject. `subjects` counts known subjects. `recall_per_subject` is
        the mean of the known subjects' recalls; NaN without known subjects.
    """
    return shares(sampled, members, selected(members, correct), known, confidence)


def shares(
    sampled: People,
    members: sparse.csr_array,
    hits: sparse.csr_array,
    known: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return the share of hits among each group's images; see `recalls`.

    `hits` has `(images, k)` zeros and ones: the rule for a hit may differ by group.
    """
    n, n_hits = np.asarray(members.sum(axis=0)), np.asarray(hits.sum(axis=0))
    share, weights = n_hits / n, np.asarray(known, dtype=float)
    sums = BySubject.of(sampled, selected(members, weights), selected(hits, weights))
    low, high, clustered = sums.limits(share, confidence)
    method = np.where(clustered, CLUSTERED, WILSON_EFFECTIVE).astype(object)
    subjects, known_n = sums.total(np.ones(len(sums.column))), sums.total(sums.images)
    some_unknown = (known_n > 0) & (known_n < n)
    method[some_unknown] = method[some_unknown] + SHARE_SOME_UNKNOWN
    method[known_n == 0] = SHARE_NOBODY_KNOWN
    figures = {"n": whole(n), "correct": whole(n_hits), "recall": share}
    limits = {"ci_low": low, "ci_high": high}
    counts = {"effective_subjects": sums.effective, "n_unknown": whole(n - known_n)}
    return pd.DataFrame(
        {**figures, **limits, "subjects": whole(subjects), "method": method, **counts}
        | sums.per_subject(confidence)
    )


@dataclass(frozen=True)
class BySubject:
    """Counts of images and hits per subject and group, in coordinate format without zeros.

    `subject` and `column` are the coordinates, `(m,)` each; `k` is the number of groups.
    """

    subject: np.ndarray
    column: np.ndarray
    images: np.ndarray
    hits: np.ndarray
    k: int

    @classmethod
    def of(cls, people: People, members: sparse.csr_array, hits: sparse.csr_array) -> "BySubject":
        """Sum zeros and ones over each subject's images."""
        # Hits are the imaginary part, so that both sums have the same coordinates.
        sums = sparse.coo_array(people.by_person(members + 1j * hits))
        mask = sums.data.real > 0
        data = sums.data[mask]
        subject, column = (coordinate[mask] for coordinate in sums.coords)
        return cls(subject, column, data.real, data.imag, members.shape[1])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum `(m,)` values over each group, `(k,)`."""
        return np.bincount(self.column, weights=values, minlength=self.k)

    @property
    def effective(self) -> np.ndarray:
        """Effective number of subjects of each group; 0 without known subjects."""
        return effective(self.total(self.images), self.total(self.images**2))

    def per_subject(self, confidence: float) -> dict[str, np.ndarray]:
        """Return the mean of the subjects' shares, and its interval."""
        one, share = np.ones_like(self.images), self.hits / self.images
        each = BySubject(self.subject, self.column, one, share, self.k)
        subjects = each.total(each.images)
        out = np.full(self.k, np.nan)
        mean = np.divide(each.total(each.hits), subjects, out=out, where=subjects > 0)
        mean = np.clip(mean, 0.0, 1.0)
        low, high, _ = each.limits(mean, confidence)
        return {
            "recall_per_subject": mean,
            "per_subject_ci_low": np.where(subjects > 0, low, np.nan),
            "per_subject_ci_high": np.where(subjects > 0, high, np.nan),
        }

    def limits(
        self, share: np.ndarray, confidence: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the intervals of `(k,)` shares; see `share_limits`."""
        return share_limits(share, self.variance(), self.effective, confidence)

    def variance(self) -> np.ndarray:
        """Return the cluster variance (CR2) of each group's share, `(k,)`."""
        return self.total(self.influence() ** 2)

    def influence(self) -> np.ndarray:
        """Return each subject's influence on its group's share, with the CR2 correction."""
        images = np.maximum(self.total(self.images), 1.0)
        share = self.total(self.hits) / images
        weight = self.images / images[self.column]
        residual = (self.hits - self.images * share[self.column]) / images[self.column]
        # A single subject has no variance.
        return np.asarray(residual / np.sqrt(np.where(weight < 1, 1 - weight, 1.0)))


def share_limits(
    share: np.ndarray, variance: np.ndarray, effective_subjects: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (low, high, clustered) of shares with their cluster variance, `(k,)` each.

    `clustered` is True where the variance between subjects determined the interval, False where it
    is the Wilson interval. The share lies in its interval.
    """
    subjects = np.maximum(effective_subjects, 1.0)
    share_or_half = np.where(np.isfinite(share), share, 0.5)
    low, high = wilson(share_or_half * subjects, subjects, confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = share * (1 - share)
        smooth = (share * subjects + _PSEUDO) / (subjects + 2 * _PSEUDO)
        clustered = (subjects > 1 + _ROUNDING) & (variance > _ROUNDING) & (inside > 0)
        error = np.sqrt(variance * smooth * (1 - smooth) / inside) / inside
        reach = t.ppf((1 + confidence) / 2, np.maximum(subjects - 1, 1)) * error
        narrow = expit(logit(share) - reach), expit(logit(share) + reach)
    clustered &= (narrow[0] > low) | (narrow[1] < high)
    low = np.where(clustered, np.maximum(low, narrow[0]), low)
    high = np.where(clustered, np.minimum(high, narrow[1]), high)
    # Log-odds that overflow are 0 or 1; rounding must not put the share outside its interval.
    return np.fmin(low, share), np.fmax(high, share), clustered


def selected(members: sparse.csr_array, which: np.ndarray) -> sparse.csr_array:
    """Zero the rows of images for which `which`, `(images,)` booleans, is False."""
    return sparse.csr_array(sparse.diags_array(which.astype(float)) @ members)
