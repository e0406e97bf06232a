"""People whose ids are easily confused are listed, within a data set and nowhere else."""

import pytest

from tasks.core.text import find_lookalikes, lookalikes_note


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("S01", "s01"),
        ("007", "7"),
        ("12.0", "12"),
        ("S01", "s1.00"),
        ("Ａ1", "a01"),
        ("p-03", "P-3"),
    ],
)
def test_ids_that_hands_and_spreadsheets_confuse(one: str, other: str) -> None:
    assert find_lookalikes([f"set/{one}", "set/else", f"set/{other}"]) == {
        f"set/{one}": [f"set/{other}"],
        f"set/{other}": [f"set/{one}"],
    }


def test_other_ids_are_no_pairs() -> None:
    names = [
        "1",
        "10",
        "100",
        "0",
        "1.5",
        "1.05",
        "S1",
        "S10",
        "S1a",
        "12.05",
        "12.5",
        "아이1",
        "아이10",
    ]
    assert find_lookalikes([f"set/{name}" for name in names]) == {}
    assert find_lookalikes(["set1/7", "set01/7", "set/S1", "SET/s1"]) == {}


def test_the_note_lists_some_pairs_and_only_those_asked_for() -> None:
    names = [f"set/{case}{number}" for number in range(1, 8) for case in "sS"]
    note = lookalikes_note(names)
    assert "set/S1 and set/s1; set/S2 and set/s2" in note and note.endswith("and 2 more")
    assert "\n" not in note
    assert lookalikes_note(names, {"set/S3"}).endswith("one: set/S3 and set/s3")
    assert lookalikes_note(names, {"set/new"}) == lookalikes_note(["set/a", "set/b"]) == ""
