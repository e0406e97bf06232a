"""A logistic model of images of which several show the same subject, sound for few subjects.

Generalized estimating equations (K.-Y. Liang, S. L. Zeger 1986, Biometrika 73, 13-22) with the
bias-reduced covariance of L. A. Mancl and T. A. DeRouen (2001, Biometrics 57, 126-134) and, for
each coefficient, degrees of freedom in the manner of F. E. Satterthwaite: those of the subjects
that carry it, weighted by how much each does. Five subjects against sixty, or one subject with half
of a level's images, then count as few, however many subjects there are in all.
"""

from dataclasses import dataclass

import numpy as np
import statsmodels.api as sm
from scipy import sparse

_AT_ONCE = 1 << 22  # entries of (subjects, coefficients, coefficients)
_ALONE = 1 - 1e-9  # leverage of a subject without whom a coefficient could not be estimated
EXCHANGEABLE = "images clustered by subject, exchangeable (GEE: Liang & Zeger 1986)"
INDEPENDENCE = (
    "images clustered by subject (GEE: Liang & Zeger 1986) with an independence working "
    "correlation instead of an exchangeable one, which did not converge"
)
ONE_EACH = "one image per subject"
BIAS_REDUCED = "bias-reduced covariance (Mancl & DeRouen 2001)"


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    `coefficients`, `errors` and `freedom` are `(k,)` log odds ratios, their standard errors and
    degrees of freedom, the intercept first. Errors are infinite where a coefficient rests on a
    single subject. `method` describes the fit.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    freedom: np.ndarray
    method: str


def fit_clustered(outcome: np.ndarray, columns: np.ndarray, subject: np.ndarray) -> Fit | None:
    """Fit a logistic model whose standard errors allow for several images per subject.

    `outcome` is `(n,)` zeros and ones, `columns` the `(n, k)` design with an intercept, and
    `subject` `(n,)` integers from 0. Returns None where the fit does not converge.
    """
    family = sm.families.Binomial()
    if subject.max() + 1 == len(subject):
        result = sm.GLM(outcome, columns, family=family).fit()
        return _finished(result, outcome, columns, subject, 0.0, ONE_EACH)
    for structure, words in (
        (sm.cov_struct.Exchangeable(), EXCHANGEABLE),
        (sm.cov_struct.Independence(), INDEPENDENCE),
    ):
        model = sm.GEE(outcome, columns, groups=subject, family=family, cov_struct=structure)
        try:
            result = model.fit(cov_type="naive", maxiter=100)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError):
            continue
        alike = float(structure.dep_params) if words == EXCHANGEABLE else 0.0
        fit = _finished(result, outcome, columns, subject, alike, words)
        if fit is not None:
            return fit
    return None


def _finished(
    result: object,
    outcome: np.ndarray,
    columns: np.ndarray,
    subject: np.ndarray,
    alike: float,
    words: str,
) -> Fit | None:
    coefficients = np.asarray(result.params)
    if not result.converged or not np.isfinite([*coefficients, alike]).all():
        return None
    errors, freedom = bias_reduced(outcome, columns, subject, coefficients, alike)
    if np.isnan(errors).any():
        return None
    return Fit(coefficients, errors, freedom, f"{words}; {BIAS_REDUCED}")


def bias_reduced(
    outcome: np.ndarray,
    columns: np.ndarray,
    subject: np.ndarray,
    coefficients: np.ndarray,
    alike: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return standard errors and degrees of freedom of a fitted model.

    Parameters
    ----------
    outcome, columns, subject
        As in `fit_clustered`.
    coefficients
        `(k,)` estimates.
    alike
        Working correlation of two images of one subject.

    Returns
    -------
    errors, freedom
        `(k,)` each.

    Notes
    -----
    With a subject's score U and information I, and B the inverse of all information, the reduced
    bias is that of (1 - I B)^-1 U: the residuals of Mancl and DeRouen without a matrix as large as
    a subject's number of images. A coefficient's degrees of freedom are (sum w)^2 / sum(w^2 / (1 -
    h)), with w what a subject is expected to add to its variance and h the subject's leverage: for
    two groups they are those of B. L. Welch (1947) for equal variances.
    """
    n, k = columns.shape
    mean = 1 / (1 + np.exp(-columns @ coefficients))
    spread = np.sqrt(np.maximum(mean * (1 - mean), 1e-12))
    design, residual = columns * spread[:, None], (outcome - mean) / spread
    people = int(subject.max()) + 1
    by_subject = sparse.csr_array((np.ones(n), (subject, np.arange(n))), (people, n))
    images = np.asarray(by_subject.sum(axis=1)).ravel()
    floor = -0.9 / max(images.max() - 1, 1)  # a correlation below is none
    alike = min(max(alike, floor), 0.95)
    shared = alike / (1 + (images - 1) * alike)
    sums = by_subject @ design
    score = (
        by_subject @ (design * residual[:, None])
        - (shared * (by_subject @ residual))[:, None] * sums
    ) / (1 - alike)
    information = (design.T @ design - (sums * shared[:, None]).T @ sums) / (1 - alike)
    inverse = np.linalg.pinv(information)
    order = np.argsort(subject, kind="stable")
    ends = np.concatenate([[0], np.cumsum(images.astype(int))])
    meat, weights, spent = np.zeros((k, k)), np.zeros(k), np.zeros(k)
    single_subject = np.zeros(k, dtype=bool)
    step = max(1, _AT_ONCE // (k * k))
    for start in range(0, people, step):
        stop = min(start + step, people)
        rows = design[order[ends[start] : ends[stop]]]
        at = np.repeat(np.arange(stop - start), images[start:stop].astype(int))
        each = _outer_sums(rows, at, stop - start)
        part = sums[start:stop]
        each -= shared[start:stop, None, None] * part[:, :, None] * part[:, None, :]
        each /= 1 - alike
        mixed = each @ inverse
        w = np.einsum("kl,ilk->ik", inverse, mixed)
        # Leverage in the direction of each coefficient: b' I B I b over b' I b.
        h = np.einsum("ilk,ilk->ik", mixed, inverse @ mixed) / np.maximum(w, 1e-300)
        h = np.where(w > 1e-12 * np.diag(inverse), h, 0)
        single_subject |= (h >= _ALONE).any(axis=0)
        h = np.minimum(h, _ALONE)
        weights += w.sum(axis=0)
        spent += (w**2 / (1 - h)).sum(axis=0)
        left = np.eye(k) - mixed
        try:
            reduced = np.linalg.solve(left, score[start:stop, :, None])[:, :, 0]
        except np.linalg.LinAlgError:
            reduced = (np.linalg.pinv(left) @ score[start:stop, :, None])[:, :, 0]
        meat += reduced.T @ reduced
    errors = np.sqrt(np.diag(inverse @ meat @ inverse))
    return np.where(single_subject, np.inf, errors), weights**2 / np.maximum(spent, 1e-300)


def _outer_sums(rows: np.ndarray, at: np.ndarray, number: int) -> np.ndarray:
    """Sum the outer products of rows over subjects: `(number, k, k)`."""
    by_subject = sparse.csr_array(
        (np.ones(len(rows)), (at, np.arange(len(rows)))), (number, len(rows))
    )
    k = rows.shape[1]
    out = np.empty((number, k, k))
    for column in range(k):
        out[:, column] = by_subject @ (rows * rows[:, [column]])
    return out
