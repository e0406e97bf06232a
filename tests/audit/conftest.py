"""Settings of an audit for tests, with few resamples for speed."""

import pytest

from tasks.audit.settings import Settings

USUAL = {
    "by": ["age_band", "gender"],
    "depth": 2,
    "independent_images": False,
    "confidence": 0.95,
    "min_n": 5,
    "min_subjects": 2,
    "correction": "holm",
    "power": 0.8,
    "resamples": 200,
    "seed": 1,
    "factors": ["age_band", "gender", "emotion"],
    "standardize_to": ["emotion"],
    "calibration_bins": 5,
    "equivalence_margin": 0.05,
    "pretraining": None,
    "published": None,
}


@pytest.fixture(scope="session")
def settings_of():
    """Return a function that makes settings from what a test changes."""

    def make(**changed):
        # model_construct: a test's columns need not be ones that params.yaml may name.
        return Settings.model_construct(**USUAL | changed)

    return make
