"""Reading mini-XCEPTION's weights from the Keras file it was published as, through h5py alone.

Neither Keras nor pickle: the file's own `model_config` (JSON) lists the layers, and the arrays are
read by layer name. Outputs agree with Keras to 1e-5 (a test holds recorded outputs).
"""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from tasks.core.errors import ModelError

_BLOCKS = 4
_CONVOLUTIONS, _SEPARABLES, _NORMS = 7, 8, 14
_EPSILON = 1e-3


def read_mini_xception(path: Path) -> dict[str, torch.Tensor]:
    """Read a mini-XCEPTION `.hdf5` file as the state of `MiniXception`.

    Parameters
    ----------
    path
        A file that Keras 2's `model.save` wrote, such as
        `fer2013_mini_XCEPTION.102-0.66.hdf5`.

    Returns
    -------
    dict of str to torch.Tensor
        Float32 tensors by the module's names, in torch's layout.

    Raises
    ------
    ModelError
        For a missing or damaged file, or one that holds another network.
    """
    try:
        with h5py.File(path, "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            return _state(layers, file["model_weights"], path)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such weights file") from None
    except (OSError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"{path}: is no whole Keras model file ({reason})") from None


def _state(layers: list[Any], weights: h5py.Group, path: Path) -> dict[str, torch.Tensor]:
    plain = _names(layers, "Conv2D")
    separable = _names(layers, "SeparableConv2D")
    norms = _names(layers, "BatchNormalization")
    epsilons = {layer["config"]["epsilon"] for layer in layers if layer["config"]["name"] in norms}
    counts = (len(plain), len(separable), len(norms))
    if counts != (_CONVOLUTIONS, _SEPARABLES, _NORMS) or epsilons != {_EPSILON}:
        raise ModelError(f"{path}: holds another network than mini-XCEPTION")
    state: dict[str, torch.Tensor] = {}

    def put(target: str, layer: str) -> None:
        for name, array in _arrays(weights[layer]).items():
            state.update(_converted(target, name, array))

    # Keras numbers layers in the order in which they were made: a block's shortcut comes first.
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


def _names(layers: list[Any], class_name: str) -> list[str]:
    names = [str(layer["config"]["name"]) for layer in layers if layer["class_name"] == class_name]
    return sorted(names, key=lambda name: int((re.findall(r"\d+$", name) or ["0"])[0]))


def _arrays(group: h5py.Group) -> dict[str, np.ndarray]:
    """Read a layer's arrays by their last name: `kernel`, `bias`, `gamma` and so on."""
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name.rsplit("/", 1)[-1].split(":")[0]] = np.asarray(item, dtype=np.float32)

    group.visititems(visit)
    return found


def _converted(target: str, name: str, array: np.ndarray) -> dict[str, torch.Tensor]:
    if name == "depthwise_kernel":  # (3, 3, C, 1) -> (C, 1, 3, 3)
        return {f"{target}.0.weight": torch.from_numpy(array.transpose(2, 3, 0, 1).copy())}
    if name == "pointwise_kernel":  # (1, 1, C, D) -> (D, C, 1, 1)
        return {f"{target}.1.weight": torch.from_numpy(array.transpose(3, 2, 0, 1).copy())}
    if name == "kernel":  # (h, w, C, D) -> (D, C, h, w)
        return {f"{target}.weight": torch.from_numpy(array.transpose(3, 2, 0, 1).copy())}
    if name == "moving_mean":  # with it the count of batches, which torch keeps and Keras does not
        return {
            f"{target}.running_mean": torch.from_numpy(array),
            f"{target}.num_batches_tracked": torch.tensor(0, dtype=torch.int64),
        }
    renamed = {"gamma": "weight", "beta": "bias", "moving_variance": "running_var", "bias": "bias"}
    return {f"{target}.{renamed[name]}": torch.from_numpy(array)}
