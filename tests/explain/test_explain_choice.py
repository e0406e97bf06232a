"""Which pictures are explained, and which cells there are."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import ParamsError
from tasks.explain.sample_selection import cells_of, choose, select_held_out

BY = ["age_band", "gender"]
AGES = {"child": 6.0, "adolescent": 14.0, "adult": 30.0}


def predictions(n_subjects=6, per_subject=5, age_band="child", prefix="c"):
    rows = [
        {
            "image_id": f"{prefix}{subject}-{image}",
            "subject_id": f"{prefix}{subject}",
            "emotion": "fear",
            "y_pred": "fear",
            "age_band": age_band,
            "age_years": AGES[age_band],
            "gender": "female",
            "seen_in_training": False,
            "p_fear": 0.9,
            "p_anger": 0.1,
        }
        for subject in range(n_subjects)
        for image in range(per_subject)
    ]
    return pd.DataFrame(rows)


def chosen_of(table, n=10, seed=1):
    return choose(select_held_out(table, BY), BY, n, seed)


def test_only_held_out_and_correct_images_are_explained():
    table = predictions(n_subjects=4, per_subject=1)
    table.loc[0, "seen_in_training"] = True
    table.loc[1, "y_pred"] = "anger"
    assert list(chosen_of(table)["image_id"]) == ["c2-0", "c3-0"]


def test_images_are_spread_over_subjects_first():
    chosen = chosen_of(predictions(n_subjects=6, per_subject=5))
    counts = chosen["subject_id"].value_counts()
    assert len(chosen) == 10
    assert len(counts) == 6
    assert counts.max() == 2


def test_the_choice_is_stable_and_follows_the_seed():
    table = predictions()
    first = set(chosen_of(table)["image_id"])
    others = predictions(age_band="adult", prefix="a")
    more = pd.concat([others, table.sample(frac=1, random_state=3)], ignore_index=True)
    again = chosen_of(more)
    assert set(again.loc[again["age_band"] == "child", "image_id"]) == first
    assert set(chosen_of(table, seed=2)["image_id"]) != first


def test_a_cell_with_fewer_images_gives_what_it_has():
    assert len(chosen_of(predictions(n_subjects=2, per_subject=2))) == 4


def test_cells_are_every_group_by_every_emotion_in_the_order_of_age():
    table = pd.concat(
        [
            predictions(2, 2, "adult", "a"),
            predictions(2, 2, "child", "c"),
            predictions(2, 2, "adolescent", "t"),
        ],
        ignore_index=True,
    )
    table.loc[table["age_band"] == "child", "emotion"] = "anger"
    table.loc[0, "gender"] = None
    cells = cells_of(select_held_out(table, BY), BY)
    assert list(cells.columns) == ["emotion", *BY, "n_held_out", "n_available"]
    rows = cells.drop(columns="emotion").drop_duplicates(BY)[BY].to_numpy().tolist()
    assert rows == [
        ["child", "female"],
        ["adolescent", "female"],
        ["adult", "female"],
        ["adult", "unknown"],
    ]
    assert list(cells["emotion"][:2]) == ["anger", "fear"]
    counts = cells.set_index(["age_band", "gender", "emotion"])[["n_held_out", "n_available"]]
    assert counts.loc[("child", "female", "anger")].tolist() == [4, 0]  # answered with fear
    assert counts.loc[("child", "female", "fear")].tolist() == [0, 0]
    assert counts.loc[("adult", "unknown", "fear")].tolist() == [1, 1]


def test_a_label_that_the_model_lacks_makes_no_cell():
    table = predictions(n_subjects=2, per_subject=1)
    table.loc[0, ["emotion", "y_pred"]] = "pain"
    held_out = select_held_out(table, BY)
    assert list(cells_of(held_out, BY)["emotion"]) == ["fear"]
    assert len(held_out) == 1


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ParamsError, match=r"explain\.by: the table has no column 'agebnd'"):
        select_held_out(predictions(), ["agebnd"])


def test_no_held_out_image_makes_no_cells():
    table = predictions().assign(seen_in_training=True)
    held_out = select_held_out(table, BY)
    assert cells_of(held_out, BY).empty
    assert choose(held_out, BY, 10, 1).empty
    assert cells_of(held_out, BY)["n_available"].dtype == np.int64
