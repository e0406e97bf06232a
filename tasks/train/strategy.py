"""What is trained, on which pictures and towards what: the part in which strategies differ.

`Strategy` itself is the plain way: all layers, every picture once an epoch, cross-entropy. The
base model is trained so, and `naive` fine-tuning. The others replace one of its parts each.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tasks.core.models.spec import ModelSpec
from tasks.train.pictures import Pictures

# From logits (B, K), the batch's rows (B,) among the training pictures and their targets (B,)
# to a loss, the mean over the batch.
Objective = Callable[[torch.Tensor, np.ndarray, torch.Tensor], torch.Tensor]


class Strategy:
    """All layers, every picture once an epoch, cross-entropy."""

    name = "naive"

    def trainable(self, module: nn.Module) -> list[str]:
        """Name the weights that change; the rest, and every running statistic, stays."""
        return [name for name, _ in module.named_parameters()]

    def freezes(self, module: nn.Module) -> bool:
        """Tell whether some of the network stays as it is."""
        return len(self.trainable(module)) < len(list(module.parameters()))

    def shown(self, n_pictures: int) -> int:
        """Return how many pictures an epoch shows, out of those that there are."""
        return n_pictures

    def order(self, n_pictures: int, rng: np.random.Generator) -> np.ndarray:
        """Draw an epoch's pictures: `(shown,)` rows, in the order of the steps."""
        return rng.permutation(n_pictures)

    def objective(
        self, module: nn.Module, spec: ModelSpec, train: Pictures, device: torch.device
    ) -> Objective:
        """Make the loss; called once, with the network as the training found it."""
        return labels_alone


def labels_alone(logits: torch.Tensor, rows: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy with the labels, the mean over the batch."""
    return functional.cross_entropy(logits, targets)
