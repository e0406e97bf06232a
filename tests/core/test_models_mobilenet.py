"""MobileNet v1 read from Keras files: the answers of Keras, whichever Keras wrote the file.

The quick tests write files as Keras 2 does and compare with outputs that Keras recorded; the slow
one asks Keras itself, about files that Keras 3 writes.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import read_models_here
from keras_writer import (
    CLASSES,
    HIDDEN,
    SIDE,
    Layer,
    head,
    in_a_line,
    layer,
    mobilenet,
    write,
    write_flat,
)

from tasks.core.errors import ModelError
from tasks.core.models.mobilenet_v1 import BLOCKS, build_mobilenet
from tasks.train.pretrained.keras_networks import read_mobilenet

RECORDED = Path(__file__).parent / "data" / "mobilenet_v1_keras_outputs.json"


@pytest.fixture(autouse=True)
def without_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_models_here(monkeypatch)


def images() -> np.ndarray:
    """Smooth waves, `(4, 64, 64, 3)`, in the range that the network was trained on."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    waves = [
        [np.sin((5 + i) * x + c) * np.cos((3 + 2 * i) * y - c * x) for c in range(3)]
        for i in range(4)
    ]
    return (120 * np.array(waves)).transpose(0, 2, 3, 1).astype(np.float32)


def ask(path: Path) -> np.ndarray:
    name, state = read_mobilenet(path)
    module = build_mobilenet(name, CLASSES, 3).eval()
    module.load_state_dict(state)
    with torch.inference_mode():
        logits = module(torch.from_numpy(images()).permute(0, 3, 1, 2))
    return torch.softmax(logits, 1).numpy()


@pytest.fixture(scope="module")
def recorded() -> np.ndarray:
    """What Keras answered for these weights and pictures (the slow test asks it again)."""
    return np.array(json.loads(RECORDED.read_text())["probabilities"])


def test_a_file_of_keras_2_answers_as_keras_did(tmp_path: Path, recorded: np.ndarray) -> None:
    path = write_flat(tmp_path / "m.h5", [*mobilenet(), *head()])
    assert np.abs(ask(path) - recorded).max() < 1e-4
    assert np.ptp(recorded, axis=0).max() > 0.05  # the pictures tell outputs apart
    assert read_mobilenet(path)[0] == "mobilenet_v1_relu256"


def custom_relu6(layers: list[Layer]) -> None:
    function = {"class_name": "function", "config": "relu6", "registered_name": "Custom>relu6"}
    for number, one in enumerate(layers):
        if one["class_name"] == "ReLU":
            name = one["config"]["name"]
            layers[number] = layer("Activation", name, activation=["relu6", function][number % 2])


def other_names(layers: list[Layer]) -> None:
    for one in layers:
        if one["class_name"] == "BatchNormalization":
            one["class_name"] = "BatchNormalizationV1"
        if one["class_name"] == "DepthwiseConv2D":
            one["class_name"] = "Custom>DepthwiseConv2D"


def split_softmax(layers: list[Layer]) -> None:
    layers[-1]["config"]["activation"] = "linear"
    layers[-2]["config"]["activation"] = "linear"
    layers.insert(-1, layer("Activation", "act", activation="relu"))
    layers.append(layer("Softmax", "predictions", axis=-1))


def one_by_one(layers: list[Layer]) -> None:
    last = layers[-1]
    last["arrays"]["kernel"] = last["arrays"]["kernel"][None, None]
    last.update(class_name="Conv2D")
    layers.insert(-1, layer("Reshape", "reshape_1", target_shape=[1, 1, HIDDEN]))
    layers.append(layer("Flatten", "flatten"))


def other_epsilon(layers: list[Layer]) -> None:
    for one in layers:
        if one["class_name"] == "BatchNormalization":
            one["config"]["epsilon"] = 1e-5
            one["arrays"]["moving_variance"] = one["arrays"]["moving_variance"] + np.float32(99e-5)


@pytest.mark.parametrize(
    "change", [custom_relu6, other_names, split_softmax, one_by_one, other_epsilon]
)
def test_the_same_network_written_in_another_way_answers_alike(
    tmp_path: Path, recorded: np.ndarray, change: Callable[[list[Layer]], None]
) -> None:
    layers = [*mobilenet(), *head()]
    change(layers)
    assert np.abs(ask(write_flat(tmp_path / "m.h5", layers)) - recorded).max() < 1e-4


@pytest.mark.parametrize("newer_nodes", [False, True])
def test_a_network_inside_a_network_is_followed(
    tmp_path: Path, recorded: np.ndarray, newer_nodes: bool
) -> None:
    inside, outside = mobilenet(), head()
    outer_input = layer("InputLayer", "input_2", batch_input_shape=[None, SIDE, SIDE, 3])
    nested = {
        "class_name": "Functional",
        "name": "mobilenet_1.00_64",
        "config": {"name": "mobilenet_1.00_64", "layers": in_a_line(inside)},
        "inbound_nodes": [[["input_2", 0, 0, {}]]],
    }
    entries = [*in_a_line([outer_input]), nested, *in_a_line(outside, "mobilenet_1.00_64")]
    if newer_nodes:  # as Keras 3 writes them
        for entry in entries:
            for node in entry["inbound_nodes"]:
                tensor = {"keras_history": node[0][:3], "shape": [None, 1], "dtype": "float32"}
                entry["inbound_nodes"] = [
                    {"args": [{"class_name": "__keras_tensor__", "config": tensor}], "kwargs": {}}
                ]
    groups = {"mobilenet_1.00_64": inside} | {one["config"]["name"]: [one] for one in outside}
    path = write(tmp_path / "m.h5", entries, groups)
    assert np.abs(ask(path) - recorded).max() < 1e-4


def drop_rectifier(layers: list[Layer]) -> None:
    layers[3] = layer("ReLU", "conv1_relu", max_value=None)


def half_width(layers: list[Layer]) -> None:
    layers[1]["arrays"]["kernel"] = layers[1]["arrays"]["kernel"][..., :16]


def scaled_input(layers: list[Layer]) -> None:
    layers.insert(1, layer("Rescaling", "rescaling", scale=1 / 255))


def bias_in_front(layers: list[Layer]) -> None:
    layers[1]["config"]["use_bias"] = True


def third_dense(layers: list[Layer]) -> None:
    layers.append(layer("Dense", "more", {"kernel": np.eye(7, dtype="f")}, activation="softmax"))


def sigmoids(layers: list[Layer]) -> None:
    layers[-1]["config"]["activation"] = "sigmoid"


def no_weights(layers: list[Layer]) -> None:
    layers[-1]["arrays"] = {}


def ends_early(layers: list[Layer]) -> None:
    del layers[20:]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (drop_rectifier, "'conv1_relu' (ReLU)"),
        (half_width, "'conv1' (Conv2D)"),
        (scaled_input, "'rescaling' (Rescaling)"),
        (bias_in_front, "'conv1' (Conv2D) is not understood; MobileNet v1 has use_bias False"),
        (third_dense, "3 dense layers"),
        (sigmoids, "'emotion_preds' (Dense)"),
        (no_weights, "'emotion_preds' (Dense) has no weights"),
        (ends_early, "ends before MobileNet v1 does"),
    ],
)
def test_what_is_not_understood_is_one_line_that_names_the_layer(
    tmp_path: Path, change: Callable[[list[Layer]], None], named: str
) -> None:
    layers = [*mobilenet(), *head()]
    change(layers)
    with pytest.raises(ModelError, match=re.escape(named)) as error:
        read_mobilenet(write_flat(tmp_path / "m.h5", layers))
    assert "\n" not in str(error.value)


def test_a_fork_is_refused(tmp_path: Path) -> None:
    layers = [*mobilenet(), *head()]
    entries = in_a_line(layers)
    entries[-1]["inbound_nodes"][0].append(["global_pooling", 0, 0, {}])
    path = write(tmp_path / "m.h5", entries, {one["config"]["name"]: [one] for one in layers})
    with pytest.raises(ModelError, match=r"'emotion_preds' \(Dense\) is not understood"):
        read_mobilenet(path)


def test_a_torn_file_is_one_line(tmp_path: Path) -> None:
    whole = write_flat(tmp_path / "m.h5", [*mobilenet(), *head()]).read_bytes()
    (tmp_path / "torn.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"torn\.h5: is not a complete Keras model file") as error:
        read_mobilenet(tmp_path / "torn.h5")
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_files_that_keras_writes_answer_as_keras_does(
    tmp_path: Path, recorded: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "torch")
    import keras

    made = {one["config"]["name"]: list(one["arrays"].values()) for one in [*mobilenet(), *head()]}
    answers = {}
    for name, model in keras_models(keras).items():
        fill(keras, model, made)
        model.save(tmp_path / f"{name}.h5")
        answers[name] = model.predict(images(), verbose=0)
        assert np.abs(ask(tmp_path / f"{name}.h5") - answers[name]).max() < 1e-4, name
    assert np.abs(answers["hidden"] - recorded).max() < 1e-5


def keras_models(keras: Any) -> dict[str, Any]:
    """MobileNets of Keras's own, with the heads and forms that are read."""
    layers = keras.layers

    def base(**options: Any) -> Any:
        shape = (SIDE, SIDE, 3)
        return keras.applications.MobileNet(input_shape=shape, weights=None, **options)

    def classes(x: Any) -> Any:
        return layers.Dense(CLASSES, activation="softmax")(x)

    one = base(include_top=False)
    x = layers.GlobalAveragePooling2D(name="global_pooling")(one.output)
    x = layers.Dense(HIDDEN, activation="relu", name="feats")(layers.Dropout(0.5)(x))
    hidden = layers.Dense(CLASSES, activation="softmax", name="emotion_preds")(x)
    two, entry = base(include_top=False), layers.Input((SIDE, SIDE, 3))
    kept = layers.GlobalAveragePooling2D(keepdims=True)(two(entry))
    old = padded_mobilenet(keras)
    return {
        "hidden": keras.Model(one.input, hidden),
        "whole": base(classes=CLASSES),
        "nested": keras.Model(entry, classes(layers.Flatten()(kept))),
        "in_a_row": keras.Sequential(
            [base(include_top=False, pooling="avg"), layers.Dense(CLASSES, activation="softmax")]
        ),
        "zeros_on_every_side": keras.Model(
            old.input, classes(layers.GlobalAveragePooling2D()(old.output))
        ),
    }


def padded_mobilenet(keras: Any) -> Any:
    """MobileNet v1 as Keras before 2.2 made it: zeros on every side of each 3 × 3 convolution."""
    layers = keras.layers
    entry = x = layers.Input((SIDE, SIDE, 3))

    def block(x: Any, convolution: Any, padded: bool) -> Any:
        x = layers.ZeroPadding2D((1, 1))(x) if padded else x
        return layers.ReLU(6.0)(layers.BatchNormalization(epsilon=1e-5)(convolution(x)))

    x = block(x, layers.Conv2D(32, 3, 2, padding="valid", use_bias=False), padded=True)
    for width, stride in BLOCKS:
        x = block(x, layers.DepthwiseConv2D(3, stride, padding="valid", use_bias=False), True)
        x = block(x, layers.Conv2D(width, 1, padding="same", use_bias=False), padded=False)
    return keras.Model(entry, x)


def fill(keras: Any, model: Any, made: dict[str, list[np.ndarray]]) -> None:
    """Give every layer the made-up weights of its name, or random ones."""
    rng = np.random.default_rng(3)
    for one in model._flatten_layers(include_self=False):
        if isinstance(one, keras.Model) or not one.weights:
            continue
        if one.name in made:
            one.set_weights(made[one.name])
            continue
        shapes = [tuple(weight.shape) for weight in one.weights]
        scales = [
            0.2 if len(shape) == 1 else 1.5 / np.sqrt(np.prod(shape[:-1])) for shape in shapes
        ]
        if "normalization" in one.name:
            one.set_weights([rng.uniform(0.5, 1.5, shape) for shape in shapes])
        else:
            pairs = zip(shapes, scales, strict=True)
            one.set_weights([rng.normal(0, scale, shape) for shape, scale in pairs])
