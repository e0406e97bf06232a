"""Names of files, folders and people that a terminal or a page acts upon, through the inbox."""

import io
import os
from collections import Counter

import pandas as pd
import pytest
from inbox_world import files_of, paths, reason, send, state_of, take  # noqa: F401
from nasty_names import has_controls, short

from flows import cli
from flows.datasets.demographics import Demographics
from flows.intake import intake
from flows.ledger.ledger import Ledger
from tasks.core.tables import read_csv, rejects_table, write_csv
from tasks.core.terminal import Console
from tasks.ingest.dataset_reader import reject
from tasks.ingest.label import Fault

FILES = (
    "$x$.txt",
    "[bold].txt",
    "=cmd().txt",
    "\x1b]0;title\x07.txt",
    "two\nlines.txt",
    "a|b.txt",
    "<b>.txt",
    "`.txt",
    os.fsdecode(b"\xff\xfe.txt"),
)


def printed(lines):
    out = io.StringIO()
    for line in lines:
        Console(file=out, width=200).say(line)
    return out.getvalue()


@pytest.mark.parametrize("name", FILES, ids=short)
def test_a_batch_with_such_a_file_is_refused_in_one_line(paths, name):  # noqa: F811
    send(paths, "site", {**files_of(1), name: b"no picture"})
    taken = take(paths)["site"]
    assert taken.state == "quarantined"
    text = reason(paths, "site")
    assert not has_controls(text) and "<b>" not in text.replace("\\<b", "")
    assert not has_controls(printed([str(taken)])) and printed([str(taken)]).count("\n") == 1
    kept = os.listdir(paths.quarantine / "site")
    assert name in kept


def test_a_folder_of_such_a_name_is_taken_in_under_a_plain_one(paths):  # noqa: F811
    for number, name in enumerate(("a\x1b[2J", "[red]", os.fsdecode(b"s\xff"), "--help", "=a")):
        send(paths, name, files_of(number))
    assert {one.state for one in take(paths).values()} == {"accepted"}
    assert all(batch.isascii() and batch[0].isalnum() for batch in state_of(paths))


def test_a_folder_that_is_not_ready_is_named_in_one_line(paths):  # noqa: F811
    send(paths, "two\nlines\x1b[2J", files_of(1), mark=None)
    said: list[str] = []
    intake.intake_inbox(paths, said.append)
    assert not has_controls(printed(said)) and printed(said).count("\n") == len(said) == 1


def test_people_of_such_names_are_people_of_these_names(paths):  # noqa: F811
    names = ["$x$", "=cmd()", "[/red]", "a|b"]
    files = files_of(1, people=4)
    table = files["labels.csv"].decode()
    for number, name in enumerate(names):
        table = table.replace(f",p1-{number},", f",{name},")
    send(paths, "site", {**files, "labels.csv": table.encode()})
    assert take(paths)["site"].state == "accepted"
    people = {name.partition("/")[2] for name in Ledger(paths.ledger).images()["subject_id"]}
    assert people == set(names)


@pytest.mark.parametrize("name", FILES, ids=short)
def test_a_reject_of_such_a_file_is_a_row_of_text(tmp_path, name):
    row = reject("mine", name, Fault("not_utf8_name", f"its bytes are {name!a}"))
    write_csv(rejects_table([row]), tmp_path / "rejects.csv")
    content = (tmp_path / "rejects.csv").read_text(encoding="utf-8")
    assert content.count("\n") == 2 and not has_controls(content)
    assert read_csv(tmp_path / "rejects.csv", dtype="str")["path"][0] == row.path


def test_a_count_shows_groups_as_they_are_called(monkeypatch, capsys, tmp_path):
    groups = ["[/red]", "[bold]x", ":smile:", "\x1b]0;t\x07"]
    table = pd.DataFrame({"attribute": "gender", "group": groups, "n": 1, "share": 0.25})
    counted = Demographics(table, 4, Counter({"unknown_label": 1}), ())
    monkeypatch.setattr(cli, "_project", lambda: None)
    monkeypatch.setattr(intake, "count", lambda *_: counted)
    cli.count_dataset(tmp_path, "folder")
    shown = capsys.readouterr().out
    assert all(name in shown for name in groups[:3]) and r"\x1b]0;t\x07" in shown
    assert not has_controls(shown)
