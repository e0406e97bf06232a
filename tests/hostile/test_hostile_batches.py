"""Hostile batches: every file ends in the data or in quarantine, and the inbox is never blocked."""

import pytest
from hostile.campaign import run_campaign

MARKER, BATCH = "hostile.markers:check_marker", "hostile.batches:check_batch"


def test_markers():
    outcomes = run_campaign(MARKER, 300, cpu_s=1, memory_mb=200)
    assert {"accepted", "refused"} == outcomes.keys()


@pytest.mark.slow
def test_batches():
    outcomes = run_campaign(BATCH, 40, cpu_s=5, memory_mb=400)
    assert {"accepted", "quarantined"} == outcomes.keys()


@pytest.mark.long
def test_many_markers():
    run_campaign(MARKER, 2_000, cpu_s=1, memory_mb=200, first_seed=300)


@pytest.mark.long
def test_many_batches():
    run_campaign(BATCH, 500, cpu_s=5, memory_mb=400, first_seed=300)
