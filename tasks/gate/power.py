"""Error rates of the gate before anything is trained: from people, pictures and assumptions.

Two equally good versions are made up: they disagree about a share of the pictures, and as many
answers are gained as lost. How alike the changes of one person are is their intra-class
correlation. On such pairs the gate's own limits are worked out, as on the page of a decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.errors import UserError
from tasks.gate.compare import Named
from tasks.gate.decision import ALL, FROZEN, GROUP, OVERALL
from tasks.gate.error_rates import equally_good, smallest_loss
from tasks.gate.families import RECALL_SHARE, Tested, is_enough, size_of
from tasks.gate.limits import Comparison, Family, critical_values, spent
from tasks.gate.settings import Params

PASSES = 12
_PAIRS = 2  # made-up pairs of versions over which losses are averaged
_HALF = 1 / 3  # variance of a uniform share of gains, on the scale from -1 to 1


@dataclass(frozen=True)
class Assumed:
    """What is assumed about two versions.

    Attributes
    ----------
    recall
        Of the model in use, in every group.
    disagreement
        Share of pictures that one version reads right and the other does not.
    icc
        Intra-class correlation of the changes of one person's pictures.
    """

    recall: float
    disagreement: float
    icc: float


@dataclass(frozen=True)
class People:
    """Test people: how many pictures each has, and of each named group who is in it."""

    size: np.ndarray
    members: Mapping[str, np.ndarray]


def people_of(test: pd.DataFrame, named: Sequence[Named]) -> People:
    """Return the people of a table of test pictures."""
    subject = test["subject_id"]
    size = subject.groupby(subject).size()
    members = {
        one.name: test[one.rows(test)].groupby("subject_id").size().reindex(size.index).notna()
        for one in named
    }
    return People(size.to_numpy(), {name: own.to_numpy() for name, own in members.items()})


def drawn_people(people: People, number: int, seed: int) -> People:
    """Return that many people, drawn with replacement from those that there are."""
    who = np.random.default_rng(seed).integers(len(people.size), size=number)
    return People(people.size[who], {name: own[who] for name, own in people.members.items()})


def made_up_people(number: int, each: int, named: Sequence[Named]) -> People:
    """Return people of whom each named group has as many, each with as many pictures."""
    place = np.arange(number) % max(len(named), 1)
    return People(
        np.full(number, each), {one.name: place == index for index, one in enumerate(named)}
    )


def power_table(
    people: People, named: Sequence[Named], assumed: Assumed, params: Params
) -> pd.DataFrame:
    """Return the error rates of the gate for its margin of groups, and for half and twice of it.

    Parameters
    ----------
    people
        Those of the test part.
    named
        Groups that can stop a version.
    assumed
        About two versions.
    params
        The section `promote`.

    Returns
    -------
    pandas.DataFrame
        One row per margin and group: `margin, group, people, effective, pictures`, shares of
        equally good versions `refused` and `waits` at the first look, `refused_in_12` at least
        once in twelve passes on the same people, `loss` that is refused with a chance of .8 at the
        first look and `loss_at_12` at the twelfth (NaN: none is; a group of too few people has
        neither).

    Raises
    ------
    UserError
        One line, where the test people are too few to be judged at all.
    """
    rows = []
    rng = np.random.default_rng(params.seed)
    pairs = [_pair(people.size, assumed, rng) for _ in range(_PAIRS)]
    usual = params.margins.group
    for margin in (usual / 2, usual, min(2 * usual, 1.0)):
        margins = params.margins.model_copy(update={"group": margin})
        own = params.model_copy(update={"margins": margins})
        rows += _rows(people, named, pairs, own)
    return pd.DataFrame(rows)


def _rows(
    people: People,
    named: Sequence[Named],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    params: Params,
) -> list[dict[str, object]]:
    looks = [_looks(_family(people, named, *pair, params), params) for pair in pairs]
    first, last = [own[0] for own in looks], [own[-1] for own in looks]
    equal = [equally_good([test], params.seed) for test in first]
    refused = float(np.mean([one.refused for one in equal]))
    never = 1 - refused
    for test in looks[0][1:]:
        never *= 1 - equally_good([test], params.seed).refused
    rows = []
    for one in named:
        inside = people.members[one.name]
        size = size_of(pd.Series(np.repeat(np.flatnonzero(inside), people.size[inside])))
        rows.append(
            {
                "margin": params.margins.group,
                "group": one.name,
                "people": size.subjects,
                "effective": round(size.effective, 1),
                "pictures": size.n,
                "refused": round(refused, 3),
                "waits": round(float(np.mean([one.held for one in equal])), 3),
                f"refused_in_{PASSES}": round(1 - never, 3),
                "loss": _loss(first, one.name, params.seed),
                f"loss_at_{PASSES}": _loss(last, one.name, params.seed),
            }
        )
    return rows


def _loss(tests: Sequence[Tested], group: str, seed: int) -> float:
    found = []
    for test in tests:
        places = [i for i, one in enumerate(test.family.comparisons) if one.group == group]
        loss = smallest_loss(test, places[0], seed) if places else None
        found.append(np.nan if loss is None else loss)
    return round(float(np.mean(found)), 3)


def _looks(family: Family, params: Params) -> list[Tested]:
    """Return a family with its critical values at every look; the margin has no part in them."""
    rate = params.error_rate * family.share
    rates = [spent(rate, look) for look in range(1, PASSES + 1)]
    found = critical_values(family.change, rates, params.resamples, params.seed)
    return [Tested(family, found[0], over_looks, (), params.not_shown) for over_looks in found]


def _pair(
    size: np.ndarray, assumed: Assumed, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each person, right answers of the model in use and gains less losses.

    A person's share of changed answers and of gains among these vary such that two changes of one
    person correlate as asked.
    """
    share, spread = assumed.disagreement, max(_HALF, assumed.icc)
    lean = min(spread, assumed.icc / share) if assumed.icc < share * spread else spread
    changed = np.full(len(size), share)
    if assumed.icc > share * spread:
        extra = (assumed.icc / spread - share) / (1 - share)  # 1 / (1 + a + b) of a beta
        sum_ab = 1 / min(extra, 0.999) - 1
        changed = rng.beta(share * sum_ab, (1 - share) * sum_ab, len(size))
    shape = (1 / lean - 1) / 2 if lean > 0 else np.inf
    gains = np.full(len(size), 0.5)
    if np.isfinite(shape):
        gains = rng.beta(max(shape, 1e-3), max(shape, 1e-3), len(size))
    differ = rng.binomial(size, changed)
    gained = rng.binomial(differ, gains)
    alike = min(max((assumed.recall - share / 2) / (1 - share), 0.0), 1.0)
    before = rng.binomial(size - differ, alike) + differ - gained
    return before, 2 * gained - differ


def _family(
    people: People,
    named: Sequence[Named],
    before: np.ndarray,
    change: np.ndarray,
    params: Params,
) -> Family:
    whole = np.ones(len(people.size), dtype=bool)
    found = []
    for name, inside in {
        ALL: whole,
        **{one.name: people.members[one.name] for one in named},
    }.items():
        size = np.where(inside, people.size, 0)
        own = size_of(pd.Series(np.repeat(np.arange(len(size)), size)))
        if not is_enough(own, params):
            continue
        recall = float(before[inside].sum() / size.sum())
        margin = params.margins.overall if name == ALL else params.margins.group
        found.append(
            Comparison(
                OVERALL if name == ALL else GROUP,
                FROZEN,
                name,
                change=np.where(inside, change, 0.0),
                before=np.where(inside, before, 0.0),
                size=size,
                margin=margin,
                champion=recall,
                challenger=recall + float(change[inside].sum() / size.sum()),
            )
        )
    if not found:
        raise UserError(
            f"{len(people.size)} test people are too few to judge anything on: {params.min_n} "
            f"pictures of {params.min_subjects} effective people are needed (promote.min_subjects)"
        )
    return Family(tuple(found), RECALL_SHARE)
