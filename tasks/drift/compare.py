"""How a batch differs from the training data, feature by feature, as effect sizes.

A p-value says how sure a difference is, and with enough images every one is; an effect says how
large it is. Numbers are compared by Cohen's d, shares by Cohen's h, for which the same words are
usual (0.2 small, 0.5 medium, 0.8 large): J. Cohen (1988), Statistical Power Analysis, 2.2 and 6.2.

A report has some twenty rows, and the largest effect among them catches the eye. Their intervals
hold for all rows at once, so that a batch that does not differ has a row whose interval excludes 0
in about 5 % of reports, not of rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from tasks.core.labels import EMOTIONS, GENDERS
from tasks.core.statistics.cluster_bootstrap import Resampled, ratio
from tasks.core.statistics.simultaneous import largest_deviation
from tasks.drift.settings import Params

CONFIDENCE = "confidence"  # the model's largest probability for an image
SHARES: tuple[str, ...] = ("emotion", "age_band", "gender")
NUMBERS: tuple[str, ...] = ("age_years", "detector_score", "sharpness", "brightness", CONFIDENCE)
COLUMNS: tuple[str, ...] = (
    "feature",
    "level",  # of a share: which label; "" for a number
    "n_batch",
    "n_training",
    "subjects_batch",
    "subjects_training",
    "batch",  # mean or share
    "training",
    "effect",
    "ci_low",
    "ci_high",
    "effect_kind",
    "large",
    "note",
)
COHENS_D, COHENS_D_OF_LOGARITHMS, COHENS_H = "Cohen's d", "Cohen's d of logarithms", "Cohen's h"

_SKEWED = ("sharpness",)  # a variance: a few images have many times the others' value
_FEW_PEOPLE = "fewer than two people on one side"
_NO_SPREAD = "every picture has the same value"
_TOO_ALIKE = "too few different values on either side"
_STILL = 1e-9  # a standard error below is rounding


def compare(batch: pd.DataFrame, training: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Compare a batch with the training data.

    Parameters
    ----------
    batch, training
        A row an image: `subject_id`, and any of `SHARES` (text) and `NUMBERS` (age in years,
        score of the face detector, sharpness and brightness of the crop, the model's largest
        probability). A missing value, or column, is left out of that feature alone.
    params
        Section `drift`.

    Returns
    -------
    DataFrame
        `COLUMNS`: one row per number and one per label that occurs on either side. `batch` and
        `training` are means or shares of images; `effect` is positive where the batch has more;
        `large` where it reaches `large_effect` and its interval does not hold 0. Intervals hold
        for all rows at once; they come from draws of people
        (`tasks.core.statistics.cluster_bootstrap`). The note says why a row has no effect.

    Notes
    -----
    d divides by the root of the mean of both variances, so that it does not depend on how large
    the sides are. An interval is built around the effect: its standard error over the draws, times
    the value of Student's t (people of the smaller side less 1) that is as rare as the largest
    deviation of all rows in a draw. Where nothing varies between the people of a side, such as
    where no image has a label, draws tell no error; there each person is counted once, with the
    variance that the angle (1 / people; F. J. Anscombe 1948, Biometrika 35, 246-254) or a mean with
    the other side's spread has.
    """
    sides = [_Side(batch, params, 0), _Side(training, params, 1)]
    rows = [row for name in SHARES for row in _shares(name, sides, params)]
    rows += [_number(name, sides, params) for name in NUMBERS]
    return pd.DataFrame(_with_limits(rows, params), columns=list(COLUMNS))


def largest_effect(compared: pd.DataFrame) -> float | None:
    """Return the largest absolute effect whose interval does not hold 0.

    0.0 where every interval holds 0, None where nothing could be compared.
    """
    judged = compared.dropna(subset=["effect", "ci_low", "ci_high"])
    if judged.empty:
        return None
    clear = judged[(judged["ci_low"] > 0) | (judged["ci_high"] < 0)]
    return float(clear["effect"].abs().max()) if len(clear) else 0.0


class _Side:
    """The batch or the training data, its people drawn once for all features."""

    def __init__(self, table: pd.DataFrame, params: Params, number: int) -> None:
        self.table = table
        self.subject = table.get("subject_id", pd.Series(dtype="str"))
        self.sampled = Resampled(self.subject, params.resamples, params.seed + number)

    def known(self, name: str) -> np.ndarray:
        """Return which images have a feature."""
        if name not in self.table:
            return np.zeros(len(self.table), dtype=bool)
        return self.table[name].notna().to_numpy(dtype=bool)

    def labels(self, name: str) -> np.ndarray:
        """Return a feature that is text, None where an image has none."""
        column = self.table[name].astype(object)
        return column.where(column.notna(), None).to_numpy(dtype=object)

    def numbers(self, name: str) -> np.ndarray:
        """Return a numeric feature, 0 where it is missing."""
        known = self.table[name].to_numpy(dtype=float, na_value=np.nan)
        return np.nan_to_num(known, nan=0.0, posinf=np.inf, neginf=-np.inf)

    def people(self, which: np.ndarray) -> int:
        """Count the people in some images."""
        return int(self.subject[which].nunique())


@dataclass(frozen=True)
class _Row:
    """One comparison before its interval."""

    names: tuple[str, str]  # feature, level
    figures: list[float]  # sizes, and what is compared
    kind: str
    effect: float = float("nan")
    draws: np.ndarray | None = None  # (resamples,) effects
    note: str = ""


def _shares(name: str, sides: list[_Side], params: Params) -> Iterator[_Row]:
    known = [side.known(name) for side in sides]
    sizes = _sizes(sides, known)
    if min(sizes[2:]) < 2:
        yield _without_effect(name, sizes, COHENS_H)
        return
    values = [side.labels(name) for side in sides]
    found = {level for value, which in zip(values, known, strict=True) for level in value[which]}
    levels = sorted(found, key=_in_vocabulary)
    has = [
        np.column_stack([which, *(which & (value == level) for level in levels)]).astype(float)
        for value, which in zip(values, known, strict=True)
    ]
    totals = [values.sum(axis=0) for values in has]
    drawn = [side.sampled.sums(values) for side, values in zip(sides, has, strict=True)]
    rng = np.random.default_rng([params.seed, len(levels)])
    for place, level in enumerate(levels, start=1):
        shares = [float(total[place] / total[0]) for total in totals]
        angles = []
        for sums, people in zip(drawn, sizes[2:], strict=True):
            angles.append(_varied(_angle(ratio(sums[:, place], sums[:, 0])), people, 1.0, rng))
        effect = float(_angle(shares[0]) - _angle(shares[1]))
        figures = [*sizes, *shares]
        yield _Row((name, level), figures, COHENS_H, effect, angles[0] - angles[1])


def _number(name: str, sides: list[_Side], params: Params) -> _Row:
    kind = COHENS_D_OF_LOGARITHMS if name in _SKEWED else COHENS_D
    known = [side.known(name) for side in sides]
    sizes = _sizes(sides, known)
    if min(sizes[2:]) < 2:
        return _without_effect(name, sizes, kind)
    values = [side.numbers(name) for side in sides]
    means = [float(value[which].mean()) for value, which in zip(values, known, strict=True)]
    if name in _SKEWED:
        values = [np.log1p(value) for value in values]
    middle = values[1][known[1]].mean()  # squares of small numbers lose no digits
    columns = [
        np.column_stack([np.ones(len(value)), value - middle, (value - middle) ** 2])
        * which[:, None]
        for value, which in zip(values, known, strict=True)
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = float(_cohens_d(*(values.sum(axis=0) for values in columns)))
        drawn = [side.sampled.sums(values) for side, values in zip(sides, columns, strict=True)]
        effects = _cohens_d(*drawn)
        one_mean = [ratio(sums[:, 1], sums[:, 0]) for sums in drawn]
    constant = all(np.ptp(value[which]) == 0 for value, which in zip(values, known, strict=True))
    if constant or not np.isfinite(effect) or np.isfinite(effects).sum() < 2:
        return _without_effect(name, sizes, kind, _NO_SPREAD if constant else _TOO_ALIKE)
    rng = np.random.default_rng([params.seed, NUMBERS.index(name)])
    for drawn_means, people in zip(one_mean, sizes[2:], strict=True):
        if np.nanstd(drawn_means) < _STILL:  # d then divides by half the other side's variance
            effects = effects + rng.normal(0.0, np.sqrt(2 / people), len(effects))
    return _Row((name, ""), [*sizes, *means], kind, effect, effects)


def _varied(
    draws: np.ndarray, people: float, spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Return draws, or where these do not vary, ones with the error of so many people."""
    if np.nanstd(draws) >= _STILL:
        return draws
    return draws + rng.normal(0.0, spread / np.sqrt(people), len(draws))


def _cohens_d(batch: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return d from sums `(…, 3)`: images, values, squares."""
    (mean_b, variance_b), (mean_t, variance_t) = _moments(batch), _moments(training)
    d: np.ndarray = (mean_b - mean_t) / np.sqrt((variance_b + variance_t) / 2)
    return d


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, total, squares = sums[..., 0], sums[..., 1], sums[..., 2]
    return total / n, np.maximum(squares - total**2 / n, 0) / (n - 1)


def _angle(share: np.ndarray | float) -> np.ndarray:
    angle: np.ndarray = 2 * np.arcsin(np.sqrt(share))
    return angle


def _sizes(sides: list[_Side], known: list[np.ndarray]) -> list[float]:
    people = (side.people(which) for side, which in zip(sides, known, strict=True))
    return [*(int(which.sum()) for which in known), *people]


def _with_limits(rows: list[_Row], params: Params) -> list[list[object]]:
    """Give the rows intervals that hold for all of them at once."""
    drawn = [row.draws for row in rows if row.draws is not None]
    apart = np.full((params.resamples, 0), np.nan)
    errors = np.zeros(0)
    if drawn:
        draws = np.stack(drawn, axis=1)
        draws[~np.isfinite(draws)] = np.nan
        errors = np.nanstd(draws, axis=0, ddof=1)
        apart = (draws - np.nanmean(draws, axis=0)) / errors
    rare = norm.sf(largest_deviation(apart, params.confidence))
    waiting = iter(errors)
    out: list[list[object]] = []
    for row in rows:
        low = high = float("nan")
        if row.draws is not None:
            people = min(row.figures[2:4])
            widened = np.sqrt(people / (people - 1))  # the draws' variance is that much too small
            reach = float(t.isf(rare, people - 1) * widened * next(waiting))
            low, high = row.effect - reach, row.effect + reach
        if row.kind == COHENS_H:  # an angle from 0 to pi less another
            low, high = float(np.maximum(low, -np.pi)), float(np.minimum(high, np.pi))
        large = abs(row.effect) >= params.large_effect and (low > 0 or high < 0)
        out.append([*row.names, *row.figures, row.effect, low, high, row.kind, large, row.note])
    return out


def _without_effect(name: str, sizes: list[float], kind: str, note: str = _FEW_PEOPLE) -> _Row:
    missing = [
        where for where, size in zip(("batch", "training"), sizes[:2], strict=True) if size == 0
    ]
    if missing:
        note = f"no value in the {' and the '.join(missing)}"
    return _Row((name, ""), [*sizes, float("nan"), float("nan")], kind, note=note)


def _in_vocabulary(level: str) -> tuple[int, str]:
    known = (*EMOTIONS, *GENDERS)
    return (known.index(level) if level in known else len(known), level)
