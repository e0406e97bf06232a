"""The campaign itself: every fault that it is there for is found, with its seed."""

from random import Random

import pytest
from hostile import campaign
from hostile.campaign import mutate, run_campaign


def findings(case: str, count: int = 3, **limits: float) -> list[str]:
    with pytest.raises(AssertionError) as caught:
        run_campaign(f"hostile.broken_readers:{case}", count, **limits)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{len(lines) - 1} findings"
    return lines[:-1]


def test_each_seed_that_breaks_is_named():
    broken = [seed for seed in range(20) if Random(seed).random() < 0.3]
    lines = findings("breaks_sometimes", 20)
    assert [int(line.split()[1].rstrip(":")) for line in lines] == broken
    assert all("KeyError: 'row' < broken_readers.py" in line for line in lines)


def test_a_crash_costs_one_case():
    crashed = [seed for seed in range(4) if Random(seed).random() < 0.5]
    lines = findings("crashes", 4)
    assert [int(line.split()[1].rstrip(":")) for line in lines] == crashed
    assert all("ends the process (exit code -11)" in line for line in lines)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("never_ends", "took more than 0.2 s of the processor"),
        ("waits", "hangs"),
        ("fills_memory", "ran out of memory: damaged: MemoryError"),
        ("says_too_much", "a message holds control characters: 'row 1\\nrow 2'"),
    ],
)
def test_what_a_reader_swallows_is_found_all_the_same(case, text, monkeypatch):
    monkeypatch.setattr(campaign, "_SILENT_S", 1.5)
    (line,) = findings(case, 1, cpu_s=0.2)
    assert text in line


def test_a_case_that_does_not_start_is_no_success():
    with pytest.raises(AssertionError, match=r"does not start: .*no_such"):
        run_campaign("hostile.broken_readers:no_such", 3)


def test_a_seed_gives_the_same_bytes_and_another_seed_others():
    content = bytes(range(256)) * 4
    first = [mutate(content, Random(seed)) for seed in range(50)]
    assert first == [mutate(content, Random(seed)) for seed in range(50)]
    assert len(set(first)) > 45
