"""ONNX classifiers: the answers that the file gives, in whatever form its input and output are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper, numpy_helper

from tasks.core.errors import ModelError
from tasks.core.models.checkpoint import load_model, no_pictures_seen, save_model
from tasks.core.models.onnx_network import read_onnx
from tasks.core.models.recogniser import Recogniser
from tasks.core.models.spec import can_train

SIDE = 16
LABELS = ["Happy", "neutral", "sadness"]
ABOUT = {
    "labels": LABELS,
    "input_size_px": SIDE,
    "colour": "rgb",
    "layout": "nchw",
    "scaling": "0..1",
    "box_margin": 0.1,
    "output": "logits",
    "source": "made for a test",
}
RNG = np.random.default_rng(5)
WEIGHTS = RNG.normal(0, 6, (3, 3)).astype(np.float32)  # (channels, labels)
BIAS = RNG.normal(0, 1, 3).astype(np.float32)
CROPS = RNG.integers(0, 256, (5, SIDE, SIDE, 3)).astype(np.uint8)
CROPS[0, :, :, 0] = 255  # a red picture and a blue one: channels in the wrong order would show
CROPS[1, :, :, 2] = 255


def write(
    folder: Path,
    about: dict[str, Any] | None = None,
    batch: int | str = "n",
    channels: int = 3,
    softmax: bool = False,
    kind: int = TensorProto.FLOAT,
) -> Path:
    """The mean of each channel, then a linear layer; the first output is not the answer."""
    described = {**ABOUT, **(about or {})}
    nhwc = described["layout"] == "nhwc"
    shape = [batch, SIDE, SIDE, channels] if nhwc else [batch, channels, SIDE, SIDE]
    single = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    constants = [
        numpy_helper.from_array(WEIGHTS[:channels].astype(single), "w"),
        numpy_helper.from_array(BIAS.astype(single), "b"),
        numpy_helper.from_array(np.array([1, 2] if nhwc else [2, 3]), "axes"),
    ]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "w", "b"], ["scores"]),
        helper.make_node("Softmax" if softmax else "Identity", ["scores"], ["y"]),
        helper.make_node("ReduceSum", ["means"], ["sum"], keepdims=1),
    ]
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in ("sum", "y")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], outputs, constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "net.onnx")
    (folder / "net.yaml").write_text(yaml.safe_dump(described))
    return folder / "net.onnx"


def expected(pixels: np.ndarray, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    scores = pixels.mean(axis=(1, 2)) @ weights + BIAS
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def ask(file: Path, crops: np.ndarray = CROPS) -> np.ndarray:
    network, spec = read_onnx(file)
    return Recogniser(spec, network, torch.device("cpu")).predict(crops)


def scaled(mean: Any, std: Any, crops: np.ndarray = CROPS) -> np.ndarray:
    return (crops / 255 - np.array(mean)) / np.array(std)


PER_CHANNEL = {"mean": [0.1, 0.5, 0.9], "std": [0.5, 1.0, 0.25]}


@pytest.mark.parametrize(
    ("about", "pixels"),
    [
        ({}, scaled(0, 1)),
        ({"scaling": "-1..1"}, scaled(0.5, 0.5)),
        ({"scaling": PER_CHANNEL}, scaled(PER_CHANNEL["mean"], PER_CHANNEL["std"])),
        ({"colour": "bgr"}, scaled(0, 1)[..., ::-1]),
        (
            {"colour": "bgr", "scaling": PER_CHANNEL},  # in the order of the input's channels
            scaled(PER_CHANNEL["mean"], PER_CHANNEL["std"], CROPS[..., ::-1]),
        ),
        ({"layout": "nhwc"}, scaled(0, 1)),
        ({"output": "probabilities"}, scaled(0, 1)),
    ],
    ids=["plain", "scaled", "by channel", "bgr", "bgr by channel", "nhwc", "probabilities"],
)
def test_a_file_answers_as_described(
    tmp_path: Path, about: dict[str, Any], pixels: np.ndarray
) -> None:
    file = write(tmp_path, about, softmax=about.get("output") == "probabilities")
    answers = ask(file)
    assert np.abs(answers - expected(pixels)).max() < 1e-5
    assert np.abs(answers.sum(axis=1) - 1).max() < 1e-5


def test_bytes_are_given_unscaled_where_asked(tmp_path: Path) -> None:
    answers = ask(write(tmp_path, {"scaling": "0..255"}))
    assert np.abs(answers - expected(CROPS.astype(np.float64))).max() < 1e-3


def test_grey_and_half_precision(tmp_path: Path) -> None:
    grey = np.repeat(CROPS[..., :1], 3, axis=-1)
    answers = ask(write(tmp_path, {"colour": "grey"}, channels=1), grey)
    assert np.abs(answers - expected(grey[..., :1] / 255, WEIGHTS[:1])).max() < 1e-5
    half = ask(write(tmp_path, kind=TensorProto.FLOAT16))
    assert np.abs(half - expected(scaled(0, 1))).max() < 0.02


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_fixed_batch_is_filled_up(tmp_path: Path, batch: int) -> None:
    answers = ask(write(tmp_path, batch=batch))
    assert np.abs(answers - expected(scaled(0, 1))).max() < 1e-5


def test_a_certain_answer_stays_finite(tmp_path: Path) -> None:
    file = write(tmp_path, {"scaling": "0..255", "output": "probabilities"}, softmax=True)
    answers = ask(file)
    assert np.isfinite(answers).all() and answers.max() > 0.999


def test_a_models_folder_keeps_the_file_and_cannot_be_trained(tmp_path: Path) -> None:
    file = write(tmp_path)
    network, spec = read_onnx(file)
    folder = tmp_path / "models/base"
    kept = save_model(folder, network, spec, no_pictures_seen())
    assert kept.version == spec.version and spec.labels == ("happiness", "neutral", "sadness")
    assert (folder / "model.onnx").read_bytes() == file.read_bytes()
    file.unlink()
    recogniser = Recogniser.load(folder, "cpu")
    assert np.abs(recogniser.predict(CROPS) - expected(scaled(0, 1))).max() < 1e-5
    assert not can_train(recogniser.spec)
    (folder / "model.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"not the weights that model\.json describes"):
        load_model(folder)


@pytest.mark.parametrize(
    ("about", "named"),
    [
        ({"labels": ["happy", "sad"]}, "names 2 labels"),
        ({"labels": ["happy", "sad", "bored"]}, "bored not known"),
        ({"labels": ["happy", "happiness", "sad"]}, "each emotion once"),
        ({"input_size_px": 32}, r"says one input of \[3, 32, 32\]"),
        ({"colour": "grey", "scaling": "0..1"}, r"says one input of \[1, 16, 16\]"),
        ({"scaling": {"mean": [0.5], "std": [0.5]}}, "3 values for colour rgb"),
        ({"colour": "rbg"}, "colour: "),
        ({"margin": 0.1}, "margin: "),
        ({"box_margin": None}, "box_margin: "),
    ],
)
def test_a_description_that_does_not_fit_is_one_line(
    tmp_path: Path, about: dict[str, Any], named: str
) -> None:
    with pytest.raises(ModelError, match=named) as error:
        read_onnx(write(tmp_path, about))
    assert "\n" not in str(error.value)


def missing_yaml(file: Path) -> None:
    file.with_suffix(".yaml").unlink()


def torn_yaml(file: Path) -> None:
    file.with_suffix(".yaml").write_text("labels: [happy")


def torn_network(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:60])


def missing_network(file: Path) -> None:
    file.unlink()


def weights_elsewhere(file: Path) -> None:
    onnx.save(onnx.load(file), file, save_as_external_data=True, size_threshold=0, location="w.bin")
    (file.parent / "w.bin").unlink()


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (missing_yaml, r"net\.yaml: missing"),
        (torn_yaml, r"net\.yaml: is not valid YAML"),
        (torn_network, "is no ONNX file that can be run"),
        (missing_network, "no such ONNX file"),
        (weights_elsewhere, "its weights must be inside"),
    ],
)
def test_damaged_or_missing_files_are_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    file = write(tmp_path)
    damage(file)
    with pytest.raises(ModelError, match=named) as error:
        read_onnx(file)
    assert "\n" not in str(error.value)
