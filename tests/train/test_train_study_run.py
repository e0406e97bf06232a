"""One training of a study: in rungs as in one go, its files, and what stops it beforehand."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

from tasks.core.errors import DataError, DownloadError, ModelError, ParamsError, UserError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import load_model, load_seen
from tasks.core.tables import read_table, write_table
from tasks.core.training import fit, training_state
from tasks.core.training.validation import mean_recall_score
from tasks.train import trial
from tasks.train.trial import check_names, check_recipe, check_trainable


@pytest.fixture
def planned(train_params):
    """Content of a run's file, with overrides of its section `train`."""

    def make(until: int, **changed) -> trial.Params:
        train = train_params(epochs=4, subset={}, checkpoint="last", **changed)
        facts = {"round": "backbones", "arm": train.backbone, "seed": train.seed, "until": until}
        return trial.Params(**facts, train=train)

    return make


def train(paths, params, slug="backbones-x-s1"):
    key = f"{slug}-e{params.until}"
    result = trial.run(params, paths, key)
    facts = json.loads((paths.study_result(key) / "result.json").read_text())
    return result, facts, paths.study_result(key)


def test_rungs_end_with_the_bits_of_one_go_without_progress(cohort, planned, monkeypatch):
    _, _, straight = train(cohort, planned(4), "backbones-straight-s1")
    epochs = []
    real = training_state.save_progress
    monkeypatch.setattr(fit, "save_progress", lambda *a: (epochs.append(a[1].epoch), real(*a)))
    _, first, halfway = train(cohort, planned(2))
    assert first["until"] == first["kept_epoch"] == 2
    assert not (halfway / "model").exists()
    assert len(pd.read_csv(halfway / "history.csv")) == 2
    _, facts, end = train(cohort, planned(4))
    assert epochs == [1, 2, 3, 4]  # each was trained once
    for file in ("model/model.safetensors", "history.csv", "validation.csv"):
        assert sha256_of(end / file) == sha256_of(straight / file), file
    assert facts["train_seconds"] > first["train_seconds"] > 0
    assert not list(cohort.at("work/study").iterdir())  # progress is cleared away


def test_the_files_say_what_the_model_answers(cohort, planned):
    result, facts, folder = train(cohort, planned(4))
    answers = pd.read_csv(folder / "validation.csv", dtype="str")
    table = read_table(cohort.split)
    assert set(answers["image_id"]) == set(table.loc[table["split"] == "validation", "image_id"])
    truth, said = answers["emotion"].to_numpy(), answers["y_pred"].to_numpy()
    assert facts["valid_recall_score"] == pytest.approx(mean_recall_score(truth, said))
    assert facts["valid_accuracy_score"] == pytest.approx(float(np.mean(truth == said)))
    module, spec = load_model(folder / "model")
    assert facts["parameters"] == sum(weight.numel() for weight in module.parameters())
    assert set(answers["y_pred"]) <= set(spec.labels)
    assert set(load_seen(folder / "model")["role"]) == {"train", "validation"}
    history = pd.read_csv(folder / "history.csv")
    assert [epoch for epoch, _ in result.series["valid_recall_score"]] == list(history["epoch"])
    assert facts["failed"] is None
    assert (folder / "model" / "crop.json").is_file()


def test_a_training_that_diverges_is_a_result_and_no_failure(cohort, planned):
    wild = planned(2, learning_rate=1e12, schedule="constant")
    result, facts, folder = train(cohort, wild)
    assert "diverged" in facts["failed"]
    assert "\n" not in facts["failed"]
    assert result.metrics == {"failed": 1.0}
    assert len(pd.read_csv(folder / "history.csv")) == 0
    assert list(pd.read_csv(folder / "validation.csv"))[-1] == "y_pred"
    files = {path.name for path in folder.iterdir()}
    assert files == {"result.json", "history.csv", "validation.csv"}


def test_a_runs_file_is_read_as_it_was_written(cohort, planned):
    path = cohort.study_run("backbones-x-s1-e2")
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(planned(2).model_dump(mode="json")))
    assert trial.load_run(cohort, "backbones-x-s1-e2") == planned(2)


@pytest.mark.parametrize("key", ["backbones-x-s1-e9", "../runs/backbones-x-s1-e2", "params"])
def test_a_run_that_is_not_planned_is_one_line(cohort, key):
    with pytest.raises(UserError, match="affectgap study"):
        trial.load_run(cohort, key)


def test_a_run_cannot_stop_after_its_end(planned):
    with pytest.raises(ValueError, match="beyond the last epoch"):
        planned(5)


@pytest.mark.parametrize(
    ("losses", "optimizers", "said"),
    [
        (["mse", "focal"], ["adam"], r"study\.losses: there is no 'focal'; .*multi_margin"),
        (["mse"], ["lion"], r"study\.optimizers: there is no 'lion'; .*ranger"),
    ],
)
def test_unknown_names_are_found_before_anything_is_trained(losses, optimizers, said):
    with pytest.raises(ParamsError, match=said):
        check_names(losses, optimizers)


def recipes(train_params, **changed):
    return [train_params(subset={}, **changed).model_dump()]


def test_what_stops_a_run_is_found_before_anything_is_trained(cohort, train_params, monkeypatch):
    monkeypatch.setenv("AFFECTGAP_CACHE", str(cohort.root / "none"))
    monkeypatch.delenv("AFFECTGAP_ASSETS", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    check_trainable(recipes(train_params), cohort)
    with pytest.raises(ModelError, match=r"study\.backbones, resnet5: there is no network"):
        check_trainable(recipes(train_params, backbone="resnet5"), cohort)
    with pytest.raises(UserError, match=r"study\.backbones, lenet5: .*ImageNet") as error:
        check_trainable(recipes(train_params, init="imagenet"), cohort)
    assert "\n" not in str(error.value)
    with pytest.raises(DownloadError, match=r"study\.backbones, resnet18: .*put it at") as error:
        check_trainable(recipes(train_params, backbone="resnet18", init="imagenet"), cohort)
    assert "\n" not in str(error.value)
    with pytest.raises(ParamsError, match=r"train\.batch_size"):
        check_recipe({**recipes(train_params)[0], "batch_size": 1}, cohort)


def test_a_study_needs_two_emotions_and_images_to_test(cohort, train_params):
    table = read_table(cohort.split)
    write_table(table[table["emotion"] == "anger"], cohort.split)
    with pytest.raises(DataError, match=r"study\.subset: .*two emotions are needed"):
        check_trainable(recipes(train_params), cohort)
    write_table(table[table["split"] != "test"], cohort.split)
    with pytest.raises(UserError, match=r"study\.subset \(test split\)|no test picture"):
        check_trainable(recipes(train_params), cohort)
