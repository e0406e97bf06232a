"""Several processes that train one network together, one a device, as `torchrun` starts them.

Each process takes its part of every batch, gradients are those of the whole batch, and batch
normalisation counts the pictures of all. So the result is that of one process, but for rounding and
for drop-out, whose chance differs from process to process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core import ranks
from tasks.core.errors import ModelError
from tasks.core.models.device import choose_device

# Others wait while the first one reads crops; torchrun ends all when one dies.
_PATIENCE = timedelta(hours=12)


@dataclass(frozen=True)
class Group:
    """The processes that train together; one alone is a group too.

    Attributes
    ----------
    rank, size
        This one's number, from 0, and how many there are.
    device
        Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def use_device(self) -> None:
        """Make `device` the one that this thread uses where none is named."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def part(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of a batch's rows; shares differ by one at most."""
        return np.array_split(rows, self.size)[self.rank]

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Add a tensor on `device` up over all processes, in place; every process calls it."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def largest(self, number: int) -> int:
        """Return the largest of the processes' numbers; every process calls it."""
        if self.size == 1:
            return number
        values = torch.tensor([number], device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values.item())

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Wrap a network so that its gradients are the mean over the processes."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Running statistics are the same everywhere: they come from all processes' pictures.
        return DistributedDataParallel(module, device_ids=ids, forward_sync_buffers=False)


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """Join the processes that torchrun started, for the length of a training.

    Parameters
    ----------
    device
        As in `choose_device`; of several CUDA devices each process takes the one of its number.

    Raises
    ------
    ModelError
        For a device that this machine lacks.
    """
    if ranks.size() == 1:
        yield Group(0, 1, choose_device(device))
        return
    chosen = device_of_rank(device)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    group = Group(ranks.rank(), ranks.size(), chosen)
    group.use_device()
    distributed.init_process_group(backend, timeout=_PATIENCE)
    yield group
    # Not after an error: the others may be waiting for this one, and torchrun ends them.
    distributed.destroy_process_group()


def device_of_rank(name: str) -> torch.device:
    """Choose where this process computes; see `joined`."""
    chosen = choose_device(name)
    if chosen.type != "cuda":
        return chosen
    there = torch.cuda.device_count()
    if ranks.local_rank() >= there:
        raise ModelError(
            f"torchrun started more processes than this machine has CUDA devices ({there}); "
            f"use --nproc-per-node {there}"
        )
    return torch.device("cuda", ranks.local_rank())
