"""Decoding every file once, in chunks that travel to other processes; only sizes come back."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.core.execution import map_in_order
from tasks.core.images import BadImageError, decode_image, read_content
from tasks.ingest.label import Fault

_FILES_PER_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Scan:
    """What decoding a file showed: its digest ("" where it could not be read) and its size."""

    sha256: str
    width_px: int = 0
    height_px: int = 0
    fault: Fault | None = None


def scan_file(path: Path, max_pixels: int) -> Scan:
    """Read a file once: its sha256, and the size of the picture after turning by EXIF."""
    sha256 = ""
    try:
        content = read_content(path, max_pixels)
        sha256 = hashlib.sha256(content).hexdigest()
        image, _ = decode_image(content, max_pixels)
    except BadImageError as error:
        return Scan(sha256, fault=Fault(error.reason, error.detail))
    return Scan(sha256, image.width, image.height)


def scan_files(
    files: Iterable[Path], max_pixels: int, executor: Executor, workers: int
) -> Iterator[Scan]:
    """Scan files in parallel, in their order.

    Parameters
    ----------
    files
        The files; read lazily, so that memory does not grow with their number.
    max_pixels
        As in `images.decode`.
    executor, workers
        As in `execution.map_in_order`.
    """
    work = partial(_scan_chunk, max_pixels=max_pixels)
    return map_in_order(work, files, executor, _FILES_PER_CHUNK, workers)


def _scan_chunk(files: list[Path], max_pixels: int) -> list[Scan]:
    return [scan_file(path, max_pixels) for path in files]
