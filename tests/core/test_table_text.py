"""Tables of every form that spreadsheets and scripts write: what is read, and what is refused."""

import openpyxl
import pytest

from tasks.core.errors import DataError
from tasks.core.spreadsheets import encodings
from tasks.core.spreadsheets.cells import decimal_point, why_spoiled
from tasks.core.spreadsheets.text_table import open_table, read_named_table
from tasks.core.text import clean

ROWS = [("id", "word"), ("a1", "one"), ("a2", "two"), ("a3", "three")]


def read(path):
    return read_named_table(path, lambda cell: clean(cell).lower(), {"id", "word"}.issubset)


def written(tmp_path, content, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def joined(separator, end="\n", rows=ROWS):
    return "".join(separator.join(row) + end for row in rows)


FORMS = {
    "commas": (joined(","), "utf-8", ",", []),
    "semicolons": (joined(";"), "utf-8", ";", []),
    "tabs in UTF-16": (joined("\t", "\r\n"), "utf-16", "\t", ["read as UTF-16, not UTF-8"]),
    "UTF-16 without a mark": (joined(","), "utf-16-be", ",", ["read as UTF-16, not UTF-8"]),
    "a byte order mark": (joined(","), "utf-8-sig", ",", []),
    "carriage returns alone": (joined(",", "\r"), "utf-8", ",", []),
    "blank lines": ("\n\n" + joined(",", "\n\n"), "utf-8", ",", []),
    "a line sep=": ("sep=|\r\n" + joined("|", "\r\n"), "utf-8", "|", []),
    "a title": (
        "All words, of today;\n" + joined(";"),
        "utf-8",
        ";",
        ["the header is in line 2, below a title"],
    ),
    "empty columns and rows": (joined(",", ",,\n") + ",,,\n,,,\n", "utf-8", ",", []),
    "invisible signs": (
        "\u200bid\u00a0, Word\u200b\n" + joined(",").partition("\n")[2],
        "utf-8",
        ",",
        [],
    ),
    "the same column twice": (
        joined(",", rows=[(*row, row[1]) for row in ROWS]),
        "utf-8",
        ",",
        ["column 'word' occurs twice with the same cells and was read once"],
    ),
    "an index without a name": (
        joined(",", rows=[(("", *"123")[at], *row) for at, row in enumerate(ROWS)]),
        "utf-8",
        ",",
        ["column 1 has no name and is not used"],
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_form_gives_the_same_table(tmp_path, form):
    text, encoding, separator, notes = FORMS[form]
    table = read(written(tmp_path, text, encoding))
    assert table.columns == ROWS[0]
    assert [row.cells for row in table.rows] == ROWS[1:]
    assert (table.separator, list(table.notes), table.misfits) == (separator, notes, ())


def test_korean_windows_text_is_read_and_an_example_is_shown(tmp_path):
    path = written(tmp_path, "id,word\na1,여자\na2,남자\n", "cp949")
    table = read(path)
    assert [row.cells[1] for row in table.rows] == ["여자", "남자"]
    assert table.notes == ("read as cp949 (Korean Windows), not UTF-8, for example '여자'",)


@pytest.mark.parametrize(
    "content",
    [
        "id,word\na1,Größe\n".encode("latin-1"),
        "id,word\na1,Ägypten\n".encode("latin-1"),
        "id,word\na1,été\n".encode("latin-1"),
        "id,word\na1,日本語\n".encode("shift_jis"),
        b"id,word\na1,\xff\xff\n",
        b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 40,
        b"id,word\na1,one\n" + b"\0" * 5000,
    ],
)
def test_an_encoding_that_cannot_be_told_is_one_line(tmp_path, content):
    with pytest.raises(DataError, match=r"is not UTF-8 text.*save it as 'CSV UTF-8'") as caught:
        read(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_separators_in_cells_do_not_mislead(tmp_path):
    text = "path,points,score\n" + "".join(f"a/{n}.jpg,1;2;3;4,0.{n}\n" for n in range(9))
    with open_table(written(tmp_path, text)) as table:
        assert table.separator == ","
    text = "path;score;share\n" + "".join(f"{n}.jpg;0,{n};1,{n}\n" for n in range(9))
    with open_table(written(tmp_path, text)) as table:
        assert table.separator == ";"


def with_quotes(first, last):
    """Twenty rows of four columns, with a stray quote in two of them."""
    rows = [["id", "word", "x", "y"], *([f"a{n}", f"w{n}", "1", "2"] for n in range(20))]
    for row, cell, place in (first, last):
        rows[row][cell] = f'"{rows[row][cell]}' if place == "before" else f'{rows[row][cell]}"'
    return "".join(",".join(row) + "\n" for row in rows)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ((5, 1, "before"), (15, 1, "after")),  # the row looks as wide as the others
        ((5, 1, "before"), (15, 2, "after")),
        ((5, 3, "before"), (6, 0, "after")),  # two lines become one row of seven cells
        ((5, 0, "before"), (6, 0, "after")),
        ((5, 1, "before"), (15, 1, "before")),  # never closed
    ],
)
def test_a_quote_that_swallows_lines_is_named(tmp_path, first, last):
    with pytest.raises(DataError, match=r"a quote that opens in line 6 .*stray quote") as caught:
        read(written(tmp_path, with_quotes(first, last)))
    assert "\n" not in str(caught.value)


def test_a_line_break_that_belongs_to_a_cell_is_read_and_lines_are_counted(tmp_path):
    text = 'id,word,note\na1,one,"good\nbut dark, a little"\na2,"say ""two""",\n'
    table = read(written(tmp_path, text))
    assert [(row.line, row.lines) for row in table.rows] == [(2, 2), (4, 1)]
    assert table.rows[0].cells[2] == "good\nbut dark, a little"
    assert table.rows[1].cells[1] == 'say "two"'


def test_rows_that_do_not_fit_are_named_with_their_lines(tmp_path):
    text = "id,word\na1,one\na2,two,2\nID,Word\nid,word\na3\n"
    table = read(written(tmp_path, text))
    assert [(one.line, one.reason) for one in table.misfits] == [
        (3, "extra_cells"),
        (5, "repeated_header"),
    ]
    assert table.short == (6,) and [row.line for row in table.rows] == [2, 4, 6]


def test_two_columns_of_one_name_that_differ_are_refused(tmp_path):
    path = written(tmp_path, "id,word,Word\na1,one,one\na2,two,too\n")
    with pytest.raises(DataError, match=r"two columns that mean 'word'.*line 3: 'two' and 'too'"):
        read(path)


def test_without_a_header_the_first_row_is_shown(tmp_path):
    table = read(written(tmp_path, "name,age\nx,3\n"))
    assert (table.columns, table.header_line, table.rows) == (("name", "age"), 0, [])


def workbook_of(path, sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"s{number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read_whatever_its_name(tmp_path):
    path = workbook_of(tmp_path / "table.csv", [[["about"]], [[], ["Title"], *map(list, ROWS)]])
    table = read(path)
    assert [row.cells for row in table.rows] == ROWS[1:]
    assert table.rows[0].line == 4 and "sheet 2 of 2 was read" in table.notes


def test_a_workbook_that_claims_too_many_columns_is_read_as_it_is(tmp_path):
    path = tmp_path / "wide.xlsx"
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.active["XFD1"] = " "
    book.save(path)
    assert [row.cells for row in read(path).rows] == ROWS[1:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99,
            "old Excel workbook .*password.*save it as .xlsx",
        ),
        (b"PK\x03\x04 torn", "cannot be read as a table"),
        (None, "no such file"),
    ],
)
def test_what_is_no_workbook_is_one_line(tmp_path, content, message):
    path = tmp_path / "table.xlsx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    path = workbook_of(tmp_path / "table.xlsx", [ROWS])
    monkeypatch.setattr(encodings, "_LARGEST_BYTES", 1 << 10)
    with pytest.raises(DataError, match="unpacks to more than"):
        read(path)


@pytest.mark.parametrize(
    "text", ["3-Sep", "Sep-03", "9. Mrz", "3월 9일", "03월 09일", "2024-09-03 00:00:00", "Oct-18"]
)
def test_dates_that_excel_made_are_recognised_everywhere(text):
    for in_ids in (True, False):
        assert "is a date" in why_spoiled(text, in_ids)


@pytest.mark.parametrize("text", ["2024-09-03", "3/9/2024", "2024.9.3", "3/9"])
def test_full_dates_are_no_ages_but_may_be_ids(text):
    assert "is a date" in why_spoiled(text, in_ids=False)
    assert why_spoiled(text, in_ids=True) is None


@pytest.mark.parametrize(
    "text", ["3-9", "10-18", "S-01", "7.5", "18+", "under 10", "child", "a_3-5", "", "marie-3"]
)
def test_ages_bands_and_ids_are_no_dates(text):
    assert why_spoiled(text, in_ids=False) is None and why_spoiled(text, in_ids=True) is None


def test_ids_that_lost_their_digits_are_recognized():
    assert "last digits" in why_spoiled("1.23457E+11", in_ids=True)
    assert why_spoiled("1.5E+00", in_ids=False) is None


@pytest.mark.parametrize(
    ("text", "separator", "number"),
    [
        ("0,88", ";", "0.88"),
        ("34,0", "\t", "34.0"),
        ("1,234", ";", "1.234"),
        ("0,881", ",", "0.881"),  # quoted: no thousand begins with 0
        ("1,234", ",", "1,234"),  # may be a thousand
        ("a,b", ";", "a,b"),
        ("0.5", ";", "0.5"),
    ],
)
def test_decimal_commas(text, separator, number):
    assert decimal_point(text, separator) == number
