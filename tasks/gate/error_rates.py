"""How often the gate errs on a test set: equally good versions stopped, and harms that it catches.

Simulated from the two versions' own answers. People are drawn with replacement. Each drawn person's
answers of the two versions are swapped or not, by a coin: on average neither version is better, and
they disagree as often as these two do. A harm is planted by turning the challenger's right answers
to a group wrong, each with the same probability. Then the gate's own limits are worked out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.gate.decision import ALL, FAIL, FROZEN, GROUP, HELD
from tasks.gate.families import Tested
from tasks.gate.limits import Family, limits_of, outcomes

POWER = 0.8  # the chance with which a harm is caught that is said
_EQUAL, _HARMED = 2000, 400  # simulated decisions
_STEPS = 8  # halvings of the range in which the harm is looked for
_AT_ONCE = 1 << 21  # entries of a block


@dataclass(frozen=True)
class Stopped:
    """Shares of simulated decisions that refuse, or leave it to a person."""

    refused: float
    held: float


def error_rates(tests: Sequence[Tested], seed: int) -> dict[str, Any]:
    """Return how often the gate errs, as it is written down with a decision.

    Parameters
    ----------
    tests
        The families of a decision; the first is recall on the frozen pictures.
    seed
        Of the simulated decisions.

    Returns
    -------
    dict
        `equal`: shares `refused` and `held` of equally good versions, their Monte Carlo `error`,
        and `simulations`. `harm`: for each named group, in the order of the rules, `group`,
        `people`, `points` (the smallest loss of recall, as a share, that is refused with a chance
        of `POWER`; None where no loss is) and `simulations`.
    """
    equal = equally_good(tests, seed)
    share = min(max(equal.refused + equal.held, 1 / _EQUAL), 1 - 1 / _EQUAL)
    found: dict[str, Any] = {
        "equal": {
            "refused": round(equal.refused, 4),
            "held": round(equal.held, 4),
            "error": round(float(np.sqrt(share * (1 - share) / _EQUAL)), 4),
            "simulations": _EQUAL,
        },
        "harm": [],
    }
    recall = tests[0] if tests else None
    for place, one in enumerate(recall.family.comparisons if recall else ()):
        if recall is not None and one.rule == GROUP and one.group != ALL:
            loss = smallest_loss(recall, place, seed)
            people = int((one.size > 0).sum())
            group = one.group if one.part == FROZEN else f"{one.group}, new ones"
            harm = {"group": group, "people": people, "points": loss}
            found["harm"].append(harm | {"simulations": _HARMED})
    return found


def equally_good(tests: Sequence[Tested], seed: int) -> Stopped:
    """Return how often an equally good version is stopped, by any of the families."""
    refused = held = 0
    families = [test.family for test in tests]
    width = sum(family.change.shape[1] for family in families)
    for drawn in _draws(families, _EQUAL, width, seed):
        fails = np.zeros(len(drawn.sign), dtype=bool)
        holds = fails.copy()
        for test in tests:
            change = drawn.sign[:, :, None] * test.family.change[drawn.who]
            own = _outcomes(test, change, test.family.size[drawn.who])
            fails |= (own == FAIL).any(axis=1)
            holds |= (own == HELD).any(axis=1)
        refused += int(fails.sum())
        held += int((holds & ~fails).sum())
    return Stopped(refused / _EQUAL, held / _EQUAL)


def smallest_loss(test: Tested, place: int, seed: int) -> float | None:
    """Return the smallest loss of a group's recall that is refused with a chance of `POWER`."""
    one = test.family.comparisons[place]
    most = one.champion
    if most <= 0 or caught(test, place, most, seed) < POWER:
        return None
    low, high = 0.0, most
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if caught(test, place, middle, seed) < POWER:
            low = middle
        else:
            high = middle
    return round(float(high), 4)


def caught(test: Tested, place: int, loss: float, seed: int) -> float:
    """Return how often a challenger is refused that loses so much recall in a group."""
    family, own = test.family, test.family.comparisons[place]
    chance = min(loss / own.champion, 1.0) if own.champion > 0 else 0.0
    whole = [i for i, one in enumerate(family.comparisons) if one.group == ALL]
    touched = [place, *(i for i in whole if family.comparisons[i].part == own.part)]
    refused = 0
    rng = np.random.default_rng(seed + 1)
    for drawn in _draws([family], _HARMED, family.change.shape[1], seed):
        change = drawn.sign[:, :, None] * family.change[drawn.who]
        after = own.before + own.change
        right = np.where(drawn.sign > 0, after[drawn.who], own.before[drawn.who])
        lost = rng.binomial(np.rint(right).astype(np.int64), chance)
        change[:, :, touched] -= lost[:, :, None]
        refused += int((_outcomes(test, change, family.size[drawn.who]) == FAIL).any(axis=1).sum())
    return refused / _HARMED


@dataclass(frozen=True)
class _Drawn:
    """People of simulated test sets, `(decisions, people)`, and whether they are swapped (−1)."""

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
    one = limits_of(change, size, reach, test.by_look)
    every = (
        one if test.by_look == test.over_looks else limits_of(change, size, reach, test.over_looks)
    )
    return outcomes(test.family, one, every, test.not_shown)
