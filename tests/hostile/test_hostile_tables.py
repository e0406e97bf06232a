"""Hostile tables: every row becomes a row or a reject, or one line says why none does."""

import pytest
from hostile.campaign import run_campaign

LABELS, PREDICTIONS = "hostile.tables:check_labels", "hostile.tables:check_predictions"
INGEST, AUDIT = "hostile.tables:check_ingest", "hostile.tables:check_audit"


@pytest.mark.parametrize("case", [LABELS, PREDICTIONS])
def test_tables(case):
    outcomes = run_campaign(case, 150, cpu_s=3, memory_mb=300)
    assert {"accepted", "rejected by DataError"} <= outcomes.keys()


@pytest.mark.slow
@pytest.mark.parametrize("case", [INGEST, AUDIT])
def test_tables_through_the_whole_of_it(case):
    run_campaign(case, 30, cpu_s=10, memory_mb=600)


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "count"), [(LABELS, 700), (PREDICTIONS, 700), (INGEST, 300), (AUDIT, 300)]
)
def test_many_tables(case, count):
    run_campaign(case, count, cpu_s=10, memory_mb=600, first_seed=300)
