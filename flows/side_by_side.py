"""Where the runs of a study are trained at once: a GPU each, or a share of the cores each."""

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.core import ranks
from tasks.core.execution import cpu_count


@dataclass(frozen=True)
class Place:
    """What one run at a time may use.

    Attributes
    ----------
    gpu
        As in `CUDA_VISIBLE_DEVICES`; None: what `train.device` says.
    threads
        Threads of the CPU; None: what the process finds.
    """

    gpu: str | None
    threads: int | None

    def environment(self) -> dict[str, str]:
        """Return the variables that keep a process in its place.

        Several processes with a thread for every core would get in each other's way.
        """
        named = {} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu}
        counted = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return named | counted


class Places:
    """Places for runs side by side; safe to use from several threads."""

    def __init__(self, places: list[Place]) -> None:
        self._free: queue.SimpleQueue[Place] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)

    @contextmanager
    def one(self) -> Iterator[Place]:
        """Wait for a free place and hold it."""
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


def places_here(side_by_side: int, device: str) -> list[Place]:
    """Share this machine out.

    Parameters
    ----------
    side_by_side
        As in section `study`.
    device
        As in section `train`.
    """
    if os.environ.get(ranks.TORCHRUN_VARIABLE, "").strip():
        return [Place(None, None)] * (side_by_side or 1)  # torchrun shares devices and cores out
    if _names_one(device):
        side_by_side = side_by_side or 1
    return find_places(side_by_side, usable_gpus(device), cpu_count())


def _names_one(device: str) -> bool:
    """Whether `train.device` is one certain accelerator, such as `cuda:1` or `mps`."""
    return device not in ("auto", "cuda") and device.partition(":")[0] != "cpu"


def find_places(side_by_side: int, gpus: list[str], cores: int) -> list[Place]:
    """Share a machine out; see `places_here`.

    Parameters
    ----------
    side_by_side
        How many places; 0: one a GPU, or one a core where there is none.
    gpus
        The GPUs that may be used; more places than GPUs share them.
    cores
        Cores of the CPU, which the places share.
    """
    n = side_by_side or len(gpus) or cores
    threads = max(1, cores // n)
    return [Place(gpus[i % len(gpus)] if gpus else None, threads) for i in range(n)]


def usable_gpus(device: str) -> list[str]:
    """List the GPUs that `train.device` leaves open: all for `auto` and `cuda`, else none."""
    if device not in ("auto", "cuda"):
        return []
    import torch  # slow to import

    n = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        [name.strip() for name in given.split(",")][:n]
        if given
        else [str(number) for number in range(n)]
    )
