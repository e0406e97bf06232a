"""How well the calibration error of a group holds: its mean, its interval and its tests.

Each cell draws images of people whose outcomes are alike, with a known distance of confidence
from accuracy, and hands them to the project's own `calibration_table`. Under perfect calibration
the mean error must be 0 and depend neither on the images nor on the people.

    .venv/bin/python benchmarks/error_rates_calibration.py [TABLES PER CELL]
"""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from tasks.audit.measures.calibration import calibration_table
from tasks.audit.settings import Settings
from tasks.core.labels import ALL

SETTINGS = Settings.model_construct(
    by=["gender"], confidence=0.95, calibration_bins=10, resamples=100, seed=5, correction="holm"
)
CELLS = (  # people, images of each, correlation of a person's outcomes, sizes
    *((11, 2, 0.3, "equal"), (20, 5, 0.3, "equal"), (60, 5, 0.3, "equal")),
    *((280, 5, 0.3, "equal"), (20, 5, 0.6, "log-normal"), (60, 1, 0.0, "equal")),
)


def cells(tables: int = 400, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield rows: `name, rate, coverage, monte_carlo_error` (of the rate), and the mean errors."""
    rng = np.random.default_rng(seed)
    for off in (0.0, 0.1, 0.2):
        for people, each, alike, sizes in CELLS:
            yield error_cell(people, each, alike, sizes, off, tables, rng)
    for people, other in ((11, 11), (20, 20), (15, 100)):
        for off in (0.0, 0.1, 0.2):
            yield groups_cell(people, other, off, tables, rng)


def images(
    people: int, each: int, alike: float, sizes: str, off: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Return answers whose confidence is `off` above the chance that they are right."""
    counts = np.full(people, each)
    if sizes == "log-normal":
        counts = np.maximum(np.rint(rng.lognormal(np.log(each), 0.8, people)), 1).astype(int)
    person = np.repeat(np.arange(people), counts)
    sure = rng.uniform(0.5, 1, len(person))
    latent = np.sqrt(alike) * rng.standard_normal(people)[person]
    latent += np.sqrt(1 - alike) * rng.standard_normal(len(person))
    return pd.DataFrame(
        {
            "model": "base",
            "protocol": "held_out",
            "subject_id": person.astype(str),
            "gender": "female",
            "y_pred": "fear",
            "p_fear": sure,
            "p_neutral": 1 - sure,
            "correct": norm.cdf(latent) < sure - off,
        }
    )


def error_cell(
    people: int,
    each: int,
    alike: float,
    sizes: str,
    off: float,
    tables: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Count errors whose interval excludes 0, and intervals that hold the true error."""
    settings = SETTINGS.model_copy(update={"by": []})
    counted = []
    for _ in range(tables):
        frame = images(people, each, alike, sizes, off, rng)
        row = calibration_table(frame, settings).iloc[0]
        held = row["ci_low"] <= off <= row["ci_high"]
        counted.append((row["p_value"] < 0.05, held, row["ece_loss"], row["ece_plain_loss"]))
    significant, held, mean, plain = np.mean(counted, axis=0)
    spread = np.std([row[2] for row in counted]) / np.sqrt(tables)
    name = f"error of {people} people, {each} pictures, {sizes}, alike {alike:g}, off {off:g}"
    means = {"mean": mean, "mean_monte_carlo_error": spread, "mean_plain": plain}
    return _row(name, significant, held, tables) | means


def groups_cell(
    people: int, other: int, off: float, tables: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Count groups whose error differs significantly: one is `off`, the other is calibrated."""
    counted = []
    for _ in range(tables):
        one = images(people, 5, 0.3, "log-normal", off, rng)
        two = images(other, 5, 0.3, "log-normal", 0.0, rng).assign(gender="male")
        two["subject_id"] = "m" + two["subject_id"]
        table = calibration_table(pd.concat([one, two], ignore_index=True), SETTINGS)
        row = table[(table["group"] == "female") & (table["bin"] == ALL)].iloc[0]
        held = row["from_others_ci_low"] <= off <= row["from_others_ci_high"]
        counted.append((row["from_others_p_adjusted"] < 0.05, held, row["ece_from_others"]))
    significant, held, mean = np.mean(counted, axis=0)
    name = f"error of {people} people against {other}, off {off:g}"
    return _row(name, significant, held, tables) | {"mean": mean}


def _row(name: str, rate: float, coverage: float, tables: int) -> dict[str, Any]:
    error = float(np.sqrt(max(rate * (1 - rate), 1 / tables) / tables))
    found = {"name": name, "rate": rate, "coverage": coverage}
    return found | {"monte_carlo_error": error, "tables": tables}


if __name__ == "__main__":
    found = cells(*(int(word) for word in sys.argv[1:2]))
    print(pd.DataFrame(found).round(4).to_string(index=False))
