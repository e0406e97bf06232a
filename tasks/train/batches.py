"""What each step of an epoch shows this process, read while the step before is computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from tasks.train.augmentation import Changes, augment, draw_changes
from tasks.train.distributed import Group
from tasks.train.pictures import Pictures
from tasks.train.prefetch import prefetched
from tasks.train.recipe import Augmentation

_AHEAD = 2  # batches that are ready or being read
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    """Some pictures, on their way to the device.

    Attributes
    ----------
    size
        Pictures of the whole batch, those of other processes included.
    rows
        `(B,)`: this process's pictures among those that are trained on.
    pixels
        `(B, S, S, C)` uint8, or features `(B, F)` float32.
    targets
        `(B,)` int64.
    changes
        How each picture is still to be changed, on its device; None: not at all.
    """

    size: int
    rows: np.ndarray
    pixels: torch.Tensor
    targets: torch.Tensor
    changes: Changes | None


@dataclass(frozen=True)
class Epoch:
    """The order of an epoch's pictures and how each is changed, the same in every process.

    Attributes
    ----------
    order
        `(shown,)` rows of the pictures, in the order of the steps.
    changes
        One a showing; None for features, which are not changed.
    """

    order: np.ndarray
    changes: Changes | None


def draw_epoch(
    pictures: Pictures, order: np.ndarray, augmentation: Augmentation, rng: np.random.Generator
) -> Epoch:
    """Draw how each showing of an epoch is changed; see `Epoch`."""
    if not are_pixels(pictures):
        return Epoch(order, None)
    return Epoch(order, draw_changes(augmentation, len(order), pictures.n_channels, rng))


def are_pixels(pictures: Pictures) -> bool:
    """Tell whether pictures are pixels, not what a network made of them."""
    return len(pictures.pixels.shape) == 4


def batches(pictures: Pictures, epoch: Epoch, n_batches: int, group: Group) -> Iterator[Batch]:
    """Go through an epoch in batches, of which this process gets its part.

    Parameters
    ----------
    pictures, epoch
        What is shown, in which order.
    n_batches
        Into how many batches, whose sizes differ by one at most.
    group
        The processes that share each batch.
    """
    shown = showings(epoch.order)  # a picture that is shown twice is changed in two ways

    def make() -> Iterator[Batch]:
        group.use_device()
        for part in np.array_split(np.arange(len(epoch.order)), n_batches):
            own = group.part(part)
            changes = epoch.changes and epoch.changes.of(shown[own], _CPU)
            yield _read(pictures, epoch.order[own], len(part), changes, group.device)

    return prefetched(make(), _AHEAD)


def in_order(pictures: Pictures, size: int, group: Group) -> Iterator[Batch]:
    """Go through pictures as they come, `size` at a time; this process gets every n-th batch."""
    parts = list(pictures.in_parts(size))[group.rank :: group.size]

    def make() -> Iterator[Batch]:
        group.use_device()
        for rows in parts:
            yield _read(pictures, rows, len(rows), None, group.device)

    return prefetched(make(), _AHEAD)


def _read(
    pictures: Pictures, rows: np.ndarray, size: int, changes: Changes | None, device: torch.device
) -> Batch:
    pixels = torch.from_numpy(pictures.batch(rows))
    targets = torch.from_numpy(pictures.targets[rows])
    if device.type == "cuda":  # pinned memory is copied to the device without a wait
        return Batch(size, rows, pixels.pin_memory(), targets.pin_memory(), changes)
    if changes is not None:
        pixels, changes = augment(pixels, changes), None
    return Batch(size, rows, pixels, targets, changes)


def showings(order: np.ndarray) -> np.ndarray:
    """Count the showings by picture, from 0; of a permutation these are the pictures' own rows."""
    return np.argsort(np.argsort(order, kind="stable"), kind="stable")
