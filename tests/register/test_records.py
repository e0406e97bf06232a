"""promotions.csv: append-only, each decision once, consistent after a crash during a write."""

import pytest

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.register.promotion_log import (
    COLUMNS,
    append_record,
    in_use,
    last_record,
    read_records,
    taken_out,
)


def row(number=1, action="promoted", decision="d1", **values):
    return {"action": action, "version": number, "decision_id": decision, **values}


@pytest.fixture
def paths(tmp_path):
    return Paths(tmp_path)


def test_lines_come_back_in_order_and_as_text(paths):
    assert list(read_records(paths).columns) == list(COLUMNS) and read_records(paths).empty
    assert append_record(paths, row(1, why='said "no, 5 %",\nthen left', by="A. Weber"))
    assert append_record(paths, row(2, "refused", "d2", worst_recall=0.5))
    table = read_records(paths)
    assert list(table["version"]) == ["1", "2"] and list(table["previous"]) == ["", ""]
    assert table["why"][0] == 'said "no, 5 %", then left' and table["worst_recall"][1] == "0.5"
    assert all(at.endswith("+00:00") for at in table["at"])
    assert len(paths.promotions.read_text().splitlines()) == 3


def test_the_same_step_of_a_decision_is_written_once(paths):
    assert append_record(paths, row(action="waiting"))
    before = paths.promotions.read_bytes()
    assert not append_record(paths, row(action="waiting", why="again"))
    assert paths.promotions.read_bytes() == before
    assert append_record(paths, row(action="approved"))
    assert last_record(read_records(paths), 1, "")["action"] == "approved"


def test_lines_of_a_store_that_is_gone_are_not_about_its_successors(paths):
    assert in_use(read_records(paths)) is None
    append_record(paths, row(1, digest="old", decision="a"))
    append_record(paths, row(2, digest="other", decision="b", previous=1))
    append_record(paths, row(1, "rolled_back", "c", digest="old", previous=2))
    records = read_records(paths)
    assert last_record(records, 1, "new") is None and taken_out(records, 2, "new") is None
    assert last_record(records, 1, "old")["decision_id"] == "c"
    assert taken_out(records, 2, "other")["decision_id"] == "c"
    assert taken_out(records, 1, "old") is None and in_use(records)["version"] == "1"
    append_record(paths, row(2, "approved", "b", digest="other", previous=1))
    assert taken_out(read_records(paths), 2, "other") is None


def test_a_crash_at_any_byte_of_a_line_loses_no_other_line(paths):
    append_record(paths, row(1))
    one = paths.promotions.read_bytes()
    append_record(paths, row(2, decision="d2", why="ä good reason"))
    two = paths.promotions.read_bytes()
    for length in sorted({*range(0, len(two), 11), len(one) - 1, len(one), len(two) - 1}):
        paths.promotions.write_bytes(two[:length])
        complete = length >= len(one)
        assert list(read_records(paths)["version"]) == (["1"] if complete else [])
        assert append_record(paths, row(1)) == (not complete)
        append_record(paths, row(2, decision="d2", why="ä good reason"))
        assert list(read_records(paths)["version"]) == ["1", "2"]


def test_what_is_no_decision_is_a_defect_of_the_caller(paths):
    for wrong in (row(action="maybe"), row(decision=""), row(color="red")):
        with pytest.raises(ValueError, match="no record"):
            append_record(paths, wrong)
    assert not paths.promotions.exists()


def test_another_table_in_its_place_is_one_line(paths):
    paths.promotions.parent.mkdir()
    paths.promotions.write_text("a,b\n1,2\n")
    with pytest.raises(DataError) as error:
        read_records(paths)
    assert "is no table of decisions" in str(error.value) and "\n" not in str(error.value)
