"""One step of a training: the gradients of a batch, whole or in pieces, and the move by them."""

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core.models.recogniser import Normalisation
from tasks.train.augmentation import Changes, augment
from tasks.train.batch_norm import SynchronisedBatchNorm, has_batch_norm
from tasks.train.batches import Batch
from tasks.train.compiled import Forward
from tasks.train.distributed import Group
from tasks.train.strategy import Objective


class Network:
    """A network from pixels to logits, in the precision of the recipe.

    Parameters
    ----------
    module
        The network, on the group's device.
    normalise
        Of its input.
    bfloat16
        Whether it computes in bf16; logits are float32 all the same.
    group
        The processes that train it.
    compiling
        Whether `torch.compile` makes its training pass.
    """

    def __init__(
        self,
        module: nn.Module,
        normalise: Normalisation,
        bfloat16: bool,
        group: Group,
        compiling: bool,
    ) -> None:
        self.module = module
        self._normalise = normalise
        self._bfloat16 = bfloat16
        self._device = group.device
        self._wrapped = group.wrapped(module)
        shares_norm = group.size > 1 and has_batch_norm(module)
        self._norm = SynchronisedBatchNorm() if shares_norm else nullcontext()
        # A compiled network would not see that its batch normalisation is answered elsewhere.
        self.compiled = compiling and not shares_norm
        self._train: Forward = torch.compile(self._wrapped) if self.compiled else self._wrapped

    def train_logits(self, pixels: torch.Tensor, changes: Changes | None) -> torch.Tensor:
        """Answer about pictures that are changed first: `(B, K)`, in the mode of the module."""
        x = self._input(pixels if changes is None else augment(pixels, changes))
        with self._norm, self._autocast():
            return self._train(x).float()

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        """Answer about pictures as they are: `(B, K)`; the module is in evaluation mode."""
        with self._autocast():
            logits: torch.Tensor = self.module(self._input(pixels))
        return logits.float()

    def gradients_stay(self) -> AbstractContextManager[None]:
        """Give a context in which processes do not exchange gradients: more pieces follow."""
        if isinstance(self._wrapped, DistributedDataParallel):
            return self._wrapped.no_sync()
        return nullcontext()

    def plain(self) -> None:
        """Go on without `torch.compile`."""
        self._train, self.compiled = self._wrapped, False

    def _input(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise pictures; features go in as they are."""
        return self._normalise(pixels) if pixels.dim() == 4 else pixels

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bfloat16)


def take_step(
    network: Network,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    group: Group,
    pieces: int,
) -> torch.Tensor:
    """Move the weights by one batch.

    Parameters
    ----------
    network, objective, optimiser
        What is trained, towards what and by what.
    batch
        This process's part.
    group
        The processes; the gradients are the mean over the pictures of all.
    pieces
        Into how many parts this process's pictures are cut; their gradients are added up.

    Returns
    -------
    torch.Tensor
        The sum of the losses of this process's pictures, on the device.
    """
    optimiser.zero_grad(set_to_none=True)
    pixels = batch.pixels.to(group.device, non_blocking=True)
    targets = batch.targets.to(group.device, non_blocking=True)
    n_pieces = min(pieces, batch.size // group.size)  # the same in every process
    losses = []
    parts = np.array_split(np.arange(len(batch.rows)), n_pieces)
    for number, part in enumerate(parts, start=1):
        own = slice(part[0], part[-1] + 1)
        changes = batch.changes and batch.changes.of(part, group.device)
        with nullcontext() if number == n_pieces else network.gradients_stay():
            logits = network.train_logits(pixels[own], changes)
            loss = objective(logits, batch.rows[own], targets[own]).sum()
            # Gradients are averaged over processes, each of which has its part of the batch.
            (loss * (group.size / batch.size)).backward()
        losses.append(loss.detach())
    optimiser.step()
    return torch.stack(losses).sum()
