"""Where a network's backbone ends: the names of its classification head's weights.

What stands before the head is the backbone; fine-tuning the head alone leaves it as it is.
"""

from torch import nn

from tasks.core.errors import ModelError


def head_parameters(module: nn.Module) -> list[str]:
    """Return the names of the last layer's weights, as in the module's state.

    Parameters
    ----------
    module
        A network that `build_module` made. Of a timm network the layer is what its
        `get_classifier` returns; of any other the last layer that has weights, which must be a
        linear layer or a convolution.

    Returns
    -------
    list of str
        Keys of `module.state_dict()`, such as `head.weight` and `head.bias`.

    Raises
    ------
    ModelError
        Where the network ends in something else.
    """
    head = _of_timm(module) if hasattr(module, "get_classifier") else _last_layer(module)
    inside = {id(weight) for part in head for weight in part.parameters()}
    names = [name for name, weight in module.named_parameters() if id(weight) in inside]
    if not names:
        raise ModelError(
            f"{type(module).__name__}: no classification head found; the network must end in a "
            "linear layer or a convolution"
        )
    return names


def _of_timm(module: nn.Module) -> list[nn.Module]:
    found = module.get_classifier()  # type: ignore[operator]
    parts = found if isinstance(found, list | tuple | nn.ModuleList) else [found]
    return [part for part in parts if isinstance(part, nn.Module)]


def _last_layer(module: nn.Module) -> list[nn.Module]:
    weighted = [part for part in module.modules() if list(part.parameters(recurse=False))]
    return [part for part in weighted[-1:] if isinstance(part, nn.Linear | nn.Conv2d)]
