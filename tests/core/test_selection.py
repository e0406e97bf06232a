import pandas as pd
import pytest

from tasks.core.errors import ParamsError
from tasks.core.models.spec import select_rows

TABLE = pd.DataFrame(
    {"age_band": ["child", "adult", "child"], "gender": ["female", "female", "male"]}
)


def test_columns_are_combined_with_and_values_with_or():
    chosen = select_rows(TABLE, {"age_band": ["child"], "gender": ["female", "unknown"]}, "x")
    assert chosen.index.tolist() == [0]
    assert len(select_rows(TABLE, {}, "x")) == 3


def test_a_group_that_holds_no_image_names_what_there_is():
    with pytest.raises(ParamsError, match=r"finetune\.on.*senior.*adult"):
        select_rows(TABLE, {"age_band": ["senior"]}, "finetune.on")
    with pytest.raises(ParamsError, match="no column 'age_group'"):
        select_rows(TABLE, {"age_group": ["child"]}, "finetune.on")
