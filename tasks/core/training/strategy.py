"""Training strategies: which weights are trained, on which samples, with which loss.

`Strategy` itself is plain training: all layers, every image once per epoch (or balanced cells), the
loss of the params. The base model and `naive` fine-tuning use it. Subclasses replace single parts.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from tasks.core.models.spec import ModelSpec
from tasks.core.training.data.balanced_sampling import sample_balanced
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.losses import LabelLoss

# From logits (B, K), the batch's rows (B,) among the training images and their targets (B,)
# to per-sample losses (B,).
Objective = Callable[[torch.Tensor, np.ndarray, torch.Tensor], torch.Tensor]


class Strategy:
    """Plain training: all layers, every image once per epoch, the label loss."""

    name = "naive"

    def trainable(self, module: nn.Module) -> list[str]:
        """Return the names of the weights that are trained."""
        return [name for name, _ in module.named_parameters()]

    def freezes(self, module: nn.Module) -> bool:
        """Return whether some weights are frozen."""
        return len(self.trainable(module)) < len(list(module.parameters()))

    def shown(self, n_images: int) -> int:
        """Return the number of samples in an epoch."""
        return n_images

    def order(self, dataset: ImageDataset, rng: np.random.Generator) -> np.ndarray:
        """Draw an epoch's samples: `(n_samples,)` rows, in the order of the steps."""
        return rng.permutation(epoch_indices(np.arange(len(dataset)), dataset.cells, rng))

    def objective(
        self,
        module: nn.Module,
        spec: ModelSpec,
        train: ImageDataset,
        device: torch.device,
        label_loss: LabelLoss,
    ) -> Objective:
        """Return the loss; called once, with the initial network."""

        def loss(logits: torch.Tensor, rows: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
            return label_loss(logits, targets)

        return loss


def epoch_indices(rows: np.ndarray, cells: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return `rows` unchanged, or as many rows drawn balanced by cells if there are cells.

    `rows` is `(M,)`; `cells` is `(N,)` for all training images, all 0 for unbalanced epochs.
    """
    row_cells = cells[rows]
    return sample_balanced(rows, row_cells, len(rows), rng) if cells.any() else rows
