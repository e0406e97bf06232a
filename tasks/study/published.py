"""A published comparison beside ours: whether its order is noise, and whether ours agrees.

`published/<study>.csv` holds one row a printed figure; its first lines say where it is from.

The intervals and tests take the validation pictures as independent, as if each arm had been tried
on pictures of its own. Really all were tried on the same ones. How the answers of two arms lie
beside each other is not printed; so the smallest p-value that any such table could give
(McNemar's exact test with every difference on one side) is told too. None of it knows that each
figure is the best of many epochs of one seed, which adds noise that the tests do not see.
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
from tasks.core.intervals import wilson
from tasks.core.text import clean
from tasks.study.arms import ROUNDS
from tasks.study.scores import Score

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
    "p_smallest",  # that any pairing of the answers could give
    "confidence",
]
SHARED_AT_LEAST = 3  # names; an order of two says nothing


def studies() -> list[str]:
    """Name the studies whose figures are at hand."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_study(name: str) -> pd.DataFrame:
    """Read a study's printed figures.

    Raises
    ------
    ParamsError
        Where there is no study of that name.
    DataError
        Where its file has a row that cannot be read.
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
    """Add Wilson's intervals to printed accuracies; columns `RATES`."""
    n = printed["validation_n"].to_numpy()
    low, high = wilson(np.round(printed["accuracy"].to_numpy() * n), n, confidence)
    return printed.assign(ci_low=low, ci_high=high, confidence=confidence)[RATES]


def pairwise(printed: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Compare every two figures of a round.

    Parameters
    ----------
    printed
        As `read_study` returns it.
    confidence
        Level of the intervals of the differences.

    Returns
    -------
    pandas.DataFrame
        One row a pair with `PAIRS`: the score test of two independent shares, corrected within the
        round by S. Holm (1979, Scand. J. Stat. 6, 65-70), the difference with R. G. Newcombe's
        interval (1998, Stat. Med. 17, 873-890, method 10), and `p_smallest` (see the module).
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
        Our name to score; those in `printed` count.
    printed
        Rows of one round.
    resamples, seed
        Draws: theirs binomial with the pictures they were counted on, ours normal with their
        standard errors.
    confidence
        Level of the interval.

    Returns
    -------
    tau, low, high
        From -1 (turned round) to 1 (the same order); NaN where fewer than `SHARED_AT_LEAST` names
        are shared. The interval is that of the draws, each of which adds noise to both orders: it
        says what tau could be if both studies were done once more, and lies rather towards 0.
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
    right = np.round(np.array([a["accuracy"], b["accuracy"]]) * n)
    share = right / n
    difference = float(share[0] - share[1])
    pooled = right.sum() / n.sum()
    error = float(np.sqrt(pooled * (1 - pooled) * (1 / n).sum()))
    p_value = float(2 * norm.sf(abs(difference) / error)) if error else 1.0
    low, high = wilson(right, n, confidence)
    return {
        "higher": a["name"],
        "lower": b["name"],
        "difference": difference,
        "ci_low": difference - float(np.hypot(share[0] - low[0], high[1] - share[1])),
        "ci_high": difference + float(np.hypot(high[0] - share[0], share[1] - low[1])),
        "p_value": p_value,
        "p_smallest": _smallest(right, n),
    }


def _smallest(right: np.ndarray, n: np.ndarray) -> float:
    """Return the smallest p-value that answers on the same pictures could give; NaN for others."""
    if n[0] != n[1]:
        return float("nan")
    apart = int(abs(right[0] - right[1]))
    return float(binomtest(apart, apart).pvalue) if apart else 1.0
