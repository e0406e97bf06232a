"""Error rates and power of figures that were picked as extremes.

Each cell draws tables with a known truth (people whose outcomes are alike), hands them to the
project's own functions, and counts. Fairness: the range of equal groups, the interval of a true
range and of the group picked as worst. Drift: reports on batches that do not differ, and on ones
that do.

    .venv/bin/python benchmarks/error_rates_extremes.py [TABLES PER CELL]
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from tasks.audit.measures.fairness_metrics import RECALL, fairness_table
from tasks.audit.settings import Settings
from tasks.drift.compare import COHENS_H, compare
from tasks.drift.settings import Params

ALIKE = 0.3  # correlation of one person's outcomes
AUDIT = Settings.model_construct(
    by=["ethnicity"], confidence=0.95, min_n=10, resamples=1000, seed=5
)
DRIFT = Params(min_n=30, large_effect=0.5, confidence=0.95, resamples=1000, seed=8)
NUMBERS = ("detector_score", "sharpness", "brightness", "confidence")


def cells(tables: int = 400, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield rows: `name, rate, coverage, monte_carlo_error`; the error is that of the rate."""
    rng = np.random.default_rng(seed)
    for groups, people, sizes in (
        (2, 15, "equal"),
        (4, 15, "log-normal"),
        (10, 15, "equal"),
        (10, 30, "log-normal"),
    ):
        recalls = np.full(groups, 0.8)
        yield fairness_cell(recalls, people, sizes, tables, rng)
    yield fairness_cell(np.r_[np.full(9, 0.8), 0.5], 30, "equal", tables, rng)
    for people in (8, 15, 40, 100):
        yield drift_cell(people, 0.0, tables, rng)
    for people, shift in ((15, 1.0), (40, 0.7), (40, 1.0), (100, 0.7)):
        yield drift_cell(people, shift, tables, rng)


def outcomes(
    recalls: np.ndarray, people: int, sizes: str, rng: np.random.Generator
) -> pd.DataFrame:
    """Return images of `people` subjects per group, each group with its own recall."""
    count = len(recalls) * people
    images = np.full(count, 6)
    if sizes == "log-normal":
        images = np.maximum(np.rint(rng.lognormal(1.5, 0.8, count)), 1).astype(int)
    person = np.repeat(np.arange(count), images)
    latent = np.sqrt(ALIKE) * rng.standard_normal(count)[person]
    latent += np.sqrt(1 - ALIKE) * rng.standard_normal(len(person))
    group = person // people
    right = norm.cdf(latent) < recalls[group]
    return pd.DataFrame(
        {
            "model": "base",
            "protocol": "held_out",
            "subject_id": person.astype(str),
            "subject_known": True,
            "ethnicity": np.char.add("group", group.astype(str)),
            "emotion": "fear",
            "y_pred": np.where(right, "fear", "surprise"),
        }
    )


def fairness_cell(
    recalls: np.ndarray, people: int, sizes: str, tables: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Count ranges that are shown, and intervals that hold the true range and the worst recall."""
    counted = []
    for _ in range(tables):
        frame = outcomes(recalls, people, sizes, rng)
        row = fairness_table(frame, AUDIT).set_index("metric").loc[RECALL]
        worst = recalls[int(row["worst_group"].removeprefix("group"))]
        counted.append(
            (
                row["difference_ci_low"] > 0,
                row["difference_ci_low"] <= np.ptp(recalls) <= row["difference_ci_high"],
                row["worst_ci_low"] <= worst <= row["worst_ci_high"],
                row["difference"],
                row["difference_shrunken"],
            )
        )
    significant, held, held_worst, plain, shrunken = np.mean(counted, axis=0)
    name = f"range of {len(recalls)} groups of {people} {sizes}, true {np.ptp(recalls):.1f}"
    return _row(name, significant, held, tables) | {
        "coverage_of_worst": held_worst,
        "mean": plain,
        "mean_shrunken": shrunken,
    }


def batch(people: int, shift: float, prefix: str, rng: np.random.Generator) -> pd.DataFrame:
    """Return images of adults and children, with numbers that are alike within a person."""
    images = np.maximum(np.rint(rng.lognormal(1.5, 0.6, people)), 1).astype(int)
    person = np.repeat(np.arange(people), images)
    bands = rng.choice(["child", "adolescent", "adult"], p=[0.2, 0.3, 0.5], size=people)
    age = rng.normal(25, 12, people).clip(3)
    table = pd.DataFrame(
        {
            "subject_id": np.char.add(prefix, person.astype(str)),
            "emotion": rng.choice(
                ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"],
                size=len(person),
            ),
            "age_band": bands[person],
            "gender": rng.choice(["female", "male"], size=people)[person],
            "age_years": age[person],
        }
    )
    for name in NUMBERS:
        value = np.sqrt(ALIKE) * rng.standard_normal(people)[person]
        value += np.sqrt(1 - ALIKE) * rng.standard_normal(len(person))
        table[name] = np.exp(value) if name == "sharpness" else value
    table["brightness"] += shift
    return table


def drift_cell(
    people: int, shift: float, tables: int, rng: np.random.Generator, training: int = 150
) -> dict[str, Any]:
    """Count reports with a false large row, and rows that find a true shift of the brightness."""
    counted = []
    for _ in range(tables):
        sides = batch(people, shift, "b", rng), batch(training, 0.0, "t", rng)
        table = compare(*sides, DRIFT)
        moved = table["feature"] == "brightness"
        truth = np.where(moved, shift, 0.0)
        within = (table["ci_low"] <= truth) & (truth <= table["ci_high"])
        found = table.loc[moved, "large"].any() if shift else table["large"].any()
        # A level that one side lacks may have any share: the rest must hold the truth, all at once.
        judged = (table["effect_kind"] != COHENS_H) | (table[["batch", "training"]].min(axis=1) > 0)
        counted.append((found, within[judged].all()))
    rate, coverage = np.mean(counted, axis=0)
    what = f"shift of {shift:g}" if shift else "no drift"
    return _row(f"drift, {people} people, {what}", rate, coverage, tables)


def _row(name: str, rate: float, coverage: float, tables: int) -> dict[str, Any]:
    error = float(np.sqrt(max(rate * (1 - rate), 1 / tables) / tables))
    found = {"name": name, "rate": rate, "coverage": coverage}
    return found | {"monte_carlo_error": error, "tables": tables}


if __name__ == "__main__":
    found = cells(*(int(word) for word in sys.argv[1:2]))
    print(pd.DataFrame(found).round(3).to_string(index=False))
