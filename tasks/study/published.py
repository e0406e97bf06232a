"""Comparison with a published study: whether its order is noise, and whether ours agrees.

`published/<study>.csv` has one row per printed figure; its first lines name the source.

The intervals and tests assume independent validation images, as if each candidate had been tried on
images of its own, although all were tried on the same ones. The paired predictions are not printed,
so the smallest p-value that any pairing could give (McNemar's exact test with every difference on
one side) is reported too. No test accounts for the noise of figures that are each the best of many
epochs of one seed.
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, kendalltau, norm
from statsmodels.stats.multitest import multipletests

from tasks.core.errors import DataError, ParamsError
from tasks.core.statistics.recalls import wilson
from tasks.core.text import clean
from tasks.study.candidates import ROUNDS
from tasks.study.results import Score

FOLDER = Path(__file__).parent / "published"
COLUMNS = ["round", "name", "ours", "accuracy", "validation_n"]
RATES = [*COLUMNS, "ci_low", "ci_high", "confidence"]
PAIRS = [
    "round",
    "higher",
    "lower",
    "difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "p_smallest",  # that any pairing of the predictions could give
    "confidence",
]
SHARED_AT_LEAST = 3  # names; two have no order to compare


def studies() -> list[str]:
    """Return the names of the studies whose figures are available."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_study(name: str) -> pd.DataFrame:
    """Read a study's printed figures.

    Raises
    ------
    ParamsError
        If there is no study of that name.
    DataError
        If its file has a row that cannot be read.
    """
    if name not in studies():
        raise ParamsError(
            f"study.published: no study {name!r}; known are {', '.join(studies())} (or null)"
        )
    path = FOLDER / f"{name}.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#"))
    table = pd.read_csv(StringIO(text), dtype="str", keep_default_na=False).map(clean)
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise DataError(f"{path}: lacks the column(s) {', '.join(missing)}")
    for column in ("accuracy", "validation_n"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    wrong = ~(table["round"].isin(ROUNDS) & table["accuracy"].between(0, 1))
    wrong |= ~(table["validation_n"] > 0)
    if wrong.any():
        raise DataError(f"{path}: cannot be read: {table[wrong].iloc[0].to_dict()}")
    return table[COLUMNS]


def with_intervals(printed: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Add Wilson intervals to printed accuracies; columns `RATES`."""
    n = printed["validation_n"].to_numpy()
    low, high = wilson(np.round(printed["accuracy"].to_numpy() * n), n, confidence)
    return printed.assign(ci_low=low, ci_high=high, confidence=confidence)[RATES]


def pairwise(printed: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Compare every two figures of a round; one row per pair with the columns `PAIRS`.

    The test is the score test of two independent proportions, corrected within the round by S. Holm
    (1979, Scand. J. Stat. 6, 65-70). The difference has R. G. Newcombe's interval (1998, Stat. Med.
    17, 873-890, method 10). For `p_smallest` see the module.
    """
    tables = []
    for name, part in printed.groupby("round", sort=False):
        ordered = part.sort_values("accuracy", ascending=False, kind="stable")
        pairs = list(combinations(ordered.to_dict("records"), 2))
        if not pairs:
            continue
        rows = pd.DataFrame([_pair(a, b, confidence) for a, b in pairs])
        rows["p_adjusted"] = multipletests(rows["p_value"], method="holm")[1]
        tables.append(rows.assign(round=name, confidence=confidence))
    return pd.concat(tables, ignore_index=True)[PAIRS] if tables else pd.DataFrame(columns=PAIRS)


def agreement(
    ours: Mapping[str, Score], printed: pd.DataFrame, resamples: int, seed: int, confidence: float
) -> tuple[float, float, float]:
    """Compare two orders: Kendall's tau-b and its interval.

    Parameters
    ----------
    ours
        Score by name; names that are not in `printed` do not count.
    printed
        Rows of one round.
    resamples, seed
        Draws: theirs binomial with their number of images, ours normal with the standard errors.

    Returns
    -------
    tau, low, high
        From -1 (reversed) to 1 (the same order); NaN if fewer than `SHARED_AT_LEAST` names are
        shared. Each draw adds noise to both orders, so that the interval is what tau could be if
        both studies were repeated, and is biased towards 0.
    """
    shared = printed[printed["ours"].isin(list(ours))]
    if len(shared) < SHARED_AT_LEAST:
        return float("nan"), float("nan"), float("nan")
    scores = [ours[name] for name in shared["ours"]]
    means, errors = (
        np.array([getattr(score, part) for score in scores]) for part in ("mean", "se")
    )
    rate, n = shared["accuracy"].to_numpy(), shared["validation_n"].to_numpy()
    rng = np.random.default_rng(seed)
    theirs = rng.binomial(n, rate, size=(resamples, len(rate))) / n
    drawn = rng.normal(means, errors, size=theirs.shape)
    taus = np.array([_tau(a, b) for a, b in zip(drawn, theirs, strict=True)])
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(taus, [tail, 1 - tail]) if np.isfinite(taus).any() else (np.nan,) * 2
    return _tau(means, rate), float(low), float(high)


def _tau(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    return float(kendalltau(a, b).statistic)


def _pair(a: Mapping, b: Mapping, confidence: float) -> dict[str, object]:
    """Compare two printed figures, the higher one first."""
    n = np.array([a["validation_n"], b["validation_n"]])
    correct = np.round(np.array([a["accuracy"], b["accuracy"]]) * n)
    share = correct / n
    difference = float(share[0] - share[1])
    pooled = correct.sum() / n.sum()
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / n).sum()))
    p_value = float(2 * norm.sf(abs(difference) / error)) if error else 1.0
    low, high = wilson(correct, n, confidence)
    return {
        "higher": a["name"],
        "lower": b["name"],
        "difference": difference,
        "ci_low": difference - float(np.hypot(share[0] - low[0], high[1] - share[1])),
        "ci_high": difference + float(np.hypot(high[0] - share[0], share[1] - low[1])),
        "p_value": p_value,
        "p_smallest": _smallest_p(correct, n),
    }


def _smallest_p(correct: np.ndarray, n: np.ndarray) -> float:
    """Return the smallest p-value of any pairing; NaN if the numbers of images differ."""
    if n[0] != n[1]:
        return float("nan")
    difference = int(abs(correct[0] - correct[1]))
    return float(binomtest(difference, difference).pvalue) if difference else 1.0
