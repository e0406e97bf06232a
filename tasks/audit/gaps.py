"""Gaps in recall between groups: every pair of groups of every dimension, pooled and by emotion.

A pair is compared on the emotions that both groups have; the others are left out and named.
People whose group is not recorded ("unknown") make no group. The family of tests, over which
Holm's correction runs, is all comparisons of one model and protocol along one dimension with enough
pictures on both sides: a gap by gender is one question, one by ethnicity another, and how many
groups the second has says nothing about the first (docs/decisions/0002-family-of-tests.md).
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from tasks.audit.comparisons import (
    GAP_METHOD,
    design_effect,
    holm,
    newcombe_independent,
    score_test,
)
from tasks.audit.cube import values_in_order
from tasks.core.labels import ALL, UNKNOWN, in_order

COLUMNS = [
    "model",
    "protocol",
    "dataset",
    "dimension",
    "group_a",
    "group_b",
    "emotion",
    "n_a",
    "correct_a",
    "recall_a",
    "subjects_a",
    "n_b",
    "correct_b",
    "recall_b",
    "subjects_b",
    "gap",
    "ci_low",
    "ci_high",
    "confidence",
    "p_value",
    "p_holm",
    "enough_n",
    "emotions",
    "left_out_emotions",
    "n_left_out",
    "shared_datasets",
    "family",
    "method",
]


def gaps_table(
    judged: pd.DataFrame, by: Sequence[str], confidence: float, min_n: int
) -> pd.DataFrame:
    """Compare every pair of groups.

    Parameters
    ----------
    judged
        One row a model, protocol and picture, with `correct`.
    by
        Dimensions whose groups are compared; `dataset` joins them where there are several.
    confidence
        Level of the intervals.
    min_n
        Pictures needed on each side for a comparison to be tested.

    Returns
    -------
    pandas.DataFrame
        One row a comparison; `gap` is recall of a minus recall of b, from -1 to 1. For
        `emotion=all` the recalls are over the emotions that both groups have (`emotions`);
        `left_out_emotions` and `n_left_out` say what that leaves out. `dataset` names the data
        set within which the groups are compared (`all`: across). `shared_datasets` lists the data
        sets that hold both groups: where it is empty, the gap may be one between data sets.
        `p_holm` is empty where `enough_n` is false: not tested.
    """
    rows = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        for row in _comparisons(part, by, confidence):
            rows.append({"model": model, "protocol": protocol, **row})
    table = pd.DataFrame(rows)
    if table.empty:
        return pd.DataFrame(columns=COLUMNS)
    table["enough_n"] = (table["n_a"] >= min_n) & (table["n_b"] >= min_n)
    table["confidence"], table["method"] = confidence, GAP_METHOD
    questions = table.groupby(["model", "protocol", "dimension"], sort=False)
    families = [_tested(part, min_n) for _, part in questions]
    return pd.concat(families).sort_index()[COLUMNS]


def _tested(part: pd.DataFrame, min_n: int) -> pd.DataFrame:
    """Correct the p-values of one model, protocol and dimension, which are one family."""
    first, tested = part.iloc[0], part["enough_n"]
    return part.assign(
        p_holm=holm(part["p_value"], tested),
        family=f"{first['model']}, {first['protocol']}, {first['dimension']}: "
        f"{int(tested.sum())} comparisons with at least {min_n} pictures on both sides",
    )


def _comparisons(
    part: pd.DataFrame, by: Sequence[str], confidence: float
) -> Iterator[dict[str, Any]]:
    """Yield the comparisons of one model and protocol, across and within data sets."""
    datasets = values_in_order(part, "dataset")
    several = len(datasets) > 1
    for dataset in [ALL, *datasets] if several else [ALL]:
        within = part if dataset == ALL else part[part["dataset"] == dataset]
        dims = [*by, "dataset"] if several and dataset == ALL and "dataset" not in by else by
        for dimension in dims:
            groups = [name for name in values_in_order(within, dimension) if name != UNKNOWN]
            for group_a, group_b in combinations(groups, 2):
                a = within[within[dimension] == group_a]
                b = within[within[dimension] == group_b]
                names = {"dataset": dataset, "dimension": dimension}
                names |= {"group_a": group_a, "group_b": group_b}
                for figures in _pair(a, b, confidence):
                    yield names | figures


def _pair(a: pd.DataFrame, b: pd.DataFrame, confidence: float) -> Iterator[dict[str, Any]]:
    """Yield one pair's comparisons: pooled over the emotions of both, then each of these."""
    in_both = in_order(set(a["emotion"]) & set(b["emotion"]))
    apart = in_order(set(a["emotion"]) ^ set(b["emotion"]))
    if not in_both:
        return
    n_apart = int(a["emotion"].isin(apart).sum() + b["emotion"].isin(apart).sum())
    shared = sorted(set(a["dataset"]) & set(b["dataset"]))
    for emotion in [ALL, *in_both]:
        wanted = in_both if emotion == ALL else [emotion]
        pooled = emotion == ALL
        yield {
            "emotion": emotion,
            **_figures(a[a["emotion"].isin(wanted)], b[b["emotion"].isin(wanted)], confidence),
            "emotions": " ".join(wanted),
            "left_out_emotions": " ".join(apart) if pooled else "",
            "n_left_out": n_apart if pooled else 0,
            "shared_datasets": " ".join(shared),
        }


def _figures(a: pd.DataFrame, b: pd.DataFrame, confidence: float) -> dict[str, Any]:
    """Compare two sets of pictures."""
    n_a, n_b = len(a), len(b)
    correct_a, correct_b = int(a["correct"].sum()), int(b["correct"].sum())
    low, high = newcombe_independent(correct_a, n_a, correct_b, n_b, confidence)
    effect_a = design_effect(a["correct"].to_numpy(), a["subject_id"].to_numpy())
    effect_b = design_effect(b["correct"].to_numpy(), b["subject_id"].to_numpy())
    p_value = score_test(correct_a / effect_a, n_a / effect_a, correct_b / effect_b, n_b / effect_b)
    return {
        "n_a": n_a,
        "correct_a": correct_a,
        "recall_a": correct_a / n_a,
        "subjects_a": a["subject_id"].nunique(),
        "n_b": n_b,
        "correct_b": correct_b,
        "recall_b": correct_b / n_b,
        "subjects_b": b["subject_id"].nunique(),
        "gap": correct_a / n_a - correct_b / n_b,
        "ci_low": low,
        "ci_high": high,
        "p_value": p_value,
    }
