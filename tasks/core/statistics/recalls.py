"""Recall of many groups at once, each with an interval that counts people and not images.

The variance of a share is that of its subjects' influences, with the bias correction of R. M. Bell
and D. F. McCaffrey (2002), Surv. Methodol. 28, 169-181 (CR2): a subject with many of the images
pulls the share towards itself and hides how far off it is. Degrees of freedom are the effective
subjects less one. Near 0 or 1 few subjects show too little variance; half a subject that is right
and half a one that is wrong are added to it. The interval is made on the scale of log-odds with
Student's t (E. L. Korn, B. I. Graubard 1998, Surv. Methodol. 24, 193-201) and is never wider than
Wilson's of as many effective subjects, which is what there is if all images of a subject are alike.
Simulated (`benchmarks/error_rates.py --part recalls`): a nominal 95 % interval covers .93 to .99.
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
_STILL = 1e-12  # a variance below is rounding
_PSEUDO = 0.5  # subjects right, and as many wrong, that a variance is smoothed by


def wilson(count: np.ndarray, n: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval of proportions.

    Parameters
    ----------
    count, n
        Successes and trials, `(k,)` integers with `0 <= count <= n` and `n > 0`.
    confidence
        Level, such as 0.95.

    Returns
    -------
    low, high
        `(k,)` float64 each, from 0 to 1.

    Notes
    -----
    E. B. Wilson (1927), J. Am. Stat. Assoc. 22, 209. Trials are taken as independent: with several
    images of one subject the interval is likely too narrow.
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
    sampled
        Who is in the images.
    members
        `(images, k)` zeros and ones: which image is in which group; no group is empty.
    correct
        `(images,)` booleans.
    known
        `(images,)` booleans: whether it is known who is in the image.
    confidence
        Level of the intervals.

    Returns
    -------
    pandas.DataFrame
        `(k, 12)`: `n, correct, recall, ci_low, ci_high, subjects, method, effective_subjects,
        n_unknown, recall_per_subject, per_subject_ci_low, per_subject_ci_high`. `recall` is the
        share of all images of the group; how much it varies is told by the images of known
        subjects. Where nobody is known the interval is that of one person. `subjects` counts known
        people. `recall_per_subject` is the mean of the known subjects' own recalls, each counted
        once; NaN where nobody is known.
    """
    return shares(sampled, members, selected(members, correct), known, confidence)


def shares(
    sampled: People,
    members: sparse.csr_array,
    hits: sparse.csr_array,
    known: np.ndarray,
    confidence: float,
) -> pd.DataFrame:
    """Return the share of each group's images that counts, such as those read correctly.

    Parameters
    ----------
    hits
        `(images, k)` zeros and ones: which of the `members` count, another rule for each group.
    sampled, members, known, confidence
        As in `recalls`, and so is what is returned.
    """
    n, right = np.asarray(members.sum(axis=0)), np.asarray(hits.sum(axis=0))
    share, some = right / n, np.asarray(known, dtype=float)
    sums = BySubject.of(sampled, selected(members, some), selected(hits, some))
    low, high, clustered = sums.limits(share, confidence)
    method = np.where(clustered, CLUSTERED, WILSON_EFFECTIVE).astype(object)
    subjects, known_n = sums.total(np.ones(len(sums.column))), sums.total(sums.images)
    some_unknown = (known_n > 0) & (known_n < n)
    method[some_unknown] = method[some_unknown] + SHARE_SOME_UNKNOWN
    method[known_n == 0] = SHARE_NOBODY_KNOWN
    figures = {"n": whole(n), "correct": whole(right), "recall": share}
    limits = {"ci_low": low, "ci_high": high}
    counts = {"effective_subjects": sums.effective, "n_unknown": whole(n - known_n)}
    return pd.DataFrame(
        {**figures, **limits, "subjects": whole(subjects), "method": method, **counts}
        | sums.per_subject(confidence)
    )


@dataclass(frozen=True)
class BySubject:
    """Images and hits of each subject in each of `k` groups, without the zeros.

    Attributes
    ----------
    subject, column
        `(m,)` who, and in which group.
    images, hits
        `(m,)` how many images a subject has there, and how many of them count.
    k
        Number of groups.
    """

    subject: np.ndarray
    column: np.ndarray
    images: np.ndarray
    hits: np.ndarray
    k: int

    @classmethod
    def of(cls, people: People, members: sparse.csr_array, hits: sparse.csr_array) -> "BySubject":
        """Sum zeros and ones over each subject's images."""
        # Hits are the imaginary part, so that both sums have the same places.
        sums = sparse.coo_array(people.by_person(members + 1j * hits))
        there = sums.data.real > 0
        data = sums.data[there]
        who, column = (place[there] for place in sums.coords)
        return cls(who, column, data.real, data.imag, members.shape[1])

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum figures of subjects over each group, `(k,)`."""
        return np.bincount(self.column, weights=values, minlength=self.k)

    @property
    def effective(self) -> np.ndarray:
        """Effective number of subjects of each group; 0 where nobody is known."""
        return effective(self.total(self.images), self.total(self.images**2))

    def per_subject(self, confidence: float) -> dict[str, np.ndarray]:
        """Return the mean over subjects of their own shares, and its interval."""
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
        """Return the interval of shares, and where it rests on how subjects vary.

        Parameters
        ----------
        share
            `(k,)` estimates, which lie in the intervals.
        confidence
            Level, such as 0.95.
        """
        return share_limits(share, self.variance(), self.effective, confidence)

    def variance(self) -> np.ndarray:
        """Return the cluster variance (CR2) of each group's share, `(k,)`."""
        return self.total(self.influence() ** 2)

    def influence(self) -> np.ndarray:
        """Return what each subject adds to its group's share, corrected for its own pull (CR2)."""
        images = np.maximum(self.total(self.images), 1.0)
        share = self.total(self.hits) / images
        weight = self.images / images[self.column]
        added = (self.hits - self.images * share[self.column]) / images[self.column]
        # Of one person alone nothing varies.
        return np.asarray(added / np.sqrt(np.where(weight < 1, 1 - weight, 1.0)))


def share_limits(
    share: np.ndarray, variance: np.ndarray, effective_subjects: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the interval of shares, and where it rests on how subjects vary; `(k,)` each.

    Parameters
    ----------
    share
        Estimates, which lie in the intervals.
    variance
        Their cluster variance (`BySubject.variance`).
    effective_subjects
        How many subjects of equally many images tell as much.
    confidence
        Level, such as 0.95.
    """
    subjects = np.maximum(effective_subjects, 1.0)
    share_or_half = np.where(np.isfinite(share), share, 0.5)
    low, high = wilson(share_or_half * subjects, subjects, confidence)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = share * (1 - share)
        smooth = (share * subjects + _PSEUDO) / (subjects + 2 * _PSEUDO)
        known = (subjects > 1 + _STILL) & (variance > _STILL) & (inside > 0)
        error = np.sqrt(variance * smooth * (1 - smooth) / inside) / inside
        reach = t.ppf((1 + confidence) / 2, np.maximum(subjects - 1, 1)) * error
        narrow = expit(logit(share) - reach), expit(logit(share) + reach)
    known &= (narrow[0] > low) | (narrow[1] < high)
    low = np.where(known, np.maximum(low, narrow[0]), low)
    high = np.where(known, np.minimum(high, narrow[1]), high)
    # Log-odds that overflow are 0 or 1; rounding must not put the share outside its interval.
    return np.fmin(low, share), np.fmax(high, share), known


def selected(members: sparse.csr_array, which: np.ndarray) -> sparse.csr_array:
    """Keep the images for which `which` is True, `(images,)` booleans."""
    return sparse.csr_array(sparse.diags_array(which.astype(float)) @ members)
