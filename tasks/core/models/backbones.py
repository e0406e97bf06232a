"""The networks by name: `build_module("compact", n_classes=7, channels=3)`.

All return logits and start from random weights; nothing is downloaded. They accept any input size
from 32 px up, except AlexNet (63 px; see `check_input_size`) and those of timm's networks that are
built for one size. docs/models.md lists the papers.
"""

from collections.abc import Callable, Mapping

from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.mobilenet_v1 import MobileNetV1, build_mobilenet, is_mobilenet_name
from tasks.core.models.small_networks import LeNet5, MiniXception, SmallResNet
from tasks.core.models.timm_model import PREFIX, build_timm
from tasks.core.text import one_line

# Our names for timm networks; the tag selects the weights of `train.init: imagenet`.
TIMM_NAMES: Mapping[str, str] = {
    "vgg16": f"{PREFIX}vgg16.tv_in1k",
    "resnet152": f"{PREFIX}resnet152.tv2_in1k",
    "densenet121": f"{PREFIX}densenet121.tv_in1k",
    "efficientnet_b0": f"{PREFIX}efficientnet_b0.ra_in1k",
    "senet": f"{PREFIX}seresnet50.ra2_in1k",
    "mobilenet_v3": f"{PREFIX}mobilenetv3_large_100.ra_in1k",
    "mobilenet_v3_large": f"{PREFIX}mobilenetv3_large_100.ra_in1k",
}


def build_module(
    architecture: str, n_classes: int, channels: int, input_size_px: int | None = None
) -> nn.Module:
    """Build a network with random weights, from `(N, channels, S, S)` float32 to logits.

    Parameters
    ----------
    architecture
        A name in `ARCHITECTURES` or `TIMM_NAMES`, a variant of `mobilenet_v1` (see
        `mobilenet_name`), or `timm/` and a name of timm's.
    channels
        3 (rgb) or 1 (gray).
    input_size_px
        Input size for timm networks that are built for one; None: the published size.

    Raises
    ------
    ModelError
        For an unknown name; the text lists the known ones.
    """
    architecture = TIMM_NAMES.get(architecture, architecture)
    if architecture.startswith(PREFIX):
        return build_timm(architecture, n_classes, channels, input_size_px)
    if is_mobilenet_name(architecture):
        return build_mobilenet(architecture, n_classes, channels)
    if architecture not in ARCHITECTURES:
        known = ", ".join([*ARCHITECTURES, *TIMM_NAMES, f"{PREFIX}<name>"])
        raise ModelError(
            f"there is no network '{one_line(architecture, 80)}'; the networks are {known}"
        )
    return ARCHITECTURES[architecture](n_classes, channels)


def _torchvision(name: str, first: str) -> Callable[[int, int], nn.Module]:
    """Return a builder of a torchvision network whose first convolution is `first`."""

    def build(n_classes: int, channels: int) -> nn.Module:
        from torchvision import models  # slow to import and rarely needed

        network = models.get_model(name, weights=None, num_classes=n_classes)
        return _with_channels(network, first, channels)

    return build


def _with_channels(network: nn.Module, first: str, channels: int) -> nn.Module:
    """Replace the first convolution of a color network if `channels` differs."""
    old = network.get_submodule(first)
    assert isinstance(old, nn.Conv2d)
    if channels == old.in_channels:
        return network
    fresh = nn.Conv2d(
        channels,
        old.out_channels,
        (old.kernel_size[0], old.kernel_size[1]),
        (old.stride[0], old.stride[1]),
        (int(old.padding[0]), int(old.padding[1])),
        bias=old.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    if fresh.bias is not None:
        nn.init.zeros_(fresh.bias)
    parent, _, name = first.rpartition(".")
    network.get_submodule(parent).register_module(name, fresh)
    return network


ARCHITECTURES: Mapping[str, Callable[[int, int], nn.Module]] = {
    "compact": SmallResNet,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small", "features.0.0"),
    "lenet5": LeNet5,
    "alexnet": _torchvision("alexnet", "features.0"),
    "resnet18": _torchvision("resnet18", "conv1"),
    "resnet50": _torchvision("resnet50", "conv1"),
    "mini_xception": MiniXception,
}


def head_parameter_names(module: nn.Module) -> list[str]:
    """Return the names of the last layer's weights, keys of `module.state_dict()`.

    For a timm network the head is what its `get_classifier` returns. For any other it is the last
    layer with weights, which must be linear or a convolution; else ModelError is raised.
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
    classifier = module.get_classifier()  # type: ignore[operator]
    parts = classifier if isinstance(classifier, list | tuple | nn.ModuleList) else [classifier]
    return [part for part in parts if isinstance(part, nn.Module)]


def _last_layer(module: nn.Module) -> list[nn.Module]:
    with_weights = [layer for layer in module.modules() if list(layer.parameters(recurse=False))]
    return [layer for layer in with_weights[-1:] if isinstance(layer, nn.Linear | nn.Conv2d)]
