"""Error rates of the gate on a test set: false alarms, and the harm it detects.

Simulated from the predictions of the two versions. Subjects are drawn with replacement. For each, a
coin decides whether the predictions of the two versions are swapped: on average neither version is
better, and they disagree as often as the real ones. A harm is planted by making each of the
challenger's correct predictions for a group wrong with the same probability. The gate's limits are
then computed as usual.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.gate.decision import ALL, FAIL, FROZEN, GROUP, HELD
from tasks.gate.families import Tested
from tasks.gate.limits import Family, limits_of, outcomes

POWER = 0.8  # probability of detection that the smallest loss is reported for
_EQUAL, _HARMED = 2000, 400  # simulated decisions
_STEPS = 8  # bisections
_AT_ONCE = 1 << 21  # entries of a block


@dataclass(frozen=True)
class Stopped:
    """Shares of simulated decisions that refuse the version, or hold it for a person."""

    refused: float
    held: float


def error_rates(tests: Sequence[Tested], seed: int) -> dict[str, Any]:
    """Return the error rates as stored with a decision.

    The first of `tests` is recall on the frozen images.

    Returns
    -------
    dict
        `equal`: shares `refused` and `held` of equally good versions, their Monte Carlo `error`,
        and `simulations`. `harm`: for each named group, in the order of the rules, `group`,
        `people`, `points` (the smallest loss of recall, as a share, that is refused with
        probability `POWER`; None if no loss is) and `simulations`.
    """
    equal = equally_good(tests, seed)
    share = min(max(equal.refused + equal.held, 1 / _EQUAL), 1 - 1 / _EQUAL)
    rates: dict[str, Any] = {
        "equal": {
            "refused": round(equal.refused, 4),
            "held": round(equal.held, 4),
            "error": round(float(np.sqrt(share * (1 - share) / _EQUAL)), 4),
            "simulations": _EQUAL,
        },
        "harm": [],
    }
    recall = tests[0] if tests else None
    for index, one in enumerate(recall.family.comparisons if recall else ()):
        if recall is not None and one.rule == GROUP and one.group != ALL:
            loss = smallest_loss(recall, index, seed)
            people = int((one.size > 0).sum())
            group = one.group if one.part == FROZEN else f"{one.group}, new ones"
            harm = {"group": group, "people": people, "points": loss}
            rates["harm"].append(harm | {"simulations": _HARMED})
    return rates


def equally_good(tests: Sequence[Tested], seed: int) -> Stopped:
    """Return how often any of the families stops an equally good version."""
    refused = held = 0
    families = [test.family for test in tests]
    width = sum(family.change.shape[1] for family in families)
    for drawn in _draws(families, _EQUAL, width, seed):
        fails = np.zeros(len(drawn.sign), dtype=bool)
        holds = fails.copy()
        for test in tests:
            change = drawn.sign[:, :, None] * test.family.change[drawn.who]
            outcome = _outcomes(test, change, test.family.size[drawn.who])
            fails |= (outcome == FAIL).any(axis=1)
            holds |= (outcome == HELD).any(axis=1)
        refused += int(fails.sum())
        held += int((holds & ~fails).sum())
    return Stopped(refused / _EQUAL, held / _EQUAL)


def smallest_loss(test: Tested, index: int, seed: int) -> float | None:
    """Return the smallest loss of a group's recall that is refused with probability `POWER`.

    `index` is that of the group's comparison in the family. None if even the largest loss is
    refused less often.
    """
    largest = test.family.comparisons[index].champion
    if largest <= 0 or caught(test, index, largest, seed) < POWER:
        return None
    low, high = 0.0, largest
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if caught(test, index, middle, seed) < POWER:
            low = middle
        else:
            high = middle
    return round(float(high), 4)


def caught(test: Tested, index: int, loss: float, seed: int) -> float:
    """Return how often a challenger with this loss of recall in a group is refused."""
    family, target = test.family, test.family.comparisons[index]
    chance = min(loss / target.champion, 1.0) if target.champion > 0 else 0.0
    overall = [
        i
        for i, one in enumerate(family.comparisons)
        if one.group == ALL and one.part == target.part
    ]
    affected = [index, *overall]
    refused = 0
    rng = np.random.default_rng(seed + 1)
    for drawn in _draws([family], _HARMED, family.change.shape[1], seed):
        change = drawn.sign[:, :, None] * family.change[drawn.who]
        after = target.before + target.change
        correct = np.where(drawn.sign > 0, after[drawn.who], target.before[drawn.who])
        lost = rng.binomial(np.rint(correct).astype(np.int64), chance)
        change[:, :, affected] -= lost[:, :, None]
        refused += int((_outcomes(test, change, family.size[drawn.who]) == FAIL).any(axis=1).sum())
    return refused / _HARMED


@dataclass(frozen=True)
class _Drawn:
    """Subjects of simulated test sets, `(decisions, subjects)`, and whether swapped (−1)."""

    who: np.ndarray
    sign: np.ndarray


def _draws(families: Sequence[Family], wanted: int, width: int, seed: int) -> Iterator[_Drawn]:
    rng = np.random.default_rng(seed)
    people = len(families[0].change) if families else 0
    block = max(1, _AT_ONCE // max(people * width, 1))
    for start in range(0, wanted if people else 0, block):
        shape = (min(block, wanted - start), people)
        yield _Drawn(rng.integers(people, size=shape), 2.0 * rng.integers(0, 2, shape) - 1)


def _outcomes(test: Tested, change: np.ndarray, size: np.ndarray) -> np.ndarray:
    reach = test.family.reach
    by_look = limits_of(change, size, reach, test.by_look)
    over_looks = by_look
    if test.by_look != test.over_looks:
        over_looks = limits_of(change, size, reach, test.over_looks)
    return outcomes(test.family, by_look, over_looks, test.not_shown)
