"""A part of the simulation of the gate: losses are refused, equally good versions hardly ever."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_with_default_params_losses_are_refused_and_equally_good_versions_are_not(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from error_rates_gate import cells

    found = cells(12, quick=True).set_index("name")
    sys.modules.pop("error_rates_gate")
    assert found.loc["equally good", ["refused", "held"]].sum() <= 0.42  # .08 measured
    losses = found.loc[["loss of 8 points in child", "loss of 8 points in adult"], "refused"]
    assert (losses > 0.5).all()  # .87 and .99 measured
    assert (found["subjects"] == 100).all()
