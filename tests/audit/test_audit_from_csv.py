"""Another system's predictions as CSV: exact counts out, and one line for every fault."""

import pandas as pd
import pytest

from tasks.audit.from_csv import audit_csv
from tasks.core.errors import DataError

SETTINGS = {
    "by": ["age_band", "gender"],
    "confidence": 0.95,
    "min_n": 5,
    "pair": ("base", "finetuned"),
}
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


def run(tmp_path, frame, name="system.csv"):
    path = tmp_path / name
    frame.to_csv(path, index=False)
    return audit_csv(path, tmp_path / "out", **SETTINGS)


def test_counts_come_back_exactly(tmp_path):
    written = run(tmp_path, rows())
    groups = pd.read_csv(tmp_path / "out" / "groups.csv")
    crossed = groups.query("dataset == 'all' and age_band != 'all' and gender != 'all'")
    crossed = crossed.query("emotion == 'happiness'").set_index(["age_band", "gender"])
    for (band, gender), right in RIGHT.items():
        row = crossed.loc[(band, {"F": "female", "M": "male"}[gender])]
        assert (row["n"], row["correct"]) == (20, right)
    assert all(path.is_file() for path in written)
    assert {path.name for path in written} >= {"audit.md", "recall.png", "confusion.png"}


def test_the_summary_names_the_gap_and_what_cannot_be_told(tmp_path):
    run(tmp_path, rows())
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "pictures of children correctly (9 of 40)" in text
    assert "those of adults (37 of 40)" in text
    for column in ("subject_id", "seen_in_training", "p_<emotion>"):
        assert f"no column `{column}`" in text
    assert "no column `gender`" not in text


def test_two_columns_are_enough(tmp_path):
    run(tmp_path, rows()[["emotion", "y_pred"]])
    groups = pd.read_csv(tmp_path / "out" / "groups.csv")
    assert set(groups["age_band"]) == set(groups["gender"]) == {"all"}
    assert set(groups["protocol"]) == {"all"}
    assert groups["correct"].max() == sum(RIGHT.values())
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "no column `age_band`: recall by age" in text
    assert "no column `gender`: recall by gender" in text


def test_probabilities_tell_which_labels_a_system_lacks(tmp_path):
    frame = rows().assign(p_happy=0.5, P_Neutral=0.5)
    frame.loc[0, "emotion"] = "fear"
    run(tmp_path, frame)
    counts = pd.read_csv(tmp_path / "out" / "counts.csv")
    assert counts["left_out"].max() == 1
    assert "1 pictures left out" in (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "fear" not in set(pd.read_csv(tmp_path / "out" / "groups.csv")["emotion"])


def test_held_out_rows_and_two_models_are_compared(tmp_path):
    first = rows().assign(model="base", seen_in_training=[True, False] * 40)
    second = first.assign(model="finetuned", y_pred=first["emotion"])
    run(tmp_path, pd.concat([first, second]))
    change = pd.read_csv(tmp_path / "out" / "before_after.csv")
    assert change["n"].max() == 40
    assert (tmp_path / "out" / "before_after.png").is_file()


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
        ("emotion,Emotion,y_pred\nhappy,sad,sad\n", "two columns that mean 'emotion'"),
        ("emotion,y_pred,image_id\nhappy,sad,a\nhappy,sad,a\n", "picture a twice"),
    ],
)
def test_bad_files_give_one_line(tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        audit_csv(path, tmp_path / "out", **SETTINGS)
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_and_binary_files_give_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        audit_csv(tmp_path / "none.csv", tmp_path, **SETTINGS)
    (tmp_path / "picture.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 40)
    with pytest.raises(DataError, match="not UTF-8"):
        audit_csv(tmp_path / "picture.csv", tmp_path, **SETTINGS)


def test_a_byte_order_mark_and_short_lines_are_read(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_text("\ufeffemotion,y_pred,gender\nhappy,happy,f\nsad,happy\n", encoding="utf-8")
    audit_csv(path, tmp_path / "out", **SETTINGS)
    groups = pd.read_csv(tmp_path / "out" / "groups.csv")
    assert set(groups["gender"]) == {"all", "female", "unknown"}
