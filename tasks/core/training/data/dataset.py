"""The images of a training: their rows, and their pixels at the network's input size."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.checkpoint import REPLAY
from tasks.core.models.spec import ModelSpec, select_rows
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.core.training.data.pixel_cache import PLACE_COLUMNS, RowFile, open_pixels


@dataclass(frozen=True)
class ImageDataset:
    """Dataset of images that are read from disk on demand.

    Attributes
    ----------
    pixels
        One row per image, `(M, S, S, C)` uint8; or `(M, F)` float32 features of a backbone.
    content
        Identifies what `pixels` holds.
    rows
        `(N,)` int64: position of each image among the M.
    targets
        `(N,)` int64: label indices.
    groups
        `(N, G)` booleans: members of each eligible group; one column of True if there are none.
    cells
        `(N,)` int64: cell of each image for balanced epochs; else all 0.
    """

    pixels: RowFile
    content: str
    rows: np.ndarray
    targets: np.ndarray
    groups: np.ndarray
    cells: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def n_channels(self) -> int:
        """Return the channels of an image (3, or 1 for gray)."""
        return self.pixels.shape[-1]

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Read `(B,)` rows as `(B, S, S, C)` uint8, or features `(B, F)` float32."""
        return self.pixels.read(self.rows[rows])

    def in_parts(self, size: int) -> Iterator[np.ndarray]:
        """Yield `(B,)` rows of consecutive batches of `size`."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))

    def fingerprint(self) -> bytes:
        """Hash all data that training depends on."""
        digest = hashlib.sha256(self.content.encode())
        for part in (self.rows, self.targets, self.groups, self.cells):
            digest.update(f"{part.shape} {part.dtype}".encode() + part.tobytes())
        return digest.digest()


@dataclass(frozen=True)
class TrainValidRows:
    """Training and validation rows of a group.

    Attributes
    ----------
    train, validation
        Rows of the split table.
    left_out
        Number of images whose emotion the model does not know.
    by
        Columns that define the groups for worst-group selection; empty: all images together.
    min_n
        Groups with fewer validation images are ineligible.
    replayed
        `image_id` of the images that are only replayed.
    """

    train: pd.DataFrame
    validation: pd.DataFrame
    left_out: int
    by: tuple[str, ...] = ()
    min_n: int = 1
    replayed: frozenset[str] = frozenset()

    def seen(self, stage: str) -> pd.DataFrame:
        """Return the images for `seen.csv`, with stage `train`, `finetune` or `replay`."""
        parts = [
            rows[["image_id", "subject_id"]].assign(
                stage=np.where(rows["image_id"].isin(self.replayed), REPLAY, stage), role=role
            )
            for role, rows in (("train", self.train), ("validation", self.validation))
        ]
        return pd.concat(parts, ignore_index=True)


def choose_rows(
    table: pd.DataFrame, group: dict[str, list[str]], where: str, labels: Sequence[str] | None
) -> TrainValidRows:
    """Select a group's rows of the training split and of the validation split.

    Parameters
    ----------
    group
        Wanted values by column; empty for every image.
    where
        The params key, for messages.
    labels
        The model's labels; None: the emotions among the training rows. Images with another
        emotion are excluded and counted.

    Raises
    ------
    ParamsError
        If the group has no image in one of the two splits.
    DataError
        If fewer than two training images, or no validation image, have a label of the model.
    """
    selected = {
        split: select_rows(table[table["split"] == split], group, f"{where} ({split} split)")
        for split in ("train", "validation")
    }
    known = set(selected["train"]["emotion"] if labels is None else labels)
    usable = {split: rows[rows["emotion"].isin(known)] for split, rows in selected.items()}
    if len(usable["train"]) < 2 or usable["validation"].empty:
        raise DataError(
            f"{where}: {len(usable['train'])} pictures to train on and "
            f"{len(usable['validation'])} to validate on show an emotion that the model knows "
            f"({', '.join(sorted(known))}); at least 2 and 1 are needed"
        )
    left_out = sum(len(selected[split]) - len(usable[split]) for split in selected)
    return TrainValidRows(usable["train"], usable["validation"], left_out)


def load_images(rows: pd.DataFrame, paths: Paths, spec: ModelSpec) -> ImageDataset:
    """Return rows of the split table as a dataset, in one group and one cell.

    Raises DataError if the disk has no space to decode the crops.
    """
    table = read_table(paths.split, columns=list(PLACE_COLUMNS))
    pixels, content = open_pixels(table, paths, spec)
    positions = pd.Index(table["image_id"]).get_indexer(rows["image_id"])
    assert (positions >= 0).all(), "rows are missing from the split table"
    label_index = {label: index for index, label in enumerate(spec.labels)}
    targets = np.array(rows["emotion"].map(label_index), dtype=np.int64)
    groups = np.ones((len(rows), 1), dtype=bool)
    cells = np.zeros(len(rows), dtype=np.int64)
    return ImageDataset(pixels, content, positions.astype(np.int64), targets, groups, cells)
