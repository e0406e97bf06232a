"""`affectgap predict` takes any model that a run evaluates by its name."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_up_model import compact_spec

from flows.predict import predict
from flows.predict.predict import Request, model_note, predict_faces
from tasks.core.errors import ModelError, UserError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import SEEN_COLUMNS, Skipped, save_model, write_skipped
from tasks.core.paths import EVALUATED, Paths
from tasks.register import registry

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml")
    return Paths(tmp_path)


def complaint(paths, model):
    with pytest.raises(ModelError) as error:
        next(predict_faces(paths, Request((Path("x.jpg"),), model, explain=False, out=None)))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("model", EVALUATED)
def test_every_evaluated_model_is_looked_for_below_models(project, model):
    assert complaint(project, model).startswith(f"{project.model(model) / 'model.json'}: no model")


def test_the_model_in_use_is_read_from_the_registry_and_another_one_said(project, monkeypatch):
    with pytest.raises(UserError, match="no model is in use"):
        next(predict_faces(project, Request((Path("x.jpg"),), "champion", explain=False, out=None)))
    module = build_module("compact", 2, 3, 32)
    spec = compact_spec(("anger", "fear"))
    seen = pd.DataFrame({name: [] for name in SEEN_COLUMNS})
    made = save_model(project.model("finetuned"), module, spec, seen).version
    assert model_note(project, "finetuned") == ""  # there is no store yet
    monkeypatch.setattr(predict, "has_store", lambda paths: True)
    version = SimpleNamespace(number=3, digest=made)
    monkeypatch.setattr(registry, "champion", lambda paths: version)
    monkeypatch.setattr(registry, "fetch", lambda paths, number: project.at(f"version-{number}"))
    assert model_note(project, "finetuned") == ""
    version.digest = "another"
    told = model_note(project, "finetuned")
    assert "is not the model in use, version 3 (another); --model champion uses" in told
    assert model_note(project, "base") == ""
    assert complaint(project, "champion").startswith(f"{project.at('version-3/model.json')}: no")


def test_a_strategy_that_was_skipped_is_one_line_that_says_why(project):
    write_skipped(project.model("head"), Skipped("finetune.strategies does not name head", ()))
    said = complaint(project, "head")
    assert said.endswith("there is no such model, since finetune.strategies does not name head")
