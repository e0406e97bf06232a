"""How a batch differs from the training data, feature by feature, as effect sizes.

A p-value says how sure a difference is, and with enough pictures every one is; an effect says how
large it is. Numbers are compared by Cohen's d, shares by Cohen's h, for which the same words are
usual (0.2 small, 0.5 medium, 0.8 large): J. Cohen (1988), Statistical Power Analysis, 2.2 and 6.2.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tasks.core.labels import EMOTIONS, GENDERS
from tasks.core.statistics.resample import Resampled, percentile_interval
from tasks.drift.settings import Params

CONFIDENCE = "confidence"  # the model's largest probability for a picture
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

_SKEWED = ("sharpness",)  # a variance: a few pictures have many times the others' value
_FEW_PEOPLE = "fewer than two people on one side"
_NO_SPREAD = "every picture has the same value"


def compare(batch: pd.DataFrame, training: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Compare a batch with the training data.

    Parameters
    ----------
    batch, training
        A row a picture: `subject_id`, and any of `SHARES` (text) and `NUMBERS` (age in years,
        score of the face detector, sharpness and brightness of the crop, the model's largest
        probability). A missing value, or column, is left out of that feature alone.
    params
        Section `drift`.

    Returns
    -------
    DataFrame
        `COLUMNS`: a row a number and a row a label that occurs on either side. `batch` and
        `training` are means or shares of pictures; `effect` is positive where the batch has more;
        `large` where it reaches `large_effect` and its interval does not hold 0. Intervals come
        from draws of people (`tasks.core.statistics.resample`). The note says why a row has no
        effect.

    Notes
    -----
    d divides by the root of the mean of both variances, so that it does not depend on how large
    the sides are. Where all pictures or none of a side have a label, draws could not differ; there
    shares are drawn from Jeffreys' Beta(k + 1/2, P - k + 1/2) with each of the P people counted
    once.
    """
    rows = [row for name in SHARES for row in _shares(name, batch, training, params)]
    rows += [_number(name, batch, training, params) for name in NUMBERS]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def largest_effect(compared: pd.DataFrame) -> float | None:
    """Return the largest absolute effect whose interval does not hold 0.

    0.0 where every interval holds 0, None where nothing could be compared.
    """
    judged = compared.dropna(subset=["effect", "ci_low", "ci_high"])
    if judged.empty:
        return None
    clear = judged[(judged["ci_low"] > 0) | (judged["ci_high"] < 0)]
    return float(clear["effect"].abs().max()) if len(clear) else 0.0


def _shares(
    name: str, batch: pd.DataFrame, training: pd.DataFrame, params: Params
) -> Iterator[list[object]]:
    sides = [_known(table, name) for table in (batch, training)]
    levels = sorted(set(sides[0][name]) | set(sides[1][name]), key=_in_vocabulary)
    people = _draws(sides, params)
    if min(side.people for side in people) < 2:
        yield _without_effect(name, sides, COHENS_H)
        return
    has = [np.stack([side[name] == level for level in levels], axis=1) for side in sides]
    drawn = [
        drawn.sums(np.column_stack([np.ones(len(own)), own]))
        for drawn, own in zip(people, has, strict=True)
    ]
    rng = np.random.default_rng([params.seed, len(levels)])
    for place, level in enumerate(levels):
        shares, replicates = [], []
        for own, sums, side in zip(has, drawn, people, strict=True):
            share = float(own[:, place].mean())
            shares.append(share)
            replicates.append(
                sums[:, place + 1] / sums[:, 0]
                if 0 < share < 1
                else _jeffreys(share, side.people, params.resamples, rng)
            )
        effect = float(_angle(shares[0]) - _angle(shares[1]))
        effects = _angle(replicates[0]) - _angle(replicates[1])
        figures = [*_sizes(sides), *shares]
        yield _row(name, level, figures, effect, effects, COHENS_H, params)


def _number(name: str, batch: pd.DataFrame, training: pd.DataFrame, params: Params) -> list[object]:
    kind = COHENS_D_OF_LOGARITHMS if name in _SKEWED else COHENS_D
    sides = [_known(table, name) for table in (batch, training)]
    people = _draws(sides, params)
    if min(side.people for side in people) < 2:
        return _without_effect(name, sides, kind)
    values = [side[name].to_numpy(dtype=float) for side in sides]
    means = [float(value.mean()) for value in values]
    if name in _SKEWED:
        values = [np.log1p(value) for value in values]
    middle = values[1].mean()  # squares of small numbers lose no digits
    columns = [
        np.column_stack([np.ones(len(value)), value - middle, (value - middle) ** 2])
        for value in values
    ]
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = float(_cohens_d(*(own.sum(axis=0) for own in columns)))
        drawn = [side.sums(own) for side, own in zip(people, columns, strict=True)]
        effects = _cohens_d(*drawn)
    if not np.isfinite(effect):
        return _without_effect(name, sides, kind, _NO_SPREAD)
    return _row(name, "", [*_sizes(sides), *means], effect, effects, kind, params)


def _known(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return `subject_id` and a feature of the pictures that have it."""
    if name not in table:
        return pd.DataFrame({"subject_id": pd.Series(dtype="str"), name: pd.Series(dtype="object")})
    return table.loc[table[name].notna(), ["subject_id", name]]


def _draws(sides: list[pd.DataFrame], params: Params) -> list[Resampled]:
    return [
        Resampled(side["subject_id"], params.resamples, params.seed + number)
        for number, side in enumerate(sides)
    ]


def _jeffreys(share: float, people: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw shares where all pictures (1.0) or none (0.0) have a label; see `compare`."""
    with_it = people * share
    return rng.beta(with_it + 0.5, people - with_it + 0.5, size=resamples)


def _cohens_d(batch: np.ndarray, training: np.ndarray) -> np.ndarray:
    """Return d from sums `(…, 3)`: pictures, values, squares."""
    (mean_b, variance_b), (mean_t, variance_t) = _moments(batch), _moments(training)
    d: np.ndarray = (mean_b - mean_t) / np.sqrt((variance_b + variance_t) / 2)
    return d


def _moments(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, total, squares = sums[..., 0], sums[..., 1], sums[..., 2]
    return total / n, np.maximum(squares - total**2 / n, 0) / (n - 1)


def _angle(share: np.ndarray | float) -> np.ndarray:
    angle: np.ndarray = 2 * np.arcsin(np.sqrt(share))
    return angle


def _sizes(sides: list[pd.DataFrame]) -> list[float]:
    return [*(len(side) for side in sides), *(side["subject_id"].nunique() for side in sides)]


def _row(
    name: str,
    level: str,
    figures: list[float],
    effect: float,
    effects: np.ndarray,
    kind: str,
    params: Params,
) -> list[object]:
    effects = np.where(np.isfinite(effects), effects, np.nan)[:, None]
    ends = percentile_interval(effects, np.array([min(figures[2:4])]), params.confidence)
    low, high = (float(end[0]) for end in ends)
    large = abs(effect) >= params.large_effect and (low > 0 or high < 0)
    return [name, level, *figures, effect, low, high, kind, large, ""]


def _without_effect(
    name: str, sides: list[pd.DataFrame], kind: str, note: str = _FEW_PEOPLE
) -> list[object]:
    missing = [
        where for where, side in zip(("batch", "training"), sides, strict=True) if side.empty
    ]
    if missing:
        note = f"no value in the {' and the '.join(missing)}"
    return [name, "", *_sizes(sides), *[float("nan")] * 5, kind, False, note]


def _in_vocabulary(level: str) -> tuple[int, str]:
    known = (*EMOTIONS, *GENDERS)
    return (known.index(level) if level in known else len(known), level)
