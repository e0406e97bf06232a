"""Parallel decoding of every file, to find its size and faults.

Every file is read and hashed, but decoded only if no earlier run decoded the same content
(`tasks.core.cache.result_cache`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.core.cache.result_cache import Kept, Where, key_of, made_by, map_what_is_new
from tasks.core.imaging.decode import BadImageError, decode_image, read_content
from tasks.core.imaging.formats import optional_readers
from tasks.core.parallel.execution import cpu_count, map_in_order
from tasks.ingest.label import Fault

_FILES_PER_CHUNK = 16
_FEW = 100  # files that this process decodes before another one has started
LIBRARIES = ("numpy", "pillow")  # whose versions invalidate cached scans


@dataclass(frozen=True, slots=True)
class Scan:
    """Result of decoding a file: its digest ("" where it could not be read), size or fault.

    `note` is a remark on how its values were interpreted, or "".
    """

    sha256: str
    width_px: int = 0
    height_px: int = 0
    fault: Fault | None = None
    note: str = ""


def scan_file(path: Path, max_pixels: int) -> Scan:
    """Hash and decode a file; the size is that after rotation by EXIF."""
    sha256 = ""
    try:
        content = read_content(path, max_pixels)
        sha256 = hashlib.sha256(content).hexdigest()
        image, _, note = decode_image(content, max_pixels)
    except BadImageError as error:
        return Scan(sha256, fault=Fault(error.reason, error.detail))
    return Scan(sha256, image.width, image.height, note=note)


def notes_on(scans: Iterable[Scan]) -> tuple[str, ...]:
    """Return one line per distinct note, with the number of images."""
    counts = Counter(scan.note for scan in scans if scan.note)
    return tuple(f"{note} (pictures: {count})" for note, count in sorted(counts.items()))


def scan_files(
    files: Iterable[Path], max_pixels: int, executor: Executor, workers: int
) -> Iterator[Scan]:
    """Scan files in parallel and yield the results in order; `files` is consumed lazily."""
    work = partial(_scan_chunk, max_pixels=max_pixels)
    return map_in_order(work, files, executor, _FILES_PER_CHUNK, workers)


def scan_with_cache(
    files: Iterable[Path], max_pixels: int, executor: Executor, workers: int, cache: Kept
) -> Iterator[Scan]:
    """Scan files like `scan_files`, reusing cached scans of the same content."""
    code = made_by(__name__, LIBRARIES)
    settings = f"{max_pixels} {optional_readers()}"

    def look_up(chunk: list[Path]) -> list[Scan | None]:
        if cache.is_empty():
            return [None] * len(chunk)
        digest = partial(_digests, max_pixels=max_pixels)
        with ThreadPoolExecutor(cpu_count()) as threads:
            digests = list(map_in_order(digest, chunk, threads, _FILES_PER_CHUNK))
        keys = [key_of(code, settings, digest) for digest in digests]
        cached = cache.find(keys)
        return [
            _from_bytes(digest, cached[key]) if key in cached else None
            for digest, key in zip(digests, keys, strict=True)
        ]

    def store(_: Path, scan: Scan) -> None:
        if scan.sha256:
            cache.put(key_of(code, settings, scan.sha256), _to_bytes(scan))

    work = partial(_scan_chunk, max_pixels=max_pixels)
    where = Where(executor, _FILES_PER_CHUNK, workers, _FEW)
    return map_what_is_new(work, files, look_up, store, where)


def _digests(files: list[Path], max_pixels: int) -> list[str]:
    """Return the sha256 of files, "" for those that cannot be read."""
    digests = []
    for path in files:
        try:
            digests.append(hashlib.sha256(read_content(path, max_pixels)).hexdigest())
        except BadImageError:
            digests.append("")
    return digests


def _to_bytes(scan: Scan) -> bytes:
    fault = None if scan.fault is None else [scan.fault.reason, scan.fault.detail]
    return json.dumps([scan.width_px, scan.height_px, fault, scan.note]).encode()


def _from_bytes(sha256: str, value: bytes) -> Scan:
    width_px, height_px, fault, note = json.loads(value)
    return Scan(sha256, width_px, height_px, None if fault is None else Fault(*fault), note)


def _scan_chunk(files: list[Path], max_pixels: int) -> list[Scan]:
    return [scan_file(path, max_pixels) for path in files]
