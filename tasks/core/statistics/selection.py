"""Choice among models by their worst group, with the incumbent favored, and what the choice adds.

The model with the highest score of several looks better than it is, and one that is worse is often
the highest by luck. So an incumbent is replaced only by a candidate whose advantage exceeds a
number of standard errors of the paired difference (the one-standard-error rule of L. Breiman et
al. 1984, Classification and Regression Trees, section 3.4.3, with the incumbent as the simplest
model). Both the differences and their errors come from a bootstrap of subjects, drawn with all of
their images and with every model's answers on them, so that what the models share cancels out and
the worst group may be another one in every draw.

The figure of the chosen model is corrected by the mean over the draws of what repeating the choice
adds: the score in the draw of the model chosen there less that model's score in the sample (B.
Efron 1983, J. Am. Stat. Assoc. 78, 316-331; R. J. Tibshirani and R. Tibshirani 2009, Ann. Appl.
Stat. 3, 822-829, do the same with the folds of a cross-validation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled, ratio

_STILL = 1e-12  # less is rounding


@dataclass(frozen=True)
class WorstScores:
    """Scores of models in their worst group, observed and in draws of subjects.

    Attributes
    ----------
    observed
        `(models,)` from 0 to 1.
    draws
        `(draws, models)` the same in every draw that has images of every group.
    subjects
        How many subjects stand behind the scores: those of the worst group with the fewest.
    """

    observed: np.ndarray
    draws: np.ndarray
    subjects: int


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
        `(images, models)` booleans: which answers are right.
    classes
        `(images,)` the labels.
    groups
        `(images, groups)` booleans: the images of each group that can be the worst; no group is
        empty.
    subject
        `(images,)` who is on each image.
    resamples, seed
        Draws of subjects.
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
    behind = sampled.count(sparse.csr_array(groups.astype(float)))
    fewest = int(behind[np.unique(observed[0].argmin(axis=1))].min())
    drawn = draws.min(axis=2)  # NaN where a group has no image: its score is not known then
    return WorstScores(observed[0].min(axis=1), drawn[np.isfinite(drawn).all(axis=1)], fewest)


def _by_group(sums: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return `(draws, models, groups)` from `(draws, 1 + models, cells)`, of which row 0 is n."""
    recalls = ratio(sums[:, 1:], sums[:, :1])
    known = np.isfinite(recalls)
    home = np.eye(group.max() + 1)[group]
    return ratio(np.where(known, recalls, 0.0) @ home, known.astype(float) @ home)


@dataclass(frozen=True)
class Choice:
    """Which model is chosen; column 0 of everything is the incumbent.

    Attributes
    ----------
    chosen
        The model's column.
    observed
        `(models,)` the scores in the worst group.
    corrected
        `(models,)` the observed score less what choosing within the model's training added.
    advantage
        `(models,)` the corrected score less the incumbent's.
    se
        `(models,)` standard error of the paired difference to the incumbent; NaN where fewer than
        two subjects stand behind it.
    threshold
        `(models,)` what `advantage` has to exceed.
    clears
        `(models,)` booleans: whether it does; never the incumbent.
    as_good
        `(models,)` booleans: of those that clear, which lie within one standard error of the best.
    optimism
        By how much the chosen model's score is too high on average since it was chosen by it; 0
        for the incumbent.
    """

    chosen: int
    observed: np.ndarray
    corrected: np.ndarray
    advantage: np.ndarray
    se: np.ndarray
    threshold: np.ndarray
    clears: np.ndarray
    as_good: np.ndarray
    optimism: float

    @property
    def figure(self) -> float:
        """Return the chosen model's observed score less its optimism."""
        return max(float(self.observed[self.chosen]) - self.optimism, 0.0)


def choose_over_incumbent(
    scores: WorstScores, standard_errors: float, tried: Sequence[Sequence[float]] | None = None
) -> Choice:
    """Replace the incumbent only by a candidate that is better by more than its error.

    Parameters
    ----------
    scores
        The incumbent's first, then the candidates', from the one that is preferred among equals.
    standard_errors
        How many standard errors of the difference a candidate's advantage has to exceed.
    tried
        For each model the scores, on the same images, among which its training chose the highest
        (its epochs, say); empty where it did not choose. The model is then judged by the mean of
        those within one standard error of the highest, which are as good as anyone can tell.

    Returns
    -------
    Choice
        Of the candidates that replace the incumbent, the first within one standard error of the
        best; the incumbent where there is none.
    """
    observed, models = scores.observed, len(scores.observed)
    own_se = _standard_error(scores.draws, scores.subjects)
    within = [_added(*pair) for pair in zip(observed, own_se, tried or [()] * models, strict=True)]
    corrected = observed - np.array([0.0, *within[1:]])
    differences = scores.draws[:, :, None] - scores.draws[:, None, :]
    pair_se = _standard_error(differences, scores.subjects)
    advantage, se = corrected - corrected[0], pair_se[:, 0]
    threshold = standard_errors * se
    needed = np.nan_to_num(threshold, nan=np.inf) + _STILL
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
    """Return the error of what was drawn, over axis 0; NaN where one subject tells no error."""
    if subjects < 2 or len(draws) < 2:
        return np.full(draws.shape[1:], np.nan)
    # Draws vary by (subjects - 1) / subjects of what samples do.
    se = draws.std(axis=0, ddof=1) * np.sqrt(subjects / (subjects - 1))
    return np.where(se < _STILL, 0.0, se)


def _added(score: float, se: float, tried: Sequence[float]) -> float:
    """Return by how much the best of several scores is too high, at most one standard error."""
    values = np.asarray(tried, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values) or not se > 0:
        return 0.0
    equals = values[values >= values.max() - se]
    return float(np.clip(score - equals.mean(), 0.0, se))


def _as_good(scores: np.ndarray, se: np.ndarray) -> np.ndarray:
    """Return `(draws, models)`: which lie within one standard error of the best of their draw."""
    best = scores.argmax(axis=1)
    return np.asarray(scores >= scores.max(axis=1, keepdims=True) - se[best])


def _optimism(scores: np.ndarray, draws: np.ndarray, se: np.ndarray) -> float:
    """Return what choosing among candidates adds to the score of the chosen one, on average.

    The observed scores differ by more than the true ones do, so that the choice would look too
    certain; they are drawn together by the share of their variance that chance explains (B. Efron
    and C. Morris 1973, J. Am. Stat. Assoc. 68, 117-130).
    """
    if len(scores) < 2:
        return 0.0
    noise = draws - draws.mean(axis=0)
    chance = float(noise.var(axis=1, ddof=1).mean())
    spread = float(scores.var(ddof=1))
    kept = max(0.0, 1 - chance / spread) if spread > 0 else 0.0
    centers = scores.mean() + kept * (scores - scores.mean())
    chosen = _as_good(centers + noise, se).argmax(axis=1)  # the first of equals
    return max(float(noise[np.arange(len(noise)), chosen].mean()), 0.0)
