import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from in_process import read_models_here

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.mobilenet_v1 import build_mobilenet
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.small_networks import MiniXception, _pool_same
from tasks.train.pretrained import catalog
from tasks.train.pretrained.catalog import load_pretrained
from tasks.train.pretrained.keras_networks import read_mini_xception

NAME = "fer2013_mini_XCEPTION.102-0.66.hdf5"
ASSETS = os.environ.get("AFFECTGAP_ASSETS")
needs_assets = pytest.mark.skipif(
    not ASSETS, reason="AFFECTGAP_ASSETS does not name a folder with weights/"
)
RECORDED = Path(__file__).parent / "data" / "mini_xception_keras_outputs.json"


@pytest.fixture(autouse=True)
def without_a_child_process(monkeypatch):
    read_models_here(monkeypatch)


def formula_images() -> np.ndarray:
    """The pictures for which Keras's outputs were recorded: smooth waves, 64 × 64 gray."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float64)
    waves = [
        127.5 + 100 * np.sin((x - 31.5) ** 2 / (90.0 + 25 * i) + i) * np.cos(y / (3.0 + i))
        for i in range(12)
    ]
    return np.stack(waves).round().astype(np.uint8)[..., None]


@needs_assets
def test_converted_weights_answer_as_keras_did():
    recorded = json.loads(RECORDED.read_text())
    module, spec = load_pretrained("fer2013/mini_xception", Path("nowhere"))
    recognizer = EmotionClassifier(spec, module, torch.device("cpu"))
    answers = recognizer.predict_prepared(formula_images())
    expected = np.array(recorded["probabilities"])
    assert np.abs(answers - expected).max() < 1e-4
    assert len(set(expected.argmax(axis=1))) >= 3  # the pictures tell outputs apart
    named = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
    assert tuple(named.get(word, word) for word in recorded["labels"]) == spec.labels


@needs_assets
def test_a_damaged_copy_is_one_line(tmp_path):
    content = (Path(ASSETS) / "weights" / NAME).read_bytes()
    torn = tmp_path / NAME
    torn.write_bytes(content[:50_000])
    with pytest.raises(ModelError, match="not a complete Keras model file") as error:
        read_mini_xception(torn)
    assert "\n" not in str(error.value)


def test_other_files_are_one_line(tmp_path):
    (tmp_path / "text.hdf5").write_text("not hdf5")
    with pytest.raises(ModelError, match="not a complete Keras model file"):
        read_mini_xception(tmp_path / "text.hdf5")
    with pytest.raises(ModelError, match="no such weights file"):
        read_mini_xception(tmp_path / "none.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file.attrs["model_config"] = json.dumps({"config": {"layers": []}})
        file.create_group("model_weights")
    with pytest.raises(ModelError, match="another network than mini-XCEPTION"):
        read_mini_xception(tmp_path / "other.hdf5")


@pytest.mark.parametrize(("side", "out"), [(60, 30), (30, 15), (15, 8), (8, 4)])
def test_pooling_pads_as_keras_does(side, out):
    # Keras's "same": an even side is padded at its end alone, an odd one on both sides.
    x = torch.arange(side, dtype=torch.float32).expand(1, 1, side, side)
    pooled = _pool_same(x)[0, 0, 0]
    first = 2 if side % 2 == 0 else 1
    expected = [min(first + 2 * i, side - 1) for i in range(out)]
    assert pooled.tolist() == expected


def test_shortcut_is_the_published_strided_convolution():
    torch.manual_seed(0)
    block = MiniXception(7, 1).eval().blocks[0]
    x = torch.randn(2, 8, 15, 15)
    convolution, norm = block.shortcut
    strided = norm(torch.nn.functional.conv2d(x, convolution.weight, stride=2))
    assert torch.allclose(block.shortcut(x[:, :, ::2, ::2]), strided, atol=1e-5)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'affectnet/x'.*fer2013/mini_xception"):
        load_pretrained("affectnet/x", Path())


def test_hsemotion_is_asked_about_pixels_less_its_means(tmp_path, monkeypatch):
    torch.manual_seed(0)
    module = build_mobilenet("mobilenet_v1_relu256", 7, 3).eval()
    name, read = "hsemotion/mobilenet_7", lambda _: ("mobilenet_v1_relu256", module.state_dict())
    entry = replace(catalog.PRETRAINED[name], read=read)
    monkeypatch.setattr(catalog, "PRETRAINED", {name: entry})
    monkeypatch.setenv("AFFECTGAP_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/mobilenet_7.h5").write_bytes(b"put there by hand")

    loaded, spec = load_pretrained(name, tmp_path)
    digest = sha256_of(tmp_path / "weights/mobilenet_7.h5")
    assert digest in spec.source and "Apache-2.0" in spec.source
    assert (tmp_path / "weights/mobilenet_7.h5.sha256").read_text().strip() == digest
    assert spec.labels[:3] == ("anger", "disgust", "fear") and spec.input_size_px == 224
    save_model(tmp_path / "base", loaded, spec, empty_seen_table())  # its form is kept by name
    recognizer = EmotionClassifier.load(tmp_path / "base", "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    means = torch.tensor([103.939, 116.779, 123.68])
    with torch.inference_mode():
        given = (torch.from_numpy(pixels).float() - means).permute(0, 3, 1, 2)
        expected = torch.softmax(module(given), 1).numpy()
    assert np.abs(recognizer.predict(pixels) - expected).max() < 1e-5
