import pandas as pd
import pytest

from tasks.core.errors import ConservationError, DataError
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    read_table,
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
