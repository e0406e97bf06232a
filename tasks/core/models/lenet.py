"""LeNet-5, with the rectifiers and max pooling that later users gave it.

LeCun et al. 1998, "Gradient-based learning applied to document recognition", doi 10.1109/5.726791.
"""

import torch
from torch import nn
from torch.nn import functional

_INPUT_PX = 32  # what the published layers fit


class LeNet5(nn.Module):
    """Two convolutions and three linear layers on 32 × 32 px; larger inputs are shrunk to that."""

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
        """Map `(N, C, S, S)` pictures to `(N, n_classes)` logits."""
        if x.shape[-1] != _INPUT_PX:
            x = functional.interpolate(
                x, (_INPUT_PX, _INPUT_PX), mode="bilinear", align_corners=False, antialias=True
            )
        logits: torch.Tensor = self.head(self.features(x).flatten(1))
        return logits
