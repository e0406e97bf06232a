"""Strategy `distill`: on the replayed pictures the network must answer what the base model does.

Learning without forgetting: Z. Li, D. Hoiem (2016), arXiv 1606.09282, equation 4, after G. Hinton
et al. (2015), arXiv 1503.02531. The replayed pictures' labels are not used: the base model is asked
once about each, before the training, and its probabilities at a temperature are the targets, while
the fine-tuned group has its labels. In Li & Hoiem the old responses are recorded on the new task's
own pictures; here on the replayed ones, which show the groups that must not be forgotten.
"""

import numpy as np
import torch
from torch import nn

from tasks.core.models.recogniser import Normalisation
from tasks.core.models.spec import ModelSpec
from tasks.train.losses import LabelLoss
from tasks.train.memory import in_parts_that_fit
from tasks.train.pictures import Pictures
from tasks.train.replay import Replay
from tasks.train.strategy import Objective

_AT_ONCE = 128


class Distill(Replay):
    """Labels for the fine-tuned group, the base model's answers for the replayed pictures.

    Parameters
    ----------
    n_own, share
        As in `Replay`.
    temperature
        What both models' logits are divided by: higher lets the small probabilities count more.
    weight
        Of the replayed pictures' part of the loss.
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
        train: Pictures,
        device: torch.device,
        label_loss: LabelLoss,
    ) -> Objective:
        """Ask the base model about every replayed picture and make the loss."""
        soft = torch.log_softmax(self._logits(module, spec, train, device) / self.temperature, 1)

        def loss(logits: torch.Tensor, rows: np.ndarray, targets: torch.Tensor) -> torch.Tensor:
            replayed = torch.from_numpy(rows >= self.n_own).to(device)
            labelled = label_loss(logits, targets)  # (B,)
            wanted = soft[torch.from_numpy(np.maximum(rows - self.n_own, 0)).to(device)]  # (B, K)
            given = torch.log_softmax(logits / self.temperature, dim=1)
            # The square keeps the gradients' size, whatever the temperature (Hinton et al.).
            divergence = (wanted.exp() * (wanted - given)).sum(dim=1) * self.temperature**2
            return torch.where(replayed, self.weight * divergence, labelled)

        return loss

    def _logits(
        self, module: nn.Module, spec: ModelSpec, train: Pictures, device: torch.device
    ) -> torch.Tensor:
        """Return `(replayed pictures, K)` logits of the network as it is, in evaluation mode."""
        normalise = Normalisation(spec, device)
        module.eval()

        def ask(rows: np.ndarray) -> torch.Tensor:
            logits: torch.Tensor = module(normalise(torch.from_numpy(train.batch(rows)).to(device)))
            return logits.float()

        replayed = np.arange(self.n_own, len(train))
        with torch.no_grad():
            return torch.cat(
                [logits for _, logits in in_parts_that_fit(ask, replayed, _AT_ONCE, device)]
            )
