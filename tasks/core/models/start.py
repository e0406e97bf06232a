"""A network as its training begins: with which weights, and whether its input is large enough."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.head import head_parameters

_LARGEST_PX = 1024  # beyond it no network is looked for a size that suits it


@dataclass(frozen=True)
class Start:
    """A network to train on: with which normalisation its weights were trained, and whence."""

    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str


def with_body(
    module: nn.Module, state: Mapping[str, torch.Tensor], origin: Path | str
) -> nn.Module:
    """Load everything but the head, which stays as it is.

    Where the weights were trained on colour and the network takes grey, those of the first layer
    are summed over the colours: it answers to grey as it would to that grey in all three.

    Parameters
    ----------
    module
        A network that `build_module` made; changed in place.
    state
        Weights of the same network, with a head of any number of outputs.
    origin
        Where they are from, for messages.

    Raises
    ------
    ModelError
        One line, where the weights are of another network.
    """
    head, own = set(head_parameters(module)), module.state_dict()
    body = {
        name: _summed(tensor, own.get(name)) for name, tensor in state.items() if name not in head
    }
    try:
        missing, foreign = module.load_state_dict(body, strict=False)
    except RuntimeError:
        missing, foreign = ["sizes"], []
    if set(missing) - head or foreign:
        raise ModelError(f"{origin}: does not fit the network '{type(module).__name__}'")
    return module


def _summed(tensor: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
    colour = tensor.ndim == 4 and tensor.shape[1] == 3
    grey = own is not None and own.ndim == 4 and own.shape[1] == 1
    return tensor.sum(dim=1, keepdim=True) if colour and grey else tensor


def require_size(module: nn.Module, architecture: str, channels: int, size_px: int) -> None:
    """Make sure that a network can take pictures of a size; nothing is computed.

    Parameters
    ----------
    module, architecture
        The network, and its name for messages.
    channels, size_px
        Channels, width and height of the input.

    Raises
    ------
    ModelError
        One line that names the smallest size from this one up that the network can take.
    """
    if _takes(module, channels, size_px) or not _takes(module, channels, _LARGEST_PX):
        return  # what fails at any size is not for its size
    too_small, enough = size_px, _LARGEST_PX
    while enough - too_small > 1:
        middle = (too_small + enough) // 2
        if _takes(module, channels, middle):
            enough = middle
        else:
            too_small = middle
    raise ModelError(
        f"{architecture}: {size_px} px is too small an input; its smallest is {enough} px "
        "(input_size_px)"
    )


def _takes(module: nn.Module, channels: int, size_px: int) -> bool:
    """Send a picture without content through the network, on torch's device for shapes alone."""
    tensors = {
        name: tensor.detach().to("meta")
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }
    picture = torch.empty(1, channels, size_px, size_px, device="meta")
    training = module.training
    try:
        with torch.no_grad():
            torch.func.functional_call(module.eval(), tensors, (picture,))
    except Exception:  # noqa: BLE001 - each network has its own way to refuse
        return False
    finally:
        module.train(training)
    return True
