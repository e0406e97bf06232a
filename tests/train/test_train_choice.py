"""Coefficients and strategies are chosen on validation pictures, by the worst group."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from statsmodels.stats.proportion import proportion_confint

from tasks.choose import stage
from tasks.choose.stage import add_wilson_intervals
from tasks.core.errors import ParamsError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import (
    SEEN_COLUMNS,
    Skipped,
    load_seen,
    load_spec,
    read_skipped,
    save_model,
    write_skipped,
)
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import STRATEGIES
from tasks.core.tables import read_table, write_table
from tasks.core.training.fit import HISTORY_COLUMNS
from tasks.core.training.validation import effective_sample_size, score_groups
from tasks.interpolate import stage as interpolate_stage

LABELS = ("anger", "happiness", "neutral")
SPEC = ModelSpec(
    architecture="compact",
    labels=LABELS,
    input_size_px=32,
    color="rgb",
    mean=(0.5,) * 3,
    std=(0.25,) * 3,
    version="",
    source="made",
)
CHOOSE = stage.Params(
    by=["age_band"],
    min_n=1,
    standard_errors=2,
    resamples=200,
    seed=1,
    confidence=0.9,
    device="cpu",
    batch_size=8,
)


def between_params(**changed):
    usual = {"from": "naive", "coefficients": 5, "by": ["age_band"], "min_n": 1}
    return interpolate_stage.Params.model_validate(
        {**usual, "device": "cpu", "batch_size": 8, **changed}
    )


def write_model(paths, name, seed=0, seen=()):
    torch.manual_seed(seed)
    module = build_module("compact", 3, 3)
    with torch.no_grad():
        for buffer in module.buffers():  # as if it had seen something
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
    spec = SPEC.model_copy(update={"source": name})
    save_model(paths.model(name), module, spec, pd.DataFrame(seen, columns=list(SEEN_COLUMNS)))
    (paths.model(name) / "history.csv").write_text("epoch\n1\n")
    (paths.model(name) / "crop.json").write_text("{}\n")


@pytest.fixture
def models(cohort):
    """The cohort with a base model and five strategies' models."""
    for seed, name in enumerate(("base", *STRATEGIES)):
        write_model(cohort, name, seed)
    return cohort


@pytest.fixture
def answers(monkeypatch):
    """What each model answers, by name: a function from rows to emotions; others are wrong."""
    known = {}

    def judge(_module, spec, validation, by, min_n, _device, _batch_size):
        rows = validation.rows
        assert set(rows["split"]) == {"validation"}
        said = known.get(spec.source, right_for())(rows)
        return score_groups(rows, said, by, min_n)

    monkeypatch.setattr(stage, "score_by_group", judge)
    return known


def right_for(*bands, emotions=LABELS):
    """Answers that are right for these age bands and emotions and wrong for the rest."""
    wrong = {"anger": "happiness", "happiness": "neutral", "neutral": "anger"}

    def answer(rows):
        right = rows["age_band"].isin(bands) & rows["emotion"].isin(emotions)
        return rows["emotion"].where(right, rows["emotion"].map(wrong)).to_numpy()

    return answer


def state(paths, name):
    return load_file(paths.model(name) / "model.safetensors")


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_ends_are_the_two_models_bit_for_bit_and_between_is_a_line(models):
    base, naive = state(models, "base"), state(models, "naive")
    assert same(interpolate_stage.lerp_state_dict(base, naive, 0.0), base)
    assert same(interpolate_stage.lerp_state_dict(base, naive, 1.0), naive)
    quarter = interpolate_stage.lerp_state_dict(base, naive, 0.25)
    for name in ("stem.0.weight", "stem.1.running_mean", "stem.1.running_var", "head.bias"):
        expected = 0.75 * base[name].numpy() + 0.25 * naive[name].numpy()
        assert np.allclose(quarter[name].numpy(), expected, atol=1e-6)
    assert same(base, state(models, "base"))  # neither end was changed


@pytest.mark.parametrize(("best", "end"), [(0, "base"), (4, "naive"), (2, None)])
def test_the_coefficient_is_the_one_with_the_best_worst_group(models, monkeypatch, best, end):
    """Each coefficient's own weights are judged, and those of the best are kept."""
    tried = []

    def judge(module, _spec, validation, by, min_n, *_):
        tried.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        index = len(tried) - 1
        said = right_for("child", "adult") if index == best else right_for("adult")
        return score_groups(validation.rows, said(validation.rows), by, min_n)

    monkeypatch.setattr(interpolate_stage, "score_by_group", judge)
    result = interpolate_stage.run(between_params(), models)
    assert result.metrics["coefficient"] == best / 4
    kept = state(models, "interpolate")
    assert same(tried[best], kept)
    assert end is None or same(kept, state(models, end))
    assert same(tried[0], state(models, "base"))
    assert same(tried[4], state(models, "naive"))
    table = pd.read_csv(models.model("interpolate") / "coefficients.csv")
    assert list(table["coefficient"]) == [0, 0.25, 0.5, 0.75, 1]
    assert list(table.index[table["chosen"]]) == [best]
    assert table["worst_recall_score"].max() == table.loc[best, "worst_recall_score"] == 1


def test_interpolation_remembers_what_its_end_saw_and_what_chose_it(models):
    write_model(models, "naive", 1, seen=[["000", "made/00", "finetune", "train"]])
    interpolate_stage.run(between_params(), models)
    seen = load_seen(models.model("interpolate"))
    table = read_table(models.split)
    chose = seen[seen["stage"] == "interpolate"]
    assert set(chose["role"]) == {"validation"}
    assert set(chose["image_id"]) == set(table.loc[table["split"] == "validation", "image_id"])
    assert "000" in set(seen["image_id"])
    assert (models.model("interpolate") / "crop.json").is_file()
    assert not list(models.at("work").glob("interpolate/*"))


def test_nothing_is_mixed_where_the_other_end_was_skipped(models):
    write_skipped(models.model("naive"), Skipped("finetune.strategies does not name naive", LABELS))
    interpolate_stage.run(between_params(), models)
    assert "does not name naive" in read_skipped(models.model("interpolate")).reason


def test_the_worst_group_decides_and_not_the_mean(models, answers):
    answers["base"] = right_for("adult")
    answers["naive"] = right_for("child", emotions=("anger", "happiness"))
    answers["replay"] = right_for("child", "adult", emotions=("anger",))  # a third of everybody
    answers["distill"] = right_for("child", "adult", emotions=("anger", "neutral"))
    result = stage.run(CHOOSE, models)
    assert same(state(models, "finetuned"), state(models, "distill"))
    spec = load_spec(models.model("finetuned"))
    assert spec.source == "chosen on validation pictures: distill; distill"
    assert spec.version == load_spec(models.model("distill")).version
    table = pd.read_csv(models.tables / "choice.csv")
    assert set(table.loc[table["chosen"], "strategy"]) == {"distill"}
    worst = table[table["worst"]].set_index("strategy")
    assert (worst["group"]["base"], worst["group"]["naive"]) == ("child", "adult")
    row = worst.loc["distill"]
    assert row["advantage"] == pytest.approx(2 / 3, abs=1e-5) and row["as_good"]
    assert row["advantage"] > row["threshold"] == 2 * row["advantage_se"]
    assert row["recall_score_corrected"] == pytest.approx(row["recall_score"] - row["optimism"])
    assert "corrected for being chosen by it" in result.summary


def test_of_equally_good_strategies_the_one_that_departs_least_from_base_is_kept(models, answers):
    for name in ("naive", "replay", "distill"):
        answers[name] = right_for("adult", "child")
    answers["head"] = right_for("adult")  # no better in the worst group
    stage.run(CHOOSE, models)
    assert same(state(models, "finetuned"), state(models, "distill"))


def test_a_better_mean_alone_does_not_replace_the_base_model(models, answers):
    answers["head"] = right_for("adult")  # children are at 0 with every model
    stage.run(CHOOSE, models)
    assert same(state(models, "finetuned"), state(models, "base"))


def test_the_best_of_several_epochs_is_no_advantage_by_that_alone(models, answers):
    """A score that one epoch of many had by luck is judged by the epochs beside it."""
    wrong = {"anger": "happiness", "happiness": "neutral", "neutral": "anger"}

    def answer(rows):
        right = (rows["age_band"] == "adult") | (rows.index == _first(rows))
        return rows["emotion"].where(right, rows["emotion"].map(wrong)).to_numpy()

    answers["base"], answers["naive"] = right_for("adult"), answer
    epochs = "".join(f"{epoch},1,1,{score},0\n" for epoch, score in enumerate((1 / 6, 0, 0, 0)))
    history = f"{','.join(HISTORY_COLUMNS)}\n{epochs}"
    (models.model("naive") / "history.csv").write_text(history)
    stage.run(CHOOSE, models)
    table = pd.read_csv(models.tables / "choice.csv")
    row = table[(table["strategy"] == "naive") & table["worst"]].iloc[0]
    assert row["recall_score"] == pytest.approx(1 / 6, abs=1e-5)
    assert row["advantage"] < 0.6 * row["recall_score"]  # base is at 0


def _first(rows):
    return rows.index[rows["age_band"] == "child"][0]


def test_the_base_model_is_kept_where_every_strategy_does_worse(models, answers):
    answers["base"] = right_for("adult", "child", emotions=("anger",))
    answers["naive"] = right_for("child")
    result = stage.run(CHOOSE, models)
    assert same(state(models, "finetuned"), state(models, "base"))
    source = load_spec(models.model("finetuned")).source
    assert "no strategy is better by more than its error" in source
    assert pd.read_csv(models.model("finetuned") / "history.csv").empty
    assert result.summary.startswith("base of base, head, interpolate")
    assert "no strategy is better by more than its error (nearest: " in result.summary


def test_the_test_split_has_no_say(models):
    """Every test picture gets another label: scores and choice stay. On validation they do not."""

    def outcome():
        stage.run(CHOOSE, models)
        return (models.tables / "choice.csv").read_bytes(), state(models, "finetuned")

    before, kept = outcome()
    table = read_table(models.split)
    for split, same_choice in (("test", True), ("validation", False)):
        emotion = table["emotion"].mask(table["split"] == split, "neutral")
        write_table(table.assign(emotion=emotion), models.split)
        after, now = outcome()
        assert (after == before) is same_choice, split
        assert not same_choice or same(now, kept)


def test_every_validation_image_of_the_choice_is_named_as_seen(models, answers):
    write_model(models, "replay", 3, seen=[["000", "made/00", "finetune", "train"]])
    answers["replay"] = right_for("child", "adult")
    stage.run(CHOOSE, models)
    seen = load_seen(models.model("finetuned"))
    table = read_table(models.split)
    chose = seen[seen["stage"] == "choose"]
    assert set(chose["image_id"]) == set(table.loc[table["split"] == "validation", "image_id"])
    assert "000" in set(seen["image_id"])
    assert load_seen(models.model("replay"))["stage"].tolist() == ["finetune"]


def test_choice_table_has_every_groups_recall_with_its_interval(models, answers):
    answers["head"] = right_for("child", emotions=("anger", "neutral"))
    write_skipped(models.model("naive"), Skipped("left out", LABELS))
    stage.run(CHOOSE, models)
    table = pd.read_csv(models.tables / "choice.csv")
    row = table[(table["strategy"] == "head") & (table["group"] == "child")].iloc[0]
    assert (row["dimension"], row["n"], row["subjects"], row["correct"]) == ("age_band", 6, 2, 4)
    low, high = proportion_confint(2 * 4 / 6, 2, 0.1, "wilson")  # both people are read alike
    assert (row["recall"], row["ci_low"], row["ci_high"]) == pytest.approx((4 / 6, low, high), 1e-5)
    assert row["recall_score"] == pytest.approx(2 / 3, abs=1e-5)
    assert "each person counted once" in row["method"]
    skipped = table[table["strategy"] == "naive"]
    assert skipped["note"].tolist() == ["left out"]
    assert skipped["n"].isna().all()


@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_intervals_of_the_choice_hold_what_they_promise_of_new_people(alike):
    """Of 10 people with 14 pictures each; counted by picture they hold 95 % or 59 % of the time."""
    rng = np.random.default_rng(0)
    truth, people, images = 0.7, 10, 14
    subjects = pd.Series(np.repeat(np.arange(people), images))
    held, effective_n = [], []
    for _ in range(400):
        spread = 1 / alike - 1 if alike else 1e9  # of a beta distribution, by its correlation
        share = rng.beta(truth * spread, (1 - truth) * spread, people)
        right = rng.random(people * images) < share.repeat(images)
        row = {"n": len(right), "subjects": people, "known_n": len(right), "correct": right.sum()}
        scored = pd.DataFrame([row | {"worth": effective_sample_size(right, subjects)}])
        found = add_wilson_intervals(scored, 0.95).iloc[0]
        held.append(found["ci_low"] <= truth <= found["ci_high"])
        effective_n.append(found["effective_n"])
    assert 0.92 <= np.mean(held) <= 0.995
    assert max(effective_n) < people * images


def test_choice_says_where_it_is_not_known_who_is_on_the_images(models, answers):
    answers["head"] = right_for("child", emotions=("anger",))
    table = read_table(models.split)
    child = table["age_band"] == "child"
    own = table["subject_id"].mask(child, table["image_id"])
    write_table(table.assign(subject_id=own, subject_known=~child), models.split)
    stage.run(CHOOSE, models)
    method = pd.read_csv(models.tables / "choice.csv").groupby("group")["method"].unique()
    assert all("is not known" in text for text in method["child"])
    assert all("is not known" not in text for text in method["adult"])


def test_small_and_unknown_groups_are_shown_but_do_not_decide():
    rows = pd.DataFrame(
        {
            "emotion": ["anger", "neutral"] * 4,
            "age_band": ["adult"] * 4 + ["child"] + ["unknown", None, None],
            "subject_id": list("abcdefgh"),
            "subject_known": True,
        }
    )
    said = np.array(["anger"] * 4 + ["neutral"] * 4)
    verdict = score_groups(rows, said, ["age_band"], min_n=2)
    assert (verdict.worst_group, verdict.worst) == ("age_band adult", 0.5)
    assert verdict.groups.set_index("group")["counts"].to_dict() == {
        "adult": True,
        "child": False,
        "unknown": False,
    }
    alone = score_groups(rows, said, ["age_band"], min_n=5)
    assert (alone.worst_group, len(alone.groups)) == ("all", 4)


def test_a_group_column_that_is_not_there_is_named(models):
    with pytest.raises(ParamsError, match=r"choose\.by: .*'shoe_size'"):
        stage.run(CHOOSE.model_copy(update={"by": ["shoe_size"]}), models)


def test_nothing_fine_tuned_keeps_the_base_folder_and_says_so(models):
    """As with an ONNX base model: nothing is asked, whatever the folder holds is copied."""
    for name in STRATEGIES:
        write_skipped(models.model(name), Skipped("the base model cannot be trained", LABELS))
    (models.model("base") / "model.onnx").write_bytes(b"weights of another kind")
    spec = json.loads((models.model("base") / "model.json").read_text())
    (models.model("base") / "model.json").write_text(json.dumps(spec | {"architecture": "onnx"}))
    result = stage.run(CHOOSE, models)
    assert (models.model("finetuned") / "model.onnx").read_bytes() == b"weights of another kind"
    assert load_spec(models.model("finetuned")).source.startswith("nothing was fine-tuned")
    assert "nothing was fine-tuned" in result.summary
    assert load_seen(models.model("finetuned")).empty
    table = pd.read_csv(models.tables / "choice.csv")
    assert table.loc[table["chosen"], "strategy"].tolist() == ["base"]
    assert set(table.loc[~table["chosen"], "note"]) == {"the base model cannot be trained"}
