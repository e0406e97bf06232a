"""What is trained, on which pictures and towards what: the part in which strategies differ.

`Strategy` itself is the plain way: all layers, every picture once an epoch (or, where an epoch is
balanced, every cell equally often), the loss of the params. The base model is trained so, and
`naive` fine-tuning. The others replace one of its parts each.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tasks.core.models.spec import ModelSpec
from tasks.train.balance import draw_balanced
from tasks.train.losses import LabelLoss
from tasks.train.pictures import Pictures

# From logits (B, K), the batch's rows (B,) among the training pictures and their targets (B,)
# to each picture's loss (B,).
Objective = Callable[[torch.Tensor, np.ndarray, torch.Tensor], torch.Tensor]


class Strategy:
    """All layers, every picture once an epoch, the loss with the labels."""

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

    def order(self, pictures: Pictures, rng: np.random.Generator) -> np.ndarray:
        """Draw an epoch's pictures: `(shown,)` rows, in the order of the steps."""
        return rng.permutation(once_or_balanced(np.arange(len(pictures)), pictures.cells, rng))

    def objective(
        self,
        module: nn.Module,
        spec: ModelSpec,
        train: Pictures,
        device: torch.device,
        label_loss: LabelLoss,
    ) -> Objective:
        """Make the loss; called once, with the network as the training found it."""

        def loss(logits: torch.Tensor, rows: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
            return label_loss(logits, targets)

        return loss


def once_or_balanced(rows: np.ndarray, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many rows as there are: each once, or where there are cells, balanced by these.

    Parameters
    ----------
    rows
        `(M,)` rows among the training pictures.
    cells
        `(N,)` cells of all training pictures; all 0 where an epoch is not balanced.
    rng
        The only source of chance.
    """
    own = cells[rows]
    return draw_balanced(rows, own, len(rows), rng) if cells.any() else rows
