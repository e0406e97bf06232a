"""Decoding every file once, in chunks that travel to other processes; only sizes come back.

A content that an earlier run decoded is not decoded again: every file is read and its sha256
taken, and what decoding that content showed is found in a store (`tasks.core.kept`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.core.execution import cpu_count, map_in_order
from tasks.core.image_formats import optional_readers
from tasks.core.images import BadImageError, decode_image, read_content
from tasks.core.kept import Kept, Where, key_of, made_by, map_what_is_new
from tasks.ingest.label import Fault

_FILES_PER_CHUNK = 16
_FEW = 100  # decoded sooner than another process is there
LIBRARIES = ("numpy", "pillow")  # that a scan follows from


@dataclass(frozen=True, slots=True)
class Scan:
    """What decoding a file showed: its digest ("" where it could not be read) and its size.

    `note` is what there is to know of how its values were read, or "".
    """

    sha256: str
    width_px: int = 0
    height_px: int = 0
    fault: Fault | None = None
    note: str = ""


def scan_file(path: Path, max_pixels: int) -> Scan:
    """Read a file once: its sha256, and the size of the picture after turning by EXIF."""
    sha256 = ""
    try:
        content = read_content(path, max_pixels)
        sha256 = hashlib.sha256(content).hexdigest()
        image, _, note = decode_image(content, max_pixels)
    except BadImageError as error:
        return Scan(sha256, fault=Fault(error.reason, error.detail))
    return Scan(sha256, image.width, image.height, note=note)


def notes_on(scans: Iterable[Scan]) -> tuple[str, ...]:
    """Return a line for each note on pictures, with their number."""
    counts = Counter(scan.note for scan in scans if scan.note)
    return tuple(f"{note} (pictures: {count})" for note, count in sorted(counts.items()))


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


def scan_new_files(
    files: Iterable[Path], max_pixels: int, executor: Executor, workers: int, kept: Kept
) -> Iterator[Scan]:
    """Do as `scan_files` does, but take from `kept` what earlier runs saw in the same content."""
    maker = made_by(__name__, LIBRARIES)
    limit = f"{max_pixels} {optional_readers()}"

    def known(some: list[Path]) -> list[Scan | None]:
        if kept.is_empty():
            return [None] * len(some)
        digest = partial(_digests, max_pixels=max_pixels)
        with ThreadPoolExecutor(cpu_count()) as threads:
            digests = list(map_in_order(digest, some, threads, _FILES_PER_CHUNK))
        keys = [key_of(maker, limit, digest) for digest in digests]
        found = kept.find(keys)
        return [
            _from_kept(digest, found[key]) if key in found else None
            for digest, key in zip(digests, keys, strict=True)
        ]

    def keep(_: Path, scan: Scan) -> None:
        if scan.sha256:
            kept.put(key_of(maker, limit, scan.sha256), _to_keep(scan))

    work = partial(_scan_chunk, max_pixels=max_pixels)
    where = Where(executor, _FILES_PER_CHUNK, workers, _FEW)
    return map_what_is_new(work, files, known, keep, where)


def _digests(files: list[Path], max_pixels: int) -> list[str]:
    """Return the sha256 of files, "" where `scan_file` would not read one."""
    digests = []
    for path in files:
        try:
            digests.append(hashlib.sha256(read_content(path, max_pixels)).hexdigest())
        except BadImageError:
            digests.append("")
    return digests


def _to_keep(scan: Scan) -> bytes:
    fault = None if scan.fault is None else [scan.fault.reason, scan.fault.detail]
    return json.dumps([scan.width_px, scan.height_px, fault, scan.note]).encode()


def _from_kept(sha256: str, value: bytes) -> Scan:
    width_px, height_px, fault, note = json.loads(value)
    return Scan(sha256, width_px, height_px, None if fault is None else Fault(*fault), note)


def _scan_chunk(files: list[Path], max_pixels: int) -> list[Scan]:
    return [scan_file(path, max_pixels) for path in files]
