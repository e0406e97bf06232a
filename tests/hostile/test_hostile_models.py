"""Hostile model files: loaded with finite answers, or refused with one line, within limits."""

import pytest
from hostile.campaign import run_campaign

KINDS = ("onnx", "hdf5", "safetensors")
LIMITS = {"cpu_s": 5.0, "memory_mb": 900}


def test_model_files():
    outcomes = run_campaign("hostile.models:check_model", 300, **LIMITS)  # one start for the three
    ends = {f"{kind} {end}" for kind in KINDS for end in ("accepted", "rejected by ModelError")}
    assert outcomes.keys() == ends


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_model_files(kind):
    run_campaign(f"hostile.models:check_{kind}", 500, first_seed=1000, **LIMITS)
