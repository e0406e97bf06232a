"""A part of the simulations behind docs/error-rates.md, checked against the command."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def rates(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("error_rates")
    for name in ("error_rates", "cohorts"):
        sys.modules.pop(name, None)


def false_alarms(rows):
    return next(row for row in rows if row.figure == "false alarms")


def test_the_core_and_the_command_agree(rates):
    """The simulations call the core with many cohorts at once; `audit_predictions` has one."""
    assert rates.same_as_the_command_path(2) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "subjects", "icc", "recall"),
    [("log-normal", (8, 60), 0.3, 0.5), ("dominant", (15, 15), 0.3, 0.5)],
)
def test_unequal_numbers_of_images_are_no_gap(rates, sizes, subjects, icc, recall):
    rows = rates.gap_cell(500, sizes, subjects, icc, recall)
    assert [row.line() for row in rows if not row.met] == []
    assert false_alarms(rows).value <= 0.07


@pytest.mark.slow
def test_an_all_right_side_has_the_power_of_permuting_subjects(rates):
    rows = rates.power_cell(300, "equal", (10, 10), 0.3, (0.99, 0.8))
    assert [row.line() for row in rows if not row.met] == []
    assert next(row for row in rows if row.figure == "power").value > 0.6


@pytest.mark.slow
def test_missing_ids_make_no_gap(rates):
    rows = rates.missing_cell(300, 0.33, "image", "log-normal", 0.5)
    assert [row.line() for row in rows if not row.met] == []


def test_a_figure_beyond_its_mark_is_missed(rates):
    often, seldom = np.arange(1000) < 150, np.arange(1000) < 50
    assert not rates.rate("p", "c", "false alarms", often, 0.03, 0.07).met
    assert rates.rate("p", "c", "false alarms", seldom, 0.03, 0.07).met
    page = rates.page([rates.rate("p", "c", "false alarms", often, 0.03, 0.07)], "run")
    assert "| c | 1000 | 0.150 ± 0.011 **missed** |" in page


def test_a_contradiction_is_seen(rates):
    row = {"gap": 0.2, "ci_low": -0.1, "ci_high": 0.4, "p_value": 0.01}
    rows = rates.agreement("p", "c", pd.DataFrame([row]), 0.0)
    assert [row.met for row in rows if row.figure == "contradictions"] == [False]
