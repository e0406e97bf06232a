"""The recorded trial in its short form: what a model must not do to a group, it is not let do."""

import json
from types import SimpleNamespace

import pandas as pd
import pytest
from pass_world import git, run
from trial_steps import (
    SHORT,
    broken_batch,
    good_batch,
    image_of_a_child,
    mislabelled_batch,
    served,
    trial_project,
    version_in_use,
)

from flows.ledger.ledger import Ledger
from tasks.core.labels import DRAWN_NOTICE
from tasks.register.promotion_log import read_records

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """All steps, in their order; what each one said, and what was in use after it."""
    paths = trial_project(tmp_path_factory.mktemp("trial") / "clone", SHORT)
    said, in_use = {}, {}

    def step(name, *command):
        said[name] = run(paths, *command)
        in_use[name] = version_in_use(paths)

    step("adults", "retrain", "--quiet")
    good_batch(paths, SHORT)
    broken = broken_batch(paths, SHORT)
    step("good", "retrain", "--quiet")
    mislabelled_batch(paths, SHORT)
    step("mislabelled", "retrain", "--quiet")
    with served(paths) as ask:
        answers = ask(image_of_a_child())
    step("rolled back", "rollback", "--why", "a trial", "--by", "A. Weber")
    step("withdrawn", "withdraw", "site-3", "--why", "labels mixed up")
    said["doctor"] = run(paths, "doctor")
    said["models"] = run(paths, "models")
    return SimpleNamespace(paths=paths, said=said, in_use=in_use, broken=broken, answers=answers)


def test_the_first_model_knows_adults_alone_and_comes_into_use(trial):
    assert "version 1 passed the gate and is put into use" in trial.said["adults"]
    assert trial.in_use["adults"].startswith("1 ")


def test_the_good_batch_is_taken_in_and_its_model_comes_into_use(trial):
    assert "site-1: accepted" in trial.said["good"]
    assert "version 2 passed the gate and is put into use" in trial.said["good"]
    assert trial.in_use["good"].startswith("2 ")
    first, second = (trial.in_use[step].split()[1] for step in ("adults", "good"))
    assert first != second  # it was trained on: these are not the first model's weights once more
    assert git(trial.paths.root, "tag").split() == ["affectgap-1", "affectgap-2"]


def test_the_broken_batch_is_quarantined_whole_and_says_why(trial):
    assert "site-2: quarantined" in trial.said["good"]
    folder = trial.paths.quarantine / "site-2"
    reason = (folder / "REASON.md").read_text()
    assert all(name in reason for name in trial.broken)
    assert len(list(folder.glob("*.jpg"))) == 12 and (folder / "labels.csv").is_file()


def test_the_mislabelled_batch_leads_to_a_refusal_that_names_group_and_figure(trial):
    assert "version 3 is refused:" in trial.said["mislabelled"]
    assert trial.in_use["mislabelled"] == trial.in_use["good"]
    decision = json.loads((trial.paths.decision(3) / "decision.json").read_text())
    failed = [row for row in decision["rules"] if row["outcome"] == "fail"]
    groups = [row for row in failed if "child" in row["group"] and row["part"] == "frozen"]
    assert groups, failed
    assert all(
        row["challenger"] < row["champion"] for row in groups if row["rule"] == "group recall"
    )
    reasons = " ".join(decision["reasons"])
    assert "child" in reasons
    figures = [f"{100 * row['challenger']:.1f}" for row in groups if row["rule"] == "group recall"]
    assert any(figure in reasons for figure in figures), (figures, reasons)
    assert decision["reasons"][0] in trial.said["mislabelled"]
    assert DRAWN_NOTICE in (trial.paths.decision(3) / "decision.html").read_text()


def test_the_model_in_use_answers_over_http(trial):
    (face,) = trial.answers
    number, digest = trial.in_use["mislabelled"].split()
    assert number == "2" and face["model_version"] == digest
    shares = [value for name, value in face.items() if name.startswith("p_")]
    assert sum(shares) == pytest.approx(1, abs=1e-5) and len(shares) == 3


def test_it_is_rolled_back_and_that_is_recorded(trial):
    assert trial.in_use["rolled back"] == trial.in_use["adults"]
    records = read_records(trial.paths)
    assert records["action"].tolist() == ["promoted", "promoted", "refused", "rolled_back"]
    assert records.iloc[-1]["by"] == "A. Weber" and records.iloc[-1]["why"] == "a trial"


def test_what_was_withdrawn_is_out_of_the_data_and_in_the_books(trial):
    assert (trial.paths.quarantine / "site-3" / "REASON.md").is_file()
    assert not (trial.paths.raw / "arrived" / "site-3").exists()
    states = Ledger(trial.paths.ledger).batches().set_index("batch")["state"].to_dict()
    assert states == {"site-1": "accepted", "site-2": "quarantined", "site-3": "withdrawn"}
    assert trial.said["doctor"].strip() == "nothing to mend"


def test_no_image_moved_to_another_split(trial):
    """What the second version was judged on is still what a third one is judged on."""
    from tasks.register.registry import fetch

    first, second, third = (
        pd.read_csv(fetch(trial.paths, number) / "test.csv", dtype="str") for number in (1, 2, 3)
    )
    assert set(first["image_id"]) < set(second["image_id"]) < set(third["image_id"])
