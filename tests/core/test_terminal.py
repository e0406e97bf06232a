"""What a terminal gets: text and nothing that it acts upon, in every encoding, to any reader."""

import copy
import io
import json
import subprocess
import sys

import pytest
from nasty_names import NASTY, has_controls, short
from rich.table import Table

from tasks.core import terminal
from tasks.core.errors import AffectGapError, DataError
from tasks.core.terminal import Console, json_line, prepare_output, print_error


@pytest.mark.parametrize("name", NASTY, ids=short)
def test_a_name_is_text_in_lines_and_in_tables(name):
    out = io.StringIO()
    console = Console(file=out, width=20_000, force_terminal=True, color_system=None)
    console.say(f"before {name} after")
    table = Table("heading", box=None)
    table.add_row(name)
    console.print(table)
    text = out.getvalue()
    assert not has_controls(text)
    line, _, row = text.splitlines()
    assert line.startswith("before ") and line.endswith(" after")
    for shown in ("[/red]", ":smile:", "[bold]x"):
        assert name != shown or (shown in line and shown in row)


@pytest.mark.parametrize("name", NASTY, ids=short)
def test_a_name_in_an_error_begins_no_other_error(name, capsys):
    print_error(AffectGapError(f"'{name}': no such batch", "the second fault"))
    printed = capsys.readouterr().err
    assert not has_controls(printed)
    lines = printed.splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines)
    assert lines[1] == "error: the second fault"


def test_faults_survive_the_way_between_processes():
    error = DataError("first", "with\nbreak")
    assert str(copy.copy(error)) == str(error) == "first\nwith\\nbreak"


@pytest.mark.parametrize("name", NASTY, ids=short)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp949"])
def test_json_lines_give_back_what_they_say(name, encoding, monkeypatch):
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_output()
    print(json_line({"file": name}), flush=True)
    printed = raw.getvalue().decode(encoding)
    assert not has_controls(printed) and printed.count("\n") == 1
    assert json.loads(printed) == {"file": name}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp949", "utf-8"])
def test_signs_that_an_encoding_lacks_are_replaced(encoding, monkeypatch):
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_output()
    terminal.console().say("0.61–0.72 … \udcff 한")
    printed = raw.getvalue().decode(encoding).replace("–", "-").replace("…", "...")
    assert printed.startswith(r"0.61-0.72 ... \udcff ")


def test_a_reader_that_leaves_stops_no_work(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from tasks.core.terminal import console, flush_output\n"
        "for _ in range(20_000): console().say('a line')\n"
        "pathlib.Path(sys.argv[1]).write_text('done')\n"
        "flush_output()\n"
    )
    done = tmp_path / "done"
    command = [sys.executable, "-c", code, str(done)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"a line\n"
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr is not None and process.stderr.read() == b""
    process.stderr.close()
    assert done.read_text() == "done"


def test_a_fault_that_quotes_a_long_cell_keeps_its_start_and_its_advice():
    line = str(DataError(f"a.csv: line 7: '{'x' * 50_000}'; write one label per cell"))
    assert line.startswith("a.csv: line 7: 'xxx") and line.endswith("write one label per cell")
    assert len(line) < 1500
