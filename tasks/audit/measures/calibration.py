"""Calibration by group: confidence against accuracy.

A model is calibrated if, of the answers that it gives with a confidence of 70 %, 70 % are right (C.
Guo, G. Pleiss, Y. Sun, K. Q. Weinberger 2017, ICML). Where it is overconfident for one group, a
single threshold for all misleads.

The plain expected calibration error grows as images get fewer, since the distance of two noisy
figures is never below 0: a perfectly calibrated model has .2 for 22 images and .03 for 1,400.
Groups of different size cannot be compared by it. Here the direction in which a bin is off is taken
from other subjects than those whose distance is summed (cross-fitting; compare A. Kumar, P. S.
Liang, T. Ma 2019, NeurIPS, whose estimate leaves out the same products of an image with itself, and
J. Broecker 2012, Clim. Dyn. 39, 655-667). Under perfect calibration its mean is 0 for any number of
subjects, and of images of each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import norm, t

from tasks.audit.measures.group_cube import codes, column_sums, in_cells, values_in_order
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, EMOTIONS, UNKNOWN
from tasks.core.statistics.cluster_bootstrap import Resampled, ratio, share_interval
from tasks.core.statistics.hypothesis_tests import corrected

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
    "p_value",
    "p_adjusted",
    "ece_from_others",
    "from_others_ci_low",
    "from_others_ci_high",
    "from_others_p_value",
    "from_others_p_adjusted",
    "ece_plain_loss",
    "ece_by_chance",
    "overconfidence",
    "overconfidence_ci_low",
    "overconfidence_ci_high",
    "confidence",
    "method",
]
_TOLERANCE = 0.01  # of the sum of an image's probabilities: room for rounded ones
_REACH = 2.0  # bins over which what others show of a bin's direction falls to 1 / e
_SHARPNESS = 0.5  # of the direction, in standard errors: smaller follows weaker evidence
_METHOD = (
    "ece_loss: expected calibration error (Guo et al. 2017), the mean distance of confidence, the "
    "largest probability, from accuracy over {bins} bins, each with as many pictures of all groups "
    "together, without the part that chance adds: the direction of a bin's distance is taken from "
    "other people, in this and nearby bins. Its mean is 0 for a perfectly calibrated model, "
    "however few the pictures; a figure below 0 reads as 0, and what few people cannot show "
    "counts as 0. ece_plain_loss is the usual figure, which grows as pictures get fewer, and "
    "ece_by_chance its mean for a perfectly calibrated model if pictures were independent: compare "
    "neither between groups. ece_from_others: ece_loss less that of the dimension's other groups "
    "together, tested with Welch's t. Intervals and p: variance over people, at least that of "
    "independent pictures, Student's t; p_adjusted corrects for the groups of a dimension "
    "({correction}). In a bin's row, and where all answers are right or all wrong, the interval of "
    "overconfidence is that of accuracy, with confidence taken as it is."
)


def probability_columns(judged: pd.DataFrame) -> list[str]:
    """Return the columns `p_<emotion>` that a table has, in the vocabulary's order."""
    return [f"p_{name}" for name in EMOTIONS if f"p_{name}" in judged.columns]


def reasons_uncalibrated(judged: pd.DataFrame) -> dict[str, str]:
    """Return, per model that `calibration_table` leaves out, the reason.

    Needs the columns of `calibration_table` without `protocol`. Models with usable probabilities
    are not in the result.
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
            images = "1 picture" if count == 1 else f"{count} pictures"
            reasons[str(model)] = f"for {images} the answer is not the most probable label"
    return reasons


def _otherwise_answered(part: pd.DataFrame, columns: Sequence[str]) -> int:
    """Count images whose answer does not have the largest probability."""
    rows = part[part["protocol"] == ALL] if "protocol" in part.columns else part
    values = rows[columns].to_numpy(dtype=float)
    place = codes(rows["y_pred"], [name.removeprefix("p_") for name in columns])
    given = np.where(place < 0, np.nan, values[np.arange(len(rows)), place])
    return int((~(given >= np.nanmax(values, axis=1))).sum())


def calibration_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Measure the calibration of every group, and of all images.

    `judged` has one row per model, protocol and image: `model, protocol, subject_id, y_pred,
    correct`, the columns of `settings.by`, and `p_<emotion>` for each label that a model has.

    The table has one row per group and bin, and one row with `bin` "all" per group; the first
    dimension and group are "all". `ece_loss` (at most 1, lower is better) is the group's error
    without the part that chance adds, so that it may be negative. Its `p_value` is below 1 -
    confidence exactly where the interval excludes 0. It is empty for a single subject.
    `ece_from_others` compares it with the other groups of the dimension. `ece_plain_loss` (0 to 1)
    is the usual figure; in a row of a bin it is the bin's distance. `overconfidence` is mean
    confidence minus accuracy, from -1 to 1.

    Bins without an image of a group have no row, and neither have the models that
    `reasons_uncalibrated` names. Subjects whose group is unknown count in "all".
    """
    left_out = reasons_uncalibrated(judged)
    rows: list[dict[str, Any]] = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        if str(model) not in left_out:
            names = {"model": model, "protocol": protocol, "confidence": settings.confidence}
            rows += [names | row for row in _of_part(part.reset_index(drop=True), settings)]
    return pd.DataFrame(rows, columns=COLUMNS)


@dataclass(frozen=True)
class _Images:
    """One model's images under one protocol, `(n,)` each."""

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
    images = _Images(
        sureness,
        part["correct"].to_numpy(dtype=bool),
        np.searchsorted(limits, sureness, side="right"),
        len(limits) + 1,
        Resampled(part["subject_id"], settings.resamples, settings.seed),
    )
    method = _METHOD.format(bins=images.bins, correction=settings.correction)
    for dimension in (ALL, *settings.by):
        groups = [ALL]
        group = np.zeros(len(part), dtype=int)
        if dimension != ALL:
            groups = [name for name in values_in_order(part, dimension) if name != UNKNOWN]
            group = codes(part[dimension], groups)
        for row in _of_groups(images, group, groups, settings) if groups else ():
            yield {"dimension": dimension, **row, "method": method}


def _of_groups(
    images: _Images, group: np.ndarray, groups: Sequence[str], settings: Settings
) -> Iterator[dict[str, Any]]:
    """Yield the rows of some groups, each group's summary first; draws serve all of them."""
    cell = np.where(group < 0, -1, group * images.bins + images.bin)
    size = len(groups) * images.bins
    sure, miss = images.sureness, images.sureness * (1 - images.sureness)
    weights = [None, sure, images.correct, miss]
    columns = [in_cells(cell, size, weight) for weight in weights]
    shape = (len(groups), images.bins)
    sums = np.stack([column_sums(one).reshape(shape) for one in columns])  # (4, groups, bins)
    drawn = images.sampled.sums(sparse.hstack(columns[:3], format="csr"))
    drawn = drawn.reshape(-1, 3, *shape)
    people = images.sampled.count(columns[0]).reshape(shape)
    inside = [index for index in range(len(groups)) if sums[0, index].sum() > 0]
    errors = [_error_of(images, group == index) for index in inside]
    tests = _tests(images, group, inside, errors, settings)
    for index, error, test in zip(inside, errors, tests.to_dict("records"), strict=True):
        of_group = sums[:, index], drawn[:, :, index]
        summary = _summary(*of_group, error, settings.confidence) | test
        for row in (summary, *_bins(*of_group, people[index], settings.confidence)):
            yield {"group": groups[index], **row}


@dataclass(frozen=True)
class _Error:
    """How far a group's confidence is from its accuracy, with standard errors over people."""

    loss: float
    loss_error: float  # NaN for one person, as is the loss
    over: float
    over_error: float
    people: int

    def limits(self, estimate: float, error: float, level: float) -> tuple[float, float]:
        """Return the interval around an estimate, within the possible range."""
        reach = float(t.ppf((1 + level) / 2, self.people - 1)) * error
        return max(estimate - reach, -1.0), min(estimate + reach, 1.0)


def _error_of(images: _Images, which: np.ndarray) -> _Error:
    """Measure the calibration error of some images, less what chance adds to it.

    With z the sum of confidence minus correctness of a person's images in a bin, the error is the
    sum of z times a direction that the other people show, from -1 to 1, over all images. As z of
    different people are independent and have mean 0 under perfect calibration, so has the error.
    """
    who, place = np.unique(images.sampled.codes[which], return_inverse=True)
    people, bins = len(who), images.bins
    sure, bin_of = images.sureness[which], images.bin[which]
    cell = place * bins + bin_of
    z = np.bincount(cell, sure - images.correct[which], people * bins).reshape(people, bins)
    sizes = np.bincount(place, minlength=people)
    n, miss = len(sure), sure * (1 - sure)
    over = z.sum() / n
    if people < 2:
        return _Error(np.nan, np.nan, over, np.nan, people)
    apart = np.subtract.outer(np.arange(bins), np.arange(bins))
    near = np.exp(-np.abs(apart) / _REACH)
    smooth = z @ near
    total, squares = smooth.sum(axis=0), (smooth**2).sum(axis=0)
    others = _SHARPNESS * np.sqrt(np.maximum(squares - smooth**2, 0.0))
    direction = ratio(total - smooth, others)
    direction = 2 * norm.cdf(np.where(np.isfinite(direction), direction, 0.0)) - 1
    loss = (z * direction).sum() / n
    slope = _slope(z, smooth, near)
    influence = (z * slope).sum(axis=1) - loss * sizes
    least = _error_if_alike(images.correct[which], people)
    loss_error = max(_clustered(influence, (slope[bin_of] ** 2 * miss).sum(), n), least)
    over_error = max(_clustered(z.sum(axis=1) - over * sizes, miss.sum(), n), least)
    return _Error(float(loss), loss_error, float(over), over_error, people)


def _error_if_alike(correct: np.ndarray, people: int) -> float:
    """Return the standard error of a share of 0 or 1, each person counted once; 0 for another.

    One success and one failure are added (compare A. Agresti, B. Caffo 2000, Am. Stat. 54).
    """
    if 0 < correct.sum() < len(correct):
        return 0.0
    share = 1 / (people + 2)
    return float(np.sqrt(share * (1 - share) / (people + 2)))


def _slope(z: np.ndarray, smooth: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return by how much the error's sum changes with a bin's sum of z, `(bins,)`."""
    scale = _SHARPNESS * np.sqrt((smooth**2).sum(axis=0))
    x = np.nan_to_num(ratio(smooth.sum(axis=0), scale))
    bend = np.nan_to_num(ratio(2 * norm.pdf(x), scale))
    by_chance = np.nan_to_num(ratio((z * smooth).sum(axis=0) * bend * x, scale))
    through: np.ndarray = near @ (z.sum(axis=0) * bend + by_chance)
    return 2 * norm.cdf(x) - 1 + through


def _clustered(influence: np.ndarray, independent: float, n: int) -> float:
    """Return a standard error over people, at least that of independent images."""
    people = len(influence)
    varies = ((influence - influence.mean()) ** 2).sum() * people / (people - 1)
    return float(np.sqrt(max(varies, independent)) / n)


def _tests(
    images: _Images,
    group: np.ndarray,
    inside: Sequence[int],
    errors: Sequence[_Error],
    settings: Settings,
) -> pd.DataFrame:
    """Test each group's error against 0, and against that of the others of its dimension."""
    rows = []
    for index, error in zip(inside, errors, strict=True):
        row = {"p_value": _p_value(error.loss, error.loss_error, error.people - 1)}
        others = (group >= 0) & (group != index)
        if others.any():
            row |= _from_others(error, _error_of(images, others), settings.confidence)
        rows.append(row)
    table = pd.DataFrame(rows)
    for name in ("p_value", "from_others_p_value"):
        if name in table:
            # The first group against the second is the second against the first: one test.
            twice = name != "p_value" and len(table) == 2
            adjusted = table[name] if twice else _adjusted(table[name], settings.correction)
            table[name.replace("p_value", "p_adjusted")] = adjusted
    return table


def _adjusted(p_values: pd.Series, correction: str) -> pd.Series:
    return corrected(p_values, p_values.notna(), correction)


def _p_value(estimate: float, error: float, df: float) -> float:
    """Return the two-sided p-value of an estimate being 0; NaN where it has no error."""
    return float(2 * t.sf(abs(estimate) / error, df)) if error > 0 else np.nan


def _from_others(group: _Error, others: _Error, level: float) -> dict[str, float]:
    """Compare a group's error with that of the dimension's other groups (B. L. Welch 1947)."""
    squares = np.array([group.loss_error**2, others.loss_error**2])
    freedom = (squares**2 / np.maximum([group.people - 1, others.people - 1], 1)).sum()
    df = squares.sum() ** 2 / freedom if freedom > 0 else np.nan
    apart, error = group.loss - others.loss, float(np.sqrt(squares.sum()))
    reach = float(t.ppf((1 + level) / 2, df)) * error
    return {
        "ece_from_others": apart,
        "from_others_ci_low": max(apart - reach, -2.0),
        "from_others_ci_high": min(apart + reach, 2.0),
        "from_others_p_value": _p_value(apart, error, df),
    }


def _summary(sums: np.ndarray, draws: np.ndarray, error: _Error, level: float) -> dict[str, Any]:
    """Return a group's figures from `(4, bins)` sums and `(resamples, 3, bins)` draws."""
    n, sure, right, miss = sums
    low, high = error.limits(error.loss, error.loss_error, level)
    if error.people < 2 or not 0 < right.sum() < n.sum():  # accuracy does not vary between people
        of_all = draws.sum(axis=2, keepdims=True)
        of_group = n.sum(), sure.sum(), right.sum()
        (below,), (above,) = _apart(*of_group, of_all, error.people, level)
    else:
        below, above = error.limits(error.over, error.over_error, level)
    return {
        "bin": ALL,
        "n": int(n.sum()),
        "subjects": error.people,
        "confidence_mean": sure.sum() / n.sum(),
        "accuracy": right.sum() / n.sum(),
        "ece_loss": error.loss,
        "ci_low": low,
        "ci_high": high,
        "ece_plain_loss": np.abs(sure - right).sum() / n.sum(),
        # The mean distance of a sum of independent answers from what is expected of it (normal).
        "ece_by_chance": np.sqrt(2 / np.pi * miss).sum() / n.sum(),
        "overconfidence": (sure - right).sum() / n.sum(),
        "overconfidence_ci_low": below,
        "overconfidence_ci_high": above,
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
    """Yield the figures of each bin that has an image."""
    n, sure, right, miss = sums
    some = n > 0
    low, high = np.full((2, len(n)), np.nan)
    selected = n[some], sure[some], right[some]
    low[some], high[some] = _apart(*selected, draws[:, :, some], people[some], level)
    for index in np.flatnonzero(some):
        yield {
            "bin": str(index + 1),
            "n": int(n[index]),
            "subjects": int(people[index]),
            "confidence_mean": sure[index] / n[index],
            "accuracy": right[index] / n[index],
            "ece_plain_loss": abs(sure[index] - right[index]) / n[index],
            "ece_by_chance": np.sqrt(2 / np.pi * miss[index]) / n[index],
            "overconfidence": (sure[index] - right[index]) / n[index],
            "overconfidence_ci_low": low[index],
            "overconfidence_ci_high": high[index],
        }
