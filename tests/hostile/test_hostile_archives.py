"""Hostile archives: unpacked into their folder within limits, or refused in one line."""

import pytest
from hostile.campaign import run_campaign

CASE = "hostile.archives:check_archive"


def test_archives():
    outcomes = run_campaign(CASE, 300, cpu_s=2, memory_mb=200)
    assert {"accepted", "rejected by DataError"} == outcomes.keys()


@pytest.mark.long
def test_many_archives():
    run_campaign(CASE, 500, cpu_s=2, memory_mb=200, first_seed=300)
