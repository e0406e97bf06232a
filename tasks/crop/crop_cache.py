"""A cache of crops, keyed by image bytes and settings, so that only new images are cropped.

An index (`tasks.core.cache.result_cache`) holds each outcome and where the crop's bytes are: in the
shards of the last run that wrote them, to which `work/kept/crop/<run>/` holds hard links. DVC
removes a stage's outputs before it runs and replaces them with copies from its own cache
afterwards. The linked bytes therefore stay and take up the crops' size on disk once more. A
checksum detects damaged entries.
"""

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tasks.core.cache.result_cache import Kept, Where, key_of, made_by, map_what_is_new
from tasks.core.imaging.decode import BadImageError, read_content
from tasks.core.imaging.shards import Place
from tasks.core.parallel.execution import cpu_count, map_in_order, process_pool
from tasks.crop.crop_faces import CHUNK, FaceCrop, NoFace, Source, crop_with_digests
from tasks.crop.settings import CropSettings

LIBRARIES = ("dlib-bin", "numpy", "opencv-python-headless", "pillow")
INDEX = "index.sqlite"
_FEW = 60  # images; cropping them takes less time than starting a process
_READ_AT_ONCE = 16  # files per thread
_CACHED_FIELDS = tuple(field.name for field in fields(FaceCrop) if field.name != "png")


@dataclass(frozen=True)
class KeyedCrop:
    """An outcome with its cache key."""

    key: bytes  # b"" if it is not cached
    outcome: FaceCrop | NoFace
    check_sum: int = 0  # of the crop's bytes


@dataclass(frozen=True)
class _CacheHit:
    """An image whose outcome is cached, with its entry in the index."""

    source: Source
    key: bytes
    value: bytes


class CropCache:
    """Crops faces, or returns crops that are cached in `folder` (`work/kept/crop`).

    `index` is the open index in that folder; this run's shards are written to `shards`.
    """

    def __init__(self, folder: Path, index: Kept, shards: Path, settings: CropSettings) -> None:
        self._folder, self._index, self._shards = folder, index, shards
        self._settings = settings
        self._maker = f"{made_by(__name__, LIBRARIES)} {json.dumps(asdict(settings))}"
        self._run = _next_run_number(folder)
        self._linked: set[str] = set()

    def cut(self, sources: Sequence[Source], workers: int) -> Iterator[KeyedCrop]:
        """Yield one outcome per source, in order; see `cut_faces.cut_faces`."""
        work = partial(_cut_keyed, settings=self._settings, maker=self._maker)
        with process_pool(workers) as pool, ThreadPoolExecutor(cpu_count()) as threads:
            lookup = partial(self._lookup, threads=threads)
            where = Where(pool, CHUNK, workers, _FEW)
            items = map_what_is_new(work, sources, lookup, _store_later, where)
            for item in map_in_order(self._retrieved, items, threads, _READ_AT_ONCE):
                if isinstance(item, _CacheHit):  # its bytes are gone; dlib is not thread-safe
                    item = work([item.source])[0]
                yield item

    def put(self, crop: KeyedCrop, place: Place | None) -> None:
        """Cache an outcome and its crop's place (None for an image without a crop)."""
        if place is not None and place.shard not in self._linked:
            self._link(place.shard)
        if crop.key:
            value = _entry(crop, str(self._run), place)
            self._index.put(crop.key, json.dumps(value).encode())

    def finish(self) -> None:
        """Commit the index and remove the shards of earlier runs, which it no longer refers to."""
        current = self._folder / str(self._run)
        for shard in self._linked:
            if not (current / shard).exists():  # hard links do not cross file systems
                with suppress(OSError):
                    shutil.copyfile(self._shards / shard, current / shard)
        self._index.commit()
        for other in self._folder.iterdir():
            if other.is_dir() and other != current:
                shutil.rmtree(other, ignore_errors=True)

    def _lookup(
        self, sources: list[Source], threads: ThreadPoolExecutor
    ) -> list[KeyedCrop | _CacheHit | None]:
        if self._index.is_empty():
            return [None] * len(sources)
        digests = list(map_in_order(_digests, sources, threads, _READ_AT_ONCE))
        pairs = zip(digests, sources, strict=True)
        keys = [_key(self._maker, digest, source.pixels) for digest, source in pairs]
        entries = self._index.find(keys)
        return [
            _CacheHit(source, key, entries[key]) if key in entries else None
            for source, key in zip(sources, keys, strict=True)
        ]

    def _retrieved(self, items: list[KeyedCrop | _CacheHit]) -> list[KeyedCrop | _CacheHit]:
        """Read cached outcomes; return hits whose bytes are missing unchanged."""
        with ExitStack() as files:
            opened = partial(_open_once, self._folder, files, {})
            return [item if isinstance(item, KeyedCrop) else _read(item, opened) for item in items]

    def _link(self, shard: str) -> None:
        self._linked.add(shard)
        target = self._folder / str(self._run) / shard
        with suppress(OSError):
            target.parent.mkdir(exist_ok=True)
            os.link(self._shards / shard, target)


def _entry(crop: KeyedCrop, run: str, place: Place | None) -> dict[str, Any]:
    outcome = crop.outcome
    if isinstance(outcome, NoFace) or place is None:
        return asdict(outcome)
    entry = {name: getattr(outcome, name) for name in _CACHED_FIELDS}
    location = [f"{run}/{place.shard}", place.offset_bytes, place.size_bytes, crop.check_sum]
    return {**entry, "place": location}


def _read(item: _CacheHit, opened: Callable[[str], BinaryIO]) -> KeyedCrop | _CacheHit:
    entry = json.loads(item.value)
    if "reason" in entry:
        return KeyedCrop(item.key, NoFace(**entry))
    file, offset, size, check_sum = entry.pop("place")
    try:
        handle = opened(file)
        handle.seek(offset)
        png = handle.read(size)
    except OSError:
        return item
    if zlib.crc32(png) != check_sum:
        return item
    box = tuple(entry.pop("box_xyxy_px"))
    return KeyedCrop(item.key, FaceCrop(png=png, box_xyxy_px=box, **entry), check_sum)


def _open_once(folder: Path, files: ExitStack, opened: dict[str, BinaryIO], name: str) -> BinaryIO:
    if name not in opened:
        opened[name] = files.enter_context((folder / name).open("rb", buffering=0))
    return opened[name]


def _cut_keyed(chunk: list[Source], settings: CropSettings, maker: str) -> list[KeyedCrop]:
    crops = []
    for source, (digest, outcome) in zip(chunk, crop_with_digests(chunk, settings), strict=True):
        key = _key(maker, digest, source.pixels) if digest else b""
        crops.append(KeyedCrop(key, outcome, zlib.crc32(getattr(outcome, "png", b""))))
    return crops


def _key(maker: str, digest: str, pixels: int) -> bytes:
    return key_of(maker, digest, str(pixels))


def _digests(sources: list[Source]) -> list[str]:
    """Return the sha256 of the image files; "" if one could not be read."""
    digests = []
    for source in sources:
        try:
            content = read_content(source.path, source.pixels)
        except BadImageError:
            digests.append("")
        else:
            digests.append(hashlib.sha256(content).hexdigest())
    return digests


def _next_run_number(folder: Path) -> int:
    """Remove leftovers of interrupted runs but the newest; return the next run's number."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(child.name) for child in folder.iterdir() if child.name.isdigit())
    for number in numbers[1:-1]:  # the first is the last completed run
        shutil.rmtree(folder / str(number), ignore_errors=True)
    return max(numbers, default=0) + 1


def _store_later(_: object, __: object) -> None:
    """Cache nothing yet: `CropCache.put` does, once the crop is in its shard."""
