"""Does a model know how sure it may be? Confidence against accuracy, by group.

A model is calibrated if, of the answers that it gives with a confidence of 70 %, 70 % are right (C.
Guo, G. Pleiss, Y. Sun, K. Q. Weinberger 2017, ICML). One that is surer than it is right about one
group's pictures misleads whoever sets one threshold for all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.cube import values_in_order
from tasks.audit.in_cells import codes, column_sums, in_cells
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, EMOTIONS, UNKNOWN
from tasks.core.statistics.resample import Resampled, percentile_interval, ratio, share_interval
from tasks.core.statistics.unknown_people import unknown_people

COLUMNS = [
    "model",
    "protocol",
    "dimension",
    "group",
    "bin",
    "n",
    "subjects",
    "confidence_mean",
    "accuracy",
    "ece_loss",
    "ci_low",
    "ci_high",
    "ece_by_chance",
    "overconfidence",
    "overconfidence_ci_low",
    "overconfidence_ci_high",
    "confidence",
    "method",
]
_TOLERANCE = 0.01  # of the sum of a picture's probabilities: room for rounded ones
_METHOD = (
    "Expected calibration error (Guo et al. 2017): mean distance of confidence, the largest "
    "probability, from accuracy over {bins} bins, each with as many pictures of all groups "
    "together, so that groups share the bins' limits. It is too high for few pictures: "
    "ece_by_chance is what a perfectly calibrated model would show on average with as many, if "
    "pictures were independent (of people whose pictures are alike, chance makes it higher). "
    "Intervals: cluster bootstrap by subject, percentiles widened for few people (Hesterberg "
    "2015); for the error moved so that the draws' mean is the figure, since drawing raises it. In "
    "a bin's row, and where all answers are right or all wrong, from the interval of accuracy, "
    "with confidence taken as it is; the error has none there."
)


def probability_columns(judged: pd.DataFrame) -> list[str]:
    """Return the columns `p_<emotion>` that a table has, in the vocabulary's order."""
    return [f"p_{name}" for name in EMOTIONS if f"p_{name}" in judged.columns]


def why_not_calibrated(judged: pd.DataFrame) -> dict[str, str]:
    """Say for each model that `calibration_table` leaves out why it does.

    Parameters
    ----------
    judged
        See `calibration_table`; `y_pred` too, and a protocol is not needed.

    Returns
    -------
    dict
        Model to reason; models with usable probabilities are not in it.
    """
    columns = probability_columns(judged)
    reasons = {}
    for model, part in judged.groupby("model", sort=False):
        values = part[columns].to_numpy(dtype=float)
        total = np.nansum(values, axis=1)
        if not columns or np.isnan(values).all():
            reasons[str(model)] = "the predictions hold no probabilities"
        elif np.isnan(values).all(axis=1).any():
            reasons[str(model)] = "some pictures have no probabilities"
        elif np.nanmin(values) < 0:
            reasons[str(model)] = "some probabilities are below 0"
        elif (abs(total - 1) > _TOLERANCE).any():
            worst = total[abs(total - 1).argmax()]
            reasons[str(model)] = f"a picture's probabilities add up to {worst:.3g}, not to 1"
        elif count := _otherwise_answered(part, columns):
            pictures = "1 picture" if count == 1 else f"{count} pictures"
            reasons[str(model)] = f"for {pictures} the answer is not the most probable label"
    return reasons


def _otherwise_answered(part: pd.DataFrame, columns: Sequence[str]) -> int:
    """Count pictures whose answer has not the largest probability, which is then not its own."""
    own = part[part["protocol"] == ALL] if "protocol" in part.columns else part
    values = own[columns].to_numpy(dtype=float)
    place = codes(own["y_pred"], [name.removeprefix("p_") for name in columns])
    given = np.where(place < 0, np.nan, values[np.arange(len(own)), place])
    return int((~(given >= np.nanmax(values, axis=1))).sum())


def calibration_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Measure calibration of every group, and of all pictures.

    Parameters
    ----------
    judged
        One row a model, protocol and picture: `model, protocol, subject_id, y_pred, correct`, the
        columns of `settings.by`, and `p_<emotion>` of the labels that a model has.
    settings
        Of them: by, confidence, calibration_bins, resamples, seed.

    Returns
    -------
    pandas.DataFrame
        One row a group and bin, and one with `bin` "all" for the group (first a dimension and group
        "all"). `ece_loss`, from 0 to 1, lower is better, with `ci_low` and `ci_high`, is the
        group's; in a bin's row it is the bin's distance, without an interval. `overconfidence` is
        mean confidence minus accuracy, from -1 to 1: above 0 the model is surer than it is right.
        Bins without a picture of a group have no row. Models that `why_not_calibrated` names have
        none; without any other the table is empty. People whose group is unknown count in "all".
    """
    left_out = why_not_calibrated(judged)
    rows: list[dict[str, Any]] = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        if str(model) not in left_out:
            names = {"model": model, "protocol": protocol, "confidence": settings.confidence}
            rows += [names | row for row in _of_part(part.reset_index(drop=True), settings)]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _Pictures:
    """One model's pictures under one protocol, `(n,)` each."""

    sureness: np.ndarray  # the largest probability
    correct: np.ndarray  # booleans
    bin: np.ndarray  # from 0
    bins: int
    sampled: Resampled


def _of_part(part: pd.DataFrame, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model and protocol."""
    sureness = np.nanmax(part[probability_columns(part)].to_numpy(dtype=float), axis=1)
    shares = np.linspace(0, 1, settings.calibration_bins + 1)[1:-1]
    limits = np.unique(np.quantile(sureness, shares))  # equal ones are never parted
    pictures = _Pictures(
        sureness,
        part["correct"].to_numpy(dtype=bool),
        np.searchsorted(limits, sureness, side="right"),
        len(limits) + 1,
        Resampled(part["subject_id"], settings.resamples, settings.seed),
    )
    method = _METHOD.format(bins=pictures.bins) + unknown_people(part)
    for dimension in (ALL, *settings.by):
        groups = [ALL]
        group = np.zeros(len(part), dtype=int)
        if dimension != ALL:
            groups = [name for name in values_in_order(part, dimension) if name != UNKNOWN]
            group = codes(part[dimension], groups)
        for row in _of_groups(pictures, group, groups, settings) if groups else ():
            yield {"dimension": dimension, **row, "method": method}


def _of_groups(
    pictures: _Pictures, group: np.ndarray, groups: Sequence[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some groups, each group's summary first; draws serve all of them."""
    cell = np.where(group < 0, -1, group * pictures.bins + pictures.bin)
    size = len(groups) * pictures.bins
    sure, miss = pictures.sureness, pictures.sureness * (1 - pictures.sureness)
    weights = [None, sure, pictures.correct, miss]
    columns = [in_cells(cell, size, weight) for weight in weights]
    shape = (len(groups), pictures.bins)
    sums = np.stack([column_sums(one).reshape(shape) for one in columns])  # (4, groups, bins)
    drawn = pictures.sampled.sums(sparse.hstack(columns[:3], format="csr"))
    drawn = drawn.reshape(-1, 3, *shape)
    people = pictures.sampled.count(columns[0]).reshape(shape)
    of_group = pictures.sampled.count(in_cells(group, len(groups)))
    for index, name in enumerate(groups):
        own, draws = sums[:, index], drawn[:, :, index]
        if own[0].sum() > 0:
            summary = _summary(own, draws, int(of_group[index]), settings.confidence)
            for row in (summary, *_bins(own, draws, people[index], settings.confidence)):
                yield {"group": name, **row}


def _summary(sums: np.ndarray, draws: np.ndarray, people: int, level: float) -> dict[str, Any]:
    """Return a group's figures from `(4, bins)` sums and `(resamples, 3, bins)` draws."""
    n, sure, right, miss = sums
    error = np.abs(sure - right).sum() / n.sum()
    errors = ratio(np.abs(draws[:, 1] - draws[:, 2]).sum(axis=1), draws[:, 0].sum(axis=1))
    moved = errors - np.nanmean(errors) + error if np.isfinite(errors).any() else errors
    apart = ratio((draws[:, 1] - draws[:, 2]).sum(axis=1), draws[:, 0].sum(axis=1))
    low, high = percentile_interval(np.stack([moved, apart], axis=1), np.full(2, people), level)
    if not 0 < right.sum() < n.sum():  # draws of answers that are all alike tell nothing
        of_all = draws.sum(axis=2, keepdims=True)
        (low[1],), (high[1],) = _apart(n.sum(), sure.sum(), right.sum(), of_all, people, level)
        low[0] = high[0] = np.nan
    return {
        "bin": ALL,
        "n": int(n.sum()),
        "subjects": people,
        "confidence_mean": sure.sum() / n.sum(),
        "accuracy": right.sum() / n.sum(),
        "ece_loss": error,
        "ci_low": np.maximum(low[0], 0.0),
        "ci_high": high[0],
        # The mean distance of a sum of independent answers from what is expected of it (normal).
        "ece_by_chance": np.sqrt(2 / np.pi * miss).sum() / n.sum(),
        "overconfidence": (sure - right).sum() / n.sum(),
        "overconfidence_ci_low": low[1],
        "overconfidence_ci_high": high[1],
    }


def _apart(
    n: np.ndarray,
    sure: np.ndarray,
    right: np.ndarray,
    draws: np.ndarray,
    people: np.ndarray | int,
    level: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return intervals of confidence minus accuracy from those of accuracy, `(bins,)` each."""
    n, sure, right = (np.atleast_1d(sums) for sums in (n, sure, right))
    accuracies = ratio(draws[:, 2], draws[:, 0])
    low, high, _ = share_interval(right / n, accuracies, np.atleast_1d(people), level)
    return sure / n - high, sure / n - low


def _bins(
    sums: np.ndarray, draws: np.ndarray, people: np.ndarray, level: float
) -> Iterator[dict[str, Any]]:
    """Yield the figures of each bin that has a picture."""
    n, sure, right, miss = sums
    some = n > 0
    low, high = np.full((2, len(n)), np.nan)
    own = n[some], sure[some], right[some]
    low[some], high[some] = _apart(*own, draws[:, :, some], people[some], level)
    for index in np.flatnonzero(some):
        yield {
            "bin": str(index + 1),
            "n": int(n[index]),
            "subjects": int(people[index]),
            "confidence_mean": sure[index] / n[index],
            "accuracy": right[index] / n[index],
            "ece_loss": abs(sure[index] - right[index]) / n[index],
            "ece_by_chance": np.sqrt(2 / np.pi * miss[index]) / n[index],
            "overconfidence": (sure[index] - right[index]) / n[index],
            "overconfidence_ci_low": low[index],
            "overconfidence_ci_high": high[index],
        }
