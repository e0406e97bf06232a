"""`torch.compile`, where the recipe asks for it.

The compiled function shares the network's weights: their names, and what is written to disk, stay
those of the plain network. On a CPU it takes a minute or two before the first step and then saves
mobilenet_v3_small about a tenth of each step and a small network nothing; so `auto` means CUDA
alone.
"""

from collections.abc import Callable

import torch

from tasks.core.errors import ModelError
from tasks.train.recipe import Recipe

Forward = Callable[[torch.Tensor], torch.Tensor]
_SHOWN_CHARACTERS = 160


def wants_compiling(recipe: Recipe, device: torch.device) -> bool:
    """Tell whether a network is compiled on a device."""
    return recipe.compile == "always" or (recipe.compile == "auto" and device.type == "cuda")


def is_of_compiler(error: BaseException) -> bool:
    """Tell whether an error is one of `torch.compile`."""
    from torch._dynamo.exc import TorchDynamoException  # has no public name

    return isinstance(error, TorchDynamoException)


def without_compiling(recipe: Recipe, error: BaseException) -> str:
    """Say that the training goes on without; raises ModelError where it was asked for by name."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[0][:_SHOWN_CHARACTERS]
    if recipe.compile == "always":
        raise ModelError(
            f"torch.compile cannot compile this network here ({reason}); set compile: never"
        )
    return f"torch.compile cannot compile this network here ({reason}); it is trained without"
