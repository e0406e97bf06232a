"""The stages study_choose and study_test: tables, the winner's params, and the test split."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from study_world import TRAIN, World, make_project, settings

from flows.study.dvc_stages import TEST_KEYS
from tasks.core.errors import DataError
from tasks.core.models import predictor
from tasks.core.paths import Paths
from tasks.study import stage, test_evaluation
from tasks.study.plan import progress
from tasks.study.results import mean_recall_score
from tasks.study.stage import chosen_text
from tasks.study.test_evaluation import level_of

SKILLS = {"lenet5": -1.0, "compact": 1.1, "mobilenet_v3_small": 0.95, "mse": -0.9, "sgd": -1.0}
TEXT = """\
train:
  group: {age_band: [adult]}  # which pictures
  backbone: compact       # a network
  loss:
    name: cross_entropy   # a loss
    smoothing: 0.1        # its smoothing
  learning_rate: 0.001    # of Adam
  weights: some/model     # or null
evaluate:
  backbone: other         # not this one
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    params = settings()
    results = make_project(root, params, World(SKILLS))
    result = stage.run(stage.Params.model_validate(params.model_dump()), Paths(root))
    return root, params, results, result


def table(made, name):
    return pd.read_csv(made[0] / f"study/tables/{name}.csv", keep_default_na=False)


def test_the_tables_say_what_the_plan_decided(made):
    root, params, results, result = made
    found = progress(params, TRAIN, results)
    assert table(made, "choices")["chosen"].to_list() == [d.choice.name for d in found.decisions]
    runs = table(made, "runs")
    assert runs["key"].to_list() == [run.key for run in found.runs]
    assert runs["new_epochs"].sum() == result.metrics["epochs"]
    arms = table(made, "arms").query("last")
    assert arms["chosen"].sum() == 3 and len(arms) == 3 + 6 + 12
    displayed = arms[(arms["round"] == "optimizers") & arms["best_rate"]]
    assert sorted(displayed["optimizer"]) == sorted(params.optimizers)
    winners = json.loads((root / "study/tables/winners.json").read_text())
    assert winners == [f"backbones-compact-s{seed}-e12" for seed in (1, 2, 3)]


def test_machine_settings_are_not_stored(made):
    stored = json.loads((made[0] / "study/tables/study.json").read_text())["settings"]
    assert "max_parallel" not in stored and stored["epochs"] == 12


def test_every_arm_has_its_longest_curve_in_every_round(made):
    curves = table(made, "curves")
    longest = curves.groupby(["round", "arm", "seed"])["epoch"].agg(["max", "size"])
    assert (longest["max"] == longest["size"]).all()
    assert longest.loc[("losses", "cross_entropy", 2), "max"] == 12
    assert longest.loc[("backbones", "lenet5", 1), "max"] == 3
    assert ("backbones", "lenet5", 2) not in longest.index


def test_chosen_params_are_the_winners_and_parse(made):
    root, params, _, _ = made
    chosen = yaml.safe_load((root / "study/chosen.yaml").read_text())
    assert chosen["study"] == params.model_dump()
    changed = {"weights": None, "subset": {}, "epochs": 12, "checkpoint": "last", "seed": 1}
    assert chosen["train"] == {**TRAIN, **changed}


def test_comments_of_the_params_stay():
    recipe = {
        "subset": {},
        "backbone": "timm/resnet18",
        "loss": {"name": "mse", "smoothing": 0.1},
        "learning_rate": 1e-05,
        "weights": None,
    }
    text = chosen_text(TEXT, recipe)
    assert yaml.safe_load(text)["train"] == recipe
    assert yaml.safe_load(text)["evaluate"] == {"backbone": "other"}
    lines = text.splitlines()
    assert (
        "  learning_rate: 1.0e-05  # of Adam" in lines
        and "    name: mse             # a loss" in lines
    )
    assert "    smoothing: 0.1        # its smoothing" in lines


def test_a_block_style_group_is_replaced():
    several = "train:\n  group:\n    age_band: [adult]\n"
    assert yaml.safe_load(chosen_text(several, {"subset": {}})) == {"train": {"subset": {}}}


def test_runs_that_are_missing_are_named(tmp_path):
    params = settings()
    make_project(tmp_path, params, World(SKILLS))
    (tmp_path / "study/results/backbones-compact-s2-e12/result.json").unlink()
    with pytest.raises(DataError, match="not trained yet: backbones-compact-s2-e12"):
        stage.run(stage.Params.model_validate(params.model_dump()), Paths(tmp_path))


def test_runs_of_another_recipe_choose_nothing(tmp_path):
    params = settings()
    make_project(tmp_path, params, World(SKILLS))
    before = tmp_path / "params.yaml"
    content = yaml.safe_load(before.read_text())
    content["train"]["batch_size"] = 8
    before.write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="backbones-lenet5-s1-e3 was trained with another recipe"):
        stage.run(stage.Params.model_validate(params.model_dump()), Paths(tmp_path))
    assert not (tmp_path / "study/chosen.yaml").exists()


class Fixed:
    """A recognizer that answers by a rule and counts the crops."""

    def __init__(self, wrong):
        self.labels, self.device, self.wrong, self.shown = ("anger", "fear"), None, wrong, 0

    def predict(self, crops):
        self.shown += len(crops)
        fear = crops[:, 0, 0, 0] > 0
        flip = crops[:, 0, 0, 1] < self.wrong
        return np.column_stack([fear == flip, fear != flip]).astype(float)


@pytest.fixture
def tested(tmp_path, monkeypatch):
    """A function that runs the test stage with models of a version; and the split table."""
    rows, crops = [], []
    for place in range(200):
        split, emotion = ("train", "test")[place % 2], ("anger", "fear", "pain")[place % 10 // 4]
        person, band = f"s{place // 4}", ("child", "adult")[place // 4 % 2]
        rows.append((f"{place}", person, True, emotion, band, "female", split))
        crops.append(np.full((2, 2, 3), (emotion == "fear", place, 0), dtype=np.uint8))
    columns = ["image_id", "subject_id", "subject_known", "emotion", "age_band", "gender", "split"]
    split = pd.DataFrame(rows, columns=columns)
    monkeypatch.setattr(test_evaluation, "make_deterministic", lambda device: None)
    monkeypatch.setattr(test_evaluation, "read_table", lambda path: split)
    read = lambda part, folder: iter([crops[int(i)] for i in part["image_id"]])  # noqa: E731
    monkeypatch.setattr(test_evaluation, "read_crops", read)
    seen = pd.DataFrame({"subject_id": ["s0", "s1"]})
    monkeypatch.setattr(test_evaluation, "load_seen", lambda folder: seen)
    (tmp_path / "study/tables").mkdir(parents=True)
    (tmp_path / "study/tables/winners.json").write_text(json.dumps(["a", "b"]))
    (tmp_path / "params.yaml").write_text("device: cpu")
    params = settings(seeds=[1, 2], halving=None)
    # The stage may read no other keys, since DVC tracks only these.
    read = {key: getattr(params, key) for key in TEST_KEYS}

    def ask(version="v1", wrong=(40, 80)):
        models = [Fixed(value) for value in wrong]
        given = iter(models)
        monkeypatch.setattr(predictor.EmotionClassifier, "load", lambda *_: next(given))
        monkeypatch.setattr(
            test_evaluation, "load_spec", lambda folder: SimpleNamespace(version=version)
        )
        return test_evaluation.run(
            test_evaluation.Params.model_construct(**read), Paths(tmp_path)
        ), models

    return SimpleNamespace(ask=ask, split=split, params=params, seen=seen, root=tmp_path)


def looks(tested):
    path = tested.root / "study/test_looks.csv"
    return pd.read_csv(path, keep_default_na=False).to_dict("records")


def interval(tested):
    found = pd.read_csv(tested.root / "study/test.csv")
    return found[["value", "ci_low", "ci_high"]].to_numpy()


def test_every_winner_that_is_tested_is_one_look_and_later_intervals_are_wider(tested):
    tested.ask()
    first = interval(tested)
    (look,) = looks(tested)
    assert (look["look"], look["winner"], look["pictures"], look["people"]) == (1, "a b", 80, 50)
    assert look["mean_recall"] == pytest.approx(first[0, 0], abs=1e-5)
    tested.ask()  # the same models and images are the same look
    assert looks(tested) == [look] and np.array_equal(interval(tested), first)
    tested.ask("v2")
    second = interval(tested)
    assert np.array_equal(second[:, 0], first[:, 0])
    assert (second[:, 1] <= first[:, 1]).all() and (second[:, 2] >= first[:, 2]).all()
    assert (second[:, 2] - second[:, 1]).sum() > 1.02 * (first[:, 2] - first[:, 1]).sum()
    assert [row["look"] for row in looks(tested)] == [1, 2] and looks(tested)[0] == look
    (tested.root / "study/test.csv").unlink()  # as DVC does before it reruns a stage
    tested.ask()
    assert np.array_equal(interval(tested), first) and len(looks(tested)) == 2
    method = pd.read_csv(tested.root / "study/test.csv")["method"]
    assert method.str.contains("look 1 at test images: each interval has the level 96.96 %").all()


def test_other_test_images_are_another_look(tested):
    tested.ask()
    tested.split.loc[tested.split["image_id"] == "1", "emotion"] = "fear"
    tested.ask()
    assert [row["look"] for row in looks(tested)] == [1, 2]


def test_a_ledger_with_a_missing_row_is_one_line(tested):
    tested.ask()
    tested.ask("v2")
    path = tested.root / "study/test_looks.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2]]))
    with pytest.raises(DataError, match=r"test_looks\.csv: looks are missing or changed; restore"):
        tested.ask("v3")


def test_the_errors_of_all_looks_add_up_to_what_one_may_have():
    errors = [1 - level_of(look, 0.95) for look in range(1, 20_000)]
    assert sum(errors) == pytest.approx(0.05, rel=1e-4) and sum(errors) < 0.05
    assert errors == sorted(errors, reverse=True)


def test_the_test_split_is_asked_once_a_model_and_nothing_else_is(tested):
    split, params, seen, tmp_path = tested.split, tested.params, tested.seen, tested.root
    result, models = tested.ask()
    part = split[(split["split"] == "test") & (split["emotion"] != "pain")].reset_index(drop=True)
    assert [model.shown for model in models] == [len(part)] * 2
    right = np.array([[int(i) >= wrong for wrong in (40, 80)] for i in part["image_id"]])
    at_level = params.model_copy(update={"confidence": level_of(1, params.confidence)})
    expected = mean_recall_score(part, right, at_level)
    found = pd.read_csv(tmp_path / "study/test.csv").set_index(["dimension", "group", "measure"])
    row = found.loc[("all", "all", "mean_recall")]
    assert row["value"] == pytest.approx(expected.mean, rel=1e-5)
    assert row["ci_low"] == pytest.approx(expected.ci_low, rel=1e-5)
    assert result.metrics["test_accuracy"] == pytest.approx(right.mean())
    also = int(part["subject_id"].isin(seen["subject_id"]).sum())
    assert row["also_trained_on"] == also > 0
    assert row["left_out"] == (split["split"] == "test").sum() - len(part)
    assert {("age_band", "child"), ("gender", "female")} <= {key[:2] for key in found.index}
