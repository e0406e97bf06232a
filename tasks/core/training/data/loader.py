"""Batches of an epoch for this process, loaded while the previous step runs."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from tasks.core.training.config import Augmentation
from tasks.core.training.data.augmentation import AugmentParams, augment, sample_augmentations
from tasks.core.training.data.dataset import ImageDataset
from tasks.core.training.distributed import ProcessGroup

Item = TypeVar("Item")
_END = object()
_AHEAD = 2  # batches to prefetch
_CPU = torch.device("cpu")


def prefetch(items: Iterator[Item], ahead: int) -> Generator[Item, None, None]:
    """Yield items in order while a thread prepares up to `ahead` of them; 0: no thread.

    Only that thread advances `items`. An exception is raised where its item would have come. The
    thread ends after the last item, after an error, or when the generator is closed, once the
    current item is done.
    """
    if ahead == 0:
        yield from items
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        pending: deque[Future[Item | object]] = deque()
        try:
            for _ in range(ahead):
                pending.append(pool.submit(next, items, _END))
            while (item := pending.popleft().result()) is not _END:
                pending.append(pool.submit(next, items, _END))
                yield item  # type: ignore[misc]  # anything but _END is an item
        finally:
            for future in pending:
                future.cancel()


@dataclass(frozen=True)
class Batch:
    """One process's part of a batch.

    Attributes
    ----------
    size
        Images of the batch over all processes.
    rows
        `(B,)`: positions among the training images.
    pixels
        `(B, S, S, C)` uint8, or features `(B, F)` float32.
    targets
        `(B,)` int64.
    changes
        Augmentation still to be applied on the device; None: none.
    """

    size: int
    rows: np.ndarray
    pixels: torch.Tensor
    targets: torch.Tensor
    changes: AugmentParams | None


@dataclass(frozen=True)
class Epoch:
    """The sample order of an epoch and its augmentation, identical in every process.

    Attributes
    ----------
    order
        `(n_samples,)` rows of the images.
    changes
        One row per sample; None for features, which are not augmented.
    """

    order: np.ndarray
    changes: AugmentParams | None


def draw_epoch(
    dataset: ImageDataset, order: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> Epoch:
    """Draw the augmentation of each sample of an epoch."""
    if not are_pixels(dataset):
        return Epoch(order, None)
    return Epoch(order, sample_augmentations(augmentation, len(order), dataset.n_channels, rng))


def are_pixels(dataset: ImageDataset) -> bool:
    """Return whether images are pixels, as opposed to features of a backbone."""
    return len(dataset.pixels.shape) == 4


def batches(
    dataset: ImageDataset, epoch: Epoch, n_batches: int, group: ProcessGroup
) -> Generator[Batch, None, None]:
    """Yield this process's part of each batch of an epoch; batch sizes differ by at most one."""
    repeats = repeat_index(epoch.order)  # repeats of an image are augmented differently

    def make() -> Iterator[Batch]:
        group.use_device()
        for part in np.array_split(np.arange(len(epoch.order)), n_batches):
            local = group.part(part)
            changes = epoch.changes and epoch.changes.of(repeats[local], _CPU)
            yield _read(dataset, epoch.order[local], len(part), changes, group.device)

    return prefetch(make(), _AHEAD)


def sequential_batches(
    dataset: ImageDataset, size: int, group: ProcessGroup
) -> Generator[Batch, None, None]:
    """Yield batches of at most `size` in the images' order; each process gets every n-th batch."""
    parts = list(dataset.in_parts(size))[group.rank :: group.size]

    def make() -> Iterator[Batch]:
        group.use_device()
        for rows in parts:
            yield _read(dataset, rows, len(rows), None, group.device)

    return prefetch(make(), _AHEAD)


def _read(
    dataset: ImageDataset,
    rows: np.ndarray,
    size: int,
    changes: AugmentParams | None,
    device: torch.device,
) -> Batch:
    pixels = torch.from_numpy(dataset.batch(rows))
    targets = torch.from_numpy(dataset.targets[rows])
    if device.type == "cuda":  # pinned memory is copied asynchronously
        return Batch(size, rows, pixels.pin_memory(), targets.pin_memory(), changes)
    if changes is not None:
        pixels, changes = augment(pixels, changes), None
    return Batch(size, rows, pixels, targets, changes)


def repeat_index(order: np.ndarray) -> np.ndarray:
    """Return the running number of each sample, grouped by image.

    For a permutation it is the image's own row, so that augmentation stays with the image.
    """
    return np.argsort(np.argsort(order, kind="stable"), kind="stable")
