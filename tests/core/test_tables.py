import csv
import os
import random

import pandas as pd
import pytest
from nasty_names import IN_TABLES
from spellings import random_id, respelled

from tasks.core.errors import ConservationError, DataError
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    current_subjects,
    read_csv,
    read_table,
    read_table_as_written,
    rejects_table,
    write_csv,
    write_table,
)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    table = pd.DataFrame({"image_id": ["a", "b"], "age_years": [4.0, None]}, index=[5, 9])
    write_table(table, tmp_path / "one.parquet", MANIFEST_SCHEMA)
    write_table(table.reset_index(drop=True), tmp_path / "two.parquet", MANIFEST_SCHEMA)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_column_of_nothing_keeps_its_type(tmp_path):
    table = pd.DataFrame({"image_id": ["a"], "ethnicity": [None], "age_years": [None]})
    write_table(table, tmp_path / "t.parquet", MANIFEST_SCHEMA)
    back = read_table(tmp_path / "t.parquet")
    assert back["age_years"].dtype == float
    assert back["ethnicity"].isna().all()


def test_a_table_that_is_missing_or_torn_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"affectgap run"):
        read_table(tmp_path / "none.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(DataError, match="is not a parquet table"):
        read_table(tmp_path / "torn.parquet")


def test_a_failed_write_leaves_the_old_table(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(pd.DataFrame({"a": [1]}), path)
    with pytest.raises(Exception, match=r"convert|Expected"):
        write_table(pd.DataFrame({"age_years": [object()]}), path, MANIFEST_SCHEMA)
    assert read_table(path)["a"].tolist() == [1]
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_rows_that_vanish_stop_the_stage():
    check_conservation("crop", 10, 8, 2)
    with pytest.raises(ConservationError, match="crop: 10 rows in, but 8 out and 1 rejects"):
        check_conservation("crop", 10, 8, 1)


def test_rejects_have_their_header_when_there_are_none(tmp_path):
    write_csv(rejects_table(), tmp_path / "r.csv")
    assert (tmp_path / "r.csv").read_text() == "image_id,path,reason,detail\n"


def written(path, names):
    ids = [f"{number:016x}" for number in range(len(names))]
    table = pd.DataFrame({"image_id": ids, "subject_id": names, "subject_known": True})
    write_table(table, path)
    return path


def test_people_of_an_older_table_are_named_as_today(tmp_path):
    names = ["set/\u1112\u1161\u11ab", "set/한", "set/NA", "set/ S1", "set/1/NA", "other"]
    table = read_table(written(tmp_path / "t.parquet", names))
    own = f"set/{2:016x}"  # nobody is called NA: the picture stands for a person of its own
    assert table["subject_id"].tolist() == ["set/한", "set/한", own, "set/S1", "set/1/NA", "other"]
    assert table["subject_known"].tolist() == [True, True, False, True, True, True]
    assert read_table_as_written(tmp_path / "t.parquet")["subject_id"].tolist() == names
    alone = read_table(tmp_path / "t.parquet", ["subject_id"])
    pd.testing.assert_frame_equal(alone, table[["subject_id"]])


@pytest.mark.parametrize("seed", range(20))
def test_names_are_looked_at_wherever_one_may_be_of_an_older_version(tmp_path, seed):
    """What is decided by a quick look at a column is what a look at each name would say."""
    rng = random.Random(seed)
    words = ["na", "N/A", " ", "\x1c", "S 1", "a/ b", "\tx", "#N/A", "?", "unk", "a\x0b", "x\ny"]
    odd = rng.choice([*words, respelled(rng, random_id(rng))])
    names = [*(f"set/S{number}" for number in range(5)), f"set/{odd}"]
    path = written(tmp_path / "t.parquet", names)
    today = current_subjects(read_table_as_written(path))
    pd.testing.assert_frame_equal(read_table(path), today)
    assert today["subject_id"].tolist()[:5] == names[:5]


def test_a_table_of_today_is_not_copied():
    table = pd.DataFrame({"subject_id": ["set/한", "set/S1", None]})
    assert current_subjects(table) is table


def test_a_csv_gives_names_back_and_no_cell_is_a_formula(tmp_path):
    names = [*IN_TABLES, "", "-0.5", "+3 %"]
    table = pd.DataFrame({"group": names, "=heading": names, "gap": -0.25})
    table["enough"] = pd.Series([True] * len(names), dtype="object")
    write_csv(table, tmp_path / "t.csv")
    back = read_csv(tmp_path / "t.csv", dtype="str", keep_default_na=False)
    assert list(back) == list(table) and set(back["enough"]) == {"True"}
    assert back["group"].tolist() == back["=heading"].tolist() == names
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert {cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))} == {
        "-0.5",
        "-0.25",
    }


def test_a_name_in_another_encoding_does_not_end_a_stage(tmp_path):
    table = pd.DataFrame({"path": [os.fsdecode(b"a\xff.png")]}, dtype="object")
    write_csv(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == "path\na\\udcff.png\n"


def test_a_csv_of_plain_names_has_the_bytes_that_it_had(tmp_path):
    """Digests of `seen.csv` name models: what needs no change is not changed."""
    table = pd.DataFrame({"image_id": ["0a1b"], "subject_id": ["mine/S01-'x'"], "stage": ["train"]})
    write_csv(table, tmp_path / "t.csv")
    expected = "image_id,subject_id,stage\n0a1b,mine/S01-'x',train\n"
    assert (tmp_path / "t.csv").read_text(encoding="utf-8") == expected
