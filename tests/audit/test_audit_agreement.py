"""Every estimate lies in its interval, and no p-value contradicts the interval beside it."""

import numpy as np
import pandas as pd
import pytest

from tasks.audit.audit import audit_predictions
from tasks.core.gap_sentences import could_be_shown, points

EMOTIONS = ("anger", "fear", "happiness")
# Table to its estimates: value, limits, and the p-value that belongs to them (or none).
ESTIMATES = {
    "groups": [
        ("recall", "ci_low", "ci_high", None),
        ("recall_per_subject", "per_subject_ci_low", "per_subject_ci_high", None),
    ],
    "gaps": [("gap", "ci_low", "ci_high", "p_value")],
    "before_after": [
        ("change", "ci_low", "ci_high", "p_value"),
        ("recall_base", "base_ci_low", "base_ci_high", None),
        ("recall_finetuned", "finetuned_ci_low", "finetuned_ci_high", None),
    ],
    "factors": [("odds_ratio", "ci_low", "ci_high", "p_value")],
    "standardized": [("gap", "ci_low", "ci_high", None)],
    "intersections": [
        ("recall", "ci_low", "ci_high", None),
        ("difference", "difference_low", "difference_high", "p_adjusted"),
    ],
    "predictive_values": [
        ("ppv", "ci_low", "ci_high", None),
        ("fdr", "fdr_ci_low", "fdr_ci_high", None),
        ("ppv_equal_prevalence", "equal_ci_low", "equal_ci_high", None),
        ("difference", "difference_low", "difference_high", None),
    ],
    "sensitivity": [("gap", "ci_low", "ci_high", None)],
}


def predictions(seed):
    """Draw two models on a cohort with the uglier sides of real ones, more of them by seed."""
    rng = np.random.default_rng(seed)
    subjects = rng.integers(14, 40)
    sizes = np.maximum(1, rng.lognormal(1.5, 1.0, subjects)).astype(int)
    if seed % 2:
        sizes[0] = sizes.sum()  # one subject with half of all images
    subject = np.repeat(np.arange(subjects), sizes)
    frame = pd.DataFrame({"subject_id": [f"s{number}" for number in subject]})
    frame["age_band"] = np.where(subject % 2, "child", "adult")
    frame["gender"] = rng.choice(["female", "male"], subjects)[subject]
    frame["emotion"] = rng.choice(EMOTIONS, len(frame))
    frame["image_id"] = np.arange(len(frame))
    frame["subject_known"] = rng.random(len(frame)) > 0.1 * (seed % 3)
    skill = rng.beta(6, 0.5 if seed % 3 else 3, subjects)[subject] - 0.2 * (subject % 2)
    models = []
    for model in ("base", "finetuned"):
        right = rng.random(len(frame)) < skill
        answers = np.where(right, frame["emotion"], rng.choice(EMOTIONS, len(frame)))
        models.append(frame.assign(model=model, y_pred=answers))
    return pd.concat(models, ignore_index=True).assign(
        dataset="x", split="test", seen_in_training=False
    )


@pytest.mark.parametrize("seed", range(4))
def test_estimates_lie_in_their_intervals_and_p_values_agree(settings_of, seed):
    settings = settings_of(min_subjects=3, resamples=200, standardize_to=["emotion"])
    tables = audit_predictions(predictions(seed), settings, ("base", "finetuned"))
    for name, estimates in ESTIMATES.items():
        table = tables[name]
        for value, low, high, p_value in estimates:
            rows = table[table[[value, low, high]].notna().all(axis=1)]
            inside = (rows[low] <= rows[value] + 1e-9) & (rows[value] <= rows[high] + 1e-9)
            assert inside.all(), (name, value, rows[~inside][[value, low, high]])
            if p_value is not None:
                tested = rows[rows[p_value].notna()]
                none = 1 if name == "factors" else 0
                apart = (tested[low] > none) | (tested[high] < none)
                wrong = tested[(tested[p_value] < 0.05) != apart]
                assert wrong.empty, (name, wrong[[value, low, high, p_value]])


def test_a_limit_is_printed_on_its_side_of_zero():
    assert points(0.0004) == "0.04"
    assert points(-0.0004, signed=True) == "\u22120.04"
    assert points(1e-9) == "just above 0" and points(-1e-9) == "just below 0"
    assert points(0.0) == points(-0.0) == "0.0"
    assert points(0.4381) == "43.8"


def test_a_gap_whose_interval_includes_zero_is_never_shown():
    row = {"enough_n": True, "p_adjusted": 0.006, "ci_low": -0.028, "ci_high": 0.635}
    assert not could_be_shown(pd.DataFrame([row])).any()
    assert could_be_shown(pd.DataFrame([row | {"ci_low": 0.001}])).all()
