"""The audit's tables, recomputed in another way on small invented predictions."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm, t

from tasks.audit import stage
from tasks.audit.audit import audit_predictions, by_protocol, counts_table, groups_table, prepare
from tasks.audit.measures.gaps import gaps_table
from tasks.audit.measures.model_comparison import paired_table
from tasks.core.errors import DataError, ParamsError
from tasks.core.gap_sentences import largest_gap
from tasks.core.paths import EVALUATED, STAGE_OUTS, Paths
from tasks.core.statistics.recalls import wilson
from tasks.core.tables import write_csv, write_table

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
        image = {
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
                image
                | {
                    "model": model,
                    "y_pred": emotion if right else str(rng.choice(wrong)),
                    "seen_in_training": bool(seen and image["split"] == "train"),
                }
                | {f"p_{name}": 1 / len(labels) for name in labels}
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def audit(settings_of):
    return lambda frame, **changed: audit_predictions(frame, settings_of(**changed), PAIR)


@pytest.fixture(scope="module")
def usual(audit):
    """The tables of the usual predictions; tests only read them."""
    return audit(predictions())


@pytest.fixture(scope="module")
def only(settings_of):
    """Make one table alone, which is faster than the whole audit."""

    def make(name, frame, **changed):
        settings = settings_of(**changed)
        table = prepare(frame, settings)
        named = table[table["named"]]
        if name == "before_after":
            return paired_table(named, settings, PAIR, "held_out")
        if name == "counts":
            return counts_table(table, settings.by, settings.depth)
        makers = {"groups": groups_table, "gaps": gaps_table}
        return makers[name](by_protocol(named), settings)

    return make


def test_groups_has_the_contract_s_columns_first(usual, only):
    groups = usual["groups"]
    assert list(groups.columns[:11]) == CONTRACT
    wider = only("groups", predictions(), by=["ethnicity", "gender"])
    assert list(wider.columns[:12]) == [*CONTRACT, "ethnicity"]
    assert set(wider["age_band"]) == {"all"}
    assert set(wider["ethnicity"]) == {"all", "recorded", "unknown"}


def test_groups_is_the_full_cube_and_each_cell_is_right(usual):
    frame, groups = predictions(), usual["groups"]
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
        assert row.recall == pytest.approx(correct / n)
        assert row.ci_low <= row.recall <= row.ci_high


def test_unknown_people_get_the_interval_of_one_person_with_a_note(only):
    frame = predictions()
    frame["subject_known"] = frame["age_band"] != "child"
    frame.loc[~frame["subject_known"], "subject_id"] = "invented/" + frame["image_id"]
    groups = only("groups", frame, by=["age_band"])
    for row in groups[groups["age_band"] == "child"].itertuples():
        low, high = wilson(np.array([row.correct / row.n]), np.array([1.0]), 0.95)
        assert (row.ci_low, row.ci_high) == pytest.approx((low[0], high[0]), abs=1e-9)
        assert "one person" in row.method and "not known" in row.method
        assert row.subjects == 0
    everyone = groups[(groups["age_band"] == "all") & (groups["emotion"] == "all")]
    assert everyone["method"].str.contains("cluster variance.*subject is known").all()
    adults = groups[(groups["age_band"] == "adult") & (groups["emotion"] == "all")]
    assert adults["method"].str.contains("cluster variance").all()
    assert not adults["method"].str.contains("known").any()


def drawn_people(frame, resamples, seed):
    """Draw people one by one and put the pictures of each on a pile, without any matrix."""
    rng = np.random.default_rng(seed)
    selected = [
        list(zip(p["age_band"], p["hit"], strict=True)) for _, p in frame.groupby("subject_id")
    ]
    for _ in range(resamples):
        pile = [
            image for i in rng.integers(len(selected), size=len(selected)) for image in selected[i]
        ]
        yield {
            band: np.mean([hit for whose, hit in pile if whose == band])
            for band in ("adult", "child")
        }


def test_intervals_are_those_of_people_drawn_one_by_one(only):
    frame = predictions(people=30)
    tables = {
        name: only(name, frame, by=["age_band"], resamples=4000) for name in ("groups", "gaps")
    }
    part = frame[frame["model"] == "base"].assign(hit=frame["y_pred"] == frame["emotion"])
    child, gap = [], []
    for recall in drawn_people(part, 2000, 9):
        child.append(recall["child"])
        gap.append(recall["child"] - recall["adult"])
    row = (
        tables["groups"]
        .query(
            "model == 'base' and protocol == 'all' and age_band == 'child' and "
            "emotion == 'all' and dataset == 'all'"
        )
        .iloc[0]
    )
    p, reach = row["recall"], t.ppf(0.975, 14) * np.std(child, ddof=1)
    expected = expit(logit(p) + np.array([-1, 1]) * reach / (p * (1 - p)))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected, abs=0.03)
    row = (
        tables["gaps"]
        .query("model == 'base' and protocol == 'all' and emotion == 'all' and dataset == 'all'")
        .iloc[0]
    )
    tail = norm.sf(np.sqrt(15 / 14) * t.ppf(0.975, 14))  # 15 people on each side
    expected = np.quantile(gap, [tail, 1 - tail])
    # Nearly: the table has no draws, and its own variance has half a person added.
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(expected, abs=0.03)


def test_bands_come_from_young_to_old_and_unknown_last(usual):
    groups = usual["groups"]
    assert list(dict.fromkeys(groups["age_band"])) == ["all", "child", "adult"]
    assert list(dict.fromkeys(groups["gender"])) == ["all", "female", "male", "unknown"]


def test_a_group_that_is_named_all_is_not_taken_for_pooled(only):
    frame = predictions()
    frame["ethnicity"] = ["all" if value == "recorded" else "x" for value in frame["ethnicity"]]
    groups = only("groups", frame, by=["ethnicity"])
    all_images = groups[(groups["ethnicity"] == "all") & (groups["emotion"] == "all")]
    assert set(all_images.query("protocol == 'all'")["n"]) == {len(frame) // 2}


def test_labels_that_a_model_lacks_are_left_out_and_counted(only):
    frame = predictions(emotions=[*LABELS, "pain"])
    assert "pain" not in set(only("groups", frame)["emotion"])
    counts = only("counts", frame).query("model == 'base' and split == 'all' and dataset == 'all'")
    pooled = counts.query("age_band == 'all' and gender == 'all'").set_index("emotion")
    assert pooled.loc["pain", "left_out"] == pooled.loc["pain", "images"] == 48
    assert pooled.loc["all", "left_out"] == 48
    assert pooled.loc["all", "images"] == 24 * 4 * 2
    assert pooled.loc["all", "subjects"] == 24


def test_one_model_s_missing_label_does_not_touch_the_other(only):
    frame = predictions()
    base = frame["model"] == "base"
    frame.loc[base, "p_fear"] = np.nan
    frame.loc[base & (frame["y_pred"] == "fear"), "y_pred"] = "neutral"  # nor does it answer so
    groups = only("groups", frame)
    fear = groups[groups["emotion"] == "fear"]
    assert set(fear["model"]) == {"finetuned"}
    assert "fear" not in set(only("before_after", frame)["emotion"])


def test_gaps_leave_out_emotions_of_one_side_and_name_them(only):
    frame = predictions()
    frame = frame[(frame["age_band"] == "adult") | (frame["emotion"] != "fear")]
    gaps = only("gaps", frame).query("model == 'base' and protocol == 'all'")
    row = gaps.query("dimension == 'age_band' and emotion == 'all'").iloc[0]
    assert row["emotions"] == "happiness neutral"
    assert row["left_out_emotions"] == "fear"
    assert row["n_left_out"] == 24
    part = frame[(frame["model"] == "base") & (frame["emotion"] != "fear")]
    adults = part[part["age_band"] == "adult"]
    assert row["n_b"] == len(adults)
    assert row["correct_b"] == (adults["y_pred"] == adults["emotion"]).sum()
    assert "fear" not in set(gaps.query("dimension == 'age_band'")["emotion"])


def test_unknown_makes_no_group_but_counts_in_all(usual):
    tables = usual
    assert "unknown" not in set(tables["gaps"]["group_a"]) | set(tables["gaps"]["group_b"])
    assert "unknown" in set(tables["groups"]["gender"])


def test_small_groups_are_shown_but_not_tested(only):
    gaps = only("gaps", predictions(), min_n=14)
    small = gaps[(gaps["n_a"] < 14) | (gaps["n_b"] < 14)]
    assert len(small) and not small["enough_n"].any() and small["p_adjusted"].isna().all()
    assert gaps[gaps["enough_n"]]["p_adjusted"].notna().all()
    assert (gaps[gaps["enough_n"]]["p_adjusted"] >= gaps[gaps["enough_n"]]["p_value"]).all()


def test_few_people_are_not_tested_however_many_images_they_have(only):
    frame = predictions()  # twelve children, twelve adults
    for name, counts in (("gaps", ["subjects_a", "subjects_b"]), ("before_after", ["subjects"])):
        table = only(name, frame, min_n=1, min_subjects=12)
        few = table[counts].min(axis=1) < 12
        assert few.any() and not table[few]["enough_n"].any()
        assert table[few]["p_adjusted"].isna().all()
        assert table[~few]["enough_n"].all() and not table[~few].empty
        assert table["family"].str.contains("at least 1 pictures and 12 people").all()


def test_models_are_compared_on_every_image_only_where_it_is_asked(settings_of):
    frame = predictions()
    every = audit_predictions(frame, settings_of(by=[]), PAIR, "all")["before_after"]
    assert set(every["protocol"]) == {"all"}
    assert every["n"].max() == len(frame) / 2
    held = audit_predictions(frame, settings_of(by=[]), PAIR)["before_after"]
    assert set(held["protocol"]) == {"held_out"} and held["n"].max() < len(frame) / 2


def test_images_without_an_answer_are_left_out_and_counted(only):
    frame = predictions()
    silent = (frame["model"] == "base") & (frame["emotion"] == "fear") & (frame.index % 3 == 0)
    frame.loc[silent, "y_pred"] = None
    counts = only("counts", frame).query("dataset == 'all' and split == 'all'")
    for emotion, count in (("all", silent.sum()), ("fear", silent.sum()), ("neutral", 0)):
        row = counts.query("age_band == 'all' and gender == 'all'").set_index(["model", "emotion"])
        assert row.loc[("base", emotion), "left_out"] == count
        assert row.loc[("finetuned", emotion), "left_out"] == 0
    groups = only("groups", frame).query("protocol == 'all' and model == 'base'")
    assert groups["n"].max() == len(frame) / 2 - silent.sum()


def test_several_data_sets_are_compared_and_distinguished(only):
    frame = predictions()
    frame["dataset"] = np.where(frame["age_band"] == "child", "kids", "grown")
    gaps = only("gaps", frame)
    assert "dataset" in set(gaps["dimension"])
    across = gaps.query("dimension == 'age_band' and dataset == 'all'")
    assert set(across["datasets_with_both"]) == {""}
    assert set(gaps["dataset"]) == {"all", "grown", "kids"}


def test_change_is_on_the_same_images_held_out_from_both(usual):
    frame, table = predictions(), usual["before_after"]
    wide = frame.assign(hit=frame["y_pred"] == frame["emotion"]).pivot(
        index="image_id", columns="model", values=["hit", "seen_in_training", "age_band"]
    )
    unseen = wide[~wide["seen_in_training"].astype(bool).any(axis=1)]
    children = unseen[unseen[("age_band", "base")] == "child"]["hit"].astype(bool)
    row = table.query(
        "dataset == 'all' and age_band == 'child' and gender == 'all' and emotion == 'all'"
    ).iloc[0]
    assert row["n"] == len(children)
    assert row["gained"] == (~children["base"] & children["finetuned"]).sum()
    assert row["lost"] == (children["base"] & ~children["finetuned"]).sum()
    assert row["recall_base"] == pytest.approx(children["base"].mean())
    assert row["change"] == pytest.approx((row["gained"] - row["lost"]) / row["n"])
    assert row["ci_low"] < row["change"] < row["ci_high"]


def test_crossed_cells_of_the_change_are_not_in_the_family(usual):
    table = usual["before_after"]
    crossed = table[(table["age_band"] != "all") & (table["gender"] != "all")]
    assert len(crossed) and crossed["p_adjusted"].isna().all()


def test_confusion_adds_up(usual):
    frame, table = predictions(), usual["confusion"]
    rows = table.query("protocol == 'all' and dimension == 'age_band'")
    assert rows["n"].sum() == len(frame)
    sums = rows.groupby(["model", "group", "emotion"])["share"].sum()
    assert sums.tolist() == pytest.approx([1] * len(sums))
    assert len(rows) == 2 * 2 * len(LABELS) ** 2  # answers that never came are listed with 0
    one = rows.query("model == 'base' and group == 'child' and emotion == 'fear'")
    selected = frame.query("model == 'base' and age_band == 'child' and emotion == 'fear'")
    for row in one.itertuples():
        assert row.n == (selected["y_pred"] == row.y_pred).sum()


def test_faults_are_one_clear_line(audit):
    frame = predictions()
    with pytest.raises(ParamsError, match=r"audit.by: the predictions have no column \['height'\]"):
        audit(frame, by=["height"])
    with pytest.raises(DataError, match="twice"):
        audit(pd.concat([frame, frame.iloc[:1]]))
    with pytest.raises(DataError, match="no row"):
        audit(frame.iloc[:0])


def write_project(root, frame):
    paths = Paths(root)
    for model in EVALUATED:  # a strategy that was left out has a table without rows
        part = frame[frame["model"] == model].reset_index(drop=True)
        write_table(part, paths.predictions(model))
    columns = ["strategy", "dimension", "group", "recall_score", "worst", "chosen"]
    write_csv(pd.DataFrame(columns=columns), paths.tables / "choice.csv")
    return paths


def test_stage_writes_what_dvc_expects_and_finds_the_gap(tmp_path, settings_of):
    params = settings_of(by=["age_band"])
    frame = predictions(people=60)
    paths = write_project(tmp_path, frame)
    result = stage.run(params, paths)
    assert pd.read_csv(paths.tables / "strategies.csv").empty
    outs = [name for name in STAGE_OUTS["audit"] if "runs" not in name]
    before = {name: paths.at(name).read_bytes() for name in outs}
    assert "children" in result.summary and "adults" in result.summary
    assert result.metrics["base.recall_score.child"] < result.metrics["base.recall_score.adult"]
    stage.run(params, paths)
    assert {name: paths.at(name).read_bytes() for name in outs} == before


@pytest.mark.parametrize("key", ["factors", "standardize_to"])
def test_a_misspelt_column_stops_the_stage(tmp_path, settings_of, key):
    paths = write_project(tmp_path, predictions())
    with pytest.raises(ParamsError, match=f"audit.{key}: no data set has mouht; known are"):
        stage.run(settings_of(**{key: ["mouth", "mouht"]}), paths)  # a set may lack the mouth


def test_no_gap_is_named_where_there_is_none(only):
    same = {(model, band): 0.7 for model in PAIR for band in ("adult", "child")}
    gaps = only("gaps", predictions(people=60, recalls=same, seed=3))
    assert largest_gap(gaps, "base", single_emotions=False) is None
    assert largest_gap(gaps, "base", single_emotions=True) is None


def test_only_pairs_are_crossed_unless_more_is_asked_for(only):
    frame = predictions()
    by = ["age_band", "gender", "ethnicity"]
    for depth in (1, 2, 3):
        groups = only("groups", frame, by=by, depth=depth)
        assert (groups[by] != "all").sum(axis=1).max() == depth
