"""Small networks: one for the drawn cohort, LeNet-5 and mini-XCEPTION.

LeNet-5 has ReLU and max pooling as in later versions: LeCun et al. 1998, "Gradient-based learning
applied to document recognition", doi 10.1109/5.726791.

mini-XCEPTION: O. Arriaga, M. Valdenegro-Toro, P. Plöger: "Real-time Convolutional Neural Networks
for Emotion and Gender Classification", arXiv 1710.07557;
https://github.com/oarriaga/face_classification (MIT). `tasks.train.pretrained` reads its published
weights.
"""

import torch
from torch import nn
from torch.nn import functional

_INPUT_PX = 32  # as published
_EPSILON = 1e-3  # of batch normalization in Keras
_WIDTHS = (16, 32, 64, 128)


class SmallResNet(nn.Module):
    """A short residual network: a stem, then one residual block at each of four sizes.

    It has about a million weights. It keeps full resolution longer than the torchvision networks
    do, since a moved brow or eyelid covers only a few pixels of a 96 px face.
    """

    def __init__(
        self, n_classes: int, channels: int, widths: tuple[int, ...] = (24, 48, 96, 160)
    ) -> None:
        super().__init__()
        self.stem = _convolution(channels, widths[0], stride=2)
        pairs = zip(widths, (*widths[1:], widths[-1]), strict=True)
        self.blocks = nn.Sequential(*(_Block(before, after) for before, after in pairs))
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, S, S)` images to `(N, n_classes)` logits."""
        maps = self.blocks(self.stem(x))  # (N, 160, S / 32, S / 32)
        logits: torch.Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    """Two 3 × 3 convolutions, the first with stride 2, added to a 1 × 1 shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = _convolution(before, after, stride=2)
        self.second = _convolution(after, after, stride=1, rectified=False)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, ceil_mode=True), _convolution(before, after, 1, False, size=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def _convolution(
    before: int, after: int, stride: int, rectified: bool = True, size: int = 3
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(after),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if rectified else []))


class LeNet5(nn.Module):
    """Two convolutions and three linear layers on 32 × 32 px; larger inputs are resized."""

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Linear(16 * 5 * 5, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, n_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, S, S)` images to `(N, n_classes)` logits."""
        if x.shape[-1] != _INPUT_PX:
            x = functional.interpolate(
                x, (_INPUT_PX, _INPUT_PX), mode="bilinear", align_corners=False, antialias=True
            )
        logits: torch.Tensor = self.head(self.features(x).flatten(1))
        return logits


class MiniXception(nn.Module):
    """Two plain convolutions, four residual separable blocks, then one map per class."""

    def __init__(self, n_classes: int, channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 8, 3, bias=False),
            nn.BatchNorm2d(8, eps=_EPSILON),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, bias=False),
            nn.BatchNorm2d(8, eps=_EPSILON),
            nn.ReLU(),
        )
        pairs = zip((8, *_WIDTHS), _WIDTHS, strict=False)
        self.blocks = nn.Sequential(*(_XceptionBlock(before, after) for before, after in pairs))
        self.head = nn.Conv2d(_WIDTHS[-1], n_classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, S, S)` images to `(N, n_classes)` logits."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))
        return logits


class _XceptionBlock(nn.Module):
    """Two separable convolutions and a pooling, added to a strided 1 × 1 shortcut."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            nn.Conv2d(before, after, 1, bias=False),
            nn.BatchNorm2d(after, eps=_EPSILON),
        )
        self.first = _separable(before, after)
        self.second = _separable(after, after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.second(torch.relu(self.first(x)))
        # Every second pixel, then a plain 1 × 1 convolution, equals a stride of 2, whose backward
        # pass in oneDNN writes out of bounds for 8 channels (oneDNN issue 6035).
        shortcut: torch.Tensor = self.shortcut(x[:, :, ::2, ::2])
        return _pool_same(maps) + shortcut


def _separable(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, before, 3, padding=1, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
        nn.BatchNorm2d(after, eps=_EPSILON),
    )


def _pool_same(x: torch.Tensor) -> torch.Tensor:
    """Max-pool 3 × 3 with stride 2 as Keras does with "same": an even side is padded at its end."""
    pads = [(0, 1) if side % 2 == 0 else (1, 1) for side in x.shape[-2:]]  # (height, width)
    padded = functional.pad(x, (*pads[1], *pads[0]), value=-torch.inf)
    return functional.max_pool2d(padded, 3, stride=2)
