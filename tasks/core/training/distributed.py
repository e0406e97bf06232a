"""Data-parallel training in the processes that `torchrun` starts, one per device.

Each process takes its part of every batch. Gradients are those of the whole batch, and batch
normalization uses the images of all processes. So the result equals that of one process, except for
rounding and for dropout, which is drawn per process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from tasks.core.errors import ModelError
from tasks.core.models.device import choose_device
from tasks.core.parallel import process

# Other ranks wait while rank 0 reads crops; torchrun ends all when one dies.
_TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together; a single process is also a group.

    `rank` counts from 0; `device` is this process's device.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    def use_device(self) -> None:
        """Make `device` the current device of this thread."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def part(self, rows: np.ndarray) -> np.ndarray:
        """Return this process's share of a batch's rows; shares differ by one at most."""
        return np.array_split(rows, self.size)[self.rank]

    def add_up(self, values: torch.Tensor) -> torch.Tensor:
        """Sum a tensor on `device` over all processes, in place; every process must call it."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def largest(self, number: int) -> int:
        """Return the maximum over the processes; every process must call it."""
        if self.size == 1:
            return number
        values = torch.tensor([number], device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values.item())

    def wrapped(self, module: nn.Module) -> nn.Module:
        """Wrap a network so that its gradients are averaged over the processes."""
        if self.size == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        # Running statistics are already equal: they come from the images of all processes.
        return DistributedDataParallel(module, device_ids=ids, forward_sync_buffers=False)


@contextmanager
def init_process_group(device: str) -> Iterator[ProcessGroup]:
    """Join the process group of torchrun for the duration of the block.

    With several CUDA devices each process takes the device of its local rank. Raises ModelError if
    this machine lacks the device.
    """
    if process.size() == 1:
        yield ProcessGroup(0, 1, choose_device(device))
        return
    chosen = device_of_rank(device)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    group = ProcessGroup(process.rank(), process.size(), chosen)
    group.use_device()
    distributed.init_process_group(backend, timeout=_TIMEOUT)
    yield group
    # Skipped after an error: other ranks may be waiting for this one, and torchrun ends them.
    distributed.destroy_process_group()


def device_of_rank(name: str) -> torch.device:
    """Return the device of this process; see `joined`."""
    chosen = choose_device(name)
    if chosen.type != "cuda":
        return chosen
    n_devices = torch.cuda.device_count()
    if process.local_rank() >= n_devices:
        raise ModelError(
            f"torchrun started more processes than this machine has CUDA devices ({n_devices}); "
            f"use --nproc-per-node {n_devices}"
        )
    return torch.device("cuda", process.local_rank())
