"""Many groups against everybody else at once: max-T tests with simultaneous limits that agree.

Each group's difference from the rest is divided by a standard error that is clustered by subject.
The null distribution of the largest of these statistics comes from permuting subjects between
the groups (P. H. Westfall, S. S. Young 1993, Resampling-Based Multiple Testing; studentized
as in E. Chung, J. P. Romano 2013, Ann. Stat. 41, 484-507). Each statistic is first divided by its
own critical value, so that a group of few subjects, whose statistic has heavy tails, does not widen
the limits of the others (R. Beran 1988, J. Am. Stat. Assoc. 83, 679-686). The limits are the
differences that the same test does not reject: they exclude 0 where the adjusted p-value is below
1 - confidence, and only there.

Groups that hold a hundred subjects on both sides enter with the normal distribution, and groups
that share subjects with the rest with Student's t, as if each were independent of the others, which
errs on the wide side (Z. Sidak 1967, J. Am. Stat. Assoc. 62, 626-633).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t

from tasks.core.statistics.clusters import effective

MANY_SUBJECTS = 100  # effective ones, from which on the normal distribution is used
_JOINT_SUBJECTS = 2000  # up to which one permutation serves all groups
_TINY = 1e-12


@dataclass(frozen=True)
class Against:
    """Groups and what each is compared with, as sums over the images of each subject.

    The entries `subject, column, n, correct`, `(m,)`, give who has how many images in which group,
    and how many of these are read correctly. `all_n, all_correct`, `(subjects, universes)`, are the
    same counts over all images of a universe, that is, of a group and its rest. `universe`, `(k,)`,
    is the universe of each group.
    """

    subject: np.ndarray
    column: np.ndarray
    n: np.ndarray
    correct: np.ndarray
    all_n: np.ndarray
    all_correct: np.ndarray
    universe: np.ndarray

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum figures of entries over each group: `(k,)`."""
        return np.bincount(self.column, weights=values, minlength=len(self.universe))

    def sums(self) -> np.ndarray:
        """Return six sums over subjects for each group, see `variance_of_sums`: `(6, k)`."""
        return np.stack([self.total(values) for values in _products(self.n, self.correct)])

    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return, for each entry, what its subject has in the rest: images and correct ones."""
        at = self.subject, self.universe[self.column]
        return self.all_n[at] - self.n, self.all_correct[at] - self.correct

    def sums_of_rest(self) -> np.ndarray:
        """Return the same six sums of what each group is compared with."""
        at = self.subject, self.universe[self.column]
        every = np.stack([x.sum(axis=0) for x in _products(self.all_n, self.all_correct)])
        before = np.stack(_products(self.all_n[at], self.all_correct[at]))
        gone = before - np.stack(_products(*self.rest()))
        return every[:, self.universe] - np.stack([self.total(values) for values in gone])

    def part(self, place: np.ndarray) -> "Against":
        """Return some of the comparisons."""
        rank = np.full(len(self.universe), -1)
        rank[place] = np.arange(len(place))
        there = rank[self.column] >= 0
        return Against(
            self.subject[there],
            rank[self.column[there]],
            self.n[there],
            self.correct[there],
            self.all_n,
            self.all_correct,
            self.universe[place],
        )


def _products(n: np.ndarray, correct: np.ndarray) -> list[np.ndarray]:
    return [n, correct, n * n, n * correct, correct * correct, (n > 0).astype(float)]


def max_t_tests(sides: Against, confidence: float, draws: int, seed: int) -> pd.DataFrame:
    """Test every group against the rest, as one family.

    Both sides of each comparison need images of at least two subjects. The limits hold for all
    groups together at level `confidence`. `draws` is the number of permutations of the subjects,
    drawn with `seed`.

    Returns `(k, …)`: `difference, low, high, p_value, p_adjusted, error, effective_subjects,
    reference`. `reference` names the distribution: permutation, normal or t.
    """
    rng = np.random.default_rng(seed)
    figures = _statistics(sides)
    k, subjects = len(figures), len(sides.all_n)
    observed = np.abs(figures["statistic"].to_numpy())
    reference = _references(sides, figures)
    drawn = np.empty((draws, k))
    # Of many subjects each group draws anew, as if independent of the others.
    joint = bool((reference == 0).any()) and subjects <= _JOINT_SUBJECTS
    order = np.argsort(rng.random((draws, subjects)), axis=1) if joint else None
    critical, unadjusted = np.ones(k), np.ones(k)
    for place in range(k):
        if reference[place] == 0:
            drawn[:, place] = _permuted(sides, place, order, draws, rng)
            critical[place] = _critical(drawn[:, place], confidence)
            unadjusted[place] = (1 + (drawn[:, place] >= observed[place] - _TINY).sum()) / (
                draws + 1
            )
        else:
            freedom = np.inf if reference[place] == 1 else figures["df"].iloc[place]
            normal = reference[place] == 1
            drawn[:, place] = np.abs(
                rng.standard_normal(draws) if normal else rng.standard_t(freedom, draws)
            )
            critical[place] = t.ppf((1 + confidence) / 2, freedom)
            unadjusted[place] = 2 * t.sf(observed[place], freedom)
    largest = (drawn / critical).max(axis=1)
    wide = _critical(largest, confidence) * critical * figures["error"].to_numpy()
    adjusted = (1 + (largest[:, None] >= observed / critical - _TINY).sum(axis=0)) / (draws + 1)
    difference = figures["difference"]
    return figures.assign(
        low=np.clip(difference - wide, -1, 1),
        high=np.clip(difference + wide, -1, 1),
        p_value=np.minimum(unadjusted, adjusted),
        p_adjusted=adjusted,
        reference=np.array(["permutation", "normal", "t"])[reference],
    )


def _statistics(sides: Against) -> pd.DataFrame:
    """Return differences with errors that are clustered by subject, observed."""
    group, others = sides.sums(), sides.sums_of_rest()
    recall, rest = group[1] / group[0], others[1] / others[0]
    m, d = sides.rest()
    n, c = sides.n, sides.correct
    shared = sides.total((n > 0) & (m > 0)) > 0
    apart = variance_of_sums(group) + variance_of_sums(others)
    both = sides.total(c * d) - rest * sides.total(c * m) - recall * sides.total(n * d)
    both = 2 * (both + recall * rest * sides.total(n * m)) / (group[0] * others[0])
    variance = np.where(shared, np.maximum(apart - both, apart / 20), apart)
    number = np.minimum(effective(group[0], group[2]), effective(others[0], others[2]))
    difference = recall - rest
    return pd.DataFrame(
        {
            "difference": difference,
            "error": np.sqrt(variance),
            "statistic": difference / np.sqrt(variance),
            "df": np.maximum(number - 1, 1),
            "effective_subjects": number,
            "shared": shared,
        }
    )


def variance_of_sums(sums: np.ndarray) -> np.ndarray:
    """Return variances of recalls from sums over subjects; never 0.

    Parameters
    ----------
    sums
        `(6, …)` sums of images, correct ones, their squares and products (images squared, images
        times correct, correct squared), and of subjects.

    Notes
    -----
    The variance between subjects is mixed with what as many subjects with one image each would
    have (one right and one wrong answer added: A. Agresti, B. Caffo 2000), which counts as much as
    one more subject.
    """
    n, correct, nn, nc, cc, subjects = sums
    safe = np.maximum(n, 1)
    recall = correct / safe
    squares = np.maximum(cc - 2 * recall * nc + recall**2 * nn, 0)
    between = squares / safe**2 * subjects / np.maximum(subjects - 1, 1)
    number = n**2 / np.maximum(nn, 1)
    middle = (recall * number + 1) / (number + 2)
    prior = middle * (1 - middle) / (number + 2)
    return np.asarray((subjects * between + prior) / (subjects + 1))


def _references(sides: Against, figures: pd.DataFrame) -> np.ndarray:
    """Return 0 for groups whose subjects are permuted, 1 for the normal, 2 for t."""
    many = figures["effective_subjects"].to_numpy() >= MANY_SUBJECTS
    shared = figures["shared"].to_numpy()
    return np.where(many, 1, np.where(shared, 2, 0))


def _permuted(
    sides: Against, place: int, order: np.ndarray | None, draws: int, rng: np.random.Generator
) -> np.ndarray:
    """Return one group's statistics where subjects are permuted: absolute values, `(draws,)`.

    A subject's images go to another's place together. The smaller side is summed; the other one is
    what is left.
    """
    entries = (sides.column == place) & (sides.n > 0)
    n, correct = (all_of[:, sides.universe[place]] for all_of in (sides.all_n, sides.all_correct))
    inside, taking_part = np.zeros(len(n), dtype=bool), np.flatnonzero(n > 0)
    inside[sides.subject[entries]] = True
    outside = (n > 0) & ~inside
    table = _products(n, correct)
    smaller = inside if inside.sum() <= outside.sum() else outside
    if order is None:
        picked = taking_part[rng.integers(len(taking_part), size=(draws, int(smaller.sum())))]
    elif len(taking_part) < len(n):  # subjects without a place here are not exchanged for others
        rank = np.argsort(order[:, taking_part], axis=1)
        picked = taking_part[rank[:, smaller[taking_part]]]
    else:
        picked = order[:, smaller]
    one = np.stack([column[picked].sum(axis=1) for column in table])
    other = np.array([column.sum() for column in table])[:, None] - one
    gap = one[1] / np.maximum(one[0], 1) - other[1] / np.maximum(other[0], 1)
    return np.abs(gap) / np.sqrt(variance_of_sums(one) + variance_of_sums(other))


def _critical(drawn: np.ndarray, confidence: float) -> float:
    """Return the value that a statistic must exceed to have a p-value below 1 - confidence."""
    allowed = int(np.ceil((1 - confidence) * (len(drawn) + 1) - 1e-9)) - 2
    return float(np.sort(drawn)[::-1][max(allowed, 0)]) + _TINY
