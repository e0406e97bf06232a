"""Text from outside: one spelling per value, one list of words for missing, safe output."""

import unicodedata

import pytest
from nasty_names import NASTY, cells, has_controls, short
from pandas._libs.parsers import STR_NA_VALUES

from tasks.core.text import (
    MISSING_WORDS,
    clean,
    clean_or_none,
    csv_cell,
    csv_text,
    is_missing,
    markdown,
    printable,
)


@pytest.mark.parametrize(
    "text",
    [
        unicodedata.normalize("NFD", "김민수"),
        "\ufeff김민수",
        "김\u200b민수 ",
        "\u00a0김민수\u3000",
        "김민\u00ad수",
    ],
)
def test_spellings_that_look_alike_are_one(text):
    assert clean(text) == "김민수"


def test_case_and_inner_spaces_are_kept():
    assert clean("  Anna\u00a0B. ") == "Anna B."


@pytest.mark.parametrize(
    "word", ["", " ", "NA", "nan", "None", "n/a", "-", "Unknown", "없음", "미상"]
)
def test_words_for_missing(word):
    assert is_missing(word)
    assert clean_or_none(word) is None


def test_a_name_is_not_missing():
    assert clean_or_none(" Nan Goldin ") == "Nan Goldin"
    assert clean_or_none(None) is None


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd", "-cmd", "@sum", "\t=1", "'=1", "''@x", "plain", "'quoted", "-0.5", ""]
)
def test_formulas_are_neutralised_reversibly(text):
    cell = csv_cell(text)
    assert csv_text(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t")) or cell == "-0.5"


def test_one_line_without_control_characters():
    assert printable("a\x1b]0;b\x07\nc\u202ed\ud800") == r"a\x1b]0;b\x07\nc\u202ed\ud800"


def test_every_word_that_pandas_takes_for_nan_is_missing() -> None:
    assert {word.casefold() for word in STR_NA_VALUES} <= MISSING_WORDS


@pytest.mark.parametrize("name", NASTY, ids=short)
def test_a_name_is_one_cell_of_a_markdown_table_and_no_markup(name):
    text = markdown(name)
    assert "\n" not in text and not has_controls(text)
    assert cells(f"| {text} | next |") == 2
    for sign in "`*<[$":
        assert text.count(sign) == text.count(f"\\{sign}")
