"""Fine-tuning strategies that do not forget: `distill` and `replay`.

Strategy `distill`: on replayed images the network is fitted to the base model's outputs.

Learning without forgetting: Z. Li, D. Hoiem (2016), arXiv 1606.09282, equation 4, after G. Hinton
et al. (2015), arXiv 1503.02531. The labels of replayed images are not used. The base model predicts
them once before training, and its probabilities at a temperature are the targets; the fine-tuned
group has its labels. Li & Hoiem record the old responses on the new task's images. Here they come
from the replayed images, which show the groups that must not be forgotten.

Strategy `replay`: mix in images of other groups to prevent forgetting.

All layers are trained. An epoch contains every image of the fine-tuned group once and a random
sample of the others, redrawn each epoch, that makes up the given share. If there are too few of
them, images are repeated, but none a third time before all occurred twice. A balanced epoch
balances the two parts separately, and the share stays. A. Robins (1995), Connection Science 7(2),
123, calls this rehearsal.
"""

import numpy as np
import torch
from torch import nn

from tasks.core.models.predictor import Normalization
from tasks.core.models.spec import ModelSpec
from tasks.core.training.data.balanced_sampling import sample_balanced
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.losses import LabelLoss
from tasks.core.training.out_of_memory import predict_with_oom_backoff
from tasks.core.training.strategy import Objective, Strategy, epoch_indices

_BATCH_SIZE = 128


class Replay(Strategy):
    """The fine-tuned group's images plus replayed images of other groups.

    Parameters
    ----------
    n_own
        Number of training images of the fine-tuned group; they come first.
    share
        Share of replayed images in an epoch, from 0 to below 1.
    """

    name = "replay"

    def __init__(self, n_own: int, share: float) -> None:
        self.n_own = n_own
        self.n_replayed = round(n_own * share / (1 - share))

    def shown(self, n_images: int) -> int:
        """Return the number of own and replayed images in an epoch."""
        return self.n_own + self.n_replayed

    def order(self, dataset: ImageDataset, rng: np.random.Generator) -> np.ndarray:
        """Draw the replayed images of an epoch and shuffle all."""
        group_rows = epoch_indices(np.arange(self.n_own), dataset.cells, rng)
        pool = np.arange(self.n_own, len(dataset))
        replayed = sample_balanced(pool, dataset.cells[pool], self.n_replayed, rng)
        return rng.permutation(np.concatenate([group_rows, replayed]))


class Distill(Replay):
    """Labels for the fine-tuned group, the base model's outputs for replayed images.

    Parameters
    ----------
    n_own, share
        As in `Replay`.
    temperature
        Divides both models' logits: higher values give small probabilities more influence.
    weight
        Weight of the replayed images in the loss.
    """

    name = "distill"

    def __init__(self, n_own: int, share: float, temperature: float, weight: float) -> None:
        super().__init__(n_own, share)
        self.temperature = temperature
        self.weight = weight

    def objective(
        self,
        module: nn.Module,
        spec: ModelSpec,
        train: ImageDataset,
        device: torch.device,
        label_loss: LabelLoss,
    ) -> Objective:
        """Predict every replayed image with the base model and return the loss."""
        soft = torch.log_softmax(self._logits(module, spec, train, device) / self.temperature, 1)

        def loss(logits: torch.Tensor, rows: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
            is_replayed = torch.from_numpy(rows >= self.n_own).to(device)
            label_losses = label_loss(logits, targets)  # (B,)
            teacher = soft[torch.from_numpy(np.maximum(rows - self.n_own, 0)).to(device)]  # (B, K)
            student = torch.log_softmax(logits / self.temperature, dim=1)
            # The square keeps the scale of the gradients at any temperature (Hinton et al.).
            divergence = (teacher.exp() * (teacher - student)).sum(dim=1) * self.temperature**2
            return torch.where(is_replayed, self.weight * divergence, label_losses)

        return loss

    def _logits(
        self, module: nn.Module, spec: ModelSpec, train: ImageDataset, device: torch.device
    ) -> torch.Tensor:
        """Return `(replayed images, K)` logits of the unchanged network in evaluation mode."""
        normalize = Normalization(spec, device)
        module.eval()

        def predict(rows: np.ndarray) -> torch.Tensor:
            logits: torch.Tensor = module(normalize(torch.from_numpy(train.batch(rows)).to(device)))
            return logits.float()

        replayed = np.arange(self.n_own, len(train))
        with torch.no_grad():
            return torch.cat(
                [
                    logits
                    for _, logits in predict_with_oom_backoff(
                        predict, replayed, _BATCH_SIZE, device
                    )
                ]
            )
