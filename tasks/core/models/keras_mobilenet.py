"""MobileNet v1 from a Keras file, whichever Keras wrote it and however its head was put on.

The file's own layers are followed one by one from the input to the softmax. A layer that is not
understood, or that stands where MobileNet v1 has another, is an error that names it: a network
that is nearly the right one would answer without a sign that it is wrong. Outputs agree with
Keras to 1e-4 (a slow test compares with Keras itself, a quick one with recorded outputs).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from tasks.core.errors import ModelError
from tasks.core.models.keras_file import (
    KerasLayer,
    State,
    one_line_errors,
    read_layers,
    torch_state,
)
from tasks.core.models.mobilenet_v1 import (
    ACTIVATIONS,
    BLOCKS,
    EPSILON,
    STEM_WIDTH,
    mobilenet_name,
)
from tasks.core.text import one_line

# Layers that change neither a number nor, in this module's form of the network, a shape.
_SILENT = ("InputLayer", "Network", "Dropout", "SpatialDropout2D", "Reshape", "Flatten")
_PADDINGS = {((0, 1), (0, 1)): False, ((1, 1), (1, 1)): True}


def read_mobilenet(path: Path) -> tuple[str, State]:
    """Read a MobileNet v1 classifier as the state of `MobileNetV1`.

    Parameters
    ----------
    path
        An `.h5` that `model.save` of Keras 2, tf.keras or Keras 3 wrote: MobileNet of
        keras.applications (width 1), the mean of each map, at most one hidden dense layer, a
        dense layer (or a 1 × 1 convolution) of one output a class, and a softmax. Dropout and
        reshaping may stand in between, and the MobileNet may be a network of its own inside.

    Returns
    -------
    tuple
        The name of this form of the network (see `mobilenet_name`), and its float32 tensors.

    Raises
    ------
    ModelError
        One line, for a damaged file or a layer that is not understood.
    """
    layers = read_layers(path)
    with one_line_errors(path):
        return _Walk(layers, path).read()


class _Walk:
    """The layers of one file, from first to last."""

    def __init__(self, layers: list[KerasLayer], path: Path) -> None:
        self.path = path
        self.layers = _chain(layers, path)
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
        """Read [zeros,] a convolution, its batch normalisation and its rectifier."""
        layer = self._next()
        padding = None
        if layer.kind == "ZeroPadding2D":
            padding, layer = layer, self._next()
        outside = padding is not None
        self._expect(
            layer,
            kind=kind,
            kernel_size=[size, size],
            strides=[stride, stride],
            padding="valid" if outside else "same",
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
            if stride == 2:  # "same" on a picture of even size
                self.paddings.add(False)
            return
        zeros = _tuples(layer.config["padding"])
        if zeros not in _PADDINGS or size == 1 or (stride == 1 and not _PADDINGS[zeros]):
            self._refuse(layer, "zeros of another width")
        if stride == 2:  # with stride 1, one zero on every side is "same"
            self.paddings.add(_PADDINGS[zeros])

    def _norm(self, target: str, layer: KerasLayer, width: int) -> None:
        self._expect(layer, kind="BatchNormalization")
        if layer.config.get("axis") not in (-1, 3, [-1], [3]):
            self._refuse(layer, "normalisation along the channels")
        self._put(target, layer, width)
        # Only variance + epsilon counts: another epsilon goes into the variance.
        epsilon = float(layer.config["epsilon"])
        self.state[f"{target}.running_var"] += epsilon - EPSILON

    def _head(self) -> tuple[int, str] | None:
        """Read one dense layer or two, each with its activation; return the hidden one's form."""
        found: list[tuple[KerasLayer, str]] = []
        for layer in self.layers:
            if layer.kind in ("Dense", "Conv2D"):
                found.append((layer, _fused(layer.config)))
            elif (name := _activation(layer)) and found and found[-1][1] == "linear":
                found[-1] = (found[-1][0], name)
            else:
                self._refuse(layer, "a dense layer or the softmax")
        if not found or len(found) > 2:
            raise ModelError(f"{self.path}: its head has {len(found)} dense layers, not 1 or 2")
        last, activation = found[-1]
        if activation not in ("softmax", "linear"):
            self._refuse(last, "a softmax")
        self._dense("head", last)
        if len(found) == 1:
            return None
        layer, activation = found[0]
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
        found = torch_state(layer, self.path)
        if width is not None and len(next(iter(found.values()))) != width:
            self._refuse(layer, f"a layer of {width} (the width of MobileNet v1 with alpha = 1)")
        self.state.update({f"{target}.{name}": tensor for name, tensor in found.items()})

    def _next(self) -> KerasLayer:
        layer = next(self.layers, None)
        if layer is None:
            raise ModelError(f"{self.path}: ends before MobileNet v1 does")
        return layer

    def _expect(self, layer: KerasLayer, kind: str, **settings: Any) -> None:
        if layer.kind != kind:
            self._refuse(layer, kind)
        for name, wanted in settings.items():
            found = layer.config.get(name, wanted)
            same = _fused({"activation": found}) if name == "activation" else found
            if (list(same) if isinstance(same, tuple) else same) != wanted:
                self._refuse(layer, f"{name} {wanted} (it has {one_line(found, 60)})")

    def _refuse(self, layer: KerasLayer, wanted: str) -> NoReturn:
        raise ModelError(
            f"{self.path}: layer '{layer.name}' ({layer.kind}) is not understood; "
            f"MobileNet v1 has {wanted} there"
        )


def _chain(layers: list[KerasLayer], path: Path) -> Iterator[KerasLayer]:
    """Order layers by what follows what, leave the silent ones out; refuse a fork."""
    ordered: list[KerasLayer] = []
    after: dict[str, list[KerasLayer]] = {}
    for layer in layers:
        for name in layer.follows:
            after.setdefault(name, []).append(layer)
    starts = [layer for layer in layers if not layer.follows]
    while starts:
        if len(starts) > 1 or len(starts[0].follows) > 1:
            raise ModelError(
                f"{path}: layer '{starts[-1].name}' ({starts[-1].kind}) is not understood; "
                "MobileNet v1 is one line of layers"
            )
        if len(ordered) == len(layers):
            raise ModelError(f"{path}: layer '{starts[0].name}' follows itself")
        ordered.append(starts[0])
        starts = after.get(starts[0].name, [])
    return iter([layer for layer in ordered if layer.kind not in _SILENT])


def _activation(layer: KerasLayer) -> str | None:
    """Name the activation that a layer is; None where it is something else."""
    if layer.kind == "ReLU":
        most, plain = layer.config.get("max_value"), (None, 0.0, [0.0])
        if any(layer.config.get(key) not in plain for key in ("negative_slope", "threshold")):
            return None
        return {None: "relu", 6.0: "relu6"}.get(most)
    if layer.kind == "Activation":
        return _fused(layer.config)
    return {"Softmax": "softmax", "ELU": "elu", "relu6": "relu6", "Relu6": "relu6"}.get(layer.kind)


def _fused(config: dict[str, Any]) -> str:
    """Name the activation in a layer's settings, however it was written."""
    given: Any = config.get("activation") or "linear"
    while isinstance(given, dict):  # a function of the author's own, such as relu6
        given = given.get("registered_name") or given.get("config") or given.get("class_name")
        if isinstance(given, dict):
            given = given.get("name") or given
    name = str(given).rpartition(">")[2].rpartition(".")[2]
    return {"silu": "swish"}.get(name, name)


def _tuples(zeros: Any) -> Any:
    """Write an amount of zeros as ((top, bottom), (left, right))."""
    if isinstance(zeros, int):
        return ((zeros, zeros), (zeros, zeros))
    return tuple(_tuples(side)[0] if isinstance(side, int) else tuple(side) for side in zeros)
