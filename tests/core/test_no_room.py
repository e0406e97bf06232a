"""A full disk is known for what it is, wherever it was met first."""

import errno
import os

import pytest

from tasks import __main__ as stages
from tasks.core.errors import FULL, DataError, is_full, says_full


def caught(raise_it) -> BaseException:
    with pytest.raises(Exception) as found:
        raise_it()
    return found.value


def test_the_system_s_own_word_for_it_counts_also_behind_other_errors():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.tar")

    def hidden():
        try:
            raise full
        except OSError as error:
            raise RuntimeError("could not be written") from error

    assert is_full(full)
    assert is_full(caught(hidden))
    assert is_full(RuntimeError("(sqlite3.OperationalError) database or disk is full\n[SQL: …]"))
    assert says_full("ERROR: unexpected error - [Errno 28] No space left on device")


def test_other_errors_are_not_taken_for_it():
    assert not is_full(OSError(errno.EACCES, os.strerror(errno.EACCES), "a.tar"))
    assert not is_full(DataError("data/raw: no picture"))


def test_errors_that_refer_to_each_other_end():
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_full(one)


def test_a_stage_says_it_in_one_line(monkeypatch, capsys):
    def fill(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stages, "die_with_parent", lambda *_: None)
    monkeypatch.setattr(stages, "_launch_or_run", fill)
    assert stages.main(["ingest"]) == 1
    assert capsys.readouterr().err == f"error: {FULL}\n"
