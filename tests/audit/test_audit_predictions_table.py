"""How a table of predictions is read: words for missing, percentages, and what stops an audit."""

import unicodedata

import numpy as np
import pandas as pd
import pytest

from tasks.audit.csv_audit.read_predictions import read_predictions
from tasks.core.errors import DataError
from tasks.core.text import MISSING_WORDS

ANSWERS = ["happiness", "neutral", "sadness"]


def frame(n=6):
    return pd.DataFrame(
        {
            "image_id": [f"i{index}" for index in range(n)],
            "emotion": [ANSWERS[index % 3] for index in range(n)],
            "y_pred": "happiness",
        }
    )


def probabilities(scale=1.0, n=6):
    shares = np.array([0.7, 0.2, 0.1]) * scale
    return frame(n).assign(
        **{f"p_{name}": share for name, share in zip(ANSWERS, shares, strict=True)}
    )


@pytest.fixture
def read(tmp_path):
    def go(table, **how):
        path = tmp_path / "system.csv"
        if isinstance(table, str):
            path.write_text(table, encoding="utf-8")
        else:
            table.to_csv(path, index=False, **how)
        return read_predictions(path)

    return go


def refused(read, table, **how):
    with pytest.raises(DataError) as caught:
        read(table, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_words_for_missing_are_missing_in_every_column(read):
    words = sorted(MISSING_WORDS)
    names = ["subject_id", "age_band", "gender", "lamp", "seen_in_training", "age_years"]
    table = frame(len(words)).assign(**dict.fromkeys(names, words))
    table["y_pred"] = words
    found = read(table).frame
    for name in ("subject_id", "age_band", "lamp"):
        assert set(found[name]) == {""}
    assert set(found["gender"]) == set(found["y_pred"]) == {"unknown"}
    assert found["seen_in_training"].isna().all() and found["age_years"].isna().all()


def test_a_row_without_a_label_is_rejected_and_one_without_an_answer_is_not(read):
    table = frame().assign(y_pred=["nan", *["sadness"] * 5])
    table.loc[2, "emotion"] = "N/A"
    found = read(table)
    assert found.rejects.to_dict("records") == [
        {"line": 4, "reason": "no_label", "detail": "has no label in the column emotion"}
    ]
    assert list(found.frame.index) == [2, 3, 5, 6, 7] and found.frame["y_pred"].iloc[0] == "unknown"


def test_composed_and_decomposed_words_are_one_group_and_one_person(read):
    table = frame(2).assign(subject_id=["하나", unicodedata.normalize("NFD", "하나")])
    table["lamp"] = ["left\u200b", "\u00a0left"]
    found = read(table).frame
    assert found["subject_id"].nunique() == found["lamp"].nunique() == 1


def test_control_characters_in_cells_are_spaces(read):
    found = read(frame(2).assign(lamp=["le\x1fft\x1b", "two\nlines"])).frame
    assert list(found["lamp"]) == ["le ft", "two lines"]


@pytest.mark.parametrize("words", [("0.0", "1.0"), ("False", "TRUE"), ("n", "Y"), ("0", "1")])
def test_whether_a_image_was_seen_is_read_in_many_words(read, words):
    found = read(frame().assign(seen_in_training=list(words) * 3)).frame
    assert list(found["seen_in_training"]) == [False, True] * 3


@pytest.mark.parametrize("form", ["{:.4g}", "{:.4g}%", "{:.4g} %"])
def test_percentages_become_shares_with_a_note(read, form):
    table = probabilities(100)
    columns = [f"p_{name}" for name in ANSWERS]
    table[columns] = table[columns].map(form.format)
    found = read(table)
    assert np.allclose(found.frame[columns], [[0.7, 0.2, 0.1]])
    assert found.notes == ("the columns p_<emotion> hold percentages and were divided by 100",)


def test_decimal_commas_between_semicolons_are_read(read):
    table = probabilities().assign(age_years=8.5)
    found = read(table, sep=";", decimal=",").frame
    assert np.allclose(found[["p_happiness", "age_years"]], [[0.7, 8.5]])


def test_probabilities_of_no_clear_scale_stop_the_audit(read):
    table = probabilities(100)
    table.loc[3, "p_happiness"] = 3.5
    assert "line 5 adds up to 33.5, not to 100; write probabilities from 0 to 1" in refused(
        read, table
    )
    logits = probabilities().assign(p_happiness=4.2, p_neutral=-1.3)
    assert "hold numbers above 1 (line 2: 4.2)" in refused(read, logits)
    assert "hold numbers above 1" in refused(read, frame().assign(p_happiness=88.0))
    mixed = probabilities().astype({"p_happiness": "str"})
    mixed.loc[1, "p_happiness"] = "70 %"
    assert "some probabilities have a % sign and some have none (line 2)" in refused(read, mixed)


def test_probabilities_that_do_not_add_up_are_named(read):
    table = probabilities()
    table.loc[4, "p_happiness"] = 0.2
    (note,) = read(table).notes
    assert note.startswith("the probabilities of 1 row do not add up to 1 (line 6: 0.5)")
    assert read(probabilities()).notes == ()


@pytest.mark.parametrize("word", ["inf", "1_0", "six", "0,5"])
def test_a_cell_that_is_not_a_number_stops_the_audit_with_its_line(read, word):
    table = frame().assign(age_years="7")
    table.loc[1, "age_years"] = word
    table.loc[2, "age_years"] = "7.5"
    assert "age_years" in refused(read, table)
    assert repr(word) in refused(read, table)


@pytest.mark.parametrize(
    ("name", "cell"),
    [("age_band", "3-Sep"), ("subject_id", "1.2E+11"), ("age_years", "2024-03-09")],
)
def test_cells_that_excel_changed_stop_the_audit(read, name, cell):
    table = frame().assign(**{name: ["3-5", *["10-18"] * 5] if name == "age_band" else "7"})
    table.loc[[2, 4], name] = cell
    line = refused(read, table)
    assert f"column {name} has 2 cells that a spreadsheet changed (first in line 4)" in line
    assert f"'{cell}'" in line and "as text" in line


def test_a_workbook_is_read_like_a_csv(tmp_path):
    table = probabilities().assign(seen_in_training=True, age_years=8.5, age_band="3-5")
    table.to_excel(tmp_path / "system.xlsx", index=False)
    found = read_predictions(tmp_path / "system.xlsx").frame
    assert found["seen_in_training"].all() and set(found["age_years"]) == {8.5}
    assert np.allclose(found["p_happiness"], 0.7) and list(found.index) == [2, 3, 4, 5, 6, 7]
    table["age_band"] = pd.Timestamp(2024, 9, 3)
    table.to_excel(tmp_path / "system.xlsx", index=False)
    with pytest.raises(
        DataError, match=r"column age_band has 6 cells .*'2024-09-03 00:00:00' is a"
    ):
        read_predictions(tmp_path / "system.xlsx")


def test_every_row_of_two_files_in_one_is_accounted_for(read):
    text = frame().to_csv(index=False)
    found = read(text + text.replace("\ni", "\nk") + "x,happiness,sadness,1,2\n")
    assert len(found.frame) == 12 and found.frame.index[-1] == 14
    assert list(found.rejects["reason"]) == ["repeated_header", "extra_cells"]
