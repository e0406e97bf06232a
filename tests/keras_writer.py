"""Writes Keras 2 files of MobileNet v1 with random weights, for tests that read such files."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tasks.core.models.mobilenet_v1 import BLOCKS

SIDE, CLASSES, HIDDEN = 64, 7, 256
Layer = dict[str, Any]  # class_name, config (with name), arrays


def layer(
    kind: str, name: str, arrays: dict[str, np.ndarray] | None = None, **config: Any
) -> Layer:
    return {"class_name": kind, "config": {"name": name, **config}, "arrays": arrays or {}}


def convolution(rng: np.random.Generator, name: str, size: int, stride: int, shape: Any) -> Layer:
    depthwise = "dw" in name
    kind, array = ("DepthwiseConv2D", "depthwise_kernel") if depthwise else ("Conv2D", "kernel")
    fan_in = size * size * (1 if depthwise else shape[0])
    kernel = rng.normal(0, np.sqrt(2 / fan_in), (size, size, *shape)).astype(np.float32)
    settings = {"use_bias": False, "activation": "linear", "data_format": "channels_last"}
    padding = "valid" if stride == 2 and depthwise else "same"
    return layer(
        kind,
        name,
        {array: kernel},
        kernel_size=[size, size],
        strides=[stride, stride],
        padding=padding,
        dilation_rate=[1, 1],
        **settings,
    )


def after(rng: np.random.Generator, name: str, width: int) -> list[Layer]:
    """Batch normalization with made-up statistics, and the rectifier."""
    arrays = {
        "gamma": rng.uniform(0.6, 1.4, width),
        "beta": rng.normal(0, 0.2, width),
        "moving_mean": rng.normal(0, 0.2, width),
        "moving_variance": rng.uniform(0.5, 1.5, width),
    }
    single = {key: array.astype(np.float32) for key, array in arrays.items()}
    norm = layer("BatchNormalization", f"{name}_bn", single, axis=[3], epsilon=0.001)
    return [norm, layer("ReLU", f"{name}_relu", max_value=6.0, negative_slope=0.0, threshold=0.0)]


def mobilenet() -> list[Layer]:
    """The layers of MobileNet v1 with random weights, as tf.keras 2.4 describes them."""
    rng = np.random.default_rng(20210317)
    layers = [layer("InputLayer", "input_1", batch_input_shape=[None, SIDE, SIDE, 3])]
    layers += [convolution(rng, "conv1", 3, 2, (3, 32)), *after(rng, "conv1", 32)]
    before = 32
    for number, (width, stride) in enumerate(BLOCKS, 1):
        if stride == 2:
            zeros = [[0, 1], [0, 1]]
            layers.append(layer("ZeroPadding2D", f"conv_pad_{number}", padding=zeros))
        name = f"conv_dw_{number}"
        layers += [convolution(rng, name, 3, stride, (before, 1)), *after(rng, name, before)]
        name = f"conv_pw_{number}"
        layers += [convolution(rng, name, 1, 1, (before, width)), *after(rng, name, width)]
        before = width
    return layers


def head() -> list[Layer]:
    """The head of the author's face networks: a hidden layer, then the classes."""
    rng = np.random.default_rng(7)

    def dense(name: str, inputs: int, outputs: int, activation: str) -> Layer:
        kernel = rng.normal(0, 1.5 / np.sqrt(inputs), (inputs, outputs)).astype(np.float32)
        arrays = {"kernel": kernel, "bias": rng.normal(0, 0.1, outputs).astype(np.float32)}
        return layer("Dense", name, arrays, units=outputs, activation=activation, use_bias=True)

    return [
        layer("GlobalAveragePooling2D", "global_pooling", data_format="channels_last"),
        layer("Dropout", "dropout", rate=0.5),
        dense("feats", 1024, HIDDEN, "relu"),
        dense("emotion_preds", HIDDEN, CLASSES, "softmax"),
    ]


def in_a_line(layers: list[Layer], start: str | None = None) -> list[dict[str, Any]]:
    """Describe layers as Keras 2 does a functional model, each after the one before it."""
    entries = []
    for number, one in enumerate(layers):
        before = layers[number - 1]["config"]["name"] if number else start
        nodes = [[[before, 0, 0, {}]]] if before else []
        described = {key: one[key] for key in ("class_name", "config")}
        entries.append({**described, "name": one["config"]["name"], "inbound_nodes": nodes})
    return entries


def write(path: Path, entries: list[dict[str, Any]], groups: dict[str, list[Layer]]) -> Path:
    """Write a Keras 2 file: a group a layer (or a network inside), `<layer>/<array>:0` below."""
    with h5py.File(path, "w") as file:
        config = {"name": "model", "layers": entries, "input_layers": [], "output_layers": []}
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config})
        for group, layers in groups.items():
            made = file.create_group(f"model_weights/{group}")
            for one in layers:
                for name, array in one["arrays"].items():
                    made[f"{one['config']['name']}/{name}:0"] = array
    return path


def write_flat(path: Path, layers: list[Layer]) -> Path:
    return write(path, in_a_line(layers), {one["config"]["name"]: [one] for one in layers})
