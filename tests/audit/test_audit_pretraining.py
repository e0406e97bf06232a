"""Who a base model was trained on: as published, counted from a file, or counted from this run."""

import pandas as pd
import pytest

from tasks.audit.references.pretraining_data import COLUMNS, pretraining_table
from tasks.audit.settings import Settings
from tasks.core.errors import DataError, ParamsError


def settings(pretraining, by=("age_band", "gender")):
    return Settings.model_construct(by=list(by), published=None, pretraining=pretraining)


def predictions(seen):
    """Six pictures of three people; the base model has seen those that `seen` marks."""
    people = ["d/1", "d/1", "d/2", "d/2", "d/3", "d/3"]
    frame = pd.DataFrame(
        {
            "image_id": list("abcdef"),
            "dataset": "d",
            "subject_id": people,
            "age_band": ["adult"] * 4 + ["child"] * 2,
            "age_years": [30.0] * 4 + [5.0] * 2,
            "gender": ["female", "female", "male", None, "male", "male"],
            "emotion": "anger",
            "seen_in_training": seen,
        }
    )
    others = frame.assign(model="finetuned", seen_in_training=True)
    return pd.concat([frame.assign(model="base"), others], ignore_index=True)


UNSEEN = predictions([False] * 6)


def test_shares_that_do_not_add_up_are_shown_as_printed_with_a_note():
    table = pretraining_table(UNSEEN, settings("vggface2_affectnet"))
    assert list(table.columns) == COLUMNS and set(table["model"]) == {"base"}
    gender = table[table["attribute"] == "gender"].set_index("group")
    assert (gender.loc["male", "share"], gender.loc["female", "share"]) == (0.593, 0.307)
    assert gender["note"].str.contains("add up to 90.0 %; shown as printed").all()
    ages = table[table["attribute"] == "age"]
    assert ages["share"].tolist() == [0.0001, 0.0002]
    assert not ages["note"].str.contains("add up").any()  # the other ages are not transcribed


@pytest.mark.parametrize("name", ["vggface2_affectnet", "fer2013"])
def test_sets_without_published_figures_have_a_note(name):
    table = pretraining_table(UNSEEN, settings(name))
    silent = table[table["share"].isna()]
    assert len(silent) == 1
    assert silent["note"].iloc[0] == "no ages and no genders are published with it"


def test_the_images_of_a_model_trained_here_are_counted():
    frame = predictions([True] * 4 + [False] * 2)
    table = pretraining_table(frame, settings(None))
    counted = table.set_index("group")
    assert table["attribute"].tolist() == ["age_band"] * 2 + ["gender"] * 3
    assert counted.loc["adult", ["n", "share"]].tolist() == [4, 1.0]
    assert counted.loc["child", ["n", "share"]].tolist() == [0, 0.0]  # a gap in the data is a zero
    assert counted.loc[["female", "male", "unknown"], "n"].tolist() == [2, 1, 1]
    assert table["note"].str.contains("2 people").all()


@pytest.mark.parametrize("seen", [[False] * 6, [True] * 6])
def test_nothing_is_counted_where_training_is_absent_or_unknown(seen):
    table = pretraining_table(predictions(seen), settings(None))
    assert table.empty and list(table.columns) == COLUMNS


def test_a_csv_of_counts_is_read_by_its_path(tmp_path):
    path = tmp_path / "faces.csv"
    path.write_text("attribute,group,n,share\ngender,female,1,0.333333\ngender,male,2,0.666667\n")
    table = pretraining_table(UNSEEN, settings(str(path)))
    assert table["training_set"].unique().tolist() == ["faces"]
    assert table["n"].tolist() == [1, 2] and table["note"].tolist() == ["", ""]
    path.write_text("attribute,group,n,share\ngender,female,1,0.30\ngender,male,2,0.60\n")
    assert "add up to 90.0 %" in pretraining_table(UNSEEN, settings(str(path)))["note"].iloc[0]


def test_unreadable_input_is_one_line(tmp_path):
    with pytest.raises(ParamsError, match=r"no published table .*vggface2_affectnet.* and no file"):
        pretraining_table(UNSEEN, settings("nowhere"))
    path = tmp_path / "faces.csv"
    path.write_text("attribute,group\ngender,female\n")
    with pytest.raises(DataError, match="lacks the column"):
        pretraining_table(UNSEEN, settings(str(path)))
    path.write_text("attribute,group,n,share\ngender,female,1,much\n")
    with pytest.raises(DataError, match="much"):
        pretraining_table(UNSEEN, settings(str(path)))
