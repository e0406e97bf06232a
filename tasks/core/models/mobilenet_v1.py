"""MobileNet v1 as Keras builds it, so that weights trained there give the same outputs here.

Howard et al. 2017, arXiv 1704.04861. Keras's choices are ReLU6, a batch-normalization epsilon of
1e-3, and zero padding before a strided convolution only below and to the right (Keras before 2.2
padded every side).
"""

import re
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from tasks.core.errors import ModelError

EPSILON = 1e-3
# (outputs, stride) of the separable convolutions after the first convolution of 32.
BLOCKS: tuple[tuple[int, int], ...] = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
STEM_WIDTH, WIDTH = 32, 1024
ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
}
_NAME = re.compile(rf"mobilenet_v1(_padded)?(?:_({'|'.join(ACTIVATIONS)})(\d+))?")


class MobileNetV1(nn.Module):
    """A convolution, 13 separable ones, global average pooling, and a linear layer.

    Parameters
    ----------
    hidden
        Width and activation (a key of `ACTIVATIONS`) of a hidden layer before the last; None: none.
    padded
        Whether strided convolutions are zero-padded on every side.
    """

    def __init__(
        self,
        n_classes: int,
        channels: int,
        hidden: tuple[int, str] | None = None,
        padded: bool = False,
    ) -> None:
        super().__init__()
        self.stem = _Convolution(channels, STEM_WIDTH, 3, 2, 1, padded)
        widths = (STEM_WIDTH, *(width for width, _ in BLOCKS))
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    _Convolution(before, before, 3, stride, before, padded),
                    _Convolution(before, after, 1, 1, 1, padded),
                )
                for before, (after, stride) in zip(widths, BLOCKS, strict=False)
            )
        )
        width, activation = hidden or (WIDTH, "linear")
        layers = [nn.Linear(WIDTH, width), ACTIVATIONS[activation]()] if hidden else []
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, S, S)` images to `(N, n_classes)` logits."""
        maps = self.blocks(self.stem(x))  # (N, 1024, S / 32, S / 32)
        logits: torch.Tensor = self.head(self.hidden(maps.mean(dim=(2, 3))))
        return logits


class _Convolution(nn.Module):
    """A convolution, batch normalization and ReLU6."""

    def __init__(
        self, before: int, after: int, size: int, stride: int, groups: int, padded: bool
    ) -> None:
        super().__init__()
        self.strided = stride > 1
        self.zeros = (1, 1, 1, 1) if padded else (0, 1, 0, 1)
        padding = 0 if self.strided else size // 2
        self.convolution = nn.Conv2d(
            before, after, size, stride, padding, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(after, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.strided:
            x = functional.pad(x, self.zeros)
        return functional.relu6(self.norm(self.convolution(x)))


def mobilenet_name(hidden: tuple[int, str] | None, padded: bool) -> str:
    """Return the name of a variant, such as `mobilenet_v1` or `mobilenet_v1_relu256`."""
    suffix = f"_{hidden[1]}{hidden[0]}" if hidden else ""
    return f"mobilenet_v1{'_padded' if padded else ''}{suffix}"


def is_mobilenet_name(name: str) -> bool:
    """Return whether a name is one that `mobilenet_name` returns."""
    return _NAME.fullmatch(name) is not None


def build_mobilenet(name: str, n_classes: int, channels: int) -> MobileNetV1:
    """Build a variant of the network by its name; raise ModelError for an unknown one."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ModelError(f"'{name}' is no form of mobilenet_v1")
    hidden = (int(match[3]), match[2]) if match[2] else None
    return MobileNetV1(n_classes, channels, hidden, padded=bool(match[1]))
