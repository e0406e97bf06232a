"""mini-XCEPTION's weights from the Keras file that it was published as.

Outputs agree with Keras to 1e-5 (a test holds recorded outputs).
"""

import re
from pathlib import Path

from tasks.core.errors import ModelError
from tasks.core.models.keras_file import (
    KerasLayer,
    State,
    one_line_errors,
    read_layers,
    torch_state,
)

_BLOCKS = 4
_CONVOLUTIONS, _SEPARABLES, _NORMS = 7, 8, 14
_EPSILON = 1e-3


def read_mini_xception(path: Path) -> tuple[str, State]:
    """Read a mini-XCEPTION file as the state of `MiniXception`.

    Parameters
    ----------
    path
        A file that Keras 2's `model.save` wrote, such as
        `fer2013_mini_XCEPTION.102-0.66.hdf5`.

    Returns
    -------
    tuple
        The architecture's name and its float32 tensors by the module's names, in torch's layout.

    Raises
    ------
    ModelError
        For a missing or damaged file, or one that holds another network.
    """
    layers = read_layers(path)
    with one_line_errors(path):
        return "mini_xception", _state(layers, path)


def _state(layers: list[KerasLayer], path: Path) -> State:
    plain = _numbered(layers, "Conv2D")
    separable = _numbered(layers, "SeparableConv2D")
    norms = _numbered(layers, "BatchNormalization")
    counts = (len(plain), len(separable), len(norms))
    epsilons = {layer.config["epsilon"] for layer in norms}
    if counts != (_CONVOLUTIONS, _SEPARABLES, _NORMS) or epsilons != {_EPSILON}:
        raise ModelError(f"{path}: holds another network than mini-XCEPTION")
    state: State = {}

    def put(target: str, layer: KerasLayer) -> None:
        found = torch_state(layer, path)
        state.update({f"{target}.{name}": tensor for name, tensor in found.items()})

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


def _numbered(layers: list[KerasLayer], kind: str) -> list[KerasLayer]:
    found = [layer for layer in layers if layer.kind == kind]
    return sorted(found, key=lambda layer: int((re.findall(r"\d+$", layer.name) or ["0"])[0]))
