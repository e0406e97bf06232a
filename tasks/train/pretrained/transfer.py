"""Initial networks: loading backbone weights, and a check of the input size."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.backbones import head_parameter_names

_LARGEST_PX = 1024  # upper bound of the search for a suitable size


@dataclass(frozen=True)
class InitialWeights:
    """A network to train, and the normalization and source of its initial weights."""

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def load_backbone(
    module: nn.Module, state: Mapping[str, torch.Tensor], origin: Path | str
) -> nn.Module:
    """Load all weights but the head's into `module`, in place.

    If the weights were trained on color and the network takes gray, the first layer's weights are
    summed over the channels, which equals repeating gray in all three. The weights' head may have
    any number of outputs. Raises ModelError if they are of another network; `origin` is for
    messages.
    """
    head, current = set(head_parameter_names(module)), module.state_dict()
    body = {
        name: _match_channels(tensor, current.get(name))
        for name, tensor in state.items()
        if name not in head
    }
    try:
        missing, foreign = module.load_state_dict(body, strict=False)
    except RuntimeError:
        missing, foreign = ["sizes"], []
    if set(missing) - head or foreign:
        raise ModelError(f"{origin}: does not fit the network '{type(module).__name__}'")
    return module


def _match_channels(tensor: torch.Tensor, wanted: torch.Tensor | None) -> torch.Tensor:
    is_color = tensor.ndim == 4 and tensor.shape[1] == 3
    is_gray = wanted is not None and wanted.ndim == 4 and wanted.shape[1] == 1
    return tensor.sum(dim=1, keepdim=True) if is_color and is_gray else tensor


def check_input_size(module: nn.Module, architecture: str, channels: int, size_px: int) -> None:
    """Check that a network accepts an input size, without computing anything.

    Raises ModelError with the smallest size from this one up that the network accepts.
    """
    if _accepts(module, channels, size_px) or not _accepts(module, channels, _LARGEST_PX):
        return  # a failure at every size has another reason
    too_small, enough = size_px, _LARGEST_PX
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if _accepts(module, channels, middle):
            enough = middle
        else:
            too_small = middle
    raise ModelError(
        f"{architecture}: {size_px} px is too small an input; its smallest is {enough} px "
        "(input_size_px)"
    )


def _accepts(module: nn.Module, channels: int, size_px: int) -> bool:
    """Return whether a forward pass works, on torch's "meta" device."""
    tensors = {
        name: tensor.detach().to("meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    image = torch.empty(1, channels, size_px, size_px, device="meta")
    training = module.training
    try:
        with torch.no_grad():
            torch.func.functional_call(module.eval(), tensors, (image,))
    except Exception:  # noqa: BLE001 - each network raises its own errors
        return False
    finally:
        module.train(training)
    return True
