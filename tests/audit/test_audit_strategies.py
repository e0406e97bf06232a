"""Comparison of strategies: same unseen images, both comparisons, and edge cases."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tasks.audit.figures.strategies import strategies_figure
from tasks.audit.strategy_comparison import COLUMNS, fine_tuned_group, strategies_table
from tasks.core.errors import DataError

STRATEGIES = ("naive", "head", "replay", "distill", "interpolate")
RIGHT = {  # recall by model and band
    "base": {"child": 0.5, "adult": 0.9},
    "naive": {"child": 0.8, "adult": 0.6},
    "replay": {"child": 0.8, "adult": 0.9},
    "finetuned": {"child": 0.8, "adult": 0.9},
}


def predictions(model, people=60, seed=0):
    """One model's answers on 4 pictures of each person; a third of the children is trained on."""
    rng = np.random.default_rng([seed, *model.encode()])
    rows = []
    for person in range(people):
        band, split = (
            ("child", "adult")[person % 2],
            ("train", "validation", "test")[person // 2 % 3],
        )
        seen = {"base": band == "adult"}.get(model, True) and split == "train"
        seen = seen or (model == "finetuned" and split == "validation")
        for take in range(4):
            right = rng.random() < RIGHT[model][band]
            rows.append(
                {
                    "image_id": f"{person}-{take}",
                    "dataset": "invented",
                    "subject_id": f"invented/{person}",
                    "subject_known": True,
                    "emotion": "fear",
                    "age_band": band,
                    "split": split,
                    "model": model,
                    "y_pred": "fear" if right else "anger",
                    "seen_in_training": bool(seen),
                    "is_target_group": model != "base" and band == "child" and split == "train",
                    "gender": ("female", "male")[person // 6 % 2],
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def frames():
    made = {name: predictions(name) for name in RIGHT}
    return made | {name: made["base"].iloc[:0] for name in ("head", "distill", "interpolate")}


@pytest.fixture(scope="module")
def choice():
    row = {"dimension": "age_band", "recall_score": 0.7, "worst": False, "chosen": False}
    return pd.DataFrame(
        [
            row | {"strategy": "naive", "group": "adult", "recall_score": 0.5, "worst": True},
            row | {"strategy": "naive", "group": "child"},
            row | {"strategy": "replay", "group": "adult", "chosen": True},
            row | {"strategy": "replay", "group": "child", "worst": True, "chosen": True},
            row | {"strategy": "head", "group": None, "worst": None},
        ]
    )


@pytest.fixture(scope="module")
def table(frames, choice, settings_of):
    return strategies_table(frames, STRATEGIES, choice, settings_of(by=["age_band"]))


def test_the_contract_is_kept_and_left_out_ones_have_no_row(table):
    assert list(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["strategy"])) == ["naive", "replay"]
    assert list(table["group"]) == ["all", "child", "adult"] * 2
    naive, replay = (table[table["strategy"] == name].iloc[0] for name in ("naive", "replay"))
    assert (naive["chosen"], replay["chosen"]) == (False, True)
    assert (naive["validation_worst_group"], naive["validation_worst_recall"]) == ("adult", 0.5)
    assert (replay["validation_worst_group"], replay["validation_worst_recall"]) == ("child", 0.7)


def test_figures_are_of_images_that_no_model_has_seen(frames, table):
    unseen_by = {
        name: frame[~frame["seen_in_training"]].set_index("image_id")
        for name, frame in frames.items()
        if len(frame)
    }
    unseen = set.intersection(*(set(frame.index) for frame in unseen_by.values()))
    assert all(unseen_by["base"].loc[name, "split"] == "test" for name in unseen)
    adults = [name for name in unseen if unseen_by["base"].loc[name, "age_band"] == "adult"]
    recall = {
        name: (frame.loc[adults, "y_pred"] == "fear").mean() for name, frame in unseen_by.items()
    }
    row = table.query("strategy == 'replay' and group == 'adult'").iloc[0]
    assert (row["n"], row["subjects"]) == (len(adults), len(adults) / 4)
    assert row["recall_base"] == pytest.approx(recall["base"])
    assert row["recall_strategy"] == pytest.approx(recall["replay"])
    assert row["change"] == pytest.approx(recall["replay"] - recall["base"])
    assert row["against_naive"] == pytest.approx(recall["replay"] - recall["naive"])
    assert row["ci_low"] <= row["change"] <= row["ci_high"]
    people = unseen_by["base"].loc[adults, "subject_id"]
    answers = pd.DataFrame({"a": unseen_by["replay"].loc[adults, "y_pred"] == "fear"}).assign(
        b=unseen_by["base"].loc[adults, "y_pred"] == "fear"
    )
    means = answers.astype(float).groupby(people).mean()  # as many pictures of each person
    paired = stats.ttest_rel(means["a"], means["b"])
    assert row["p_value"] == pytest.approx(paired.pvalue, abs=0.1)  # subjects are permuted


def test_naive_is_not_compared_with_itself(table):
    assert table.query("strategy == 'naive'")["against_naive"].isna().all()
    assert table.query("strategy == 'replay'")["against_naive_ci_low"].notna().all()


def test_the_group_that_was_fine_tuned_on_is_found_in_the_data(table):
    """Replay has seen adults too: they were shown again, not aimed at."""
    assert set(table["group"][table["is_target_group"]]) == {"child"}
    assert set(table["note"]) == {""}


def test_a_base_model_that_has_seen_nobody_makes_no_target_of_the_replayed(
    frames, choice, settings_of
):
    """Pre-trained elsewhere, 40 children and 200 adults: the replayed are new to it, and more."""
    adults = {name: predictions(name, people=400, seed=1) for name in frames if len(frames[name])}
    many = {
        name: pd.concat(
            [frame[(frame["age_band"] == "adult") | (frame.index < 320)]], ignore_index=True
        ).assign(**({"seen_in_training": False} if name == "base" else {}))
        for name, frame in adults.items()
    }
    people = many["base"].groupby("age_band")["subject_id"].nunique()
    assert (people["child"], people["adult"]) == (40, 200)
    found = strategies_table(frames | many, STRATEGIES, choice, settings_of(by=["age_band"]))
    assert set(found["group"][found["is_target_group"]]) == {"child"}


@pytest.mark.parametrize(
    ("by", "everybody", "why"),
    [
        (["gender", "age_band"], False, "no one group of gender"),
        (["age_band"], True, "no one group of age_band"),
    ],
)
def test_no_group_is_marked_where_none_was_the_target(
    frames, choice, settings_of, tmp_path, by, everybody, why
):
    answers = {
        name: frame.assign(is_target_group=(frame["split"] == "train") & (name != "base"))
        for name, frame in frames.items()
    }
    settings = settings_of(by=by)
    table = strategies_table(answers if everybody else frames, STRATEGIES, choice, settings)
    assert len(table) and not table["is_target_group"].any()
    assert table["note"].str.contains(why).all()
    strategies_figure(table, "a notice", tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0


def test_everybody_is_no_target_though_nearly_all_are_of_one_group():
    base = pd.DataFrame({"image_id": [f"{i}" for i in range(200)], "split": "train"})
    base["age_band"] = ["child"] * 4 + ["adult"] * 196
    everybody, adults = set(base["image_id"]), set(base["image_id"][4:])
    assert fine_tuned_group(base, everybody, "age_band")[0] == ""
    assert fine_tuned_group(base, adults, "age_band") == ("adult", "")
    assert fine_tuned_group(base[4:], adults, "age_band")[0] == ""


def test_a_target_without_unseen_images_has_a_note(frames, choice, settings_of):
    seen = {
        name: frame.assign(
            seen_in_training=frame["seen_in_training"] | (frame["age_band"] == "child")
        )
        for name, frame in frames.items()
    }
    found = strategies_table(seen, STRATEGIES, choice, settings_of(by=["age_band"]))
    assert not found["is_target_group"].any()
    assert found["note"].str.contains("unseen is of the fine-tuned group, child").all()


def test_predictions_without_the_training_column_are_rejected(frames, choice, settings_of):
    old = {name: frame.drop(columns="is_target_group") for name, frame in frames.items()}
    with pytest.raises(DataError, match="lack the column is_target_group"):
        strategies_table(old, STRATEGIES, choice, settings_of(by=["age_band"]))


def test_families_are_groups_and_totals(table):
    groups = table[table["group"] != "all"]
    assert groups["family"].str.startswith("age_band: 4 changes").all()
    assert (groups["p_adjusted"] >= groups["p_value"]).all()


def test_nothing_to_compare_is_an_empty_table(frames, choice, settings_of):
    settings = settings_of(by=["age_band"])
    left_out = {name: frames["base"].iloc[:0] for name in STRATEGIES}
    empty = strategies_table(frames | left_out, STRATEGIES, choice, settings)
    assert empty.empty and list(empty.columns) == COLUMNS
    seen = frames | {"finetuned": frames["finetuned"].assign(seen_in_training=True)}
    assert strategies_table(seen, STRATEGIES, choice, settings).empty


def test_the_figure_is_drawn_and_says_where_it_cannot_be(table, tmp_path):
    paths = [tmp_path / f"{name}.png" for name in ("drawn", "again", "none", "one_group")]
    for path, rows in zip(
        paths, (table, table, table.iloc[:0], table[table["group"] != "adult"]), strict=True
    ):
        strategies_figure(rows, "a notice", path)
    content = [path.read_bytes() for path in paths]
    assert content[0] == content[1]  # the same table gives the same bytes
    assert len(content[0]) > 2 * len(content[2])
    assert content[2] != content[3]
