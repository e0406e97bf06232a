"""Explanations of earlier runs: found for the same model and crop alone, and bit for bit."""

import shutil

import numpy as np
import pytest
import torch
from explain_world import OUTS, make_project, params

from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, load_spec, save_model
from tasks.core.tables import read_table, write_table
from tasks.explain import parallel_explain
from tasks.explain.lime_explainer import LimeExplanation, explain_image
from tasks.explain.parallel_explain import from_bytes, to_bytes
from tasks.explain.stage import run


@pytest.fixture
def explained(monkeypatch) -> list[str]:
    """Ids of the pictures that were explained, in this process."""
    ids: list[str] = []

    def spy(recognizer, crop, settings, emotion, key):
        ids.append(key)
        return explain_image(recognizer, crop, settings, emotion, key)

    monkeypatch.setattr(parallel_explain, "explain_image", spy)
    return ids


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


def outputs(paths) -> list[bytes]:
    return [paths.at(out).read_bytes() for out in OUTS]


def test_an_explanation_comes_back_bit_for_bit():
    rng = np.random.default_rng(0)
    weights = np.array([0.1, -1 / 3, 0.0, -0.0])
    image = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    segments = rng.integers(0, 4, (5, 5))
    before = LimeExplanation("fear", 1 / 3, image, segments, weights, 0.7, float("nan"))
    after = from_bytes(to_bytes(before))
    for name in ("image", "segments", "weights"):
        old, new = getattr(before, name), getattr(after, name)
        assert (old.dtype, old.shape, old.tobytes()) == (new.dtype, new.shape, new.tobytes())
    assert (after.emotion, after.probability, after.r2) == ("fear", 1 / 3, 0.7)
    assert np.isnan(after.r2_adjusted)


def test_a_second_run_explains_nothing_and_writes_the_same_bytes(project, explained):
    run(params(), project, "base")
    first, n = outputs(project), len(explained)
    run(params(), project, "base")
    assert (outputs(project), len(explained)) == (first, n)
    shutil.rmtree(project.at("work/kept"))
    run(params(), project, "base")
    assert (outputs(project), len(explained)) == (first, 2 * n)


def test_one_more_image_is_the_only_one_explained(project, explained):
    predictions = read_table(project.predictions("base"))
    held_out = predictions.index[~predictions["seen_in_training"]]
    write_table(predictions.drop(index=held_out[0]), project.predictions("base"))
    run(params(), project, "base")
    explained.clear()
    write_table(predictions, project.predictions("base"))
    run(params(), project, "base")
    assert explained == [predictions["image_id"][held_out[0]]]


def test_another_model_or_another_setting_explains_everything_again(project, explained):
    run(params(), project, "base")
    n = len(explained)
    run(params(num_samples=31), project, "base")
    assert len(explained) == 2 * n
    torch.manual_seed(1)
    spec = load_spec(project.model("base"))
    save_model(project.model("base"), build_module("lenet5", 3, 3), spec, empty_seen_table())
    before = outputs(project)
    run(params(num_samples=31), project, "base")
    assert len(explained) == 3 * n
    assert outputs(project) != before


def test_a_damaged_entry_is_explained_again(project, explained):
    run(params(), project, "base")
    first, n = outputs(project), len(explained)
    file = project.at("work/kept/explain-base.sqlite")
    content = bytearray(file.read_bytes())
    at = content.index(b'["happiness"')
    content[at + 60] ^= 1
    file.write_bytes(content)
    run(params(), project, "base")
    assert (outputs(project), len(explained)) == (first, n + 1)
