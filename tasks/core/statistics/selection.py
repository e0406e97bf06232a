"""Model selection by worst-group recall that favors the incumbent, and its optimism.

The best of several scores is too high on average, and a worse model often wins by chance. So a
candidate replaces the incumbent only if its advantage exceeds a number of standard errors of the
paired difference (the one-standard-error rule of L. Breiman et al. 1984, Classification and
Regression Trees, section 3.4.3, with the incumbent as the simplest model). Differences and errors
come from a bootstrap of subjects, drawn with all of their images and all models' answers: what the
models share cancels out, and the worst group may differ between draws.

The score of the chosen model is corrected for optimism. Its estimate is the mean over the draws of
the score of the model chosen in the draw minus that model's score in the sample (B. Efron 1983, J.
Am. Stat. Assoc. 78, 316-331; R. J. Tibshirani and R. Tibshirani 2009, Ann. Appl. Stat. 3, 822-829,
do the same with the folds of a cross-validation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled, ratio

_ROUNDING = 1e-12  # differences up to this are 0


@dataclass(frozen=True)
class WorstScores:
    """Worst-group scores of models, from 0 to 1, observed and in draws of subjects."""

    observed: np.ndarray  # (models,)
    draws: np.ndarray  # (draws, models), of the draws with images of every group
    subjects: int  # number of subjects in the smallest of the models' worst groups


def worst_scores(
    correct: np.ndarray,
    classes: np.ndarray,
    groups: np.ndarray,
    subject: pd.Series,
    resamples: int,
    seed: int,
) -> WorstScores:
    """Score models by the mean recall over classes in the group where it is lowest.

    Parameters
    ----------
    correct
        `(images, models)` booleans.
    classes, subject
        `(images,)` labels and subjects.
    groups
        `(images, groups)` booleans: the images of each eligible group; no group is empty.
    """
    sampled = Resampled(subject, resamples, seed)
    _, code = np.unique(classes, return_inverse=True)
    cells = groups[:, :, None] & np.eye(code.max() + 1, dtype=bool)[code][:, None, :]
    members = sparse.csr_array(cells.reshape(len(code), -1).astype(float))
    members = members[:, np.flatnonzero(np.asarray(members.sum(axis=0)))]
    group = np.flatnonzero(cells.any(axis=0).ravel()) // cells.shape[2]
    parts = [members]
    parts += [sparse.csr_array(sparse.diags_array(c.astype(float)) @ members) for c in correct.T]
    sums = sampled.sums(sparse.csr_array(sparse.hstack(parts)))
    total = np.asarray(sparse.hstack(parts).sum(axis=0))[None, :]
    shape = (-1, len(parts), members.shape[1])
    observed = _by_group(total.reshape(shape), group)
    draws = _by_group(sums.reshape(shape), group)
    subjects = sampled.count(sparse.csr_array(groups.astype(float)))
    fewest = int(subjects[np.unique(observed[0].argmin(axis=1))].min())
    drawn = draws.min(axis=2)  # NaN where a group has no image in the draw
    return WorstScores(observed[0].min(axis=1), drawn[np.isfinite(drawn).all(axis=1)], fewest)


def _by_group(sums: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return `(draws, models, groups)` from `(draws, 1 + models, cells)`, where row 0 is n."""
    recalls = ratio(sums[:, 1:], sums[:, :1])
    known = np.isfinite(recalls)
    one_hot = np.eye(group.max() + 1)[group]
    return ratio(np.where(known, recalls, 0.0) @ one_hot, known.astype(float) @ one_hot)


@dataclass(frozen=True)
class Choice:
    """The chosen model; index 0 of every array, `(models,)` each, is the incumbent."""

    chosen: int
    observed: np.ndarray  # worst-group scores
    corrected: np.ndarray  # scores minus the optimism of choosing an epoch during training
    advantage: np.ndarray  # corrected scores minus the incumbent's
    se: np.ndarray  # of the paired difference to the incumbent; NaN with fewer than two subjects
    threshold: np.ndarray  # what `advantage` has to exceed
    clears: np.ndarray  # booleans: whether it does; always False for the incumbent
    as_good: np.ndarray  # booleans: clears, and lies within one standard error of the best
    optimism: float  # mean excess of the chosen model's score due to selection; 0: the incumbent

    @property
    def figure(self) -> float:
        """Return the chosen model's observed score minus its optimism."""
        return max(float(self.observed[self.chosen]) - self.optimism, 0.0)


def choose_over_incumbent(
    scores: WorstScores, standard_errors: float, tried: Sequence[Sequence[float]] | None = None
) -> Choice:
    """Choose a candidate only if it is better than the incumbent by more than its error.

    Of the candidates that clear the threshold, the first within one standard error of the best is
    chosen; the incumbent if there is none.

    Parameters
    ----------
    scores
        The incumbent's first, then the candidates' in order of preference among equals.
    standard_errors
        Number of standard errors of the difference that a candidate's advantage has to exceed.
    tried
        For each model, the scores on the same images from which its training chose the highest,
        such as one per epoch; empty where it did not choose. The model is then judged by the mean
        of the scores within one standard error of the highest.
    """
    observed, models = scores.observed, len(scores.observed)
    score_se = _standard_error(scores.draws, scores.subjects)
    epoch_optimism = [
        _epoch_optimism(*args)
        for args in zip(observed, score_se, tried or [()] * models, strict=True)
    ]
    corrected = observed - np.array([0.0, *epoch_optimism[1:]])
    differences = scores.draws[:, :, None] - scores.draws[:, None, :]
    pair_se = _standard_error(differences, scores.subjects)
    advantage, se = corrected - corrected[0], pair_se[:, 0]
    threshold = standard_errors * se
    needed = np.nan_to_num(threshold, nan=np.inf) + _ROUNDING
    clears = (advantage > needed) & (np.arange(models) > 0)
    if not clears.any():
        none = np.zeros(models, dtype=bool)
        return Choice(0, observed, corrected, advantage, se, threshold, clears, none, 0.0)
    usable = np.flatnonzero(clears)
    among = pair_se[np.ix_(usable, usable)]
    as_good = np.isin(np.arange(models), usable[_as_good(corrected[None, usable], among)[0]])
    chosen = int(np.flatnonzero(as_good)[0])
    optimism = _optimism(corrected[1:], scores.draws[:, 1:], pair_se[1:, 1:])
    optimism += float(observed[chosen] - corrected[chosen])
    return Choice(chosen, observed, corrected, advantage, se, threshold, clears, as_good, optimism)


def _standard_error(draws: np.ndarray, subjects: int) -> np.ndarray:
    """Return the standard error over axis 0 of the draws; NaN with fewer than two subjects."""
    if subjects < 2 or len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    # The variance of draws is (subjects - 1) / subjects of that of samples.
    se = draws.std(axis=0, ddof=1) * np.sqrt(subjects / (subjects - 1))
    return np.where(se < _ROUNDING, 0.0, se)


def _epoch_optimism(score: float, se: float, tried: Sequence[float]) -> float:
    """Return the optimism of the best of several scores, at most one standard error."""
    values = np.asarray(tried, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values) or not se > 0:
        return 0.0
    equals = values[values >= values.max() - se]
    return float(np.clip(score - equals.mean(), 0.0, se))


def _as_good(scores: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Return `(draws, models)`: whether a score is within one standard error of its draw's best."""
    best = scores.argmax(axis=1)
    return np.asarray(scores >= scores.max(axis=1, keepdims=True) - se[best])


def _optimism(scores: np.ndarray, draws: np.ndarray, se: np.ndarray) -> float:
    """Return the mean optimism of the score of the candidate that is chosen.

    Observed scores differ more than the true ones, which would make the choice look too certain.
    They are shrunk by the share of their variance that chance explains (B. Efron and C. Morris
    1973, J. Am. Stat. Assoc. 68, 117-130).
    """
    if len(scores) < 2:
        return 0.0
    noise = draws - draws.mean(axis=0)
    chance = float(noise.var(axis=1, ddof=1).mean())
    spread = float(scores.var(ddof=1))
    shrinkage = max(0.0, 1 - chance / spread) if spread > 0 else 0.0
    centers = scores.mean() + shrinkage * (scores - scores.mean())
    chosen = _as_good(centers + noise, se).argmax(axis=1)  # the first of equals
    return max(float(noise[np.arange(len(noise)), chosen].mean()), 0.0)
