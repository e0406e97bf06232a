"""A user's column may have any name, those of the audit's own columns included."""

import ast
from pathlib import Path

import pandas as pd
import pytest

from tasks import audit as package
from tasks.audit.csv_audit import audit_csv as audit_csv_module
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.audit.csv_audit.read_predictions import read_predictions
from tasks.audit.measures.group_columns import hidden, is_hidden, shown_names, with_shown_names

BANDS = {"child": (0, 10), "adult": (18, 130)}
USUAL = ["correct", "recall", "method", "named", "protocol", "index", "level_0", "all"]


def file_with(name, path):
    """Write two models' answers, with a column of two groups and one of a clashing name."""
    rows = [
        {
            "image_id": f"i{index}",
            "subject_id": f"s{index // 2}",
            "emotion": ("happiness", "sadness")[index % 2],
            "y_pred": ("happiness", "sadness")[(index + (index % 5 == 0) * (model == "old")) % 2],
            "model": model,
            "p_happiness": 0.6 - 0.2 * (index % 2),
            "p_sadness": 0.4 + 0.2 * (index % 2),
            "a_group": ("left", "right")[index // 3 % 2],
        }
        for model in ("old", "new")
        for index in range(30)
    ]
    pd.DataFrame(rows).rename(columns={"a_group": name}).to_csv(path, index=False)


TEXTS = ("dimension", "factor", "standardized_to", "family", "method", "note")


def tables(tmp_path, settings_of, name):
    """Audit by a column of this name; the tables, and what the column is called in them."""
    path, out = tmp_path / "same.csv", tmp_path / name / "out"
    file_with(name, path)
    columns = ["emotion", name]
    settings = settings_of(
        by=[], resamples=100, factors=columns, standardize_to=columns, min_n=2, min_subjects=2
    )
    written = audit_csv(path, out, settings, None, [name], BANDS)
    files = [file for file in written.paths if file.suffix == ".csv"]
    found = {file.stem: pd.read_csv(file, dtype="str", keep_default_na=False) for file in files}
    assert all(table.columns.is_unique for table in found.values())
    clash = any("means something else" in note for note in written.notes)
    return found, f"by_{name}" if clash else name


def named(table, name):
    """The table by `a_group` as it is with another name of the column."""
    renamed = table.rename(columns={"a_group": name})
    for column in (column for column in TEXTS if column in table.columns):
        renamed[column] = renamed[column].str.replace("a_group", name)
    return renamed[sorted(renamed.columns)]


@pytest.fixture
def compare(tmp_path, settings_of, monkeypatch):
    """Compare the tables by columns of some names with those by `a_group`."""
    monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])

    def go(names):
        expected, _ = tables(tmp_path, settings_of, "a_group")
        assert all(len(expected[name]) for name in ("groups", "gaps", "before_after", "factors"))
        for name in names:
            found, displayed = tables(tmp_path, settings_of, name)
            assert found.keys() == expected.keys()
            for key, table in expected.items():
                sorted_table = found[key][sorted(found[key].columns)]
                pd.testing.assert_frame_equal(sorted_table, named(table, displayed))

    return go


def test_a_column_named_like_ours_gives_the_same_numbers(compare):
    compare(["n"])


@pytest.mark.slow
def test_so_does_a_column_of_any_usual_name(compare):
    compare(USUAL)


@pytest.mark.long
@pytest.mark.parametrize("part", range(12))
def test_so_does_a_column_named_like_any_word_of_the_code(compare, part):
    compare(sorted(words_of_the_code())[part::12])


def words_of_the_code():
    """Every text in the audit's code that could be a column's name and has no documented one."""
    files = Path(package.__file__).parent.glob("*.py")
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    words = {text for text in texts if isinstance(text, str) and text.isidentifier()}
    return {word for word in words if word == word.lower()} - audit_csv_module._DOCUMENTED


def test_the_name_in_the_tables_is_free():
    inner = [hidden(name) for name in ("n", "by_n", "lamp")]
    table = pd.DataFrame({name: ["all"] for name in ("n", *inner)}).assign(
        dimension=inner[0], family=f"{inner[0]} and {inner[1]}"
    )
    names = shown_names({"groups": table}, ["n", "by_n", "lamp"])
    assert names == {"n": "by_n", "by_n": "by_by_n", "lamp": "lamp"}
    displayed = with_shown_names({"groups": table}, names)["groups"]
    assert list(displayed.columns) == ["n", "by_n", "by_by_n", "lamp", "dimension", "family"]
    assert displayed.iloc[0, -2:].tolist() == ["by_n", "by_n and by_by_n"]


def test_no_header_can_hold_the_mark_of_these_names(tmp_path):
    (tmp_path / "a.csv").write_text(f"emotion,y_pred,{hidden('n')}\nsad,sad,1\n")
    assert not any(map(is_hidden, read_predictions(tmp_path / "a.csv").frame.columns))
