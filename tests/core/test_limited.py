"""Calls in a child process: limits hold, and errors arrive as what they were."""

import pytest

from tasks.core.errors import DataError
from tasks.core.parallel.limited_process import LimitError, call_limited


def test_a_result_comes_back():
    assert call_limited("tasks.core.text:clean", " a ", seconds=20, memory_mb=500) == "a"


@pytest.mark.parametrize(
    ("target", "argument", "kind"),
    [
        ("time:sleep", 60, "time"),
        ("builtins:bytearray", 10**10, "memory"),
        ("signal:raise_signal", 6, "crash"),
        ("json:loads", "{", "crash"),
    ],
)
def test_limits_hold(target, argument, kind):
    with pytest.raises(LimitError) as caught:
        call_limited(target, argument, seconds=2, memory_mb=500)
    assert caught.value.kind == kind
    assert "\n" not in str(caught.value)


def test_the_projects_errors_keep_their_type():
    with pytest.raises(DataError, match="row 3: age"):
        call_limited("tasks.ingest.label:parse_age", "old", "row 3", seconds=20, memory_mb=500)
