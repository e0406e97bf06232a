"""Error rates of the gate before anything is trained (power analysis).

Two equally good versions are simulated: they disagree about a share of the images, and gains and
losses balance. The intra-class correlation sets how similar the changes of one subject are. The
error rates on such pairs are computed as on the page of a decision.
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
_PAIRS = 2  # simulated pairs of versions over which losses are averaged
_HALF = 1 / 3  # variance of a uniform share of gains, on the scale from -1 to 1


@dataclass(frozen=True)
class Assumed:
    """Assumptions about two versions.

    Attributes
    ----------
    recall
        Of the current model, in every group.
    disagreement
        Share of images that exactly one version predicts correctly.
    icc
        Intra-class correlation of the changes of one subject's images.
    """

    recall: float
    disagreement: float
    icc: float


@dataclass(frozen=True)
class People:
    """Test subjects: their numbers of images, and a mask of the members per named group."""

    size: np.ndarray
    members: Mapping[str, np.ndarray]


def people_of(test: pd.DataFrame, named: Sequence[Named]) -> People:
    """Return the subjects of a table of test images."""
    subject = test["subject_id"]
    size = subject.groupby(subject).size()
    members = {
        one.name: test[one.rows(test)].groupby("subject_id").size().reindex(size.index).notna()
        for one in named
    }
    return People(size.to_numpy(), {name: mask.to_numpy() for name, mask in members.items()})


def drawn_people(people: People, number: int, seed: int) -> People:
    """Return `number` subjects, drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(len(people.size), size=number)
    return People(people.size[drawn], {name: mask[drawn] for name, mask in people.members.items()})


def made_up_people(number: int, each: int, named: Sequence[Named]) -> People:
    """Return `number` subjects with `each` images, in equal parts in the named groups."""
    group = np.arange(number) % max(len(named), 1)
    return People(
        np.full(number, each), {one.name: group == index for index, one in enumerate(named)}
    )


def power_table(
    people: People, named: Sequence[Named], assumed: Assumed, params: Params
) -> pd.DataFrame:
    """Return the gate's error rates for half, all and twice its margin for groups.

    Returns
    -------
    pandas.DataFrame
        One row per margin and group: `margin, group, people, effective, pictures`, shares of
        equally good versions `refused` and `waits` at the first look, `refused_in_12` at least
        once in twelve looks at the same subjects, the smallest `loss` that is refused with
        probability 0.8 at the first look and `loss_at_12` at the twelfth (NaN: no loss is, or the
        group has too few subjects).

    Raises
    ------
    UserError
        If there are too few test subjects to judge anything.
    """
    rows = []
    rng = np.random.default_rng(params.seed)
    pairs = [_pair(people.size, assumed, rng) for _ in range(_PAIRS)]
    usual = params.margins.group
    for margin in (usual / 2, usual, min(2 * usual, 1.0)):
        margins = params.margins.model_copy(update={"group": margin})
        rows += _rows(people, named, pairs, params.model_copy(update={"margins": margins}))
    return pd.DataFrame(rows)


def _rows(
    people: People,
    named: Sequence[Named],
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    params: Params,
) -> list[dict[str, object]]:
    looks = [_looks(_family(people, named, *pair, params), params) for pair in pairs]
    first, last = [tests[0] for tests in looks], [tests[-1] for tests in looks]
    equal = [equally_good([test], params.seed) for test in first]
    refused = float(np.mean([one.refused for one in equal]))
    never = 1 - refused
    for test in looks[0][1:]:
        never *= 1 - equally_good([test], params.seed).refused
    rows = []
    for one in named:
        members = people.members[one.name]
        size = size_of(pd.Series(np.repeat(np.flatnonzero(members), people.size[members])))
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
    losses = []
    for test in tests:
        indices = [i for i, one in enumerate(test.family.comparisons) if one.group == group]
        loss = smallest_loss(test, indices[0], seed) if indices else None
        losses.append(np.nan if loss is None else loss)
    return round(float(np.mean(losses)), 3)


def _looks(family: Family, params: Params) -> list[Tested]:
    """Return a family with its critical values at every look; they do not depend on the margin."""
    rate = params.error_rate * family.share
    rates = [spent(rate, look) for look in range(1, PASSES + 1)]
    values = critical_values(family.change, rates, params.resamples, params.seed)
    return [Tested(family, values[0], over_looks, (), params.not_shown) for over_looks in values]


def _pair(
    size: np.ndarray, assumed: Assumed, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each subject, correct predictions of the current model and gains minus losses.

    A subject's share of changed predictions, and of gains among these, vary such that two changes
    of one subject have the given correlation.
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
    masks = {ALL: np.ones(len(people.size), dtype=bool)}
    masks |= {one.name: people.members[one.name] for one in named}
    comparisons = []
    for name, mask in masks.items():
        size = np.where(mask, people.size, 0)
        if not is_enough(size_of(pd.Series(np.repeat(np.arange(len(size)), size))), params):
            continue
        recall = float(before[mask].sum() / size.sum())
        margin = params.margins.overall if name == ALL else params.margins.group
        comparisons.append(
            Comparison(
                OVERALL if name == ALL else GROUP,
                FROZEN,
                name,
                change=np.where(mask, change, 0.0),
                before=np.where(mask, before, 0.0),
                size=size,
                margin=margin,
                champion=recall,
                challenger=recall + float(change[mask].sum() / size.sum()),
            )
        )
    if not comparisons:
        raise UserError(
            f"{len(people.size)} test people are too few to judge anything on: {params.min_n} "
            f"pictures of {params.min_subjects} effective people are needed (promote.min_subjects)"
        )
    return Family(tuple(comparisons), RECALL_SHARE)
