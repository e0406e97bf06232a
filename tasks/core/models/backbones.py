"""The networks by name: `build_module("compact", n_classes=7, channels=3)`.

Every one ends in raw scores (logits) and starts from random weights: nothing is downloaded. All
take any input size from 32 px up, but for AlexNet (63 px; see `require_size`) and some of timm's,
which are built for one size. docs/models.md says which paper each is from.
"""

from collections.abc import Callable, Mapping

from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.compact import Compact
from tasks.core.models.lenet import LeNet5
from tasks.core.models.mini_xception import MiniXception
from tasks.core.models.mobilenet_v1 import MobileNetV1, build_mobilenet, is_mobilenet
from tasks.core.models.timm_network import PREFIX, build_timm
from tasks.core.text import one_line

# Names of ours for networks of timm; the tag chooses the weights of `train.start: imagenet`.
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
    """Build a network with random weights.

    Parameters
    ----------
    architecture
        A name in `ARCHITECTURES` or `TIMM_NAMES`, a form of `mobilenet_v1` (see
        `mobilenet_name`), or `timm/` and a name of timm's.
    n_classes
        Number of outputs.
    channels
        Channels of the input: 3 (rgb) or 1 (grey).
    input_size_px
        Width and height of the input, for those of timm's networks that are built for one; None:
        the size that such a network was published for.

    Returns
    -------
    nn.Module
        From `(N, channels, S, S)` float32 to `(N, n_classes)` logits.

    Raises
    ------
    ModelError
        For an unknown name; the text lists the known ones.
    """
    architecture = TIMM_NAMES.get(architecture, architecture)
    if architecture.startswith(PREFIX):
        return build_timm(architecture, n_classes, channels, input_size_px)
    if is_mobilenet(architecture):
        return build_mobilenet(architecture, n_classes, channels)
    if architecture not in ARCHITECTURES:
        known = ", ".join([*ARCHITECTURES, *TIMM_NAMES, f"{PREFIX}<name>"])
        raise ModelError(
            f"there is no network '{one_line(architecture, 80)}'; the networks are {known}"
        )
    return ARCHITECTURES[architecture](n_classes, channels)


def _torchvision(name: str, first: str) -> Callable[[int, int], nn.Module]:
    """Return the builder of one of torchvision's networks, whose first convolution is `first`."""

    def build(n_classes: int, channels: int) -> nn.Module:
        from torchvision import models  # slow to import, and most runs need none of these

        network = models.get_model(name, weights=None, num_classes=n_classes)
        return _with_channels(network, first, channels)

    return build


def _with_channels(network: nn.Module, first: str, channels: int) -> nn.Module:
    """Give a network for colour pictures a first convolution for `channels` channels."""
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
    "compact": Compact,
    "mobilenet_v1": MobileNetV1,
    "mobilenet_v3_small": _torchvision("mobilenet_v3_small", "features.0.0"),
    "lenet5": LeNet5,
    "alexnet": _torchvision("alexnet", "features.0"),
    "resnet18": _torchvision("resnet18", "conv1"),
    "resnet50": _torchvision("resnet50", "conv1"),
    "mini_xception": MiniXception,
}
