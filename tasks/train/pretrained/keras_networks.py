"""Readers of MobileNet v1 classifiers and of mini-XCEPTION in Keras files of any Keras version.

The file's layers are followed from the input to the softmax. A layer that is not supported, or that
is in another position than in MobileNet v1, is an error that names it: an almost correct network
would give wrong outputs without any sign. Outputs agree with Keras to 1e-4 (a slow test compares
with Keras itself, a quick one with recorded outputs).

mini-XCEPTION's outputs agree with Keras to 1e-5 (a test has recorded outputs).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from tasks.core.errors import ModelError
from tasks.core.models.mobilenet_v1 import ACTIVATIONS, BLOCKS, EPSILON, STEM_WIDTH, mobilenet_name
from tasks.core.text import one_line
from tasks.train.pretrained.keras_file import (
    KerasLayer,
    State,
    one_line_errors,
    read_layers,
    torch_state,
)

# Layers that do not affect the outputs of `MobileNetV1`.
_IGNORED = ("InputLayer", "Network", "Dropout", "SpatialDropout2D", "Reshape", "Flatten")
_PADDINGS = {((0, 1), (0, 1)): False, ((1, 1), (1, 1)): True}
_BLOCKS = 4
_CONVOLUTIONS, _SEPARABLES, _NORMS = 7, 8, 14
_EPSILON = 1e-3


def read_mobilenet(path: Path) -> tuple[str, State]:
    """Read a MobileNet v1 classifier as the name of its variant and the state of `MobileNetV1`.

    `path` is an `.h5` that `model.save` of Keras 2, tf.keras or Keras 3 wrote: MobileNet of
    keras.applications (width 1), global average pooling, at most one hidden dense layer, a dense
    layer (or a 1 × 1 convolution) with one output per class, and a softmax. Dropout and reshaping
    are allowed in between, and the MobileNet may be a nested network. Raises ModelError for a
    damaged file or an unsupported layer.
    """
    layers = read_layers(path)
    with one_line_errors(path):
        return _MobileNetReader(layers, path).read()


class _MobileNetReader:
    """Reads the layers of one file from first to last."""

    def __init__(self, layers: list[KerasLayer], path: Path) -> None:
        self.path = path
        self.layers = _in_sequence(layers, path)
        self.paddings: set[bool] = set()
        self.state: State = {}

    def read(self) -> tuple[str, State]:
        self._convolution("stem", "Conv2D", 3, 2, STEM_WIDTH)
        before = STEM_WIDTH
        for index, (after, stride) in enumerate(BLOCKS):
            self._convolution(f"blocks.{index}.0", "DepthwiseConv2D", 3, stride, before)
            self._convolution(f"blocks.{index}.1", "Conv2D", 1, 1, after)
            before = after
        self._expect(self._next(), kind="GlobalAveragePooling2D")
        hidden = self._head()
        if len(self.paddings) > 1:
            raise ModelError(
                f"{self.path}: some strided convolutions have zeros on every side and some only "
                "below and to the right, which is not understood"
            )
        return mobilenet_name(hidden, self.paddings == {True}), self.state

    def _convolution(self, target: str, kind: str, size: int, stride: int, width: int) -> None:
        """Read [zero padding,] a convolution, its batch normalization and its ReLU6."""
        layer = self._next()
        padding = None
        if layer.kind == "ZeroPadding2D":
            padding, layer = layer, self._next()
        explicit_padding = padding is not None
        self._expect(
            layer,
            kind=kind,
            kernel_size=[size, size],
            strides=[stride, stride],
            padding="valid" if explicit_padding else "same",
            use_bias=False,
            activation="linear",
            dilation_rate=[1, 1],
            data_format="channels_last",
        )
        self._pad(padding, size, stride)
        self._put(f"{target}.convolution", layer, width)
        self._norm(f"{target}.norm", self._next(), width)
        rectifier = self._next()
        if _activation(rectifier) != "relu6":
            self._refuse(rectifier, "a rectifier that stops at 6")

    def _pad(self, layer: KerasLayer | None, size: int, stride: int) -> None:
        if layer is None:
            if stride == 2:  # "same" on an input of even size
                self.paddings.add(False)
            return
        zeros = _padding_tuples(layer.config["padding"])
        if zeros not in _PADDINGS or size == 1 or (stride == 1 and not _PADDINGS[zeros]):
            self._refuse(layer, "zeros of another width")
        if stride == 2:  # with stride 1, one zero on every side is "same"
            self.paddings.add(_PADDINGS[zeros])

    def _norm(self, target: str, layer: KerasLayer, width: int) -> None:
        self._expect(layer, kind="BatchNormalization")
        if layer.config.get("axis") not in (-1, 3, [-1], [3]):
            self._refuse(layer, "normalization along the channels")
        self._put(target, layer, width)
        # Only variance + epsilon matters, so a different epsilon is added to the variance.
        epsilon = float(layer.config["epsilon"])
        self.state[f"{target}.running_var"] += epsilon - EPSILON

    def _head(self) -> tuple[int, str] | None:
        """Read one or two dense layers; return the hidden one's size and activation."""
        dense_layers: list[tuple[KerasLayer, str]] = []
        for layer in self.layers:
            if layer.kind in ("Dense", "Conv2D"):
                dense_layers.append((layer, _configured_activation(layer.config)))
            elif (name := _activation(layer)) and dense_layers and dense_layers[-1][1] == "linear":
                dense_layers[-1] = (dense_layers[-1][0], name)
            else:
                self._refuse(layer, "a dense layer or the softmax")
        if not dense_layers or len(dense_layers) > 2:
            raise ModelError(
                f"{self.path}: its head has {len(dense_layers)} dense layers, not 1 or 2"
            )
        last, activation = dense_layers[-1]
        if activation not in ("softmax", "linear"):
            self._refuse(last, "a softmax")
        self._dense("head", last)
        if len(dense_layers) == 1:
            return None
        layer, activation = dense_layers[0]
        if activation not in ACTIVATIONS:
            self._refuse(layer, f"one of {', '.join(ACTIVATIONS)}")
        self._dense("hidden.0", layer)
        return len(self.state["hidden.0.bias"]), activation

    def _dense(self, target: str, layer: KerasLayer) -> None:
        self._put(target, layer, None)
        weight = self.state[f"{target}.weight"]
        if weight.ndim == 4:
            if weight.shape[2:] != (1, 1):
                self._refuse(layer, "a 1 × 1 convolution")
            weight = self.state[f"{target}.weight"] = weight.flatten(1)
        self.state.setdefault(f"{target}.bias", torch.zeros(len(weight)))

    def _put(self, target: str, layer: KerasLayer, width: int | None) -> None:
        tensors = torch_state(layer, self.path)
        if width is not None and len(next(iter(tensors.values()))) != width:
            self._refuse(layer, f"a layer of {width} (the width of MobileNet v1 with alpha = 1)")
        self.state.update({f"{target}.{name}": tensor for name, tensor in tensors.items()})

    def _next(self) -> KerasLayer:
        layer = next(self.layers, None)
        if layer is None:
            raise ModelError(f"{self.path}: ends before MobileNet v1 does")
        return layer

    def _expect(self, layer: KerasLayer, kind: str, **settings: Any) -> None:
        if layer.kind != kind:
            self._refuse(layer, kind)
        for name, wanted in settings.items():
            actual = layer.config.get(name, wanted)
            value = (
                _configured_activation({"activation": actual}) if name == "activation" else actual
            )
            if (list(value) if isinstance(value, tuple) else value) != wanted:
                self._refuse(layer, f"{name} {wanted} (it has {one_line(actual, 60)})")

    def _refuse(self, layer: KerasLayer, wanted: str) -> NoReturn:
        raise ModelError(
            f"{self.path}: layer '{layer.name}' ({layer.kind}) is not understood; "
            f"MobileNet v1 has {wanted} there"
        )


def _in_sequence(layers: list[KerasLayer], path: Path) -> Iterator[KerasLayer]:
    """Order layers from input to output without the silent ones; raise on a fork."""
    ordered: list[KerasLayer] = []
    followers: dict[str, list[KerasLayer]] = {}
    for layer in layers:
        for name in layer.follows:
            followers.setdefault(name, []).append(layer)
    current = [layer for layer in layers if not layer.follows]
    while current:
        if len(current) > 1 or len(current[0].follows) > 1:
            raise ModelError(
                f"{path}: layer '{current[-1].name}' ({current[-1].kind}) is not understood; "
                "MobileNet v1 is one line of layers"
            )
        if len(ordered) == len(layers):
            raise ModelError(f"{path}: layer '{current[0].name}' follows itself")
        ordered.append(current[0])
        current = followers.get(current[0].name, [])
    return iter([layer for layer in ordered if layer.kind not in _IGNORED])


def _activation(layer: KerasLayer) -> str | None:
    """Return the activation that a layer applies; None for other layers."""
    if layer.kind == "ReLU":
        max_value, defaults = layer.config.get("max_value"), (None, 0.0, [0.0])
        if any(layer.config.get(key) not in defaults for key in ("negative_slope", "threshold")):
            return None
        return {None: "relu", 6.0: "relu6"}.get(max_value)
    if layer.kind == "Activation":
        return _configured_activation(layer.config)
    return {"Softmax": "softmax", "ELU": "elu", "relu6": "relu6", "Relu6": "relu6"}.get(layer.kind)


def _configured_activation(config: dict[str, Any]) -> str:
    """Return the activation in a layer's settings, in any of its notations."""
    setting: Any = config.get("activation") or "linear"
    while isinstance(setting, dict):  # a custom function such as relu6
        setting = (
            setting.get("registered_name") or setting.get("config") or setting.get("class_name")
        )
        if isinstance(setting, dict):
            setting = setting.get("name") or setting
    name = str(setting).rpartition(">")[2].rpartition(".")[2]
    return {"silu": "swish"}.get(name, name)


def _padding_tuples(zeros: Any) -> Any:
    """Return a padding as ((top, bottom), (left, right))."""
    if isinstance(zeros, int):
        return ((zeros, zeros), (zeros, zeros))
    return tuple(
        _padding_tuples(side)[0] if isinstance(side, int) else tuple(side) for side in zeros
    )


def read_mini_xception(path: Path) -> tuple[str, State]:
    """Read a mini-XCEPTION file as the architecture's name and the state of `MiniXception`.

    `path` was written by Keras 2's `model.save`, such as `fer2013_mini_XCEPTION.102-0.66.hdf5`.
    Raises ModelError for a missing or damaged file, or another network.
    """
    layers = read_layers(path)
    with one_line_errors(path):
        return "mini_xception", _state(layers, path)


def _state(layers: list[KerasLayer], path: Path) -> State:
    plain = _by_number(layers, "Conv2D")
    separable = _by_number(layers, "SeparableConv2D")
    norms = _by_number(layers, "BatchNormalization")
    counts = (len(plain), len(separable), len(norms))
    epsilons = {layer.config["epsilon"] for layer in norms}
    if counts != (_CONVOLUTIONS, _SEPARABLES, _NORMS) or epsilons != {_EPSILON}:
        raise ModelError(f"{path}: holds another network than mini-XCEPTION")
    state: State = {}

    def put(target: str, layer: KerasLayer) -> None:
        tensors = torch_state(layer, path)
        state.update({f"{target}.{name}": tensor for name, tensor in tensors.items()})

    # Keras numbers layers in order of creation: a block's shortcut comes first.
    for index, target in enumerate(("stem.0", "stem.3")):
        put(target, plain[index])
        put(f"stem.{3 * index + 1}", norms[index])
    for block in range(_BLOCKS):
        put(f"blocks.{block}.shortcut.0", plain[2 + block])
        put(f"blocks.{block}.shortcut.1", norms[2 + 3 * block])
        for index, part in enumerate(("first", "second")):
            put(f"blocks.{block}.{part}", separable[2 * block + index])
            put(f"blocks.{block}.{part}.2", norms[3 + 3 * block + index])
    put("head", plain[-1])
    return state


def _by_number(layers: list[KerasLayer], kind: str) -> list[KerasLayer]:
    found = [layer for layer in layers if layer.kind == kind]
    return sorted(found, key=lambda layer: int((re.findall(r"\d+$", layer.name) or ["0"])[0]))
