"""The decision, from the models' answers: rules, reasons and what they rest on."""

import pandas as pd

from tasks.core.labels import credit_line
from tasks.gate.compare import CHALLENGER, CHAMPION, compare, digest_of
from tasks.gate.decision import FAIL, Contender, Decision
from tasks.gate.reasons import reasons
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
) -> Decision:
    """Judge a challenger.

    Parameters
    ----------
    split
        The split table, every row.
    frozen
        `image_id` of the pictures that the champion was judged on; without one, of all test ones.
    challenger, champion
        Who it is, what it answered to the test pictures, and its `seen.csv`.
    params
        The section `promote`.

    Returns
    -------
    Decision
        The same for the same models, pictures and params.
    """
    scores = None if champion is None else champion[1]
    compared = compare(split, frozen, challenger[1], scores, params.by)
    sides = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    seen = {
        side: frozenset(ids["subject_id"]) if len(ids) else None
        for side, (_, _, ids) in sides.items()
    }
    table = rules_table(compared, seen, params)
    test = split[split["image_id"].isin(compared.pictures["image_id"])]
    return Decision(
        outcome="refuse" if (table["outcome"] == FAIL).any() else "pass",
        reasons=reasons(table, params.confidence),
        table=table,
        challenger=challenger[0],
        champion=None if champion is None else champion[0],
        counts=compared.counts,
        test_set=digest_of(compared, split),
        notice=credit_line(test["dataset"]),
        params=params.model_dump(mode="json", exclude=set(_NOT_DECIDING)),
    )
