"""mini-XCEPTION, the small face-emotion network of Arriaga et al., as a torch module.

O. Arriaga, M. Valdenegro-Toro, P. Plöger: "Real-time Convolutional Neural Networks for Emotion and
Gender Classification", arXiv 1710.07557; https://github.com/oarriaga/face_classification (MIT).
The trained weights come as a Keras file, which `keras_file.py` reads.
"""

import torch
from torch import nn
from torch.nn import functional

_EPSILON = 1e-3  # of batch normalisation in Keras
_WIDTHS = (16, 32, 64, 128)


class MiniXception(nn.Module):
    """Two plain convolutions, four residual blocks of separable ones, then one map a class."""

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
        self.blocks = nn.Sequential(*(_Block(before, after) for before, after in pairs))
        self.head = nn.Conv2d(_WIDTHS[-1], n_classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(N, C, S, S)` pictures to `(N, n_classes)` logits (the softmax is left out)."""
        logits: torch.Tensor = self.head(self.blocks(self.stem(x))).mean(dim=(2, 3))
        return logits


class _Block(nn.Module):
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
        # Every second pixel, then a plain 1 × 1 convolution: the same as a stride of 2, whose
        # backward pass in oneDNN writes outside its memory for 8 channels (oneDNN issue 6035).
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
