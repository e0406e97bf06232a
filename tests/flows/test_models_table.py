"""`affectgap models`, as a person reads it."""

import re
from datetime import UTC, datetime

import pandas as pd
import pytest
from typer.testing import CliRunner

from flows import project_commands
from flows.daemon import status
from flows.ledger.ledger import Arrival, Ledger
from flows.project_commands import operations_app
from flows.registry import model_table
from flows.registry.model_table import describe_worst_group
from tasks.core.paths import Paths
from tasks.core.terminal import Console
from tasks.register.promotion_log import append_record
from tasks.register.serve_settings import REVISION, TAG
from tasks.register.versions import Version


def version(number, aliases, **tags):
    made = datetime(2026, 11, number, 3, tzinfo=UTC)
    tags = {TAG: str(REVISION), **tags}
    return Version(number, f"{number:012x}", "run", aliases, tags, made)


@pytest.fixture
def lines(tmp_path, monkeypatch):
    """What is printed of some versions, a line each, without runs of blanks."""

    def shown(versions):
        monkeypatch.setattr(model_table, "versions", lambda paths: versions)
        console = Console(width=220)
        with console.capture() as capture:
            console.print(model_table.models_table(Paths(tmp_path)))
        return [" ".join(line.split()) for line in capture.get().splitlines()]

    return shown


def test_before_the_first_model_it_says_that_there_is_none(lines):
    assert "no model is registered yet" in lines([])


WORST = {"worst_n": "50", "worst_people": "9", "worst_low": "0.42", "worst_high": "0.58"}
WORST |= {"worst_group": "adult male", "worst_recall": "0.5", "notice": "drawn cohort: a show"}


def test_newest_first_with_worst_group_batches_and_the_last_decision(lines, tmp_path):
    paths = Paths(tmp_path)
    one, two, three = (f"{number:012x}" for number in (1, 2, 3))
    by = {"by": "A. Weber", "decision_id": "a"}
    append_record(paths, {"action": "promoted", "version": 1, "digest": one, **by})
    why = {"why": "child male: 61 % against 70 %", "decision_id": "b"}
    append_record(paths, {"action": "refused", "version": 2, "digest": two, **why})
    four = f"{4:012x}"
    append_record(paths, {"action": "promoted", "version": 4, "digest": four, "decision_id": "e"})
    back = {"action": "rolled_back", "version": 1, "previous": 4, "decision_id": "c"}
    append_record(paths, {**back, "digest": one, "why": "complaints"})
    other = {"action": "promoted", "version": 3, "decision_id": "d"}
    append_record(paths, {**other, "digest": "of another store"})
    head, *rows = lines(
        [
            version(1, ("champion",), batches="spring", worst_group="a", worst_recall="0.61"),
            version(2, (), batches="autumn, spring", **WORST),
            version(3, ("challenger",), batches=""),
            version(4, (), batches=""),
        ]
    )
    assert head == "version alias registered weights worst group batches decision"
    text = " ".join(rows)
    parts = re.split(r" (?=3 challenger|2 2026|1 champion|drawn cohort)", text)
    fourth, third, second, first, notice = parts
    assert fourth.endswith(": complaints") and f"{four} – rolled back " in fourth
    assert third == f"3 challenger 2026-11-03 03:00 {three} – not judged yet"
    assert " autumn, spring refused" in second and "child male: 61 % against" in second
    words = describe_worst_group(WORST)
    assert words == "adult male 50.0\u202f% (42.0\u202f% to 58.0\u202f%; 50 pictures of 9 people)"
    assert "50 pictures" in second and " spring promoted" in first
    assert "n and interval" in first and notice == "drawn cohort: a show"


def test_a_version_without_a_withdrawn_batch_and_one_that_got_it_back_are_told_apart(lines):
    text = lines(
        [
            version(1, (), batches="spring, summer"),
            version(2, (), batches="summer"),
            version(3, (), batches="summer, spring"),
            version(4, (), batches="none"),
        ]
    )
    told = [
        line.split(f"{number:012x} ")[1]
        for number, line in zip((4, 3, 2, 1), text[1:], strict=True)
    ]
    assert told == [
        f"{batches} not judged yet"
        for batches in ("none", "summer, spring", "summer", "spring, summer")
    ]


MANY = [f"site-{number}" for number in range(1, 101)]


def test_a_hundred_batches_stay_readable_and_are_all_named_for_one_version(
    lines, tmp_path, monkeypatch
):
    sets = [MANY[:99], [*MANY[:99][1:], "autumn"], [*MANY[1:99], "autumn"], MANY]
    known = [version(n, (), batches=", ".join(own)) for n, own in enumerate(sets, 1)]
    text = " ".join(lines(known))
    for told in (
        "99 batches not judged",
        "99 batches, +autumn −site-1 not judged",
        "99 batches, as before not judged",
        "100 batches, +site-1 +site-100 −autumn not judged",
        "every batch of a version: affectgap models --version N",
    ):
        assert told in text
    jump = lines([version(1, (), batches="spring"), version(2, (), batches=", ".join(MANY))])
    assert "100 batches, +site-1 +site-2 +site-3 +site-4 (+96 more) −spring" in " ".join(jump)

    monkeypatch.setattr(model_table, "versions", lambda paths: known)
    monkeypatch.setattr(model_table, "find_version", lambda paths, number: known[number - 1])
    monkeypatch.setattr(model_table, "withdrawn_batches", lambda paths, version: ["site-7"])
    monkeypatch.setattr(project_commands, "_project", lambda: Paths(tmp_path))
    said = CliRunner().invoke(operations_app, ["models", "--version", "4"]).output.splitlines()
    assert said[0] == f"version 4 ({4:012x}) was trained with 100 batches"
    assert said[1:101] == [f"  {n} (withdrawn now)" if n == "site-7" else f"  {n}" for n in MANY]
    assert said[101:] == ["against version 3: +site-1 +site-100 −autumn"]
    known[0] = version(1, ())
    assert model_table.batches_lines(Paths(tmp_path), 2)[-1] == "  autumn"  # against nothing known
    (unknown,) = model_table.batches_lines(Paths(tmp_path), 1)
    assert unknown.endswith("its training batches were not recorded")


def test_a_rollback_says_the_figure_whole_and_what_was_withdrawn(tmp_path, monkeypatch):
    paths, ledger = Paths(tmp_path), Ledger(tmp_path / "data/ledger.db")
    small = {"not_judged": "1 of 9 groups: infant"}
    now, left = version(1, ("champion",), **WORST, **small), version(2, ())
    columns = ["path", "sha256", "image_id", "subject_id", "emotion", "age_band", "gender"]
    for batch in ("spring", "autumn"):
        given = Arrival(batch, "arrived", batch, batch, "", 0, pd.DataFrame(columns=columns))
        ledger.begin(given, "accepted", f"data/raw/arrived/{batch}", [])
        ledger.decide(batch, "accepted")
        number = ledger.start_pass("a test")
        ledger.mark_trained([batch], number, now.digest)  # both versions have these weights
        ledger.end_pass(number, "trained", "", number)
        ledger.begin_withdrawal(batch, f"data/quarantine/{batch}", [])
        ledger.decide(batch, "withdrawn")
    monkeypatch.setattr(model_table, "rollback", lambda *_: (left, now))
    first, *said = model_table.rollback_command(paths, "", "")
    assert first.endswith("50 pictures of 9 people)")
    assert said[:2] == [
        "drawn cohort: a show",
        "it was trained with what is withdrawn now: spring",
    ]

    for name in ("champion", "previous"):
        monkeypatch.setattr(f"tasks.register.registry.{name}", lambda paths: now)
    monkeypatch.setattr("tasks.register.registry.versions", lambda paths: [now])
    _, worst, few, notice, withdrawn = status._model_in_use(paths)
    assert few.strip() == "not judged, too few people or pictures: 1 of 9 groups: infant"
    assert worst.startswith("worst group  recall of adult male 50.0") and "9 people" in worst
    assert notice.strip() == "drawn cohort: a show" and "withdrawn now: spring" in withdrawn
