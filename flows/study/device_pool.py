"""Parallel training of a study's runs: each gets a GPU or a share of the cores."""

import os
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.core.parallel import process
from tasks.core.parallel.execution import cpu_count


@dataclass(frozen=True)
class DeviceSlot:
    """The devices of one run.

    `gpu` is as in `CUDA_VISIBLE_DEVICES`; None is what `train.device` says. `threads` None is the
    process's default.
    """

    gpu: str | None
    threads: int | None

    def environment(self) -> dict[str, str]:
        """Return the variables that limit a process to these devices.

        Several processes with one thread per core each would slow each other down.
        """
        values = {"CUDA_VISIBLE_DEVICES": self.gpu, "OMP_NUM_THREADS": self.threads}
        return {name: str(value) for name, value in values.items() if value is not None}


class DevicePool:
    """A thread-safe pool of devices for parallel runs."""

    def __init__(self, places: list[DeviceSlot]) -> None:
        self._free: queue.SimpleQueue[DeviceSlot] = queue.SimpleQueue()
        for place in places:
            self._free.put(place)

    @contextmanager
    def one(self) -> Iterator[DeviceSlot]:
        """Wait for a free place and hold it."""
        place = self._free.get()
        try:
            yield place
        finally:
            self._free.put(place)


def find_slots(max_parallel: int, device: str) -> list[DeviceSlot]:
    """Divide this machine's devices; the arguments are `study.max_parallel` and `train.device`."""
    if os.environ.get(process.TORCHRUN_VARIABLE, "").strip():
        return [DeviceSlot(None, None)] * (max_parallel or 1)  # torchrun assigns devices and cores
    if _is_specific(device):
        max_parallel = max_parallel or 1
    return divide_devices(max_parallel, usable_gpus(device), cpu_count())


def _is_specific(device: str) -> bool:
    """Return whether `train.device` is a specific accelerator, such as `cuda:1` or `mps`."""
    return device not in ("auto", "cuda") and device.partition(":")[0] != "cpu"


def divide_devices(max_parallel: int, gpus: list[str], cores: int) -> list[DeviceSlot]:
    """Divide GPUs and cores among `max_parallel` runs.

    0 is one run per GPU, or one per core if there is none. If there are more places than GPUs,
    places share them.
    """
    n = max_parallel or len(gpus) or cores
    threads = max(1, cores // n)
    return [DeviceSlot(gpus[i % len(gpus)] if gpus else None, threads) for i in range(n)]


def usable_gpus(device: str) -> list[str]:
    """List the GPUs that `train.device` allows: all for `auto` and `cuda`, else none."""
    if device not in ("auto", "cuda"):
        return []
    import torch  # slow to import

    n = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else map(str, range(n))
    return [name.strip() for name in names][:n]
