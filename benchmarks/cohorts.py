"""Simulated cohorts whose truth is known: subjects with alike images, in unequal numbers.

Many cohorts are one set of images, of which each comparison sees its own, so that the code that is
tried runs as it does for a table with as many rows.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.clusters import People
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.permutation import attainable
from tasks.core.statistics.recalls import BySubject, recalls, selected

SIZES = ("equal", "log-normal", "dominant")
_AT_ONCE = 250  # cohorts
_IMAGES = 8  # per subject


@dataclass(frozen=True)
class Cohorts:
    """Images of several cohorts, as arrays of shape `(n,)`.

    `number` is the cohort of an image and `subject` its subject; no two cohorts share a subject.
    `in_a, in_b` are the sides that it is on (both, where two models read it) and `right_a, right_b`
    whether it was read correctly. `known` is whether its subject is known. `truth` is the true
    difference.
    """

    number: np.ndarray
    subject: np.ndarray
    in_a: np.ndarray
    in_b: np.ndarray
    right_a: np.ndarray
    right_b: np.ndarray
    known: np.ndarray
    truth: float

    @property
    def kind(self) -> str:
        """Return `models` where both sides are the same images."""
        return "models" if (self.in_a & self.in_b).all() else "groups"

    def part(self, first: int, last: int) -> "Cohorts":
        """Select cohorts and number them from 0."""
        part = self.of((self.number >= first) & (self.number < last))
        return replace(part, number=part.number - first)

    def of(self, which: np.ndarray) -> "Cohorts":
        """Select images."""
        names = [name for name in self.__dataclass_fields__ if name != "truth"]
        return replace(self, **{name: getattr(self, name)[which] for name in names})


def images_per_subject(
    rng: np.random.Generator, sizes: str, cohorts: int, subjects: int, images: int = _IMAGES
) -> np.ndarray:
    """Return `(cohorts, subjects)` numbers: `dominant` gives one subject half of the images."""
    shape = (cohorts, subjects)
    if sizes == "equal":
        return np.full(shape, images)
    if sizes == "log-normal":
        drawn = np.exp(rng.normal(np.log(0.75 * images), 1.0, shape))
        return np.maximum(1, np.rint(drawn)).astype(int)
    numbers = np.full(shape, images // 2)
    numbers[:, 0] = (subjects - 1) * (images // 2)
    return numbers


def skills(
    rng: np.random.Generator, recall: float, icc: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Return each subject's chance of a right answer, with the given ICC."""
    if icc == 0:
        return np.full(shape, recall)
    strength = (1 - icc) / icc
    return rng.beta(recall * strength, (1 - recall) * strength, shape)


def of_two_groups(
    seed: int,
    cohorts: int,
    sizes: str,
    subjects: tuple[int, int],
    icc: float | tuple[float, float],
    recall: tuple[float, float],
) -> Cohorts:
    """Simulate two groups of different people."""
    rng = np.random.default_rng(seed)
    iccs = icc if isinstance(icc, tuple) else (icc, icc)
    sides = [
        (images_per_subject(rng, sizes, cohorts, people), skills(rng, r, c, (cohorts, people)))
        for people, r, c in zip(subjects, recall, iccs, strict=True)
    ]
    number = np.concatenate([side[0] for side in sides], axis=1).ravel()
    skill = np.concatenate([side[1] for side in sides], axis=1).ravel()
    subject = np.repeat(np.arange(len(number)), number)
    right = rng.random(len(subject)) < skill[subject]
    in_a = subject % sum(subjects) < subjects[0]
    known = np.ones(len(subject), dtype=bool)
    cohort = subject // sum(subjects)
    return Cohorts(cohort, subject, in_a, ~in_a, right, right, known, recall[0] - recall[1])


def of_the_same_people(
    seed: int, cohorts: int, sizes: str, subjects: int, icc: float, recall: float
) -> Cohorts:
    """Simulate two kinds of images of the same people, equally easy on average.

    Half of the people are as good at one kind as at the other; the others differ.
    """
    rng = np.random.default_rng(seed)
    shape = (cohorts, subjects)
    skill = skills(rng, recall, icc, shape)
    other = np.where(rng.random(shape) < 0.5, skill, skills(rng, recall, icc, shape))
    numbers = [images_per_subject(rng, sizes, cohorts, subjects).ravel() for _ in range(2)]
    people = np.arange(cohorts * subjects)
    subject = np.concatenate([np.repeat(people, count) for count in numbers])
    in_a = np.arange(len(subject)) < numbers[0].sum()
    chance = np.where(in_a, skill.ravel()[subject], other.ravel()[subject])
    right = rng.random(len(subject)) < chance
    known = np.ones(len(subject), dtype=bool)
    return Cohorts(subject // subjects, subject, in_a, ~in_a, right, right, known, 0.0)


def of_two_models(
    seed: int, cohorts: int, sizes: str, subjects: int, icc: float, recall: float, gain: float = 0.0
) -> Cohorts:
    """Simulate two models on the same images: a reads `gain` more of them than b.

    Both agree on 7 of 10 images; on the others a subject is another one for each model.
    """
    rng = np.random.default_rng(seed)
    shape = (cohorts, subjects)
    subject = np.repeat(
        np.arange(cohorts * subjects), images_per_subject(rng, sizes, cohorts, subjects).ravel()
    )
    chance = [skills(rng, recall, icc, shape).ravel()[subject] for _ in range(2)]
    before = rng.random(len(subject)) < chance[0]
    again = np.where(rng.random(len(subject)) < 0.7, before, rng.random(len(subject)) < chance[1])
    # Of what was read wrongly, as much is gained as makes the wanted difference.
    after = again | (rng.random(len(subject)) < gain / (1 - recall))
    every = np.ones(len(subject), dtype=bool)
    return Cohorts(subject // subjects, subject, every, every, after, before, every, gain)


def with_missing(cohorts: Cohorts, seed: int, share: float, by: str) -> Cohorts:
    """Blank the subjects of a share of the images, at random by `image` or by `subject`."""
    rng = np.random.default_rng(seed)
    of = cohorts.subject if by == "subject" else np.arange(len(cohorts.subject))
    missing = (rng.random(of.max() + 1) < share)[of]
    unique_ids = cohorts.subject.max() + 1 + np.arange(len(of))  # as `affectgap audit` names them
    return replace(cohorts, subject=np.where(missing, unique_ids, cohorts.subject), known=~missing)


def compared(
    cohorts: Cohorts, resamples: int, seed: int, margin: float | None = None
) -> pd.DataFrame:
    """Compare both sides of every cohort, one row each."""
    rows = []
    for first in range(0, int(cohorts.number.max()) + 1, _AT_ONCE):
        part = cohorts.part(first, first + _AT_ONCE)
        sampled = Resampled(pd.Series(part.subject), resamples, seed)
        a, b = (
            Sides.of(columns(part.number, members), right)
            for members, right in ((part.in_a, part.right_a), (part.in_b, part.right_b))
        )
        # Cohorts have no subject in common: each has its own allocations.
        pairs = np.arange(a.members.shape[1])
        rows.append(differences(sampled, a, b, part.known, 0.95, part.kind, pairs, margin))  # type: ignore[arg-type]
    return pd.concat(rows, ignore_index=True)


def attainable_level(cohorts: Cohorts, draws: int, seed: int, level: float) -> float:
    """Return how often permuting subjects at random rejects, on average over the first cohorts."""
    part = cohorts.part(0, _AT_ONCE)
    part = part.of(part.known)
    people = People(pd.Series(part.subject))
    a, b = (
        BySubject.of(people, members, selected(members, right))
        for members, right in (
            (columns(part.number, part.in_a), part.right_a),
            (columns(part.number, part.in_b), part.right_b),
        )
    )
    there = range(min(a.k, b.k))
    found = [attainable(a, b, np.array([place]), draws, seed, level) for place in there]
    return float(np.mean(found))


def shares_of_a(cohorts: Cohorts, seed: int) -> pd.DataFrame:
    """Return recall of side a with its interval for every cohort."""
    sampled = Resampled(pd.Series(cohorts.subject), 100, seed)
    members = columns(cohorts.number, cohorts.in_a)
    return recalls(sampled, members, cohorts.right_a, cohorts.known, 0.95)


def columns(number: np.ndarray, which: np.ndarray) -> sparse.csr_array:
    """Return `(images, cohorts)` zeros and ones: which images of a cohort are on a side."""
    shape = len(number), int(number.max()) + 1
    rows = np.flatnonzero(which)
    return sparse.csr_array((np.ones(len(rows)), (rows, number[rows])), shape)


def plain_permutation_p(cohorts: Cohorts, draws: int, seed: int) -> np.ndarray:
    """Return mid-p of permuting subjects of two groups with nothing but the gap as statistic.

    The yardstick for power. All cohorts have the same numbers of subjects and share allocations.
    """
    rng = np.random.default_rng(seed)
    number = int(cohorts.number.max()) + 1
    people = (int(cohorts.subject.max()) + 1) // number
    first_b = int(cohorts.subject[cohorts.in_b].min())  # subjects of a come first
    images, hits = (
        np.bincount(cohorts.subject, weights=weights, minlength=number * people).reshape(
            number, people
        )
        for weights in (None, cohorts.right_a.astype(float))
    )
    chosen = np.zeros((draws + 1, people), dtype=np.float32)
    chosen[:, :first_b] = 1
    chosen[1:] = rng.permuted(chosen[1:], axis=1)
    n, x = (chosen @ sums.T.astype(np.float32) for sums in (images, hits))
    gap = np.abs(x / n - (hits.sum(axis=1) - x) / (images.sum(axis=1) - n))
    slack = 1e-6
    above = (gap[1:] > gap[0] + slack).sum(axis=0)
    tied = (np.abs(gap[1:] - gap[0]) <= slack).sum(axis=0)
    return np.asarray((above + (tied + 1) / 2) / (draws + 1))
