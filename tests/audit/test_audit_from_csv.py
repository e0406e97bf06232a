"""Another system's predictions as CSV: exact counts out, and one line for every fault."""

import pandas as pd
import pytest

from tasks.audit import from_csv
from tasks.audit.from_csv import audit_csv
from tasks.core.errors import DataError, UserError

PAIR = ("base", "finetuned")
BANDS = {"child": (0, 10), "adolescent": (10, 18), "adult": (18, 130)}
# Children and adults, women and men: right answers of 20 each.
RIGHT = {("child", "F"): 4, ("child", "M"): 5, ("adult", "F"): 18, ("adult", "M"): 19}


def rows(words=("Happy", "smiling")):
    made = []
    for (band, gender), right in RIGHT.items():
        for index in range(20):
            made.append(
                {
                    "image_id": f"{band}{gender}{index}",
                    "age_band": band,
                    "gender": gender,
                    "emotion": words[index % 2],
                    "y_pred": "happiness" if index < right else "Neutral",
                }
            )
    return pd.DataFrame(made)


@pytest.fixture
def audit(tmp_path, settings_of):
    """Audit a file into the folder `out`."""

    def go(path, by=(), **changed):
        return audit_csv(path, tmp_path / "out", settings_of(**changed), PAIR, by, BANDS)

    return go


@pytest.fixture
def run(tmp_path, audit, monkeypatch):
    """Write a frame as CSV and audit it, without figures unless they are asked for."""

    def go(frame, name="system.csv", figures=False, **further):
        if not figures:
            monkeypatch.setattr(from_csv, "write_figures", lambda *_: [])
        frame.to_csv(tmp_path / name, index=False)
        return audit(tmp_path / name, **further)

    return go


def table(tmp_path, name="groups"):
    return pd.read_csv(tmp_path / "out" / f"{name}.csv")


def test_counts_come_back_exactly(tmp_path, run):
    written = run(rows(), figures=True)
    groups = table(tmp_path)
    crossed = groups.query("dataset == 'all' and age_band != 'all' and gender != 'all'")
    crossed = crossed.query("emotion == 'happiness'").set_index(["age_band", "gender"])
    for (band, gender), right in RIGHT.items():
        row = crossed.loc[(band, {"F": "female", "M": "male"}[gender])]
        assert (row["n"], row["correct"]) == (20, right)
    assert all(path.is_file() for path in written.paths)
    assert {path.name for path in written.paths} >= {"audit.md", "recall.png", "confusion.png"}


def test_the_summary_names_the_gap_and_what_cannot_be_told(tmp_path, run):
    run(rows())
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "pictures of children correctly (9 of 40)" in text
    assert "those of adults (37 of 40)" in text
    for column in ("subject_id", "seen_in_training", "p_<emotion>"):
        assert f"no column `{column}`" in text
    assert "no column `gender`" not in text


def test_two_columns_are_enough(tmp_path, run):
    run(rows()[["emotion", "y_pred"]])
    groups = table(tmp_path)
    assert set(groups["age_band"]) == set(groups["gender"]) == {"all"}
    assert set(groups["protocol"]) == {"all"}
    assert groups["correct"].max() == sum(RIGHT.values())
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "no column `age_band`: recall by age" in text
    assert "no column `gender`: recall by gender" in text


def test_probabilities_tell_which_labels_a_system_lacks(tmp_path, run):
    frame = rows().assign(p_happy=0.5, P_Neutral=0.5)
    frame.loc[0, "emotion"] = "fear"
    run(frame)
    counts = pd.read_csv(tmp_path / "out" / "counts.csv")
    assert counts["left_out"].max() == 1
    assert "1 pictures left out" in (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "fear" not in set(pd.read_csv(tmp_path / "out" / "groups.csv")["emotion"])


def test_held_out_rows_and_two_models_are_compared(tmp_path, run):
    first = rows().assign(model="base", seen_in_training=[True, False] * 40)
    second = first.assign(model="finetuned", y_pred=first["emotion"])
    run(pd.concat([first, second]))
    change = pd.read_csv(tmp_path / "out" / "before_after.csv")
    assert change["n"].max() == 40


def test_ages_become_bands_where_there_are_none(tmp_path, run):
    years = {"child": "7.5", "adult": "30"}
    frame = rows().assign(age_years=lambda table: table["age_band"].map(years))
    frame.loc[0, "age_years"] = ""
    run(frame.drop(columns="age_band"))
    groups = table(tmp_path).query("dataset == 'all' and gender == 'all' and emotion == 'all'")
    assert dict(zip(groups["age_band"], groups["n"], strict=True)) == {
        "all": 80,
        "child": 39,
        "adult": 40,
        "unknown": 1,
    }


def test_any_column_can_be_compared(tmp_path, run):
    frame = rows().assign(Lamp=["left", "right"] * 40)
    run(frame, by=["lamp"])
    gaps = table(tmp_path, "gaps").query("dimension == 'lamp' and emotion == 'all'")
    assert (gaps["n_a"].iloc[0], gaps["n_b"].iloc[0]) == (40, 40)
    for name, message in (("lamb", "no such column"), ("y_pred", "holds no groups")):
        with pytest.raises(UserError, match=message):
            run(frame, by=[name])


def test_subjects_that_are_named_are_believed(tmp_path, run):
    frame = rows().assign(subject_id=[f"p{index // 4}" for index in range(80)])
    run(frame)
    alone = table(tmp_path).iloc[0]
    assert alone["subjects"] == 20 and "cluster bootstrap" in alone["method"]
    run(frame.drop(columns="subject_id"))
    alone = table(tmp_path).iloc[0]
    assert alone["subjects"] == 80 and "not known" in alone["method"]


def test_what_was_there_before_is_kept(tmp_path, run):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "groups.csv").write_text("my own notes")
    first = run(rows())
    assert first.kept == tmp_path / "out" / "kept-1"
    assert (first.kept / "groups.csv").read_text() == "my own notes"
    assert run(rows()).kept is None  # the same again replaces nothing
    run(rows().iloc[:60])
    assert (tmp_path / "out" / "kept-2" / "audit.md").is_file()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        audit_csv(tmp_path / "none.csv", tmp_path / "file", None, PAIR, (), BANDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as CSV"),
        ("emotion,y_pred\n", "has a header but no rows"),
        ("emotion,answer\nhappy,happy\n", r"lacks the column\(s\) y_pred"),
        ("emotion;y_pred\nhappy;happy\n", r"lacks the column\(s\) emotion, y_pred"),
        ("emotion,y_pred\nhappy,bored\nsad,tired\n", "column y_pred has 2 unknown label.*'bored'"),
        ("emotion,y_pred\nhappy,\n", "column y_pred has 1 unknown label.*line 2"),
        ("emotion,y_pred,gender\nhappy,happy,x\n", "column gender has 1 unknown label"),
        ("emotion,y_pred\nhappy,happy,more\n", "cannot be read as CSV"),
        ('emotion,y_pred\nhappy,"happy\n', "cannot be read as CSV"),
        ("emotion,y_pred,age_years\nhappy,sad,six\n", "age_years has no number in line 2: 'six'"),
        ("emotion,Emotion,y_pred\nhappy,sad,sad\n", "two columns that mean 'emotion'"),
        ("emotion,y_pred,image_id\nhappy,sad,a\nhappy,sad,a\n", "picture a twice"),
    ],
)
def test_bad_files_give_one_line(tmp_path, content, message, audit):
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        audit(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_and_binary_files_give_one_line(tmp_path, audit):
    with pytest.raises(DataError, match="no such file"):
        audit(tmp_path / "none.csv")
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 40)
    with pytest.raises(DataError, match="not UTF-8"):
        audit(tmp_path / "picture.csv")


def test_a_byte_order_mark_and_short_lines_are_read(tmp_path, audit):
    path = tmp_path / "excel.csv"
    path.write_text("\ufeffemotion,y_pred,gender\nhappy,happy,f\nsad,happy\n", encoding="utf-8")
    audit(path)
    groups = table(tmp_path)
    assert set(groups["gender"]) == {"all", "female", "unknown"}


def test_the_summary_says_what_becomes_of_a_gap_with_the_same_mix(tmp_path, run):
    frame = rows().assign(p_happiness=0.9, p_neutral=0.4)  # they add up to more than 1
    run(frame, factors=["age_band", "gaze"], standardise_to=["gender"])
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "with the same mix of gender on both sides: 70.0 points" in text
    assert "no column `gaze`: whether these explain a gap" in text
    assert "no calibration, since a picture's probabilities add up to 1.3" in text
