"""Simultaneous limits of several paired changes, by sign flips per subject.

If both versions are equally good, the two versions' predictions for a subject are exchangeable. So
each subject's change may take either sign, and the largest standardized change of all comparisons
over many random sign flips is the null distribution of the family (max-t: P. H. Westfall, S. S.
Young 1993, Resampling-Based Multiple Testing; sign flips of clusters: A. C. Cameron, J. B. Gelbach,
D. L. Miller 2008, Rev. Econ. Stat. 90, 414-427, with the null imposed). The limits of a change are
the values that the same statistic does not reject: a quadratic, as in E. C. Fieller (1954), J. R.
Stat. Soc. B 16, 175-185, for a ratio. Limits and verdict therefore agree, and a change lies between
its limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

from tasks.gate.decision import FAIL, FROZEN, GROUP, HELD, NOT_SHOWN, OVERALL, PASS
from tasks.gate.settings import NotShown

_AT_ONCE = 1 << 22  # entries of a block of sign flips
_TAIL = 12  # draws that should lie beyond a critical value
_MOST_SWAPS = 60_000
_ALIKE = 0.3  # assumed correlation within a subject, if there are too few changes to measure it
_ROUNDING = 1e-6
_NEVER = 1e3  # a critical value that no change exceeds, for rates too small for the draws


@dataclass(frozen=True)
class Comparison:
    """A change between two versions on the same images.

    Attributes
    ----------
    rule, part, group
        As in the decision's table.
    change
        `(subjects,)` sums over each subject's images; negative where the challenger is worse.
    before
        `(subjects,)` sums of the champion's values.
    size
        `(subjects,)` numbers of images.
    margin
        How much worse the challenger may be.
    reach
        The largest possible change.
    note
        Text for the row of the decision's table.
    """

    rule: str
    part: str
    group: str
    change: np.ndarray
    before: np.ndarray
    size: np.ndarray
    margin: float
    champion: float
    challenger: float
    reach: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class Limits:
    """Limits and changes, `(k,)` each, in the orientation of `Comparison.change`."""

    low: np.ndarray
    high: np.ndarray
    change: np.ndarray


@dataclass(frozen=True)
class Family:
    """Comparisons with simultaneous limits, and their share of the error rate."""

    comparisons: tuple[Comparison, ...]
    share: float
    change: np.ndarray = field(init=False, repr=False)
    size: np.ndarray = field(init=False, repr=False)
    margin: np.ndarray = field(init=False, repr=False)
    reach: np.ndarray = field(init=False, repr=False)
    decisive: np.ndarray = field(init=False, repr=False)  # recall on frozen images

    def __post_init__(self) -> None:
        """Stack the comparisons, `(subjects, k)`."""
        members = self.comparisons
        for name in ("change", "size"):
            columns = [np.asarray(getattr(one, name), dtype=float) for one in members]
            object.__setattr__(self, name, np.stack(columns, axis=1))
        object.__setattr__(self, "margin", np.array([one.margin for one in members]))
        object.__setattr__(self, "reach", np.array([one.reach for one in members]))
        decisive = [one.part == FROZEN and one.rule in (OVERALL, GROUP) for one in members]
        object.__setattr__(self, "decisive", np.array(decisive, dtype=bool))


def spent(rate: float, looks: float) -> float:
    """Return the error rate of a repeated look at the same test subjects (alpha spending).

    The full rate at the first look, then 1/4, 1/9, …: in total less than 1.65 times the rate over
    any number of looks. With new subjects a look counts only in part.
    """
    return rate / looks**2


def effective_people(size: np.ndarray) -> np.ndarray:
    """Return the effective number of subjects, `(subjects, k)` to `(k,)`.

    (Σn)² / Σn² of the numbers of images (L. Kish 1965, Survey Sampling, section 8.2).
    """
    size = np.asarray(size, dtype=float)
    total, squared = size.sum(axis=0), (size**2).sum(axis=0)
    return np.asarray(np.divide(total**2, squared, out=np.zeros_like(total), where=squared > 0))


def critical_values(
    change: np.ndarray, rates: Sequence[float], swaps: int, seed: int
) -> list[float]:
    """Return the critical values of a family's largest standardized fall, one per rate.

    Parameters
    ----------
    change
        `(subjects, k)` as in `Family`.
    rates
        Probabilities to exceed the critical value if both versions are equally good.
    swaps
        Minimum number of draws; small rates take more.
    """
    wanted = int(np.ceil(max(swaps, *(_TAIL / rate for rate in rates)) / 2))
    wanted = min(wanted, max(swaps, _MOST_SWAPS) // 2)
    scale = np.sqrt((change**2).sum(axis=0))
    varies = scale > 0
    largest = np.zeros(0)
    if varies.any():
        scaled = (change[:, varies] / scale[varies]).astype(np.float32)
        scaled = scaled[(scaled != 0).any(axis=1)]
        largest = np.concatenate(_largest_sums(scaled, wanted, seed))
    largest = np.sort(largest)[::-1]
    values = []
    for rate in rates:
        rank = int(rate * (len(largest) + 1)) - 1
        normal = float(norm.isf(rate))  # the minimum, also if nothing varies
        drawn = float(largest[rank]) if 0 <= rank < len(largest) else _NEVER
        values.append(max(drawn * (1 + _ROUNDING), normal) if len(largest) else normal)
    return values


def limits(family: Family, critical: float) -> Limits:
    """Return the limits of every change of a family."""
    return limits_of(family.change, family.size, family.reach, critical)


def limits_of(change: np.ndarray, size: np.ndarray, reach: np.ndarray, critical: float) -> Limits:
    """Return limits of changes, `(…, subjects, k)` to `(…, k)`.

    The lower limit is at least as far as that of one gained and one lost cluster of predictions:
    if hardly any prediction differs, a harm to subjects who were not sampled is still possible.
    """
    moments = _moments(change, size)
    lower = (*moments[:2], np.maximum(moments[2], _least_variance(moments)), *moments[3:])
    low, high = _root(*lower, critical, -1.0), _root(*moments, critical, 1.0)
    observed = moments[0] / np.maximum(moments[1], 1.0)
    return Limits(np.maximum(low, -reach), np.minimum(high, reach), observed)


def outcomes(
    family: Family, by_look: Limits, over_looks: Limits, not_shown: NotShown = "promote"
) -> np.ndarray:
    """Return the outcome of every comparison of a family, `(…, k)`.

    Parameters
    ----------
    by_look, over_looks
        Limits at the rate of a single look, and at the rate left for this look.
    not_shown
        Handling of versions of which neither harm nor non-inferiority is significant: `wait` holds
        them for a person, `wait_beyond_margin` only if recall on the frozen images fell by more
        than the margin. (Many former champions or few new subjects exceed it by chance.)
    """
    within = by_look.low >= -family.margin
    harm, held = over_looks.high < 0, by_look.high < 0
    if not_shown == "wait":
        held = np.ones_like(held)
    elif not_shown == "wait_beyond_margin":
        held = held | (family.decisive & (by_look.change < -family.margin - _ROUNDING))
    return np.select([within, harm, held], [PASS, FAIL, HELD], NOT_SHOWN)


def _largest_sums(changes: np.ndarray, wanted: int, seed: int) -> list[np.ndarray]:
    """Return the largest sum of each sign flip and of its opposite."""
    rng = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(len(changes), 1))
    parts = []
    for start in range(0, wanted, block):
        signs = rng.integers(0, 2, (min(block, wanted - start), len(changes)), dtype=np.int8)
        sums = (2 * signs - 1).astype(np.float32) @ changes
        parts += [sums.max(axis=1), -sums.min(axis=1)]
    return parts


def _moments(change: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return sums over subjects: change, size, change², size², change·size."""
    return (
        change.sum(axis=-2),
        size.sum(axis=-2),
        (change**2).sum(axis=-2),
        (size**2).sum(axis=-2),
        (change * size).sum(axis=-2),
    )


def _least_variance(moments: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the variance of a lost and a gained cluster of the images of one subject."""
    total, squared = moments[1], moments[3]
    mean = np.divide(squared, total, out=np.ones_like(total), where=total > 0)
    return np.asarray(2 * (1 + _ALIKE * (mean - 1)) ** 2)


def _root(
    change: np.ndarray,
    size: np.ndarray,
    variance: np.ndarray,
    size_squared: np.ndarray,
    crossed: np.ndarray,
    critical: float,
    side: float,
) -> np.ndarray:
    """Solve (Σchange − x Σsize)² = critical² Σ(change − x size)² for the limit of one side."""
    a = size**2 - critical**2 * size_squared
    b = size * change - critical**2 * crossed
    root = np.sqrt(np.maximum(b**2 - a * (change**2 - critical**2 * variance), 0.0))
    bounded = a > 1e-9
    value = (b + side * root) / np.where(bounded, a, 1.0)
    middle = change / np.maximum(size, 1.0)
    value = np.maximum(value, middle) if side > 0 else np.minimum(value, middle)
    return np.asarray(np.where(bounded, value, side * np.inf))
