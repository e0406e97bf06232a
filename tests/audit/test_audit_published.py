"""A study's printed figures: shown as printed, beside ours, and what does not add up is found."""

import pandas as pd
import pytest

from tasks.audit.references import published_results
from tasks.audit.references.published_results import published_table, read_study
from tasks.core.errors import DataError, ParamsError

HEADER = ",".join(published_results.GIVEN)
STUDY = "noh_lim_2023"


def groups():
    """Two models on CAFE and NIMH-ChEFS, as groups.csv has them."""
    rows = []
    for model in ("base", "finetuned"):
        for dataset, band, n, correct in (
            ("cafe", "child", 668, 450),
            ("nimh-chefs", "adolescent", 534, 458),
            ("cafe", "all", 668, 450),
        ):
            for protocol, part in (("all", 1), ("held_out", 2)):
                rows.append(
                    {
                        "model": model,
                        "protocol": protocol,
                        "dataset": dataset,
                        "age_band": band,
                        "gender": "all",
                        "emotion": "all",
                        "n": n // part,
                        "correct": correct // part,
                        "recall": correct / n,
                        "ci_low": 0.6,
                        "ci_high": 0.9,
                        "ethnicity": "all",
                        "subjects": 50,
                    }
                )
    crossed = {**rows[0], "ethnicity": "EA", "n": 3, "correct": 1}
    return pd.DataFrame([*rows, crossed])


def naive():
    """Predictions of naive, which answers one emotion alone.

    Children of CAFE: four, two of them trained on and one in validation; two adolescents of
    NIMH-ChEFS. Everybody shows anger and happiness.
    """
    people = [("cafe", "child", split) for split in ("train", "train", "validation", "test")]
    people += [("nimh-chefs", "adolescent", split) for split in ("train", "test")]
    rows = [
        {
            "image_id": f"{person}{emotion}",
            "dataset": dataset,
            "subject_id": f"{dataset}/{person}",
            "emotion": emotion,
            "age_band": band,
            "gender": "female",
            "split": split,
            "seen_in_training": dataset == "cafe" and split != "test",
            "is_target_group": dataset == "cafe" and split == "train",
        }
        for person, (dataset, band, split) in enumerate(people)
        for emotion in ("anger", "happiness")
    ]
    table = pd.DataFrame(rows).assign(p_anger=0.2, p_happiness=0.8)
    return table.assign(model="naive", y_pred="happiness")


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """Write a made-up study from lines below the header, under the name `study`."""
    monkeypatch.setattr(published_results, "FOLDER", tmp_path)

    def write(*lines):
        text = "\n".join(["# how to add rows", HEADER, *lines])
        (tmp_path / "study.csv").write_text(text + "\n", encoding="utf-8")
        return read_study("study")

    return write


def test_no_study_gives_an_empty_table_with_its_columns(settings_of):
    table = published_table(groups(), naive(), settings_of(published=None))
    assert table.empty and list(table.columns) == published_results.COLUMNS


def test_the_papers_base_figures_stand_beside_our_base_model_under_both_protocols(settings_of):
    table = published_table(groups(), naive(), settings_of(published=STUDY))
    cafe = table[(table["model"] == "base") & (table["dataset"] == "cafe")]
    assert cafe["protocol"].tolist() == ["all", "held_out"]  # the paper's protocol first
    assert cafe["published_rate"].tolist() == [0.67, 0.67]
    assert cafe["n"].tolist() == [668, 334] and cafe["correct"].tolist() == [450, 225]
    assert set(cafe["compared_model"]) == {"base"}
    count = table[(table["model"] == "") & (table["dataset"] == "nimh-chefs")].iloc[0]
    assert (count["published_n"], count["n"]) == (534, 534) and pd.isna(count["recall"])


def test_beside_the_papers_fine_tuned_model_stands_naive_not_the_chosen_one(settings_of):
    table = published_table(groups(), naive(), settings_of(published=STUDY))
    tuned = table[table["model"] == "finetuned"]
    assert set(tuned["compared_model"]) == {"naive"}
    cafe = tuned[tuned["dataset"] == "cafe"]
    assert cafe["protocol"].tolist() == ["all", "held_out"]
    # The chosen model reads 450 of 668; naive, counted from its own predictions, half of its 8.
    assert cafe[["n", "correct"]].to_numpy().tolist() == [[8, 4], [2, 1]]
    assert ((cafe["ci_low"] < 0.5) & (cafe["ci_high"] > 0.5)).all()
    anger = tuned[tuned["emotion"] == "anger"]
    assert anger["published_rate"].tolist() == [0.21, 0.21]
    assert anger[["n", "correct"]].to_numpy().tolist() == [[2, 0], [2, 0]]
    message = "ours is naive, trained on the training split: 2 of the 4 people of cafe"
    assert tuned["note"].str.endswith(message).all()
    assert not table["note"][table["model"] != "finetuned"].str.contains("naive").any()


def test_without_naive_its_place_is_empty_with_a_note(settings_of):
    table = published_table(groups(), naive().iloc[:0], settings_of(published=STUDY))
    tuned = table[table["model"] == "finetuned"]
    assert len(tuned) == 2 and tuned["n"].isna().all()
    assert set(tuned["compared_model"]) == {""} and set(tuned["protocol"]) == {""}
    assert tuned["note"].str.contains("naive was left out of this run").all()
    assert (table["compared_model"][table["model"] == "base"] == "base").all()


def test_untranscribed_figures_have_a_note_and_no_contradiction():
    table = read_study(STUDY)
    unplaced = table[(table["table"] == "") | (table["page"] == "")]
    assert unplaced["note"].str.contains("not transcribed").all()
    assert not table["note"].str.contains("does not add up").any()
    trained_on = table[(table["model"] == "finetuned") & (table["dataset"] == "cafe")]
    assert "fine-tuned on" in trained_on["note"].iloc[0]


def test_a_rate_that_disagrees_with_its_counts_has_a_note(made_up):
    table = made_up(
        "S,3,9,base,a,child,all,all,200,172,0.86,",  # 86.0 %
        "S,3,9,base,b,child,all,all,200,172,0.859,",  # 86.0 %, printed 85.9 %
        "S,3,9,base,c,child,all,all,3,2,0.67,",  # 66.67 %, rounded
        "S,3,9,base,d,child,all,all,3,2,0.66,mine",  # cut off, not rounded
        "S,3,9,base,e,child,all,all,3,4,,",
    )
    assert table["note"].iloc[[0, 2]].tolist() == ["", ""]
    assert table["note"].iloc[1] == "does not add up: 172 of 200 is 86.0 %, printed is 85.9 %"
    assert table["note"].iloc[3] == "mine; does not add up: 2 of 3 is 66.7 %, printed is 66 %"
    assert "4 correct of 3 pictures" in table["note"].iloc[4]


def test_parts_of_a_table_are_added_up_along_every_dimension(made_up):
    table = made_up(
        "S,1,2,,a,child,all,all,30,,,",
        "S,1,2,,a,child,female,all,14,,,",
        "S,1,2,,a,child,male,all,15,,,",
        "S,2,2,base,a,child,all,all,29,20,,",
        "S,2,2,base,a,child,all,anger,10,8,,",
        "S,2,2,base,a,child,all,fear,19,12,,",
        "S,2,3,finetuned,a,child,all,anger,10,1,,",  # another model: not added
        "S,,3,base,a,child,all,all,99,,,",  # no table is named: not added
    )
    assert table["note"].iloc[0] == (
        "does not add up: pictures by gender add up to 29, the printed total is 30"
    )
    assert table["note"].iloc[1:].tolist() == [""] * 7
    table = made_up("S,2,2,base,a,child,all,all,29,21,,", *_parts(8, 12))
    assert "correct by emotion add up to 20, the printed total is 21" in table["note"].iloc[0]


def _parts(first, second):
    return (
        f"S,2,2,base,a,child,all,anger,10,{first},,",
        f"S,2,2,base,a,child,all,fear,19,{second},,",
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("S,1,2,base,a,child,all,angry,1,,,", "emotion is 'angry'"),
        ("S,1,2,base,a,child,girl,all,1,,,", "gender is 'girl'"),
        ("S,1,2,mine,a,child,all,all,1,,,", "model is 'mine'"),
        ("S,1,2,base,a,child,all,all,1.5,,,", "published_n is '1.5'"),
        ("S,1,2,base,a,child,all,all,,,86,", "0.86 for 86 %"),
        ("S,1,2,base,,child,all,all,1,,,", "dataset or age_band is empty"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(made_up, line, message):
    with pytest.raises(DataError, match=r"study\.csv: row 2 below the header") as error:
        made_up("S,1,2,base,a,child,all,all,1,,,", line)
    assert message in str(error.value)


def test_an_unknown_study_names_the_known_ones(settings_of):
    with pytest.raises(ParamsError, match=r"audit\.published: no study 'noh'.*noh_lim_2023"):
        published_table(groups(), naive(), settings_of(published="noh"))
