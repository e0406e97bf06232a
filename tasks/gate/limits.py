"""Simultaneous limits of several paired changes: swap the two versions' answers person by person.

If both versions are equally good, which of them gave which answers of a person says nothing. So
each person's change may take either sign, and the largest standardized change of all comparisons
over many such swaps is what chance alone makes of the family (max-t: P. H. Westfall, S. S. Young
1993, Resampling-Based Multiple Testing; sign flips of clusters: A. C. Cameron, J. B. Gelbach, D. L.
Miller 2008, Rev. Econ. Stat. 90, 414-427, with the null imposed). The limits of a change are the
values that the same statistic does not reject: a quadratic, as E. C. Fieller (1954), J. R. Stat.
Soc. B 16, 175-185, has it for a ratio. A limit and the verdict beside it therefore agree, and a
change lies between its limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import norm

from tasks.gate.decision import FAIL, FROZEN, GROUP, HELD, NOT_SHOWN, OVERALL, PASS
from tasks.gate.settings import NotShown

_AT_ONCE = 1 << 22  # entries of a block of swaps
_TAIL = 12  # swaps that should lie beyond a critical value
_MOST_SWAPS = 60_000
_ALIKE = 0.3  # correlation of one person's pictures where there are too few changes to measure it
_ROUNDING = 1e-6
_NEVER = 1e3  # a critical value that no change exceeds: for rates below what can be drawn


@dataclass(frozen=True)
class Comparison:
    """A change between two versions on the same pictures.

    Attributes
    ----------
    rule, part, group
        As in the decision's table.
    change
        `(people,)` sums over each person's pictures; negative where the challenger does worse.
    before
        `(people,)` sums of the champion's figure.
    size
        `(people,)` pictures.
    margin
        How much worse the challenger may do.
    champion, challenger
        Both versions' figures.
    reach
        The largest change that is possible.
    note
        What the row says beside its outcome.
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
    """Comparisons whose limits hold together, and the share of the error rate that they get."""

    comparisons: tuple[Comparison, ...]
    share: float
    change: np.ndarray = field(init=False, repr=False)
    size: np.ndarray = field(init=False, repr=False)
    margin: np.ndarray = field(init=False, repr=False)
    reach: np.ndarray = field(init=False, repr=False)
    decisive: np.ndarray = field(init=False, repr=False)  # recall of frozen pictures

    def __post_init__(self) -> None:
        """Stack the comparisons, `(people, k)`."""
        own = self.comparisons
        for name in ("change", "size"):
            columns = [np.asarray(getattr(one, name), dtype=float) for one in own]
            object.__setattr__(self, name, np.stack(columns, axis=1))
        object.__setattr__(self, "margin", np.array([one.margin for one in own]))
        object.__setattr__(self, "reach", np.array([one.reach for one in own]))
        decisive = [one.part == FROZEN and one.rule in (OVERALL, GROUP) for one in own]
        object.__setattr__(self, "decisive", np.array(decisive, dtype=bool))


def spent(rate: float, looks: float) -> float:
    """Return what is left of an error rate at a further look at the same test people.

    All of it at the first look, then 1/4, 1/9, …: over any number of looks together less than 1.65
    times the rate, and less with fresh people, by whom a look counts only in part.
    """
    return rate / looks**2


def effective_people(size: np.ndarray) -> np.ndarray:
    """Return how many people with equally many pictures tell as much, `(people, k)` to `(k,)`.

    (Σn)² / Σn² (L. Kish 1965, Survey Sampling, section 8.2).
    """
    size = np.asarray(size, dtype=float)
    total, squared = size.sum(axis=0), (size**2).sum(axis=0)
    return np.asarray(np.divide(total**2, squared, out=np.zeros_like(total), where=squared > 0))


def critical_values(
    change: np.ndarray, rates: Sequence[float], swaps: int, seed: int
) -> list[float]:
    """Return how large the largest standardized fall of a family gets by chance.

    Parameters
    ----------
    change
        `(people, k)` as in `Family`.
    rates
        With which probability it may be exceeded where both versions are equally good.
    swaps
        At least so many draws; more where a rate is small.
    seed
        Of the draws.
    """
    wanted = int(np.ceil(max(swaps, *(_TAIL / rate for rate in rates)) / 2))
    wanted = min(wanted, max(swaps, _MOST_SWAPS) // 2)
    scale = np.sqrt((change**2).sum(axis=0))
    varies = scale > 0
    largest = np.zeros(0)
    if varies.any():
        own = (change[:, varies] / scale[varies]).astype(np.float32)
        own = own[(own != 0).any(axis=1)]
        largest = np.concatenate([*_swapped(own, wanted, seed)])
    largest = np.sort(largest)[::-1]
    found = []
    for rate in rates:
        place = int(rate * (len(largest) + 1)) - 1
        least = float(norm.isf(rate))  # also where nothing varies
        drawn = float(largest[place]) if 0 <= place < len(largest) else _NEVER
        found.append(max(drawn * (1 + _ROUNDING), least) if len(largest) else least)
    return found


def limits(family: Family, critical: float) -> Limits:
    """Return limits of every change of a family."""
    return limits_of(family.change, family.size, family.reach, critical)


def limits_of(change: np.ndarray, size: np.ndarray, reach: np.ndarray, critical: float) -> Limits:
    """Return limits of changes, `(…, people, k)` to `(…, k)`.

    The lower limit is never nearer than that of one gained and one lost cluster of answers: where
    hardly any answer differs, a harm in people who were not drawn is still possible.
    """
    moments = _moments(change, size)
    lower = (*moments[:2], np.maximum(moments[2], _least_variance(moments)), *moments[3:])
    low, high = _root(*lower, critical, -1.0), _root(*moments, critical, 1.0)
    seen = moments[0] / np.maximum(moments[1], 1.0)
    return Limits(np.maximum(low, -reach), np.minimum(high, reach), seen)


def outcomes(
    family: Family, by_look: Limits, over_looks: Limits, not_shown: NotShown = "promote"
) -> np.ndarray:
    """Return what came of every comparison of a family, `(…, k)`.

    Parameters
    ----------
    family
        The comparisons.
    by_look, over_looks
        Limits at the rate of one look, and at what is left of it at this one.
    not_shown
        What becomes of a version of which neither harm nor its absence is shown: `wait` holds it
        for a person, `wait_beyond_margin` only where recall of the frozen pictures fell by more
        than the margin. (Of many earlier versions and few new people some are beyond it by chance.)
    """
    within = by_look.low >= -family.margin
    harm, held = over_looks.high < 0, by_look.high < 0
    if not_shown == "wait":
        held = np.ones_like(held)
    elif not_shown == "wait_beyond_margin":
        held = held | (family.decisive & (by_look.change < -family.margin - _ROUNDING))
    return np.select([within, harm, held], [PASS, FAIL, HELD], NOT_SHOWN)


def _swapped(own: np.ndarray, wanted: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    block = max(1, _AT_ONCE // max(len(own), 1))
    parts = []
    for start in range(0, wanted, block):
        signs = rng.integers(0, 2, (min(block, wanted - start), len(own)), dtype=np.int8)
        sums = (2 * signs - 1).astype(np.float32) @ own
        parts += [sums.max(axis=1), -sums.min(axis=1)]  # a swap and its opposite
    return parts


def _moments(change: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return sums over people: change, size, change², size², change·size."""
    return (
        change.sum(axis=-2),
        size.sum(axis=-2),
        (change**2).sum(axis=-2),
        (size**2).sum(axis=-2),
        (change * size).sum(axis=-2),
    )


def _least_variance(moments: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return the variance of a lost and a gained cluster of the pictures of one person."""
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
