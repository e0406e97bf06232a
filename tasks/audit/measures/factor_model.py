"""A logistic model of right and wrong answers with every factor at once.

Images of one subject may be alike (`clustered_logistic`). The odds ratios compare a group with the
reference group among images that are the same in the other factors: an odds ratio below 1 is a
lower chance of a right answer. They describe these images and prove no cause. Images whose subject
is unknown are left out. An odds ratio that rests on too few subjects has neither an interval nor a
test.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from tasks.audit.measures.clustered_logistic import Fit, fit_clustered
from tasks.audit.measures.design_matrix import Design, Term, design_of, largest_levels
from tasks.audit.settings import Settings
from tasks.core.statistics.clusters import effective
from tasks.core.statistics.hypothesis_tests import corrected
from tasks.core.tables import NO_MODEL

FEWEST_PEOPLE = 10
FEWEST_EFFECTIVE = 3.0  # subjects of a level: for fewer no test holds its level
_FINITE = 10.0  # a coefficient beyond, an odds ratio of 22,000, stands for an infinite one
_CORRECTIONS = {"holm": "Holm", "benjamini_hochberg": "Benjamini & Hochberg"}
COLUMNS = [
    "model",
    "protocol",
    "factor",
    "level",
    "reference",
    "n",
    "subjects",
    "odds_ratio",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "confidence",
    "method",
    "note",
]


def factors_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Fit one logistic model per model and protocol, over all data sets.

    `judged` has one row per model, protocol and image: `model, protocol, subject_id, correct` and
    those columns of `settings.factors` that exist. Numbers (`factor_values.UNITS`) enter per
    standard deviation, sharpness by its logarithm. Other columns enter by level. The reference
    level is the one with the most images over all models, so that models share it; where that level
    is left out, it is the one with the most images of the model.

    The table has one row per coefficient. `n` and `subjects` count the images of the level that the
    model is fitted on; for a number, all images. What was left out has a row with empty figures and
    the reason in `note`. Where no model could be fitted, a row with the factor "(no model)" gives
    the reason. `p_adjusted` is corrected over the rows of the model and protocol.
    """
    rows: list[dict[str, Any]] = []
    references = largest_levels(judged, settings.factors)
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        names = {"model": model, "protocol": protocol, "confidence": settings.confidence}
        rows += [names | row for row in _of_part(part.reset_index(drop=True), references, settings)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"n": "Int64", "subjects": "Int64"})


def _of_part(
    part: pd.DataFrame, references: dict[str, str], settings: Settings
) -> list[dict[str, Any]]:
    """Return the rows of one model and protocol."""
    known = part["subject_known"].astype(bool) if "subject_known" in part else part["correct"] >= 0
    unknown = int((~known).sum())
    part = part[known].reset_index(drop=True)
    if part.empty:
        line = {"factor": NO_MODEL, "level": "", "reference": "", "n": 0}
        return [line | {"note": f"the subject of none of the {unknown} images is known"}]
    design = design_of(part, settings.factors, references)
    missing = [
        {"factor": factor, "level": level, "reference": "", "note": note}
        for factor, level, note in design.left_out
    ]
    fit = _fit_or_reason(part[design.used], design)
    if isinstance(fit, str):
        line = {"factor": NO_MODEL, "level": "", "reference": "", "note": fit}
        return [line | {"n": int(design.used.sum())}, *missing]
    rows = _rows(part[design.used], design, fit, settings, unknown)
    return _in_order([*rows, *missing], settings)


def _fit_or_reason(rows: pd.DataFrame, design: Design) -> Fit | str:
    """Fit the model, or return the reason why there is none."""
    people = rows["subject_id"].nunique()
    if rows.empty:
        return "every level of a factor is read all right or all wrong: no picture is left"
    if people < FEWEST_PEOPLE:
        return f"{people} people are too few for a model ({FEWEST_PEOPLE} are needed)"
    if rows["correct"].nunique() < 2:
        return f"every picture is read {'right' if rows['correct'].iloc[0] else 'wrong'}"
    if not design.terms:
        return (
            "no factor differs between the pictures, or there are too few people or wrong answers"
        )
    columns = np.column_stack([np.ones(len(rows)), *(term.values for term in design.terms)])
    try:
        # Both warn where they go astray; the checks below look at what came out.
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            subject = pd.factorize(rows["subject_id"])[0]
            fit = fit_clustered(rows["correct"].to_numpy(float), columns, subject)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return f"the model did not converge ({' '.join(str(error).split())})"
    return "the model did not converge" if fit is None else fit


def _rows(
    rows: pd.DataFrame, design: Design, fit: Fit, settings: Settings, unknown: int
) -> list[dict[str, Any]]:
    """Turn coefficients into odds ratios with intervals and tests."""
    middle, errors = fit.coefficients[1:], fit.errors[1:]
    finite = (np.abs(middle) < _FINITE) & (errors < _FINITE)
    number = np.array([_effective_subjects(rows, term) for term in design.terms])
    tested = finite & (number >= FEWEST_EFFECTIVE)
    freedom = np.maximum(fit.freedom[1:], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = np.where(tested, 2 * t.sf(np.abs(middle) / errors, freedom), np.nan)
        reach = t.ppf((1 + settings.confidence) / 2, freedom) * errors
    adjusted = corrected(pd.Series(p_values), pd.Series(tested), settings.correction).to_numpy()
    left_out = f" {unknown} images of unknown subjects are left out." if unknown else ""
    out = []
    for index, term in enumerate(design.terms):
        row: dict[str, Any] = {
            "factor": term.factor,
            "level": term.level,
            "reference": term.reference,
            "n": int(term.of_level.sum()),
            "subjects": int(rows["subject_id"][term.of_level].nunique()),
            "method": f"Logistic model of a right answer with all factors at once; {fit.method}; "
            f"Student's t with {freedom[index]:.1f} degrees of freedom. p_adjusted: "
            f"{_CORRECTIONS[settings.correction]} over the model's {int(tested.sum())} odds "
            f"ratios.{left_out}",
            "note": _note(design, term.factor),
        }
        if tested[index]:
            values = middle[index] + reach[index] * np.array([0, -1, 1])
            with np.errstate(over="ignore"):
                limits = np.exp(values)
            row |= dict(zip(("odds_ratio", "ci_low", "ci_high"), limits, strict=True))
            row |= {"p_value": p_values[index], "p_adjusted": adjusted[index]}
        elif not finite[index]:
            row["note"] = "no finite odds ratio: the answers are all one way in some combination"
        else:
            row["note"] = (
                f"not tested: {number[index]:.1f} effective subjects on a side are too few "
                f"({FEWEST_EFFECTIVE:g} are needed)"
            )
        out.append(row)
    return out


def _effective_subjects(rows: pd.DataFrame, term: Term) -> float:
    """Return the effective subjects of a level or of its reference, whichever has fewer."""
    sides = [term.of_level]
    if term.reference:
        sides.append((rows[term.factor].astype("str") == term.reference).to_numpy())
    numbers = [rows["subject_id"][side].value_counts().to_numpy() for side in sides]
    return min(float(effective(n.sum(), (n**2).sum())) for n in numbers)


def _note(design: Design, factor: str) -> str:
    """Return the note on images that are left out because a factor is unknown."""
    count = design.unknown.get(factor, 0)
    return f"{count} pictures of unknown {factor} are left out of the model" if count else ""


def _in_order(rows: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Sort rows by the list of factors."""
    return sorted(rows, key=lambda row: settings.factors.index(row["factor"]))
