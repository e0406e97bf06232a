"""Which factors can enter a model of right and wrong answers, and as what columns.

A factor is left out, with the reason, where its effect cannot be estimated: it is missing, the
same for every image, unknown for most, recorded for only one level of a factor before it in the
list (then a model with both would be one of that level), or goes together with those factors.
A level that is always read right (or always wrong) has no finite odds ratio; its images tell
nothing of the other factors and leave the model with it, which is what the likelihood does with
them in the limit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tasks.audit.measures.group_cube import values_in_order
from tasks.audit.settings import UNITS, factor_values

PEOPLE_PER_COEFFICIENT = 3  # the robust covariance of fewer is worth little
HANDFUL = 5  # images without which a level is none that others are compared with
RARER_PER_COEFFICIENT = 5  # wrong (or right) images: E. Vittinghoff, C. E. McCulloch 2007
_SAME = 1e-6  # share of a column's spread that the others do not explain


@dataclass(frozen=True)
class Term:
    """One coefficient: a level against the reference, or one standard deviation more."""

    factor: str
    level: str
    reference: str
    values: np.ndarray  # (m,) 0 and 1, or standardized
    of_level: np.ndarray  # (m,) booleans: the images that the row counts


@dataclass
class Design:
    """The design matrix of a model.

    `used` is `(n,)` booleans: the images that the model is fitted on. Each of the `terms` has one
    value per used image; the intercept is not among them. `left_out` is `(factor, level, reason)`
    of what has no coefficient, with level "" for a complete factor. `unknown` counts, per factor,
    the images that were left out because it is not known for them.
    """

    used: np.ndarray
    terms: list[Term] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)


def largest_levels(judged: pd.DataFrame, factors: Sequence[str]) -> dict[str, str]:
    """Return the level with the most images of each factor that has levels."""
    largest = {}
    for name in factors:
        values = factor_values(judged, name)
        if values is not None and name not in UNITS and values.notna().any():
            largest[name] = _largest(judged, name, values)
    return largest


def design_of(part: pd.DataFrame, factors: Sequence[str], references: Mapping[str, str]) -> Design:
    """Build the design matrix of one model and protocol.

    `part` has one row per image with `correct`, `subject_id` and the factors. `factors` are in
    order of importance: of two collinear factors the first stays. `references` maps a factor to its
    reference level; where no image has that level, the most frequent level is used.
    """
    design = Design(np.ones(len(part), dtype=bool))
    known = _known(part, factors, design)
    _leave_out_separated(part, known, design)
    rows = part[design.used]
    most = _max_coefficients(rows)
    basis = np.ones((len(rows), 1)) / np.sqrt(max(len(rows), 1))
    bases: dict[str, np.ndarray] = {}
    for name, values in known.items():
        terms = _terms(rows, name, values[design.used], references.get(name, ""))
        columns = np.column_stack([term.values for term in terms]) if terms else None
        wider = None if columns is None else _extended(basis, columns)
        if columns is None:
            design.left_out.append((name, "", "the same for every picture that remains"))
        elif wider is None:
            design.left_out.append((name, "", _together(columns, bases)))
        elif wider.shape[1] > most:
            design.left_out.append((name, "", "too few people or wrong answers for more factors"))
        else:
            basis = wider
            bases[name] = columns
            design.terms += terms
    return design


def _known(part: pd.DataFrame, factors: Sequence[str], design: Design) -> dict[str, pd.Series]:
    """Leave out factors that are missing or mostly unknown, then images that lack the others."""
    known: dict[str, pd.Series] = {}
    for name in factors:
        values = factor_values(part, name)
        values = values.where(values > 0) if values is not None and name == "sharpness" else values
        if values is None:
            design.left_out.append((name, "", "the predictions have no such column"))
        elif values.isna().all():
            design.left_out.append((name, "", "recorded for no picture"))
        elif values.isna().mean() > 0.5:
            design.left_out.append((name, "", _mostly_unknown(values)))
        elif reason := _takes_away(known, values):
            design.left_out.append((name, "", reason))
        else:
            known[name] = values
    while known and _complete(known).mean() < 0.5:
        worst = max(known, key=lambda name: int(known[name].isna().sum()))
        words = f"{_mostly_unknown(known.pop(worst))}; with the other factors, for more than half"
        design.left_out.append((worst, "", words))
    if known:
        design.used &= _complete(known)
        counts = {name: int(values.isna().sum()) for name, values in known.items()}
        design.unknown = {name: count for name, count in counts.items() if count}
    return known


def _takes_away(known: dict[str, pd.Series], values: pd.Series) -> str:
    """Return an earlier factor that this one would leave with a single level, or ""."""
    before = _complete(known) if known else np.ones(len(values), dtype=bool)
    after = before & values.notna().to_numpy()
    for name, earlier in known.items():
        if _levels(earlier[before]) > 1 and _levels(earlier[after]) < 2:
            sizes = earlier[after].value_counts()
            if sizes.empty:
                return f"recorded for no picture of known {' and '.join(known)}"
            if name in UNITS:
                return f"recorded for one {name} only: it cannot be compared"
            almost = "" if len(sizes) == 1 else "almost "
            return f"recorded for {name} {sizes.index[0]} {almost}only: it cannot be compared"
    return ""


def _levels(values: pd.Series) -> int:
    """Count the levels that a handful of images have; of numbers, the different ones."""
    if pd.api.types.is_numeric_dtype(values):
        return int(values.nunique())
    return int((values.value_counts() >= HANDFUL).sum())


def _complete(known: dict[str, pd.Series]) -> np.ndarray:
    return np.logical_and.reduce([values.notna().to_numpy() for values in known.values()])


def _mostly_unknown(values: pd.Series) -> str:
    return f"unknown for {int(values.isna().sum())} of {len(values)} pictures"


def _leave_out_separated(part: pd.DataFrame, known: dict[str, pd.Series], design: Design) -> None:
    """Repeatedly remove levels that are always right or always wrong."""
    correct = part["correct"].to_numpy(dtype=bool)
    found = True
    while found and len(np.unique(correct[design.used])) == 2:
        found = False
        for name, values in known.items():
            if name in UNITS:
                continue
            now = values[design.used]
            if now.nunique() < 2:
                continue
            recalls = pd.Series(correct[design.used], now.index).groupby(now).agg(["mean", "size"])
            for level, recall, size in recalls[recalls["mean"].isin([0, 1])].itertuples():
                answer = "right" if recall else "wrong"
                reason = f"all {size} pictures are read {answer}: no finite odds ratio, left out"
                design.left_out.append((name, str(level), reason))
                design.used &= (values != level).to_numpy()
                found = True
            if found:
                break


def _max_coefficients(rows: pd.DataFrame) -> int:
    """Return how many coefficients, with the intercept, the people and outcomes allow."""
    right = int(rows["correct"].sum())
    rarer = min(right, len(rows) - right)
    people = rows["subject_id"].nunique()
    return min(people // PEOPLE_PER_COEFFICIENT, rarer // RARER_PER_COEFFICIENT)


def _terms(rows: pd.DataFrame, name: str, values: pd.Series, reference: str) -> list[Term]:
    """Code one factor; return nothing where it is constant."""
    if name in UNITS:
        return _per_sd(name, values.to_numpy())
    levels = values_in_order(rows.assign(**{name: values}), name) if len(rows) else []
    if len(levels) < 2:
        return []
    reference = reference if reference in levels else _largest(rows, name, values)
    return [
        Term(
            name, level, reference, (values == level).to_numpy(float), (values == level).to_numpy()
        )
        for level in levels
        if level != reference
    ]


def _largest(rows: pd.DataFrame, name: str, values: pd.Series) -> str:
    """Return the level with the most images, the first in order where several have."""
    sizes = values.value_counts()
    known = rows[values.notna()].assign(**{name: values.dropna()})
    return next(str(v) for v in values_in_order(known, name) if sizes[v] == sizes.max())


def _per_sd(name: str, numbers: np.ndarray) -> list[Term]:
    """Standardize numbers; sharpness, which is skewed, by its logarithm."""
    used = np.log(numbers) if name == "sharpness" else numbers
    spread = float(used.std()) if len(used) else 0.0
    if spread < 1e-9:
        return []
    words = f"{spread:.3g} {UNITS[name]}".strip()
    words = f"times {np.exp(spread):.3g}" if name == "sharpness" else words
    everyone = np.ones(len(used), dtype=bool)
    values = (used - used.mean()) / spread
    return [Term(name, f"per SD ({words})", "", values, everyone)]


def _extended(basis: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
    """Add columns to an orthonormal basis; None where they add less than their number."""
    wide = basis
    for column in columns.T:
        rest = column - wide @ (wide.T @ column)
        rest -= wide @ (wide.T @ rest)  # twice, against rounding
        if np.linalg.norm(rest) < _SAME * np.linalg.norm(column - column.mean()):
            return None
        wide = np.column_stack([wide, rest / np.linalg.norm(rest)])
    return wide


def _together(columns: np.ndarray, bases: dict[str, np.ndarray]) -> str:
    """Return a note on the factor, or else the factors, that a factor is collinear with."""
    start = np.ones((len(columns), 1)) / np.sqrt(len(columns))
    for name, others in bases.items():
        wide = _extended(start, others)
        if wide is not None and _extended(wide, columns) is None:
            return f"cannot be told apart from {name}"
    return f"cannot be told apart from {' and '.join(bases)} together"
