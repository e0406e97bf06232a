"""How sure the fairness figures are: limits that know that the groups were picked as extremes.

The worst and the best of many groups differ by chance alone. All pairs of groups have limits at
once here (`tasks.core.statistics.simultaneous`), so that those of the range hold for whichever pair
came out as extreme; with two groups there is one pair, and nothing to correct.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import brentq
from scipy.stats import norm

from tasks.audit.measures.group_cube import codes, column_sums, in_cells
from tasks.audit.settings import Settings
from tasks.core.statistics.clusters import People, whole
from tasks.core.statistics.recalls import BySubject, share_limits
from tasks.core.statistics.simultaneous import (
    difference_limits,
    each_level,
    pairwise_level,
    range_p_value,
    ratio_limits,
)

COLUMNS = [
    "n_worst",
    "subjects_worst",
    "worst_ci_low",
    "worst_ci_high",
    "worst_shrunken",
    "n_best",
    "subjects_best",
    "best_ci_low",
    "best_ci_high",
    "best_shrunken",
    "difference_ci_low",
    "difference_ci_high",
    "difference_shrunken",
    "ratio_ci_low",
    "ratio_ci_high",
    "equalized_odds_ci_low",
    "equalized_odds_ci_high",
    "p_value",
    "groups",
    "confidence",
    "method",
]
_METHOD = (
    "limits that hold although the groups were picked as the extremes of {groups}: of difference "
    "and ratio for all pairs at once (studentised range), of worst and best for all groups at once "
    "(Sidak); each from the cluster variance by subject on the scale of log-odds with Student's "
    "t, or Wilson's of the effective subjects; p: the level at which the difference's lower limit "
    "reaches 0; equalized odds: of both rates at once (Bonferroni); *_shrunken: moved towards the "
    "groups' mean by what chance adds to extremes, at most one standard error "
    "(Efron and Morris 1972)"
)
_LARGEST = 7.0  # standard errors: beyond, a p-value is 0
_STILL = 1e-12  # a variance below is rounding


def with_intervals(
    rows: Sequence[dict[str, Any]], known: pd.DataFrame, dimension: str, settings: Settings
) -> list[dict[str, Any]]:
    """Add `COLUMNS` to the fairness figures of one model, protocol and dimension.

    Parameters
    ----------
    rows
        `metric, emotion` and, where groups could be compared, `worst_group, best_group` and
        `groups`: the names of all that were.
    known
        One row per image whose group is known: the dimension, `emotion, y_pred`, and `subject_id`
        (without it, each image stands for a person of its own).
    dimension
        The column of the groups.
    settings
        Of them: confidence.

    Returns
    -------
    list of dict
        The rows in their order, `groups` as their number; those without two groups stay as they
        are.

    Notes
    -----
    `p_value` is below 1 - confidence exactly where the interval of the difference excludes 0.
    """
    people = known.get("subject_id", pd.Series(np.arange(len(known)), index=known.index))
    places = [place for place, row in enumerate(rows) if "groups" in row]
    compared = [rows[place] for place in places]
    out = list(rows)
    odds: dict[str, list[tuple[float, float]]] = {}
    for place, shares in zip(
        places, _shares(compared, known, dimension, People(people)), strict=True
    ):
        row = rows[place]
        out[place] = row | _figures(row, shares, settings.confidence)
        out[place]["method"] = _METHOD.format(groups=len(shares.share))
        if row["metric"] != "recall":
            level = pairwise_level(len(shares.share), (1 + settings.confidence) / 2)
            odds.setdefault(row["emotion"], []).append(_range(shares, level)[0])
    for place in places:
        for at, end in enumerate(("low", "high")):
            limits = [pair[at] for pair in odds.get(rows[place]["emotion"], [])]
            out[place][f"equalized_odds_ci_{end}"] = max(limits, default=np.nan)
    return out


@dataclass(frozen=True)
class _Shares:
    """One figure of every group that is compared, `(k,)` each."""

    n: np.ndarray
    people: np.ndarray
    effective: np.ndarray
    share: np.ndarray
    variance: np.ndarray  # over people; 0 where nothing varies
    correlation: np.ndarray  # (k, k) of the shares; 0 for groups of different people

    def limits(self, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return intervals of each group alone."""
        return share_limits(self.share, self.variance, self.effective, level)[:2]

    def errors(self) -> np.ndarray:
        """Return standard errors, with each person counted once where nothing varies."""
        share = (self.share * self.effective + 1) / (self.effective + 2)
        counted = np.sqrt(share * (1 - share) / (self.effective + 2))
        return np.where(self.variance > _STILL, np.sqrt(self.variance), counted)


def _shares(
    rows: Sequence[dict[str, Any]], known: pd.DataFrame, dimension: str, people: People
) -> Iterator[_Shares]:
    """Measure every group of every row."""
    if not rows:
        return
    members, hits = _columns(rows, known, dimension)
    sums = BySubject.of(people, members, hits)
    n, counted = column_sums(members), sums.total(np.ones(len(sums.column)))
    share, variance, effective = column_sums(hits) / n, sums.variance(), sums.effective
    shape = (people.people, sums.k)
    influence = sparse.csc_array((sums.influence(), (sums.subject, sums.column)), shape=shape)
    first = 0
    for row in rows:
        own = slice(first, first + len(row["groups"]))
        first = own.stop
        part = influence[:, own]
        together = _correlation((part.T @ part).toarray())
        yield _Shares(n[own], counted[own], effective[own], share[own], variance[own], together)


def _correlation(covariance: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.outer(covariance.diagonal(), covariance.diagonal()))
    out = np.zeros_like(scale)
    return np.asarray(np.divide(covariance, scale, out=out, where=scale > _STILL))


def _columns(
    rows: Sequence[dict[str, Any]], known: pd.DataFrame, dimension: str
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Return which images each figure of each group divides by, and which of them it counts."""
    names = sorted({*known["emotion"].unique(), *known["y_pred"].unique()})
    emotion, answer = (codes(known[column], names) for column in ("emotion", "y_pred"))
    code_of = {name: code for code, name in enumerate(names)}
    groups = list(dict.fromkeys(name for row in rows for name in row["groups"]))
    group = codes(known[dimension], groups)
    members, hits = [], []
    for row in rows:
        if row["metric"] == "recall":
            divides, counted = np.ones(len(known), dtype=bool), answer == emotion
        else:
            label = code_of[row["emotion"]]
            divides = (emotion == label) == (row["metric"] == "true_positive_rate")
            counted = answer == label
        place = np.full(len(groups) + 1, -1)  # the last one is that of other groups
        place[[groups.index(name) for name in row["groups"]]] = np.arange(len(row["groups"]))
        cell = np.where(divides, place[group], -1)
        members.append(in_cells(cell, len(row["groups"])))
        hits.append(in_cells(np.where(counted, cell, -1), len(row["groups"])))
    return tuple(sparse.hstack(part, format="csr") for part in (members, hits))


def _figures(row: dict[str, Any], shares: _Shares, confidence: float) -> dict[str, Any]:
    """Return one row's limits, p-value and figures less the optimism of extremes."""
    k = len(shares.share)
    (low, high), (ratio_low, ratio_high) = _range(shares, pairwise_level(k, confidence))
    figures: dict[str, Any] = {
        "difference_ci_low": low,
        "difference_ci_high": high,
        "ratio_ci_low": ratio_low if shares.share.max() > 0 else np.nan,
        "ratio_ci_high": ratio_high if shares.share.max() > 0 else np.nan,
        "p_value": _p_value(shares),
        "groups": k,
        "confidence": confidence,
    }
    each_low, each_high = shares.limits(each_level(k, confidence))
    shrunken = _shrunken(shares.share, shares.errors())
    for side in ("worst", "best"):
        place = row["groups"].index(row[f"{side}_group"])
        figures[f"n_{side}"] = int(whole(shares.n[[place]])[0])
        figures[f"subjects_{side}"] = int(shares.people[place])
        figures[f"{side}_ci_low"], figures[f"{side}_ci_high"] = each_low[place], each_high[place]
        figures[f"{side}_shrunken"] = shrunken[place]
    figures["difference_shrunken"] = abs(figures["best_shrunken"] - figures["worst_shrunken"])
    return figures


def _range(shares: _Shares, level: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return limits of the largest difference and of the smallest ratio of two groups.

    `level` is that of each pair alone. The range is at least any pair's difference, so that its
    lower limit is the largest of theirs; its upper limit is the largest of theirs as well.
    """
    limits, share = shares.limits(level), shares.share
    a, b = np.triu_indices(len(share), 1)
    a, b = np.concatenate([a, b]), np.concatenate([b, a])  # either of two may be the worse one
    sides = [(share[at], (limits[0][at], limits[1][at])) for at in (a, b)]
    (side_a, limits_a), (side_b, limits_b) = sides
    correlation = shares.correlation[a, b]
    low, high = difference_limits(side_a, limits_a, side_b, limits_b, correlation)
    down, up = ratio_limits(side_a, limits_a, side_b, limits_b, correlation)
    return (
        (max(float(low.max()), 0.0), float(high.max())),
        (float(down.min()), min(float(up.min()), 1.0)),
    )


def _p_value(shares: _Shares) -> float:
    """Return the p-value of all groups being equal: where the range's lower limit reaches 0."""

    def beyond(errors: float) -> float:
        """Return the largest of the pairs' lower limits at so many normal standard errors."""
        limits, share = shares.limits(1 - 2 * float(norm.sf(errors))), shares.share
        a, b = np.triu_indices(len(share), 1)
        one, other = ((share[at], (limits[0][at], limits[1][at])) for at in (a, b))
        low, high = difference_limits(*one, *other, shares.correlation[a, b])
        return float(np.maximum(low, -high).max())

    if beyond(1e-6) <= 0:
        return 1.0
    if beyond(_LARGEST) > 0:
        return 0.0
    errors = brentq(beyond, 1e-6, _LARGEST, xtol=1e-6)
    return range_p_value(len(shares.share), 1 - 2 * float(norm.sf(errors)))


def _shrunken(share: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Move shares towards their mean, by what of their spread is chance.

    Notes
    -----
    The variance between groups is that of R. DerSimonian and N. Laird (1986), Control. Clin. Trials
    7, 177-188. No share moves by more than its standard error, so that one true outlier is not
    drawn to the others (B. Efron, C. Morris 1972, J. Am. Stat. Assoc. 67, 130-139).
    """
    variance = np.maximum(errors**2, 1e-12)
    weight = 1 / variance
    mean = weight @ share / weight.sum()
    excess = weight @ (share - mean) ** 2 - (len(share) - 1)
    between = max(excess / (weight.sum() - weight @ weight / weight.sum()), 0.0)
    move = (mean - share) * variance / (variance + between)
    return np.asarray(share + np.clip(move, -errors, errors))
