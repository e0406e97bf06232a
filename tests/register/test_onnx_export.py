"""ONNX export: it matches the model, and this project can read it."""

import json
import shutil

import numpy as np
import pytest
from registered_project import CROP, LABELS, write_small_model

from tasks.core.models.checkpoint import empty_seen_table, load_model, save_model
from tasks.core.models.device import choose_device
from tasks.core.models.onnx_model import read_onnx
from tasks.core.models.predictor import EmotionClassifier
from tasks.register import onnx_export
from tasks.register.onnx_export import export_beside

# Those that are left out here take long; each export is compared with its model anyway.
BACKBONES = ("mobilenet_v1", "mobilenet_v3_small", "mobilenet_v3_large", "lenet5", "mini_xception")
BACKBONES += ("resnet18", "resnet50", "efficientnet_b0")


def answers(module, spec, crops):
    return EmotionClassifier(spec, module, choose_device("cpu"), batch_size=5).predict(crops)


def difference(folder):
    """Largest difference of a probability for seven crops in batches of 5 and 2."""
    random = np.random.default_rng(1)
    colors = random.integers(0, 128, (7, 1, 1, 3), dtype=np.uint8)
    crops = colors + random.integers(0, 128, (7, 96, 96, 3), dtype=np.uint8)
    here = answers(*load_model(folder), crops)
    there = answers(*read_onnx(folder / "onnx" / "model.onnx"), crops)
    assert np.ptp(here, axis=0).max() > 0
    return np.abs(here - there).max()


def test_the_export_answers_as_the_model_and_says_what_it_takes(tmp_path):
    spec = write_small_model(tmp_path / "model", seed=4)
    assert export_beside(tmp_path / "model") == "exported"
    assert difference(tmp_path / "model") <= 1e-4
    content = json.loads((tmp_path / "model" / "onnx" / "input.json").read_text())
    assert content["model_version"] == spec.version and content["output"]["labels"] == list(LABELS)
    assert content["input"]["input_size_px"] == 64 and content["crop"]["margin"] == CROP.margin


@pytest.mark.long
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_exports(tmp_path, backbone):
    write_small_model(tmp_path / "model", 5, backbone)
    assert export_beside(tmp_path / "model") == "exported"
    assert difference(tmp_path / "model") <= 1e-4


def test_what_is_an_onnx_file_is_copied(tmp_path):
    write_small_model(tmp_path / "first", seed=4)
    export_beside(tmp_path / "first")
    network, spec = read_onnx(tmp_path / "first" / "onnx" / "model.onnx")
    save_model(tmp_path / "model", network, spec, empty_seen_table())
    shutil.copy(tmp_path / "first" / "crop.json", tmp_path / "model" / "crop.json")
    assert export_beside(tmp_path / "model") == "copied"
    copied, given = (tmp_path / "model" / name for name in ("onnx/model.onnx", "model.onnx"))
    assert copied.read_bytes() == given.read_bytes()


@pytest.mark.parametrize("way", ["raises", "answers otherwise"])
def test_an_export_that_fails_or_errs_is_not_kept_and_stops_nothing(tmp_path, monkeypatch, way):
    def fails(complete, spec, file):
        if way == "raises":
            raise RuntimeError("no operator\nof that name")
        onnx_export._by_tracing(complete.cpu(), spec, file)

    write_small_model(tmp_path / "model", seed=4)
    monkeypatch.setattr(onnx_export, "_EXPORTERS", (fails,))
    if way != "raises":
        monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    content = export_beside(tmp_path / "model")
    assert content.startswith("none: ") and "\n" not in content
    assert not (tmp_path / "model" / "onnx").exists()
