"""The losses of an epoch's steps: their mean, and the first one that is no number.

On CUDA a look at a loss makes the program wait for the device, and among processes it takes a
message; so losses stay where they are and are looked at every so many steps.
"""

import torch

from tasks.core.errors import DivergedError
from tasks.train.distributed import Group

_EVERY = 50  # steps between two looks, where a look costs time


class LossWatch:
    """Losses of one epoch.

    Parameters
    ----------
    group
        The processes that train; each adds the loss of its own pictures.
    epoch, n_steps
        For the message, steps counted from 1.
    learning_rate
        Likewise: what to choose a smaller one than.
    """

    def __init__(self, group: Group, epoch: int, n_steps: int, learning_rate: float) -> None:
        self._group = group
        self._epoch = epoch
        self._n_steps = n_steps
        self._learning_rate = learning_rate
        looks_are_free = group.size == 1 and group.device.type == "cpu"
        self._every = 1 if looks_are_free else _EVERY
        self._waiting: list[torch.Tensor] = []
        self._seen = 0
        self._total = 0.0

    def add(self, loss: torch.Tensor) -> None:
        """Take a step's loss, a scalar: the sum over this process's pictures."""
        self._waiting.append(loss.detach())
        if len(self._waiting) >= self._every:
            self._look()

    def mean(self, n_pictures: int) -> float:
        """Return the mean over the epoch's pictures; called once, after the last step."""
        self._look()
        return self._total / n_pictures

    def _look(self) -> None:
        if not self._waiting:
            return
        losses = self._group.add_up(torch.stack(self._waiting)).double().cpu()  # (steps,)
        bad = torch.nonzero(~torch.isfinite(losses))
        if len(bad):
            self._stop(self._seen + int(bad[0]) + 1)
        self._seen += len(losses)
        self._total += float(losses.sum())
        self._waiting.clear()

    def _stop(self, step: int) -> None:
        raise DivergedError(
            f"the training diverged in epoch {self._epoch} at step {step} of {self._n_steps} (the "
            f"loss is no finite number); choose a learning_rate below {self._learning_rate}"
        )
