"""`affectgap predict` takes any model that a run evaluates by its name."""

import shutil
from pathlib import Path

import pytest

from flows.predict import Request, predict_faces
from tasks.core.errors import ModelError
from tasks.core.paths import EVALUATED, Paths
from tasks.core.skipped import Skipped, write_skipped

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


def test_a_strategy_that_was_skipped_is_one_line_that_says_why(project):
    write_skipped(project.model("head"), Skipped("finetune.strategies does not name head", ()))
    said = complaint(project, "head")
    assert said.endswith("there is no such model, since finetune.strategies does not name head")
