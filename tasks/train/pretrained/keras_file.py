"""Keras model files (`.h5`, `.hdf5`) as lists of layers, without Keras or pickle.

The file's `model_config` (JSON) lists the layers, and each layer's arrays are found by its name.
Files of Keras 2, tf.keras and the legacy format of Keras 3 are supported. They differ in
`inbound_nodes` and in the names of arrays. Nested networks are flattened.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.core.errors import ModelError
from tasks.core.text import one_line
from tasks.train.pretrained.hdf5_arrays import read_hdf5

State = dict[str, torch.Tensor]
Arrays = dict[str, np.ndarray]
_MAX_LAYERS, _MAX_NAME = 2000, 200


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a file.

    Attributes
    ----------
    name
        As in the file; Keras numbers layers of one kind in order of creation.
    kind
        Class name without package and version, such as `Conv2D`.
    follows
        Names of its input layers; empty for an input.
    arrays
        Weights by their last name, such as `kernel`, float32 in Keras's layout.
    """

    name: str
    kind: str
    config: dict[str, Any]
    follows: tuple[str, ...]
    arrays: dict[str, np.ndarray]


def read_layers(path: Path) -> list[KerasLayer]:
    """Read every layer of a file written by `model.save`, in the file's order.

    Raises ModelError for a missing or damaged file, or one that contains only weights.
    """
    config, arrays = read_hdf5(path)
    with one_line_errors(path):
        return list(_layers(json.loads(config)["config"], arrays, None))


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Convert errors from malformed layer settings into ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - any setting may be missing or of any type
        kind = type(error).__name__
        raise ModelError(
            f"{path}: is not a complete Keras model file ({kind}: {one_line(error)})"
        ) from None


def torch_state(layer: KerasLayer, path: Path) -> State:
    """Convert a layer's weights to torch's names and layout.

    `layer` is a convolution (plain, depthwise or separable), a dense layer or a batch
    normalization. The result has `weight`, `bias` and so on; for a separable convolution `0.weight`
    (depthwise) and `1.weight` (pointwise). Raises ModelError for unexpected or missing arrays.
    """
    state: State = {}
    for name, array in layer.arrays.items():
        state.update(_convert(layer, name, array, path))
    needed = {"BatchNormalization": "running_var", "SeparableConv2D": "1.weight"}
    if needed.get(layer.kind, "weight") not in state:
        raise ModelError(f"{path}: layer '{layer.name}' ({layer.kind}) has no weights")
    if layer.kind == "BatchNormalization":  # layers without scale or center have no array for it
        state.setdefault("weight", torch.ones_like(state["running_var"]))
        state.setdefault("bias", torch.zeros_like(state["running_var"]))
        state["num_batches_tracked"] = torch.tensor(0, dtype=torch.int64)
    return state


def _layers(config: Any, weights: Arrays, inside: Arrays | None) -> Iterator[KerasLayer]:
    """Yield a network's layers; `inside` holds all arrays of the enclosing network."""
    entries = config["layers"] if isinstance(config, dict) else config
    if len(entries) > _MAX_LAYERS:
        raise ValueError(f"it has more than {_MAX_LAYERS:,} layers")
    is_sequential = not any(entry.get("inbound_nodes") for entry in entries)  # a Sequential
    previous: tuple[str, ...] = ()
    for entry in entries:
        settings = entry["config"]
        name = _printable_name(settings["name"])
        follows = (
            previous if is_sequential else tuple(dict.fromkeys(_follows(entry["inbound_nodes"])))
        )
        previous = (name,)
        if inside is None:
            arrays = {k: v for k, v in weights.items() if k.startswith(f"{name}/")}
        else:
            arrays = {k: v for k, v in inside.items() if name in k.split("/")[:-1]}
        if "layers" in settings:
            yield from _flatten_nested(name, follows, list(_layers(settings, weights, arrays)))
            continue
        kind = re.sub(r"V\d+$", "", _printable_name(entry["class_name"]).rpartition(">")[2])
        by_short_name = {
            key.rpartition("/")[2].split(":")[0]: array for key, array in arrays.items()
        }
        yield KerasLayer(name, kind, settings, follows, by_short_name)


def _printable_name(name: Any) -> str:
    """Return a layer's name; raise ValueError if it cannot be printed."""
    text = str(name)
    if one_line(text, _MAX_NAME) != text:
        raise ValueError(f"'{one_line(text, 60)}' is no name of a layer")
    return text


def _flatten_nested(
    name: str, outside: tuple[str, ...], layers: list[KerasLayer]
) -> Iterator[KerasLayer]:
    """Yield a nested network's layers: inputs become `outside`, its output gets its name."""
    inputs = {layer.name for layer in layers if layer.kind == "InputLayer"}
    inner = [layer for layer in layers if layer.name not in inputs]
    for layer in inner:
        follows = tuple(f for f in layer.follows if f not in inputs) or outside
        yield KerasLayer(layer.name, layer.kind, layer.config, follows, layer.arrays)
    yield KerasLayer(name, "Network", {}, (inner[-1].name,), {})


def _follows(nodes: Any) -> Iterator[str]:
    """Yield the layer names in `inbound_nodes`, in any of its three forms."""
    if isinstance(nodes, dict):
        history = nodes.get("keras_history")
        yield from _follows(history if history is not None else list(nodes.values()))
    elif isinstance(nodes, list):
        is_reference = len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int)
        if is_reference:
            yield nodes[0]
        else:
            for node in nodes:
                yield from _follows(node)


def _convert(layer: KerasLayer, name: str, array: np.ndarray, path: Path) -> State:
    is_norm = layer.kind == "BatchNormalization"
    if is_norm and name in _NORM_NAMES:
        return {_NORM_NAMES[name]: torch.from_numpy(array)}
    if name == "bias" and not is_norm:
        return {"bias": torch.from_numpy(array)}
    target, axes = _KERNELS.get((layer.kind, name), ("", ()))
    if not target or array.ndim != len(axes):
        raise ModelError(
            f"{path}: layer '{layer.name}' ({layer.kind}) holds an array '{one_line(name)}' of "
            f"{array.ndim} dimensions, which is not understood"
        )
    return {target: torch.from_numpy(array.transpose(axes).copy())}


_NORM_NAMES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# A convolution's (h, w, C, D) becomes (D, C, h, w); a depthwise one's (h, w, C, 1) (C, 1, h, w).
_KERNELS: dict[tuple[str, str], tuple[str, tuple[int, ...]]] = {
    ("Conv2D", "kernel"): ("weight", (3, 2, 0, 1)),
    ("DepthwiseConv2D", "depthwise_kernel"): ("weight", (2, 3, 0, 1)),
    ("DepthwiseConv2D", "kernel"): ("weight", (2, 3, 0, 1)),  # its name since Keras 3
    ("SeparableConv2D", "depthwise_kernel"): ("0.weight", (2, 3, 0, 1)),
    ("SeparableConv2D", "pointwise_kernel"): ("1.weight", (3, 2, 0, 1)),
    ("Dense", "kernel"): ("weight", (1, 0)),
}
