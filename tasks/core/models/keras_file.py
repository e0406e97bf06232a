"""Keras model files (`.h5`, `.hdf5`) as lists of layers: no Keras, no pickle.

The file's own `model_config` (JSON) lists the layers, and each one's arrays are found by its name.
Read are the files of Keras 2 and tf.keras, and those that Keras 3 calls legacy: they differ in how
a layer names what it follows (`inbound_nodes`) and in how arrays are named. Networks inside
networks are written out.
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
from tasks.core.models.hdf5_arrays import read_hdf5
from tasks.core.text import one_line

State = dict[str, torch.Tensor]
Arrays = dict[str, np.ndarray]
_MAX_LAYERS, _MAX_NAME = 2000, 200


@dataclass(frozen=True)
class KerasLayer:
    """One layer of a file.

    Attributes
    ----------
    name
        As in the file; Keras numbers layers of one kind in the order in which they were made.
    kind
        Its class without package and version, such as `Conv2D`.
    config
        Its settings.
    follows
        The names of the layers whose output it takes; empty for an input.
    arrays
        Its weights by their last name, such as `kernel`, float32 in Keras's layout.
    """

    name: str
    kind: str
    config: dict[str, Any]
    follows: tuple[str, ...]
    arrays: dict[str, np.ndarray]


def read_layers(path: Path) -> list[KerasLayer]:
    """Read every layer of a Keras model file, in the file's order.

    Parameters
    ----------
    path
        A file that `model.save` wrote.

    Raises
    ------
    ModelError
        For a missing or damaged file, or one that holds weights alone.
    """
    config, arrays = read_hdf5(path)
    with one_line_errors(path):
        return list(_layers(json.loads(config)["config"], arrays, None))


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn what goes wrong in layers with settings that no Keras wrote into a ModelError."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - any setting may be missing or of any type
        kind = type(error).__name__
        raise ModelError(
            f"{path}: is no complete Keras model file ({kind}: {one_line(error)})"
        ) from None


def torch_state(layer: KerasLayer, path: Path) -> State:
    """Turn a layer's weights into what torch calls them, in torch's layout.

    Parameters
    ----------
    layer
        A convolution (plain, depthwise or separable), a dense layer or a batch normalisation.
    path
        The file, for messages.

    Returns
    -------
    dict of str to torch.Tensor
        `weight`, `bias` and so on; of a separable convolution `0.weight` (depthwise) and
        `1.weight` (pointwise).

    Raises
    ------
    ModelError
        For an array that a layer of this kind should not have or should have.
    """
    state: State = {}
    for name, array in layer.arrays.items():
        state.update(_converted(layer, name, array, path))
    needed = {"BatchNormalization": "running_var", "SeparableConv2D": "1.weight"}
    if needed.get(layer.kind, "weight") not in state:
        raise ModelError(f"{path}: layer '{layer.name}' ({layer.kind}) has no weights")
    if layer.kind == "BatchNormalization":  # one without scale or centre keeps no array for it
        state.setdefault("weight", torch.ones_like(state["running_var"]))
        state.setdefault("bias", torch.zeros_like(state["running_var"]))
        state["num_batches_tracked"] = torch.tensor(0, dtype=torch.int64)
    return state


def _layers(config: Any, weights: Arrays, inside: Arrays | None) -> Iterator[KerasLayer]:
    """Yield a network's layers; `inside` are all arrays of the network that this one is part of."""
    entries = config["layers"] if isinstance(config, dict) else config
    if len(entries) > _MAX_LAYERS:
        raise ValueError(f"it has more than {_MAX_LAYERS:,} layers")
    in_a_row = not any(entry.get("inbound_nodes") for entry in entries)  # a Sequential
    before: tuple[str, ...] = ()
    for entry in entries:
        settings = entry["config"]
        name = _plain(settings["name"])
        follows = before if in_a_row else tuple(dict.fromkeys(_follows(entry["inbound_nodes"])))
        before = (name,)
        if inside is None:
            arrays = {k: v for k, v in weights.items() if k.startswith(f"{name}/")}
        else:
            arrays = {k: v for k, v in inside.items() if name in k.split("/")[:-1]}
        if "layers" in settings:
            yield from _spliced(name, follows, list(_layers(settings, weights, arrays)))
            continue
        kind = re.sub(r"V\d+$", "", _plain(entry["class_name"]).rpartition(">")[2])
        last = {key.rpartition("/")[2].split(":")[0]: array for key, array in arrays.items()}
        yield KerasLayer(name, kind, settings, follows, last)


def _plain(name: Any) -> str:
    """Return a name that can stand in a message."""
    text = str(name)
    if one_line(text, _MAX_NAME) != text:
        raise ValueError(f"'{one_line(text, 60)}' is no name of a layer")
    return text


def _spliced(name: str, outside: tuple[str, ...], layers: list[KerasLayer]) -> Iterator[KerasLayer]:
    """Put a network's layers where it stands: after `outside`, and its end under its name."""
    inputs = {layer.name for layer in layers if layer.kind == "InputLayer"}
    kept = [layer for layer in layers if layer.name not in inputs]
    for layer in kept:
        follows = tuple(f for f in layer.follows if f not in inputs) or outside
        yield KerasLayer(layer.name, layer.kind, layer.config, follows, layer.arrays)
    yield KerasLayer(name, "Network", {}, (kept[-1].name,), {})


def _follows(nodes: Any) -> Iterator[str]:
    """Yield the layer names in `inbound_nodes`, in whichever of the three forms they are."""
    if isinstance(nodes, dict):
        history = nodes.get("keras_history")
        yield from _follows(history if history is not None else list(nodes.values()))
    elif isinstance(nodes, list):
        named = len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int)
        if named:
            yield nodes[0]
        else:
            for node in nodes:
                yield from _follows(node)


def _converted(layer: KerasLayer, name: str, array: np.ndarray, path: Path) -> State:
    norm = layer.kind == "BatchNormalization"
    if norm and name in _NORM_NAMES:
        return {_NORM_NAMES[name]: torch.from_numpy(array)}
    if name == "bias" and not norm:
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
