"""Hostile images: decoded completely or rejected with a reason, within limits, none lost."""

import pytest
from hostile.campaign import run_campaign

CASE = "hostile.images:check_image"


def test_images():
    outcomes = run_campaign(CASE, 300, cpu_s=2, memory_mb=200)
    assert {"accepted", "damaged", "not_an_image", "animated"} <= outcomes.keys()


@pytest.mark.long
def test_many_images():
    run_campaign(CASE, 10_000, cpu_s=2, memory_mb=200, first_seed=300)
