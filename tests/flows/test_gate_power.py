"""`affectgap gate-power`: error rates of the gate from params, test people and assumptions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from gate_world import answers, images, judge

from flows.registry.gate_power import GatePowerOptions, gate_power
from tasks.core.errors import UserError
from tasks.core.paths import Paths
from tasks.core.tables import write_csv, write_table
from tasks.gate import error_rates
from tasks.gate.compare import named_groups
from tasks.gate.decision import Contender
from tasks.gate.power import Assumed, _pair, made_up_people
from tasks.register.promotion_log import append_record

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """A project with the params of this one and no data; few simulated decisions."""
    monkeypatch.setattr(error_rates, "_EQUAL", 300)
    monkeypatch.setattr(error_rates, "_HARMED", 80)
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    content["promote"]["resamples"] = 200
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    return Paths(tmp_path)


def test_without_data_it_asks_how_many_people_there_would_be(paths, tmp_path):
    with pytest.raises(UserError, match=r"--test-subjects 100.* or run `affectgap run split`"):
        gate_power(paths, GatePowerOptions(), None)
    file = tmp_path / "power.csv"
    _, lines = gate_power(paths, GatePowerOptions(test_subjects=90), file)
    assert "90 test people, 900 pictures" in lines[0] and "recall 80.0" in lines[0]
    table = pd.read_csv(file)
    assert list(table["margin"].unique()) == [0.025, 0.05, 0.1]
    assert set(table["group"]) == {"child", "adolescent", "adult"}
    usual = table[table["margin"] == 0.05]
    assert (usual["refused"] <= 0.14).all() and (usual["loss"] < usual["loss_at_12"]).all()
    gate_power(paths, GatePowerOptions(test_subjects=40), file)
    assert (pd.read_csv(file)["loss"] > table["loss"]).all()  # of fewer people, larger losses


def test_test_people_and_versions_that_answered_are_used_where_there_are_some(paths):
    table = images()
    write_table(table, paths.split)
    _, lines = gate_power(paths, GatePowerOptions(), None)
    assert "40 test people, 400 pictures (those of the data)" in lines[0]
    for number, right in ((1, 0.7), (2, 0.75)):
        decision = judge(table, answers(table, right=right, seed=number))
        decision = replace(decision, challenger=Contender(number, "d", "run"))
        folder = paths.decision(number)
        folder.mkdir(parents=True)
        (folder / "decision.json").write_text(decision.to_json())
        write_csv(decision.answers, folder / "answers.csv")
        row = {"action": "promoted", "version": number, "digest": "d"}
        append_record(paths, {**row, "decision_id": decision.decision_id})
    _, lines = gate_power(paths, GatePowerOptions(icc=0.1), None)
    assert "as 2 versions answered" in lines[0] and "changes 0.10" in lines[0]
    assert "recall 80.0" not in lines[0]
    with pytest.raises(UserError, match="3 test people are too few to judge anything"):
        gate_power(paths, GatePowerOptions(test_subjects=3), None)


@pytest.mark.parametrize("icc", [0.0, 0.02, 0.05, 0.3, 0.6])
def test_made_up_versions_differ_as_often_and_as_much_alike_as_asked(icc):
    assumed = Assumed(recall=0.8, disagreement=0.1, icc=icc)
    size = np.full(40_000, 10)
    before, change = _pair(size, assumed, np.random.default_rng(1))
    assert before.sum() / size.sum() == pytest.approx(0.8, abs=0.01)
    assert change.sum() / size.sum() == pytest.approx(0, abs=0.005)
    # The variance of a person's mean change: share · (1 + (n − 1) · icc) / n.
    wanted = 0.1 * (1 + 9 * icc) / 10
    assert (change / 10).var() == pytest.approx(wanted, rel=0.1)
    people = made_up_people(7, 3, named_groups([{"age_band": ["child"]}, {"age_band": ["x"]}], {}))
    assert [own.sum() for own in people.members.values()] == [4, 3]
