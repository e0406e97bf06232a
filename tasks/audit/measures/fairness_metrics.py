"""The figures that the field of fairness knows, through fairlearn's MetricFrame.

They show the distance between the extreme groups, with limits that know that these were picked;
which pairs of groups differ, corrected for the number of comparisons, is in `gaps.csv`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame
from sklearn.metrics import accuracy_score

from tasks.audit.measures.fairness_intervals import COLUMNS as INTERVALS
from tasks.audit.measures.fairness_intervals import with_intervals
from tasks.audit.measures.group_cube import values_in_order
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, UNKNOWN, in_order

RECALL, TRUE_POSITIVE, FALSE_POSITIVE = "recall", "true_positive_rate", "false_positive_rate"
COLUMNS = [
    "model",
    "protocol",
    "dimension",
    "metric",
    "emotion",
    "worst_group",
    "worst",
    "best_group",
    "best",
    "difference",
    "ratio",
    "overall",
    "equalized_odds_difference",
    "n_smallest",
    "left_out_groups",
    *INTERVALS,
]


def fairness_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare the worst and the best group of every dimension.

    Parameters
    ----------
    judged
        One row per model, protocol and image: `model, protocol, emotion, y_pred` and the columns
        of `settings.by`; `subject_id` and `subject_known` for the intervals.
    settings
        Of them: by, min_n, confidence, resamples, seed.

    Returns
    -------
    pandas.DataFrame
        One row a metric. `recall` is over all emotions. For each emotion against the others:
        `true_positive_rate`, of its images the share that is read as it (higher is better), and
        `false_positive_rate`, of the other images the share that is read as it (lower is better:
        the worst group has the highest). `difference` is between the extreme groups, `ratio` the
        smaller over the larger, `overall` over the groups compared.
        `equalized_odds_difference` is the larger of both rates' differences (M. Hardt, E. Price,
        N. Srebro 2016, NeurIPS). `n_smallest` counts, of the smallest group, the images that the
        metric divides by. Groups with fewer than `min_n` of these, for an emotion of its images
        or of the others, are in `left_out_groups` with their number; people whose group is unknown
        make none. With fewer than two groups the figures are empty. Limits, `p_value` and the
        `*_shrunken` figures account for the groups having been picked as extremes.
    """
    rows = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        for dimension in settings.by:
            known = part[part[dimension] != UNKNOWN]
            groups = values_in_order(known, dimension)
            names = {"model": model, "protocol": protocol, "dimension": dimension}
            if groups:
                dimension_rows = list(_of_dimension(known, dimension, groups, settings))
                dimension_rows = with_intervals(dimension_rows, known, dimension, settings)
                rows += [names | row for row in dimension_rows]
    counts = dict.fromkeys(
        (name for name in COLUMNS if name.startswith(("n_", "subjects", "groups"))), "Int64"
    )
    return pd.DataFrame(rows, columns=COLUMNS).astype(counts)


def _of_dimension(
    known: pd.DataFrame, dimension: str, groups: list[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one dimension: all emotions, then each."""
    size = known[dimension].value_counts().reindex(groups)
    enough, left_out = _large_enough(size, settings.min_n)
    # MetricFrame takes seconds for 100,000 rows: alike ones are one row with their number.
    counts = known.groupby([dimension, "emotion", "y_pred"], sort=False).size()
    alike = counts.reset_index(name="n")
    measured = _measured(alike, dimension, enough, None)
    yield _row(RECALL, ALL, left_out, measured.get(RECALL), size[enough])
    for emotion in in_order(known["emotion"]):
        of_it = known.loc[known["emotion"] == emotion, dimension].value_counts()
        of_it = of_it.reindex(groups, fill_value=0)
        enough, left_out = _large_enough(np.minimum(of_it, size - of_it), settings.min_n)
        measured = _measured(alike, dimension, enough, emotion)
        odds = max((extremes.difference for extremes in measured.values()), default=np.nan)
        for metric, divisor in ((TRUE_POSITIVE, of_it), (FALSE_POSITIVE, size - of_it)):
            row = _row(metric, emotion, left_out, measured.get(metric), divisor[enough])
            yield row | {"equalized_odds_difference": odds}


def _large_enough(sizes: pd.Series, min_n: int) -> tuple[list[str], str]:
    """Return the groups with enough images, and the names and sizes of the others."""
    few = sizes[sizes < min_n]
    return list(sizes.index[sizes >= min_n]), ", ".join(f"{g} ({n})" for g, n in few.items())


class _Extremes(NamedTuple):
    """One metric: by group, over the groups, and how far apart they are."""

    by_group: pd.Series
    overall: float
    difference: float
    ratio: float


def _measured(
    alike: pd.DataFrame, dimension: str, groups: list[str], emotion: str | None
) -> dict[str, _Extremes]:
    """Measure by group, for an emotion it against the others; nothing for fewer than two groups.

    A row of `alike` stands for its `n` images.
    """
    if len(groups) < 2:
        return {}
    part = alike[alike[dimension].isin(groups)]
    truth, answer = part["emotion"], part["y_pred"]
    metrics: dict[str, Any] = {RECALL: accuracy_score}
    if emotion is not None:
        truth, answer = (truth == emotion).astype(int), (answer == emotion).astype(int)
        metrics = {TRUE_POSITIVE: _true_positive_rate, FALSE_POSITIVE: _false_positive_rate}
    frame = MetricFrame(
        metrics=metrics,
        y_true=truth,
        y_pred=answer,
        sensitive_features=part[dimension].astype(object),
        sample_params={name: {"sample_weight": part["n"]} for name in metrics},
    )
    by_group = frame.by_group.reindex(groups)  # ties go to the first in the order that is shown
    difference = frame.difference()
    with np.errstate(invalid="ignore"):  # a rate that is 0 everywhere has no ratio
        ratio = frame.ratio().where(by_group.max() > 0)
    return {
        name: _Extremes(by_group[name], frame.overall[name], difference[name], ratio[name])
        for name in metrics
    }


def _true_positive_rate(truth: pd.Series, answer: pd.Series, sample_weight: pd.Series) -> float:
    """Return fairlearn's rate of groups that hold both classes, without its checks of each group.

    MetricFrame calls it once per group, and the checks take nine tenths of the time.
    """
    return float((sample_weight * answer)[truth == 1].sum() / sample_weight[truth == 1].sum())


def _false_positive_rate(truth: pd.Series, answer: pd.Series, sample_weight: pd.Series) -> float:
    return _true_positive_rate(1 - truth, answer, sample_weight)


def _row(
    metric: str, emotion: str, left_out: str, extremes: _Extremes | None, divisor: pd.Series
) -> dict[str, Any]:
    """Return one metric's row; `divisor` counts what it divides by in each group."""
    row: dict[str, Any] = {"metric": metric, "emotion": emotion, "left_out_groups": left_out}
    if extremes is None:
        return row
    by_group = extremes.by_group
    worst, best = by_group.idxmin(), by_group[::-1].idxmax()  # two groups, also where all are equal
    if metric == FALSE_POSITIVE:
        worst, best = best, worst
    return row | {
        "groups": list(by_group.index),
        "worst_group": worst,
        "worst": by_group[worst],
        "best_group": best,
        "best": by_group[best],
        "difference": extremes.difference,
        "ratio": extremes.ratio,
        "overall": extremes.overall,
        "n_smallest": int(divisor.min()),
    }
