"""The pictures that a training uses: which rows, and their pixels at the network's input size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.checkpoint import REPLAY
from tasks.core.models.recogniser import prepare
from tasks.core.models.spec import ModelSpec
from tasks.core.selection import select_rows
from tasks.core.shards import read_crops

_READ_AT_ONCE = 64


@dataclass(frozen=True)
class Pictures:
    """Pictures in memory (mapped from a file).

    Attributes
    ----------
    pixels
        `(N, S, S, C)` uint8.
    targets
        `(N,)` int64: positions among the labels.
    groups
        `(N, G)` booleans: which are of each group that can be the worst; one column of True where
        groups do not matter.
    """

    pixels: np.ndarray
    targets: np.ndarray
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Rows:
    """The rows for fitting, the rows for choosing the checkpoint, and how many were left out.

    Attributes
    ----------
    train, validation
        Rows of the split table.
    left_out
        Pictures whose emotion the model does not know.
    by
        Columns whose values make the groups of which the worst counts when the checkpoint is
        chosen; empty: all pictures together.
    min_n
        A group with fewer validation pictures does not count.
    replayed
        `image_id` of those pictures that are shown again only, so that they are not forgotten.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    left_out: int
    by: tuple[str, ...] = ()
    min_n: int = 1
    replayed: frozenset[str] = frozenset()

    def seen(self, stage: str) -> pd.DataFrame:
        """List the pictures for `seen.csv`: as used by a stage (train or finetune) or replayed."""
        parts = [
            rows[["image_id", "subject_id"]].assign(
                stage=np.where(rows["image_id"].isin(self.replayed), REPLAY, stage), role=role
            )
            for role, rows in (("train", self.train), ("validation", self.validation))
        ]
        return pd.concat(parts, ignore_index=True)


def choose_rows(
    table: pd.DataFrame, group: dict[str, list[str]], where: str, labels: Sequence[str] | None
) -> Rows:
    """Choose a group's rows within the training split and within the validation split.

    Parameters
    ----------
    table
        The split table.
    group
        Column to wanted values; empty for every picture.
    where
        The params key, for messages.
    labels
        The model's labels; None: the emotions among the training rows. Pictures with another
        emotion are left out and counted.

    Raises
    ------
    ParamsError
        Where the group has no picture in one of the two splits.
    DataError
        Where fewer than two pictures, or no picture with a label of the model, remain.
    """
    found = {
        split: select_rows(table[table["split"] == split], group, f"{where} ({split} split)")
        for split in ("train", "validation")
    }
    known = set(found["train"]["emotion"] if labels is None else labels)
    kept = {split: rows[rows["emotion"].isin(known)] for split, rows in found.items()}
    if len(kept["train"]) < 2 or kept["validation"].empty:
        raise DataError(
            f"{where}: {len(kept['train'])} pictures to train on and "
            f"{len(kept['validation'])} to validate on show an emotion that the model knows "
            f"({', '.join(sorted(known))}); at least 2 and 1 are needed"
        )
    left_out = sum(len(found[split]) - len(kept[split]) for split in found)
    return Rows(kept["train"], kept["validation"], left_out)


def load_pictures(
    rows: pd.DataFrame,
    shards: Path,
    spec: ModelSpec,
    n_channels: int,
    file: Path,
) -> Pictures:
    """Read crops at the network's input size into a memory-mapped file.

    The file holds the pixels, so that memory does not grow with the number of pictures.

    Parameters
    ----------
    rows
        Rows of the split table.
    shards
        The folder of crops.
    spec
        Says the size, the colour and the labels.
    n_channels
        Channels of the input.
    file
        Where the pixels go (written anew).
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(rows), spec.input_size_px, spec.input_size_px, n_channels)
    pixels = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    done = 0
    for batch in _batches(read_crops(rows, shards)):
        pixels[done : done + len(batch)] = prepare(batch, spec)
        done += len(batch)
    position = {label: index for index, label in enumerate(spec.labels)}
    targets = np.array(rows["emotion"].map(position), dtype=np.int64)
    return Pictures(pixels, targets, np.ones((len(rows), 1), dtype=bool))


def _batches(crops: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    while batch := list(islice(crops, _READ_AT_ONCE)):
        yield np.stack(batch)
