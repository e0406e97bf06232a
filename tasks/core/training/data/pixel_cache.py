"""Cache of decoded crops at a network's input size, shared by all stages.

`work/pixels/<digest>/<size>-<color>.npy` holds all rows of the split table, `(M, S, S, C)` uint8.
The digest covers the shards' bytes, the crop in each row, and the code that decodes and resizes.
Training, fine-tuning, the choice and every study run share the file. It is built atomically under a
lock, and a new digest replaces old ones. The cache may be deleted at any time; missing files are
rebuilt.

Batches are read by position instead of through a memory map, so that resident memory does not grow
with the number of images.
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

from tasks.core.errors import DataError
from tasks.core.files import atomic_path, sha256_of, write_text
from tasks.core.imaging import shards as shards_module
from tasks.core.imaging.shards import read_crops
from tasks.core.models import predictor as recognizer_module
from tasks.core.models.predictor import prepare
from tasks.core.models.spec import CHANNELS, ModelSpec
from tasks.core.parallel.execution import cpu_count
from tasks.core.parallel.progress import track
from tasks.core.paths import Paths

PLACE_COLUMNS: tuple[str, ...] = ("image_id", "shard", "offset_bytes", "size_bytes")
_DIGESTS = "shards.json"  # cache of each shard's sha256 by size, time and inode
_CROPS_PER_TASK = 64  # crops that a thread decodes before it writes
_SPARE_BYTES = 1 << 28  # disk space to leave free


class RowFile:
    """An `.npy` file with one row per image, read by position.

    The file must be in C order. It stays open, so it remains readable if another process removes
    it.
    """

    def __init__(self, path: Path) -> None:
        mapped = np.lib.format.open_memmap(path, mode="r")  # reads only the header
        self.shape: tuple[int, ...] = mapped.shape
        self.dtype = mapped.dtype
        self._start = int(mapped.offset)
        self._row_bytes = int(mapped.dtype.itemsize * np.prod(mapped.shape[1:]))
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Read `(B,)` positions as `(B, …)`; consecutive rows take one read."""
        result = np.empty((len(positions), *self.shape[1:]), self.dtype)
        if not len(positions):
            return result
        view = result.data.cast("B")
        starts = np.flatnonzero(np.diff(positions, prepend=-2) != 1)
        for first, last in zip(starts, [*starts[1:], len(positions)], strict=True):
            piece = view[first * self._row_bytes : last * self._row_bytes]
            self._fill(piece, self._start + int(positions[first]) * self._row_bytes)
        return result

    def _fill(self, piece: memoryview, offset: int) -> None:
        while piece:
            n_bytes = os.preadv(self._descriptor, [piece], offset)
            if n_bytes == 0:
                raise DataError("the pixels in work/pixels were cut short; remove that folder")
            piece, offset = piece[n_bytes:], offset + n_bytes


class RowWriter:
    """Writer of an `.npy` file by rows, in any order and from several threads.

    `handle` is an empty file open for writing; `dtype` and `shape` are those of the whole array.
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
        """Write rows, `(B, …)`, from position `first` on."""
        piece = np.ascontiguousarray(rows, self._kind).data.cast("B")
        offset = self._start + first * self._row_bytes
        while piece:
            n_bytes = os.pwrite(self._descriptor, piece, offset)
            piece, offset = piece[n_bytes:], offset + n_bytes


def open_pixels(table: pd.DataFrame, paths: Paths, spec: ModelSpec) -> tuple[RowFile, str]:
    """Open the pixels of every row of the split table; decode the crops if necessary.

    Returns the file, in the table's order, and an identifier of its content. `table` is the
    complete split table with `PLACE_COLUMNS`. Raises DataError if the disk is too full.
    """
    folder = paths.at("work/pixels")
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{spec.input_size_px}-{spec.color}"
    with FileLock(folder / "lock"):  # other processes wait, then find the file
        digest = _digest(table, paths.crop_shards, folder / _DIGESTS)
        file = folder / digest / f"{name}.npy"
        if not file.is_file():
            _remove_stale(folder, digest)
            _build(file, table, paths.crop_shards, spec)
        return RowFile(file), f"{digest}/{name}"


def _digest(table: pd.DataFrame, shards: Path, cache_file: Path) -> str:
    """Hash everything that the pixels depend on, except size and color."""
    code = [sha256_of(Path(str(part.__file__))) for part in (recognizer_module, shards_module)]
    digest = hashlib.sha256("\n".join([torch.__version__, *code]).encode())
    names = sorted(table["shard"].unique())
    digest.update(json.dumps(_shard_digests(shards, names, cache_file)).encode())
    for column in PLACE_COLUMNS:
        digest.update(pd.util.hash_array(table[column].to_numpy()).tobytes())
    return digest.hexdigest()[:16]


def _shard_digests(shards: Path, names: list[str], cache_file: Path) -> dict[str, str]:
    """Return each shard's sha256; unchanged files are not read again."""
    try:
        cached = json.loads(cache_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        cached = {}
    fresh: dict[str, list[object]] = {}
    for name in names:
        status = (shards / name).stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        entry_before = cached.get(name, [])
        fresh[name] = (
            entry_before if entry_before[:3] == stamp else [*stamp, sha256_of(shards / name)]
        )
    if fresh != cached:
        write_text(cache_file, json.dumps(fresh) + "\n")
    return {name: str(entry[3]) for name, entry in fresh.items()}


def _remove_stale(folder: Path, digest: str) -> None:
    """Remove files of other digests and incomplete files; the caller holds the lock."""
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != digest:
            shutil.rmtree(entry, ignore_errors=True)
    for partial in (folder / digest).glob(".*"):
        partial.unlink(missing_ok=True)


def _build(file: Path, table: pd.DataFrame, shards: Path, spec: ModelSpec) -> None:
    side = spec.input_size_px
    shape = (len(table), side, side, CHANNELS[spec.color])
    file.parent.mkdir(parents=True, exist_ok=True)
    needed, free = int(np.prod(shape)), shutil.disk_usage(file.parent).free
    if needed + _SPARE_BYTES > free:
        raise DataError(
            f"work/pixels: {len(table)} crops at {side} px need {needed / 1e9:.1f} GB of disk and "
            f"{free / 1e9:.1f} GB are free; free disk space, or choose a smaller input_size_px"
        )
    with atomic_path(file) as temporary, temporary.open("wb") as handle:
        writer = RowWriter(handle, np.uint8, shape)
        for _ in track(_write_crops(writer, table, shards, spec), len(table), "crop decoded"):
            pass


def _write_crops(
    writer: RowWriter, table: pd.DataFrame, shards: Path, spec: ModelSpec
) -> Iterator[None]:
    """Decode in threads (Pillow releases the interpreter lock); yield once per crop."""

    def write(first: int) -> int:
        rows = table.iloc[first : first + _CROPS_PER_TASK]
        writer.write(first, prepare(np.stack(list(read_crops(rows, shards))), spec))
        return len(rows)

    with ThreadPoolExecutor(cpu_count()) as pool:
        for done in pool.map(write, range(0, len(table), _CROPS_PER_TASK)):
            yield from [None] * done
