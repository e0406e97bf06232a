"""The pictures that a training uses: which rows, and their pixels at the network's input size."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.errors import DataError
from tasks.core.models.checkpoint import REPLAY
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.selection import select_rows
from tasks.core.tables import read_table
from tasks.train.pixel_cache import PLACE_COLUMNS, RowFile, open_pixels


@dataclass(frozen=True)
class Pictures:
    """Pictures that stay on the disk until they are asked for.

    Attributes
    ----------
    pixels
        What holds them: one row a picture, `(M, S, S, C)` uint8; or, where a network is trained on
        what another one made of them, `(M, F)` float32 features.
    content
        A text that says what `pixels` holds; other pixels have another one.
    rows
        `(N,)` int64: where each picture is among the M.
    targets
        `(N,)` int64: positions among the labels.
    groups
        `(N, G)` booleans: which are of each group that can be the worst; one column of True where
        groups do not matter.
    cells
        `(N,)` int64: which cell each is of, where cells come equally often; else all 0.
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
        """Return the channels of a picture (3, or 1 for grey)."""
        return self.pixels.shape[-1]

    def batch(self, rows: np.ndarray) -> np.ndarray:
        """Read some pictures: `(B,)` rows to `(B, S, S, C)` uint8, or features `(B, F)` float32."""
        return self.pixels.read(self.rows[rows])

    def in_parts(self, size: int) -> Iterator[np.ndarray]:
        """Go through the pictures in order: `(B,)` rows, `size` at a time."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))

    def fingerprint(self) -> bytes:
        """Digest all that a training could learn from them."""
        digest = hashlib.sha256(self.content.encode())
        for part in (self.rows, self.targets, self.groups, self.cells):
            digest.update(f"{part.shape} {part.dtype}".encode() + part.tobytes())
        return digest.digest()


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


def load_pictures(rows: pd.DataFrame, paths: Paths, spec: ModelSpec) -> Pictures:
    """Find rows of the split table among the pixels that all stages share.

    Parameters
    ----------
    rows
        Rows of the split table.
    paths
        The project's paths.
    spec
        Says the size, the colour and the labels.

    Returns
    -------
    Pictures
        In the order of `rows`; all of one group and one cell.

    Raises
    ------
    DataError
        Where there is no room to decode the crops.
    """
    table = read_table(paths.split, columns=list(PLACE_COLUMNS))
    pixels, content = open_pixels(table, paths, spec)
    places = pd.Index(table["image_id"]).get_indexer(rows["image_id"])
    assert (places >= 0).all(), "rows that the split table does not hold"
    position = {label: index for index, label in enumerate(spec.labels)}
    targets = np.array(rows["emotion"].map(position), dtype=np.int64)
    groups = np.ones((len(rows), 1), dtype=bool)
    cells = np.zeros(len(rows), dtype=np.int64)
    return Pictures(pixels, content, places.astype(np.int64), targets, groups, cells)
