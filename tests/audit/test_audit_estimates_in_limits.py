"""Every estimate lies within its limits, these in the possible range, also in irregular tables."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.measures.calibration import calibration_table
from tasks.audit.measures.fairness_metrics import fairness_table
from tasks.audit.measures.standardized_gaps import standardized_table

LIMITS = {
    calibration_table: {
        "ece_loss": ("ci_low", "ci_high", -1, 1),
        "ece_from_others": ("from_others_ci_low", "from_others_ci_high", -2, 2),
        "overconfidence": ("overconfidence_ci_low", "overconfidence_ci_high", -1, 1),
    },
    fairness_table: {
        name: (f"{limits}_ci_low", f"{limits}_ci_high", 0, 1)
        for name, limits in {
            **{name: name for name in ("worst", "best", "difference", "ratio")},
            **{f"{name}_shrunken": name for name in ("worst", "best", "difference")},
            "equalized_odds_difference": "equalized_odds",
        }.items()
    },
    standardized_table: {"gap": ("ci_low", "ci_high", -1, 1)},
}
MAY_LACK = {"overconfidence"}  # in the row of a bin


def ugly(seed):
    """Return few people, one with most pictures, ties, and groups all right or all wrong."""
    rng = np.random.default_rng(seed)
    people = int(rng.choice([1, 2, 3, 5, 12]))
    images = rng.choice([1, 2, 40], size=people, p=[0.5, 0.4, 0.1])
    person = np.repeat(np.arange(people), images)
    n = len(person)
    groups = [f"g{number}" for number in range(int(rng.choice([1, 2, 5])))]
    of_image = rng.random() < 0.3  # the same people on both sides
    group = rng.choice(groups, size=n) if of_image else rng.choice(groups, size=people)[person]
    recall = dict(zip(groups, rng.choice([0.0, 0.5, 0.95, 1.0], size=len(groups)), strict=True))
    right = rng.random(n) < np.array([recall[name] for name in group])
    emotion = rng.choice(["fear", "happiness"], size=n)
    other = np.where(emotion == "fear", "happiness", "fear")
    answer = np.where(right, emotion, other)
    sure = rng.choice([0.5, 0.8, 1.0], size=n) if seed % 2 else rng.uniform(0.5, 1, n)
    return pd.DataFrame(
        {
            **{"model": "base", "protocol": "all", "dataset": "invented", "subject_known": True},
            **{"subject_id": person.astype(str), "gender": group, "emotion": emotion},
            **{"y_pred": answer, "correct": right, "mouth": rng.choice(["open", "closed"], size=n)},
            "p_fear": np.where(answer == "fear", sure, 1 - sure),
            "p_happiness": np.where(answer == "happiness", sure, 1 - sure),
        }
    )


@pytest.mark.parametrize(
    "seeds", [range(6), pytest.param(range(6, 80), marks=pytest.mark.slow)], ids=["few", "many"]
)
@pytest.mark.parametrize("table_of", LIMITS, ids=lambda table_of: table_of.__name__)
def test_every_estimate_is_within_its_limits_and_these_in_the_possible_range(
    settings_of, table_of, seeds
):
    settings = settings_of(by=["gender"], min_n=1, resamples=100, standardize_to=["mouth"])
    seen = 0
    for seed in seeds:
        table = table_of(ugly(seed), settings)
        for name, (low, high, least, most) in LIMITS[table_of].items():
            if name not in table:
                continue
            rows = table[table[name].notna()].astype({low: float, high: float, name: float})
            where = f"{name}, seed {seed}"
            if name not in MAY_LACK:
                assert rows[[low, high]].notna().all(axis=None), where
            rows = rows.dropna(subset=[low, high])
            assert (rows[low] <= rows[name] + 1e-9).all(), where
            assert (rows[name] <= rows[high] + 1e-9).all(), where
            assert (rows[low] >= least - 1e-9).all() and (rows[high] <= most + 1e-9).all(), where
            seen += len(rows)
    assert seen > len(seeds)
