"""The decision, from the models' answers: rules, reasons and what they rest on."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.core.labels import credit_line
from tasks.gate.compare import (
    CHALLENGER,
    CHAMPION,
    Compared,
    compare,
    digest_of,
    named_groups,
)
from tasks.gate.decision import FAIL, Contender, Decision
from tasks.gate.error_rates import error_rates
from tasks.gate.families import Paired, Tested, judged
from tasks.gate.limits import spent
from tasks.gate.reasons import losses, reasons, waits
from tasks.gate.rules import rules_table
from tasks.gate.score import Scores
from tasks.gate.settings import Params

# How scores are computed or who lets a version through decides nothing about it.
_NOT_DECIDING = ("require_approval", "device", "batch_size")


def decide(
    split: pd.DataFrame,
    frozen: pd.Series,
    challenger: tuple[Contender, Scores, pd.DataFrame],
    champion: tuple[Contender, Scores, pd.DataFrame] | None,
    params: Params,
    earlier: Mapping[int, pd.Series],
    needed: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    looks: float = 1.0,
) -> Decision:
    """Judge a challenger.

    Parameters
    ----------
    split
        The split table, every row, with the frozen pictures among its test pictures.
    frozen
        `image_id` of the pictures that the champion was judged on; without one, all test pictures.
    challenger, champion
        Who it is, what it answers to the test pictures, and its `seen.csv`.
    params
        The section `promote`.
    earlier
        Answers of other versions once in use, by number: labels with `image_id` as the index.
    needed
        Groups without which no version comes into use by itself, by the key of params.
    looks
        Which look at these test people it is: 1 for people on whom nothing was decided before.

    Returns
    -------
    Decision
        The same for the same models, pictures and params.
    """
    scores = None if champion is None else champion[1]
    named = named_groups(params.protected, needed or {})
    compared = compare(split, frozen, challenger[1], scores, params.by, named)
    tests = judged(Paired(compared, params).families(earlier), params, looks) if champion else ()
    sides = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    seen = {
        side: frozenset(ids["subject_id"]) if len(ids) else None
        for side, (_, _, ids) in sides.items()
    }
    table = rules_table(compared, seen, params, tests)
    test = split[split["image_id"].isin(compared.pictures["image_id"])]
    failed = bool((table["outcome"] == FAIL).any())
    return Decision(
        outcome="refuse" if failed else "pass",
        reasons=reasons(table, params.confidence) + (losses(compared) if failed else ()),
        table=table,
        challenger=challenger[0],
        champion=None if champion is None else champion[0],
        counts=compared.counts,
        test_set=digest_of(compared),
        notice=credit_line(test["dataset"]),
        params=deciding(params),
        waits=() if failed else waits(table, named, params),
        errors=_errors(tests, params, looks) if tests else {},
        answers=_answers(compared),
    )


def deciding(params: Params) -> dict[str, Any]:
    """Return the section `promote` as far as it decides, as it is kept with a decision."""
    return params.model_dump(mode="json", exclude=set(_NOT_DECIDING))


def _errors(tests: Sequence[Tested], params: Params, looks: float) -> dict[str, Any]:
    """Return how often the gate errs on this test set, with the rates that it was set to."""
    looks = round(looks, 4)
    rates = {
        "looks": looks,
        "rate": params.error_rate,
        "spent": round(spent(params.error_rate, looks), 6),
    }
    return rates | error_rates(tests, params.seed)


def _answers(compared: Compared) -> pd.DataFrame:
    own = compared.pictures[["image_id", f"answer_{CHALLENGER}"]]
    named = own.set_axis(["image_id", "answer"], axis=1).fillna({"answer": ""})
    return named.sort_values("image_id").reset_index(drop=True)
