"""The gate's decision about a challenger, from the models' predictions."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tasks.core.labels import credit_line
from tasks.gate.compare import CHALLENGER, CHAMPION, Compared, compare, digest_of, named_groups
from tasks.gate.decision import FAIL, Contender, Decision
from tasks.gate.error_rates import error_rates
from tasks.gate.families import Paired, Tested, judged
from tasks.gate.limits import spent
from tasks.gate.rejection_reasons import losses, reasons, waits
from tasks.gate.rules import rules_table
from tasks.gate.score import Scores
from tasks.gate.settings import Params

_NOT_DECIDING = ("require_approval", "device", "batch_size")  # params that no rule depends on


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
    """Judge a challenger; the same models, images and params give the same decision.

    Parameters
    ----------
    split
        The complete split table, with the frozen images among its test images.
    frozen
        `image_id` of the images that the champion was judged on; without one, all test images.
    challenger, champion
        Version, predictions for the test images, and the table `seen.csv`.
    earlier
        Predictions of former champions, by version number: labels with `image_id` as the index.
    needed
        Groups that must be judged before an automatic promotion, by the key of params.
    looks
        Number of this look at these test subjects: 1 if nothing was decided on them before.
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
    test = split[split["image_id"].isin(compared.images["image_id"])]
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
    """Return the keys of `promote` that rules depend on, as stored with a decision."""
    return params.model_dump(mode="json", exclude=set(_NOT_DECIDING))


def _errors(tests: Sequence[Tested], params: Params, looks: float) -> dict[str, Any]:
    """Return the gate's error rates on this test set, with the nominal ones."""
    looks = round(looks, 4)
    rates = {
        "looks": looks,
        "rate": params.error_rate,
        "spent": round(spent(params.error_rate, looks), 6),
    }
    return rates | error_rates(tests, params.seed)


def _answers(compared: Compared) -> pd.DataFrame:
    answers = compared.images[["image_id", f"answer_{CHALLENGER}"]]
    answers = answers.set_axis(["image_id", "answer"], axis=1).fillna({"answer": ""})
    return answers.sort_values("image_id").reset_index(drop=True)
