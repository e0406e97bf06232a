"""Another system's predictions as CSV: exact counts out, and one line for every fault."""

import re
from pathlib import Path

import pandas as pd
import pytest

from flows import cli
from tasks.audit import write_outputs
from tasks.audit.csv_audit import audit_csv as audit_csv_module
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.audit.figures import calibration
from tasks.core.errors import DataError, UserError

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
    """Audit a file into the folder `out`; images without a subject id count as independent."""

    def go(path, by=(), pair=None, **changed):
        changed = {"independent_images": True} | changed
        return audit_csv(path, tmp_path / "out", settings_of(**changed), pair, by, BANDS)

    return go


@pytest.fixture
def run(tmp_path, audit, monkeypatch):
    """Write a frame as CSV and audit it, without figures unless they are asked for."""

    def go(frame, name="system.csv", figures=False, **further):
        if not figures:
            monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])
        frame.to_csv(tmp_path / name, index=False)
        return audit(tmp_path / name, **further)

    return go


def summary(tmp_path):
    return (tmp_path / "out" / "audit.md").read_text(encoding="utf-8").replace("\u202f", " ")


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


def test_the_summary_names_the_gap_and_what_is_missing(tmp_path, run):
    run(rows())
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "pictures of children correctly (9 of 40)" in text
    assert "those of adults (37 of 40)" in text
    for column in ("seen_in_training", "p_<emotion>"):
        assert f"no column `{column}`" in text
    assert "no column `gender`" not in text
    assert "(`before_after.csv` is empty): the predictions hold one model only" in text


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


def test_an_emotion_that_was_answered_is_known_without_its_probability(tmp_path, run):
    frame = rows().assign(p_happy=0.5)  # no column p_neutral, but neutral is answered
    run(frame)
    assert table(tmp_path, "counts")["left_out"].max() == 0
    assert table(tmp_path)["n"].max() == len(frame)


def test_without_subjects_nothing_is_tested_and_the_summary_starts_with_that(tmp_path, run):
    run(rows(), independent_images=False)
    before, after = summary(tmp_path).split("| age band |")
    assert "Who is in the images is not known (female 40 of 40, male 40 of 40" in before
    assert "--independent-images" in before and "no column `subject_id`" in after
    assert "| all | all | all | 80 | not known |" in after
    gaps = table(tmp_path, "gaps")
    assert not gaps["enough_n"].any() and gaps["p_adjusted"].isna().all()
    run(rows().assign(subject_id=[f"s{index // 2}" for index in range(80)]), name="known.csv")
    assert "subject id" not in summary(tmp_path)
    assert "| all | all | all | 80 | 40 |" in summary(tmp_path)


def test_some_missing_subjects_are_counted_by_group(tmp_path, run):
    names = [f"s{index}" if index % 5 else " " for index in range(80)]
    run(rows().assign(subject_id=names), independent_images=False)
    text = summary(tmp_path)
    assert "16 of 80 images have no subject id" in text and "child 8 of 40" in text
    assert table(tmp_path, "gaps")["n_unknown_a"].max() == 8


def test_independence_declared_by_the_user_is_stated_everywhere(tmp_path, run):
    run(rows())
    words = "at the user's word"
    assert f"independent of all others, {words}" in summary(tmp_path)
    for name in ("groups", "gaps", "intersections", "predictive_values", "sensitivity", "factors"):
        methods = table(tmp_path, name)["method"].dropna()
        assert len(methods) and methods.str.contains(words).all(), name


def test_a_sentence_names_groups_whose_subjects_are_read_otherwise_than_their_images(tmp_path, run):
    frame = rows().assign(subject_id=[f"s{index}" for index in range(80)])
    one = frame.assign(image_id=frame["image_id"] + "b", subject_id="s0", y_pred=frame["emotion"])
    run(pd.concat([frame, one[one["age_band"] == "child"]]), independent_images=False)
    assert "as the mean over subjects" in summary(tmp_path)
    assert "subjects with many images are read better" in summary(tmp_path)


def test_columns_that_are_not_used_are_named(tmp_path, run):
    run(rows().rename(columns={"age_band": "agegroup"}))
    assert "column `agegroup`: not used under this name" in summary(tmp_path)


def test_semicolons_separate_cells_too(tmp_path, audit, monkeypatch):
    monkeypatch.setattr(audit_csv_module, "write_figures", lambda *_: [])
    rows().to_csv(tmp_path / "a.csv", index=False, sep=";")
    audit(tmp_path / "a.csv")
    assert table(tmp_path)["n"].max() == 80


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
    frame["age_years"] = 7
    faults = {
        "lamb": "no such column",
        "y_pred": "holds no groups",
        "age_years": "--bins age_years",
    }
    for name, message in faults.items():
        with pytest.raises(UserError, match=message):
            run(frame, by=[name])


def test_given_subject_ids_are_used(tmp_path, run):
    frame = rows().assign(subject_id=[f"p{index // 4}" for index in range(80)])
    run(frame)
    row = table(tmp_path).iloc[0]
    assert row["subjects"] == 20 and "not known" not in row["method"]
    run(frame.drop(columns="subject_id"), independent_images=False)
    row = table(tmp_path).iloc[0]
    assert row["subjects"] == 0 and "not known" in row["method"]


def test_earlier_files_are_backed_up(tmp_path, run):
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
        audit_csv(tmp_path / "none.csv", tmp_path / "file", None, None, (), BANDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as CSV"),
        ("emotion,y_pred\n", "has a header but no rows"),
        ("emotion,answer\nhappy,happy\n", r"lacks the column\(s\) y_pred"),
        ("emotion,y_pred\nhappy,bored\nsad,tired\n", "column y_pred has 2 unknown label.*'bored'"),
        ("emotion,y_pred\nhappy,\n", "no picture has an answer"),
        ("emotion,y_pred\n,happy\n", r"none of its 1 rows can be audited \(line 2 has no label"),
        ("emotion,y_pred\nhappy,happy,more\n", "none of its 1 rows.*line 2 has 3 cells"),
        ('emotion,y_pred\nhappy,"happy\n', "cannot be read as CSV"),
        ("emotion,y_pred,age_years\nhappy,sad,six\n", "age_years has no number in line 2: 'six'"),
        ("emotion,Emotion,y_pred\nhappy,sad,sad\n", "two columns that mean 'emotion'.*line 2"),
        (
            "emotion,y_pred,image_id\nhappy,sad,a\nhappy,sad,a\n",
            "lines 2 and 3 hold picture a twice",
        ),
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
    run(frame, factors=["age_band", "gaze"], standardize_to=["gender"])
    text = (tmp_path / "out" / "audit.md").read_text(encoding="utf-8")
    assert "with the same mix of gender on both sides: 70.0 points" in text
    assert re.search(r"70.0 points \(95\s% interval [\d.]+ to [\d.]+; n = 40 and 40\)", text)
    assert "no column `gaze`: whether these explain a gap" in text
    assert "no calibration, since a picture's probabilities add up to 1.3" in text


def test_subject_ids_of_two_data_sets_are_distinct(tmp_path, run):
    frame = rows().assign(subject_id=[f"s{index % 40}" for index in range(80)])
    run(frame.assign(dataset=["setA"] * 40 + ["setB"] * 40))
    groups = table(tmp_path)
    assert groups["subjects"].iloc[0] == 80
    assert set(groups[groups["dataset"] != "all"]["subjects"]) <= set(range(41))
    run(frame)
    assert table(tmp_path)["subjects"].iloc[0] == 40


def two_models(**further):
    first = rows().assign(model="old")
    return pd.concat([first, first.assign(model="new", y_pred=first["emotion"], **further)])


def test_any_two_models_are_compared_in_their_order(tmp_path, run):
    run(two_models(), figures=True)
    change = table(tmp_path, "before_after").iloc[0]
    right = sum(RIGHT.values())
    assert (change["recall_base"], change["recall_finetuned"]) == (right / 80, 1)
    assert (change["n"], change["protocol"]) == (80, "all")
    text = summary(tmp_path)
    assert "## new against old" in text
    assert "On every picture (which of them the models were trained on is not known)" in text
    assert "from 57.5 % to 100.0 % of 80 pictures: a change of +42.5 percentage points" in text


def test_of_three_models_two_have_to_be_named(tmp_path, run):
    three = pd.concat([two_models(), rows().assign(model="third")])
    run(three)
    assert table(tmp_path, "before_after").empty
    assert "(`before_after.csv` is empty): the predictions hold 3 models" in summary(tmp_path)
    run(three, pair=("third", "new"))
    assert table(tmp_path, "before_after")["recall_finetuned"].iloc[0] == 1
    assert "## new against third" in summary(tmp_path)
    for pair, message in ((("old", "newer"), "no model newer"), (("old", "old"), "twice")):
        with pytest.raises(UserError, match=message):
            run(three, pair=pair)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seen_in_training": True}, "no picture is held out from both models"),
        ({"image_id": [f"other{n}" for n in range(80)]}, "no picture in common"),
        ({"y_pred": ["", "sad"] * 40}, "no such picture has an answer of both models"),
    ],
)
def test_why_two_models_are_not_compared_is_the_true_reason(
    tmp_path, run, monkeypatch, change, reason
):
    messages = []
    monkeypatch.setattr(
        write_outputs, "empty_figure", lambda _path, text, _credit: messages.append(text)
    )
    for name in ("recall_figure", "confusion_figure", "factors_figure", "calibration_figure"):
        monkeypatch.setattr(write_outputs, name, lambda *_: None)
    first = rows().assign(model="a", y_pred=["sad", ""] * 40)
    frame = pd.concat([first, rows().assign(model="b", **change)])
    monkeypatch.setattr(audit_csv_module, "_moved", lambda *_: None)  # figures are not drawn
    run(frame, figures=True)
    assert (
        len(messages) == 1
        and messages[0].startswith("No change to show: ")
        and reason in messages[0]
    )


def test_the_figure_says_why_there_is_no_calibration(tmp_path, run, monkeypatch):
    messages = []
    monkeypatch.setattr(
        calibration,
        "empty_figure",
        lambda path, text, _: (messages.append(text), path.touch()),
    )
    run(rows().assign(p_happiness=0.9, p_neutral=0.4), figures=True)
    run(rows(), figures=True)
    assert "add up to 1.3, not to 1" in messages[0]
    assert "hold no probabilities" in messages[1]


def test_answers_that_are_not_the_most_probable_have_no_calibration(tmp_path, run):
    sure = (rows()["y_pred"] == "happiness").astype(float)
    frame = rows().assign(p_happiness=sure, p_neutral=1 - sure)
    run(frame)
    assert len(table(tmp_path, "calibration"))
    frame.loc[0, "y_pred"] = "neutral"
    run(frame)
    assert table(tmp_path, "calibration").empty
    assert "for 1 picture the answer is not the most probable label" in summary(tmp_path)


def test_rows_that_are_rejected_are_written_and_counted(tmp_path, run):
    frame = rows()
    frame.loc[[3, 7], "emotion"] = ["NA", ""]
    written = run(frame)
    rejects = table(tmp_path, "rejects")
    assert list(rejects["line"]) == [5, 9] and set(rejects["reason"]) == {"no_label"}
    account = "80 rows: 78 audited, 2 rejected (2 no_label; rejects.csv has their lines)"
    assert written.notes[0] == account and f"- {account}" in summary(tmp_path)
    assert table(tmp_path)["n"].iloc[0] == 78
    run(rows())
    assert table(tmp_path, "rejects").empty and "80 audited, 0 rejected" in summary(tmp_path)
    frame = rows()
    frame.loc[[3, 7], "y_pred"] = ["", "NA"]
    note = "80 rows: 78 audited, 0 rejected, 2 without an answer of the model"
    assert run(frame).notes[0].startswith(note)


def test_groups_that_excel_turned_into_dates_stop_the_audit(run):
    frame = rows().assign(band="10-18")
    frame.loc[2, "band"] = "3-Sep"
    with pytest.raises(DataError, match="column band has 1 cell that a spreadsheet changed"):
        run(frame, by=["band"])
    assert run(frame.assign(band="2024-09-03"), by=["band"])


def test_one_image_name_in_two_data_sets_is_two_images(tmp_path, run):
    frame = rows().assign(image_id=[f"{index % 40}.png" for index in range(80)])
    frame["dataset"] = ["ck"] * 40 + ["kdef"] * 40
    better = frame.assign(model="new", y_pred=frame["emotion"])
    run(pd.concat([frame.assign(model="old"), better]))
    assert table(tmp_path, "before_after")["n"].iloc[0] == 80
    with pytest.raises(DataError, match=r"lines 2 and 42 hold picture 0\.png twice"):
        run(frame.drop(columns="dataset"))


def test_ids_in_the_file_never_collide_with_generated_ids(tmp_path, run):
    frame = rows().assign(subject_id="")
    frame.loc[0, "subject_id"] = "line 3"  # what the row below could be called
    run(frame, independent_images=False)
    assert table(tmp_path)["subjects"].iloc[0] == 1  # those without one are nobody
    run(frame)
    assert table(tmp_path)["subjects"].iloc[0] == 80


def test_a_model_trained_on_everything_is_reported_beside_one_that_was_not(tmp_path, run):
    first = rows().assign(model="a", seen_in_training=True)
    run(pd.concat([first, first.assign(model="b", seen_in_training=False)]), figures=True)
    of_a, of_b = (summary(tmp_path).split(f"## {name}\n")[1].split("\n## ")[0] for name in "ab")
    assert "trained on every picture of the file" in of_a
    assert "trained on every picture of the file" not in of_b
    for part in (of_a, of_b):
        assert "| all | all | all | 80 |" in part
    assert "no picture is held out from both models" in summary(tmp_path)


def test_ids_that_look_alike_are_named(tmp_path, run):
    names = ["S1", "s1", "S01", "S1.0"] + [f"p{index}" for index in range(10, 86)]
    written = run(rows().assign(subject_id=names))
    assert "subject_id 'S1' and 's1' count as two people" in " ".join(written.notes)
    assert table(tmp_path)["subjects"].iloc[0] == 80


def test_columns_that_begin_like_probabilities_are_columns(tmp_path, run):
    frame = rows().assign(p_id=["x1", "y2"] * 40, P_Happy=0.5, p_neutral="0.5")
    run(frame, by=["p_id"])
    assert set(table(tmp_path)["p_id"]) == {"all", "x1", "y2"}
    frame["P_Happy"] = [0.5, 0.5, "much", *[0.5] * 77]
    with pytest.raises(DataError, match="p_happiness has no number in line 4: 'much'"):
        run(frame)


def test_genders_of_another_system_stay_as_they_are(tmp_path, run):
    frame = rows()
    frame.loc[:19, "gender"] = " divers "
    frame.loc[20, "gender"] = ""
    run(frame)
    groups = table(tmp_path).query("dataset == 'all' and age_band == 'all' and emotion == 'all'")
    sizes = dict(zip(groups["gender"], groups["n"], strict=True))
    assert sizes == {"all": 80, "female": 20, "male": 39, "divers": 20, "unknown": 1}
    assert "divers" in set(table(tmp_path, "gaps")["group_a"]) | set(
        table(tmp_path, "gaps")["group_b"]
    )


def test_images_without_an_answer_are_counted_by_group(tmp_path, run):
    frame = rows()
    frame.loc[frame.index[:3], "y_pred"] = ["", " ", ""]
    run(frame)
    counts = table(tmp_path, "counts").query("dataset == 'all' and split == 'all'")
    counts = counts.query("emotion == 'all' and gender == 'all'").set_index("age_band")
    assert counts["left_out"].to_dict() == {"all": 3, "child": 3, "adult": 0}
    assert counts["images"].to_dict() == {"all": 80, "child": 40, "adult": 40}
    assert table(tmp_path)["n"].iloc[0] == 77
    assert "3 pictures left out, as it gave no answer (`y_pred` is empty)" in summary(tmp_path)
    assert "lacks their label" not in summary(tmp_path)


def test_images_of_unknown_training_are_not_held_out(tmp_path, run):
    run(rows().assign(seen_in_training=["false", "", "no", "true"] * 20))
    groups = table(tmp_path)
    assert groups[groups["protocol"] == "held_out"]["n"].max() == 40
    text = summary(tmp_path)
    assert "`seen_in_training` is empty in 20 rows: these are taken as seen" in text


def test_a_misspelt_column_of_the_params_is_named(tmp_path, run):
    run(rows().assign(mouth="open"), factors=["mouht"], standardize_to=["mouth", "moth"])
    assert "no column `mouht`, `moth`: whether these explain a gap" in summary(tmp_path)


def test_a_dimension_without_a_shown_gap_says_what_could_have_been_shown(tmp_path, run):
    run(rows())
    text = summary(tmp_path)
    assert "pictures of children correctly (9 of 40)" in text
    gaps = table(tmp_path, "gaps").query("dimension == 'gender'")
    assert not (gaps["p_adjusted"] < 0.05).any()
    assert "No gap between groups by gender could be shown in 2 comparisons" in text
    mde = 100 * gaps["mde"].iloc[0]  # of both: there is one emotion
    assert f"could have been shown is {mde:.1f} percentage points" in text
    assert "by age band" not in text


def test_what_an_audit_of_many_columns_leaves_out_is_said(tmp_path, run):
    names = [f"c{number}" for number in range(5)]
    frame = rows().assign(**dict.fromkeys(names, "x"), pose=["a", "b"] * 40)
    run(frame, by=names[:4], depth=1)
    assert "are compared, more than" not in summary(tmp_path)
    run(frame, by=names, depth=1)
    text = summary(tmp_path)
    assert "- 7 columns are compared, more than 6: gaps are standardized only over all" in text
    assert "`recall.png` shows" not in text


def test_a_figure_of_many_groups_has_one_panel_and_the_summary_says_so(tmp_path, run):
    few, many = (rows().assign(site=[f"s{row % count}" for row in range(80)]) for count in (9, 40))
    run(few, by=["site"], depth=1, min_n=1)
    assert "`recall.png` shows" not in summary(tmp_path)
    run(many, by=["site"], depth=1, min_n=1)
    groups = len(RIGHT)  # that many groups of age and gender beside 40 sites and all images
    assert f"`recall.png` shows {groups + 41} groups, more than 40" in summary(tmp_path)


def test_a_summary_says_where_an_interval_excludes_0_and_no_gap_is_shown(tmp_path, run):
    right = [index < count for count in (11, 14, 16, 18) for index in range(20)]
    frame = rows().assign(
        emotion="happiness",
        y_pred=["happiness" if answer else "neutral" for answer in right],
        site=[site for site in "abcd" for _ in range(20)],
        age_band="child",
        gender="female",
    )
    run(frame, by=["site"])
    gaps = table(tmp_path, "gaps").query("dimension == 'site'")
    assert ((gaps["ci_low"] > 0) | (gaps["ci_high"] < 0)).any() and (
        gaps["p_adjusted"] > 0.05
    ).all()
    assert "not shown after correction for all comparisons" in summary(tmp_path)


def forbidden():
    """The words that docs/fairness_language.md does not use, from its own table."""
    guide = Path(__file__).parents[2] / "docs" / "fairness_language.md"
    part = guide.read_text(encoding="utf-8").split("## Words that are not used")[1]
    lines = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("| `")]
    return [word for line in lines for word in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_the_summary_and_the_command_keep_to_the_words_of_the_project(tmp_path, run):
    known = rows().assign(subject_id=[f"s{index}" for index in range(80)], p_happy=0.9)
    same = known.assign(model="b", y_pred="happiness", seen_in_training="")
    texts = [cli.audit.__doc__]
    for frame in (rows()[["emotion", "y_pred"]], rows(), pd.concat([known, same])):
        run(frame)
        texts.append(summary(tmp_path))
    text = " ".join(" ".join(texts).split())
    assert "could be shown" in text and "accuracy" in forbidden()
    for word in forbidden():
        assert not re.findall(rf"\b{re.escape(word)}\b", text, re.I), word
