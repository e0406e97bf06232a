"""The audit's tables, recomputed in another way on small invented predictions."""

import functools
import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tasks.audit import stage
from tasks.audit.by_group import audit_predictions
from tasks.core.errors import DataError, ParamsError
from tasks.core.headline import largest_gap
from tasks.core.paths import STAGE_OUTS, Paths
from tasks.core.tables import write_table

LABELS = ["fear", "happiness", "neutral"]
PAIR = ("base", "finetuned")
BY = ["age_band", "gender"]
CONTRACT = [
    "model",
    "protocol",
    "dataset",
    "age_band",
    "gender",
    "emotion",
    "n",
    "correct",
    "recall",
    "ci_low",
    "ci_high",
]


def predictions(labels=LABELS, seed=0, people=24, recalls=None, emotions=LABELS):
    """Both models' predictions of people with two pictures an emotion."""
    rng = np.random.default_rng(seed)
    recalls = recalls or {("base", "adult"): 0.9, ("base", "child"): 0.4}
    rows = []
    for person, emotion, take in itertools.product(range(people), emotions, range(2)):
        band = "child" if person % 2 else "adult"
        picture = {
            "image_id": f"{person:03d}{emotion}{take}",
            "dataset": "invented",
            "subject_id": f"invented/{person}",
            "emotion": emotion,
            "age_years": 6.0 if band == "child" else 30.0,
            "age_band": band,
            "gender": ["female", "male", "unknown"][person // 2 % 3],
            "ethnicity": None if person % 5 else "recorded",
            "split": ["train", "validation", "test"][person % 3],
        }
        for model in PAIR:
            right = emotion in labels and rng.random() < recalls.get((model, band), 0.7)
            wrong = [name for name in labels if name != emotion]
            seen = band == "adult" or model == "finetuned"
            rows.append(
                picture
                | {
                    "model": model,
                    "y_pred": emotion if right else str(rng.choice(wrong)),
                    "seen_in_training": bool(seen and picture["split"] == "train"),
                }
                | {f"p_{name}": 1 / len(labels) for name in labels}
            )
    return pd.DataFrame(rows)


def audit(frame, by=BY, min_n=5):
    return audit_predictions(frame, by, 0.95, min_n, PAIR)


@functools.cache
def usual():
    """The tables of the usual predictions; tests only read them."""
    return audit(predictions())


def test_groups_has_the_contract_s_columns_first():
    groups = usual()["groups"]
    assert list(groups.columns[:11]) == CONTRACT
    wider = audit(predictions(), ["ethnicity", "gender"])["groups"]
    assert list(wider.columns[:12]) == [*CONTRACT, "ethnicity"]
    assert set(wider["age_band"]) == {"all"}
    assert set(wider["ethnicity"]) == {"all", "recorded", "unknown"}


def test_groups_is_the_full_cube_and_each_cell_is_right():
    frame, groups = predictions(), usual()["groups"]
    z = norm.ppf(0.975)
    expected = {}
    for protocol, rows in (("held_out", frame[~frame["seen_in_training"]]), ("all", frame)):
        dims = ["dataset", "age_band", "gender", "emotion"]
        for _, row in rows.iterrows():
            for pooled in itertools.product([True, False], repeat=4):
                cell = tuple("all" if p else row[d] for p, d in zip(pooled, dims, strict=True))
                key = (row["model"], protocol, *cell)
                n, correct = expected.get(key, (0, 0))
                expected[key] = (n + 1, correct + (row["y_pred"] == row["emotion"]))
    assert len(groups) == len(expected)
    for row in groups.itertuples():
        key = (row.model, row.protocol, row.dataset, row.age_band, row.gender, row.emotion)
        n, correct = expected[key]
        assert (row.n, row.correct) == (n, correct)
        p = correct / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        assert row.recall == pytest.approx(p)
        assert (row.ci_low, row.ci_high) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_bands_come_from_young_to_old_and_unknown_last():
    groups = usual()["groups"]
    assert list(dict.fromkeys(groups["age_band"])) == ["all", "child", "adult"]
    assert list(dict.fromkeys(groups["gender"])) == ["all", "female", "male", "unknown"]


def test_a_group_that_is_named_all_is_not_taken_for_pooled():
    frame = predictions()
    frame["ethnicity"] = ["all" if value == "recorded" else "x" for value in frame["ethnicity"]]
    groups = audit(frame, ["ethnicity"])["groups"]
    whole = groups[(groups["ethnicity"] == "all") & (groups["emotion"] == "all")]
    assert set(whole.query("protocol == 'all'")["n"]) == {len(frame) // 2}


def test_labels_that_a_model_lacks_are_left_out_and_counted():
    frame = predictions(emotions=[*LABELS, "pain"])
    tables = audit(frame)
    assert "pain" not in set(tables["groups"]["emotion"])
    counts = tables["counts"].query("model == 'base' and split == 'all' and dataset == 'all'")
    pooled = counts.query("age_band == 'all' and gender == 'all'").set_index("emotion")
    assert pooled.loc["pain", "left_out"] == pooled.loc["pain", "pictures"] == 48
    assert pooled.loc["all", "left_out"] == 48
    assert pooled.loc["all", "pictures"] == 24 * 4 * 2
    assert pooled.loc["all", "subjects"] == 24


def test_one_model_s_missing_label_does_not_touch_the_other():
    frame = predictions()
    frame.loc[frame["model"] == "base", "p_fear"] = np.nan
    tables = audit(frame)
    fear = tables["groups"][tables["groups"]["emotion"] == "fear"]
    assert set(fear["model"]) == {"finetuned"}
    assert "fear" not in set(tables["before_after"]["emotion"])


def test_gaps_leave_out_emotions_of_one_side_and_name_them():
    frame = predictions()
    frame = frame[(frame["age_band"] == "adult") | (frame["emotion"] != "fear")]
    gaps = audit(frame)["gaps"].query("model == 'base' and protocol == 'all'")
    row = gaps.query("dimension == 'age_band' and emotion == 'all'").iloc[0]
    assert row["emotions"] == "happiness neutral"
    assert row["left_out_emotions"] == "fear"
    assert row["n_left_out"] == 24
    part = frame[(frame["model"] == "base") & (frame["emotion"] != "fear")]
    adults = part[part["age_band"] == "adult"]
    assert row["n_b"] == len(adults)
    assert row["correct_b"] == (adults["y_pred"] == adults["emotion"]).sum()
    assert "fear" not in set(gaps.query("dimension == 'age_band'")["emotion"])


def test_unknown_makes_no_group_but_counts_in_all():
    tables = usual()
    assert "unknown" not in set(tables["gaps"]["group_a"]) | set(tables["gaps"]["group_b"])
    assert "unknown" in set(tables["groups"]["gender"])


def test_small_groups_are_shown_but_not_tested():
    gaps = audit(predictions(), min_n=14)["gaps"]
    small = gaps[(gaps["n_a"] < 14) | (gaps["n_b"] < 14)]
    assert len(small) and not small["enough_n"].any() and small["p_holm"].isna().all()
    assert gaps[gaps["enough_n"]]["p_holm"].notna().all()
    assert (gaps[gaps["enough_n"]]["p_holm"] >= gaps[gaps["enough_n"]]["p_value"]).all()


def test_several_data_sets_are_compared_and_told_apart():
    frame = predictions()
    frame["dataset"] = np.where(frame["age_band"] == "child", "kids", "grown")
    gaps = audit(frame)["gaps"]
    assert "dataset" in set(gaps["dimension"])
    across = gaps.query("dimension == 'age_band' and dataset == 'all'")
    assert set(across["shared_datasets"]) == {""}
    assert set(gaps["dataset"]) == {"all", "grown", "kids"}


def test_change_is_on_the_same_pictures_held_out_from_both():
    frame, table = predictions(), usual()["before_after"]
    wide = frame.assign(hit=frame["y_pred"] == frame["emotion"]).pivot(
        index="image_id", columns="model", values=["hit", "seen_in_training", "age_band"]
    )
    kept = wide[~wide["seen_in_training"].astype(bool).any(axis=1)]
    children = kept[kept[("age_band", "base")] == "child"]["hit"].astype(bool)
    row = table.query(
        "dataset == 'all' and age_band == 'child' and gender == 'all' and emotion == 'all'"
    ).iloc[0]
    assert row["n"] == len(children)
    assert row["gained"] == (~children["base"] & children["finetuned"]).sum()
    assert row["lost"] == (children["base"] & ~children["finetuned"]).sum()
    assert row["recall_base"] == pytest.approx(children["base"].mean())
    assert row["change"] == pytest.approx((row["gained"] - row["lost"]) / row["n"])
    assert row["ci_low"] < row["change"] < row["ci_high"]


def test_crossed_cells_of_the_change_are_not_in_the_family():
    table = usual()["before_after"]
    crossed = table[(table["age_band"] != "all") & (table["gender"] != "all")]
    assert len(crossed) and crossed["p_holm"].isna().all()


def test_confusion_adds_up():
    frame, table = predictions(), usual()["confusion"]
    rows = table.query("protocol == 'all' and dimension == 'age_band'")
    assert rows["n"].sum() == len(frame)
    sums = rows.groupby(["model", "group", "emotion"])["share"].sum()
    assert sums.tolist() == pytest.approx([1] * len(sums))
    assert len(rows) == 2 * 2 * len(LABELS) ** 2  # answers that never came are listed with 0
    one = rows.query("model == 'base' and group == 'child' and emotion == 'fear'")
    own = frame.query("model == 'base' and age_band == 'child' and emotion == 'fear'")
    for row in one.itertuples():
        assert row.n == (own["y_pred"] == row.y_pred).sum()


def test_faults_are_one_clear_line():
    frame = predictions()
    with pytest.raises(ParamsError, match=r"audit.by: the predictions have no column \['height'\]"):
        audit(frame, ["height"])
    with pytest.raises(DataError, match="twice"):
        audit(pd.concat([frame, frame.iloc[:1]]))
    with pytest.raises(DataError, match="no row"):
        audit(frame.iloc[:0])


def write_project(root, frame):
    paths = Paths(root)
    for model, part in frame.groupby("model"):
        write_table(part.reset_index(drop=True), paths.predictions(str(model)))
    return paths


def test_stage_writes_what_dvc_expects_and_finds_the_gap(tmp_path):
    params = stage.Params(by=["age_band"], confidence=0.95, min_n=5)
    frame = predictions(people=60)
    paths = write_project(tmp_path, frame)
    result = stage.run(params, paths)
    outs = [name for name in STAGE_OUTS["audit"] if "runs" not in name]
    before = {name: paths.at(name).read_bytes() for name in outs}
    assert "children" in result.summary and "adults" in result.summary
    assert result.metrics["base.recall_score.child"] < result.metrics["base.recall_score.adult"]
    stage.run(params, paths)
    assert {name: paths.at(name).read_bytes() for name in outs} == before


def test_no_gap_is_named_where_there_is_none():
    same = {(model, band): 0.7 for model in PAIR for band in ("adult", "child")}
    gaps = audit(predictions(people=60, recalls=same, seed=3))["gaps"]
    assert largest_gap(gaps, "base", single_emotions=False) is None
    assert largest_gap(gaps, "base", single_emotions=True) is None
