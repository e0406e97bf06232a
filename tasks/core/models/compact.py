"""The small network for the drawn cohort: what reads it best in a minute or two on two cores."""

import torch
from torch import nn


class Compact(nn.Module):
    """A short residual network: a stem, then one residual block at each of four sizes.

    About a million weights. It keeps full resolution longer than the torchvision networks do,
    since a brow or an eyelid that moved is only a few pixels of a 96 px face.
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
        """Map `(N, C, S, S)` pictures to `(N, n_classes)` logits."""
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
