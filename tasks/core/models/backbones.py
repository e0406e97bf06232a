"""The networks by name: `build_module("compact", n_classes=7, channels=3)`.

Every one ends in raw scores (logits), takes any input size from 32 px up, and starts from random
weights: nothing is downloaded. The torchvision networks are He et al. (arXiv 1512.03385) and
Howard et al. (arXiv 1905.02244).
"""

from collections.abc import Callable, Mapping

from torch import nn
from torchvision import models

from tasks.core.errors import ModelError
from tasks.core.models.compact import Compact
from tasks.core.models.lenet import LeNet5
from tasks.core.models.mini_xception import MiniXception


def build_module(architecture: str, n_classes: int, channels: int) -> nn.Module:
    """Build a network with random weights.

    Parameters
    ----------
    architecture
        A name in `ARCHITECTURES`.
    n_classes
        Number of outputs.
    channels
        Channels of the input: 3 (rgb) or 1 (grey).

    Returns
    -------
    nn.Module
        From `(N, channels, S, S)` float32 to `(N, n_classes)` logits.

    Raises
    ------
    ModelError
        For an unknown name; the text lists the known ones.
    """
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ModelError(f"there is no network '{architecture}'; the networks are {known}")
    return ARCHITECTURES[architecture](n_classes, channels)


def _mobilenet_v3_small(n_classes: int, channels: int) -> nn.Module:
    network = models.mobilenet_v3_small(weights=None, num_classes=n_classes)
    if channels != 3:
        network.features[0][0] = _first_convolution(network.features[0][0], channels)
    return network


def _resnet18(n_classes: int, channels: int) -> nn.Module:
    return _resnet(models.resnet18(weights=None, num_classes=n_classes), channels)


def _resnet50(n_classes: int, channels: int) -> nn.Module:
    return _resnet(models.resnet50(weights=None, num_classes=n_classes), channels)


def _resnet(network: models.ResNet, channels: int) -> nn.Module:
    if channels != 3:
        network.conv1 = _first_convolution(network.conv1, channels)
    return network


def _first_convolution(model: nn.Conv2d, channels: int) -> nn.Conv2d:
    fresh = nn.Conv2d(
        channels,
        model.out_channels,
        model.kernel_size,  # type: ignore[arg-type]
        model.stride,  # type: ignore[arg-type]
        model.padding,  # type: ignore[arg-type]
        bias=False,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    return fresh


ARCHITECTURES: Mapping[str, Callable[[int, int], nn.Module]] = {
    "compact": Compact,
    "mobilenet_v3_small": _mobilenet_v3_small,
    "lenet5": LeNet5,
    "resnet18": _resnet18,
    "resnet50": _resnet50,
    "mini_xception": MiniXception,
}
