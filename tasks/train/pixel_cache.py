"""Crops decoded once: their pixels at a network's input size, in one file that every stage reads.

`work/pixels/<digest>/<size>-<colour>.npy` holds all rows of the split table, `(M, S, S, C)` uint8.
The digest covers what the pixels follow from: the shards' bytes, which crop is in which row, and
the code that decodes and resizes. Training, every fine-tuning, the choice and every run of a study
share the file; it is built under a lock, whole or not at all, and a new digest takes the place of
the old ones. Nothing needs it to be kept: whatever is missing is built again.

Batches are read by position and not through a memory map, so that resident memory stays what a
batch needs, however many pictures there are.
"""

import hashlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import DTypeLike

from tasks.core import shards as shards_module
from tasks.core.errors import DataError
from tasks.core.execution import cpu_count
from tasks.core.files import atomic_path, sha256_of, write_text
from tasks.core.models import recogniser as recogniser_module
from tasks.core.models.recogniser import prepare
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.shards import read_crops

PLACE_COLUMNS: tuple[str, ...] = ("image_id", "shard", "offset_bytes", "size_bytes")
_DIGESTS = "shards.json"  # each shard's sha256, remembered by size, time and inode
_AT_ONCE = 64  # crops that a thread decodes before it writes
_SPARE_BYTES = 1 << 28  # of the disk, left for everything else


class RowFile:
    """An `.npy` file with one row a picture, read by position.

    Parameters
    ----------
    path
        The file, in C order. It stays open, so that it can be read to the end even when another
        process removes it.
    """

    def __init__(self, path: Path) -> None:
        mapped = np.lib.format.open_memmap(path, mode="r")  # reads the header alone
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype = mapped.dtype
        self._start = int(mapped.offset)
        self._row_bytes = int(mapped.dtype.itemsize * np.prod(mapped.shape[1:]))
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, places: np.ndarray) -> np.ndarray:
        """Read rows into memory: `(B,)` positions to `(B, …)`; neighbours in one piece."""
        out = np.empty((len(places), *self.shape[1:]), self.dtype)
        if not len(places):
            return out
        view = memoryview(out).cast("B")
        starts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
        for first, last in zip(starts, [*starts[1:], len(places)], strict=True):
            piece = view[first * self._row_bytes : last * self._row_bytes]
            self._fill(piece, self._start + int(places[first]) * self._row_bytes)
        return out

    def _fill(self, piece: memoryview, offset: int) -> None:
        while piece:
            n_bytes = os.preadv(self._descriptor, [piece], offset)
            if n_bytes == 0:
                raise DataError("the pixels in work/pixels were cut short; remove that folder")
            piece, offset = piece[n_bytes:], offset + n_bytes


class RowWriter:
    """Writes an `.npy` file row by row, in any order and from several threads.

    Parameters
    ----------
    handle
        An empty file, open for writing.
    dtype, shape
        Of the whole array.
    """

    def __init__(self, handle: BinaryIO, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        kind = np.dtype(dtype)
        header = {"descr": kind.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        handle.flush()
        self._start = handle.tell()
        self._row_bytes = int(kind.itemsize * np.prod(shape[1:]))
        self._kind = kind
        self._descriptor = handle.fileno()

    def write(self, first: int, rows: np.ndarray) -> None:
        """Write rows, `(B, …)`, from the position `first` on."""
        piece = memoryview(np.ascontiguousarray(rows, self._kind)).cast("B")
        offset = self._start + first * self._row_bytes
        while piece:
            n_bytes = os.pwrite(self._descriptor, piece, offset)
            piece, offset = piece[n_bytes:], offset + n_bytes


def open_pixels(table: pd.DataFrame, paths: Paths, spec: ModelSpec) -> tuple[RowFile, str]:
    """Open the pixels of every row of the split table, decoding the crops where nobody did yet.

    Parameters
    ----------
    table
        The whole split table, with `PLACE_COLUMNS`.
    paths
        The project's paths.
    spec
        Says the size and the colour.

    Returns
    -------
    tuple
        The file, in the table's order, and a text that names its content.

    Raises
    ------
    DataError
        Where the disk has no room.
    """
    folder = paths.at("work/pixels")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{spec.input_size_px}-{spec.colour}"
    with FileLock(folder / "lock"):  # others wait, and find the file
        digest = _digest(table, paths.crop_shards, folder / _DIGESTS)
        file = folder / digest / f"{name}.npy"
        if not file.is_file():
            _clear(folder, digest)
            _build(file, table, paths.crop_shards, spec)
        return RowFile(file), f"{digest}/{name}"


def _digest(table: pd.DataFrame, shards: Path, known: Path) -> str:
    """Name what the pixels follow from, but for size and colour."""
    code = [sha256_of(Path(str(part.__file__))) for part in (recogniser_module, shards_module)]
    digest = hashlib.sha256("\n".join([torch.__version__, *code]).encode())
    names = sorted(table["shard"].unique())
    digest.update(json.dumps(_shard_digests(shards, names, known)).encode())
    for column in PLACE_COLUMNS:
        digest.update(pd.util.hash_array(table[column].to_numpy()).tobytes())
    return digest.hexdigest()[:16]


def _shard_digests(shards: Path, names: list[str], known: Path) -> dict[str, str]:
    """Return each shard's sha256; a file that did not change since is not read again."""
    try:
        remembered = json.loads(known.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    fresh: dict[str, list[object]] = {}
    for name in names:
        status = (shards / name).stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        found = remembered.get(name, [])
        fresh[name] = found if found[:3] == stamp else [*stamp, sha256_of(shards / name)]
    if fresh != remembered:
        write_text(known, json.dumps(fresh) + "\n")
    return {name: str(entry[3]) for name, entry in fresh.items()}


def _clear(folder: Path, digest: str) -> None:
    """Remove what other digests left, and halves of files; the lock is held."""
    for place in folder.iterdir():
        if place.is_dir() and place.name != digest:
            shutil.rmtree(place, ignore_errors=True)
    for half in (folder / digest).glob(".*"):
        half.unlink(missing_ok=True)


def _build(file: Path, table: pd.DataFrame, shards: Path, spec: ModelSpec) -> None:
    side = spec.input_size_px
    shape = (len(table), side, side, CHANNELS[spec.colour])
    file.parent.mkdir(parents=True, exist_ok=True)
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed + _SPARE_BYTES > free:
        raise DataError(
            f"work/pixels: {len(table)} crops at {side} px need {needed / 1e9:.1f} GB of disk and "
            f"{free / 1e9:.1f} GB are free; make room, or choose a smaller input_size_px"
        )
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        writer = RowWriter(handle, np.uint8, shape)
        for _ in track(_written(writer, table, shards, spec), len(table), "crop decoded"):
            pass


def _written(
    writer: RowWriter, table: pd.DataFrame, shards: Path, spec: ModelSpec
) -> Iterator[None]:
    """Decode in threads (Pillow frees the interpreter meanwhile); yield once a crop."""

    def write(first: int) -> int:
        rows = table.iloc[first : first + _AT_ONCE]
        writer.write(first, prepare(np.stack(list(read_crops(rows, shards))), spec))
        return len(rows)

    with ThreadPoolExecutor(cpu_count()) as pool:
        for done in pool.map(write, range(0, len(table), _AT_ONCE)):
            yield from [None] * done
