"""Faces that earlier runs cut out: found by the picture's bytes, so that only new ones are cut.

A small index (`tasks.core.kept`) says for each picture and settings what was found and where the
crop's bytes are: in the shards of the run that wrote them last, to which `work/kept/crop/<run>/`
holds hard links. DVC removes outputs before a stage runs and puts a copy from its cache in their
place afterwards, so these bytes stay, and cost the crops' size on the disk once more. A check sum
tells where they are not what they were.
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

from tasks.core.execution import cpu_count, map_in_order, process_pool
from tasks.core.images import BadImageError, read_content
from tasks.core.kept import Kept, Where, key_of, made_by, map_what_is_new
from tasks.core.shards import Place
from tasks.crop.cut_faces import CHUNK, Cut, Missed, Source, cut_and_name
from tasks.crop.settings import CropSettings

LIBRARIES = ("dlib-bin", "numpy", "opencv-python-headless", "pillow")
INDEX = "index.sqlite"
_FEW = 60  # pictures, cut sooner than another process is there
_READ_AT_ONCE = 16  # files, by a thread
_KEPT_FIELDS = tuple(field.name for field in fields(Cut) if field.name != "png")


@dataclass(frozen=True)
class Named:
    """A picture's outcome, and the key under which it is kept (b"": it is not).

    `check_sum` is of the crop's bytes.
    """

    key: bytes
    outcome: Cut | Missed
    check_sum: int = 0


@dataclass(frozen=True)
class _Recall:
    """A picture whose outcome is kept: its entry in the index."""

    source: Source
    key: bytes
    value: bytes


class KeptCuts:
    """Cuts faces out of pictures, the known ones by looking them up.

    Parameters
    ----------
    folder
        `work/kept/crop`.
    kept
        Its index, open.
    shards
        Where this run writes its shards.
    settings
        How to find and to cut.
    """

    def __init__(self, folder: Path, kept: Kept, shards: Path, settings: CropSettings) -> None:
        self._folder, self._kept, self._shards = folder, kept, shards
        self._settings = settings
        self._maker = f"{made_by(__name__, LIBRARIES)} {json.dumps(asdict(settings))}"
        self._run = _make_room(folder)
        self._linked: set[str] = set()

    def cut(self, sources: Sequence[Source], workers: int) -> Iterator[Named]:
        """Yield one outcome a picture, in their order; see `cut_faces.cut_faces`."""
        work = partial(_cut_named, settings=self._settings, maker=self._maker)
        with process_pool(workers) as pool, ThreadPoolExecutor(cpu_count()) as threads:
            known = partial(self._known, threads=threads)
            where = Where(pool, CHUNK, workers, _FEW)
            items = map_what_is_new(work, sources, known, _nothing_yet, where)
            for item in map_in_order(self._recalled, items, threads, _READ_AT_ONCE):
                if isinstance(item, _Recall):  # its bytes are gone; dlib is not for threads
                    item = work([item.source])[0]
                yield item

    def put(self, named: Named, place: Place | None) -> None:
        """Keep an outcome, and where its crop was written (None for a picture without one)."""
        if place is not None and place.shard not in self._linked:
            self._link(place.shard)
        if named.key:
            value = _entry(named, str(self._run), place)
            self._kept.put(named.key, json.dumps(value).encode())

    def finish(self) -> None:
        """Let go of the shards of earlier runs, since every entry names this run's."""
        own = self._folder / str(self._run)
        for shard in self._linked:
            if not (own / shard).exists():  # two disks have no links between them
                with suppress(OSError):
                    shutil.copyfile(self._shards / shard, own / shard)
        self._kept.commit()
        for place in self._folder.iterdir():
            if place.is_dir() and place != own:
                shutil.rmtree(place, ignore_errors=True)

    def _known(
        self, sources: list[Source], threads: ThreadPoolExecutor
    ) -> list[Named | _Recall | None]:
        if self._kept.is_empty():
            return [None] * len(sources)
        digests = list(map_in_order(_digests, sources, threads, _READ_AT_ONCE))
        pairs = zip(digests, sources, strict=True)
        keys = [_key(self._maker, digest, source.pixels) for digest, source in pairs]
        found = self._kept.find(keys)
        return [
            _Recall(source, key, found[key]) if key in found else None
            for source, key in zip(sources, keys, strict=True)
        ]

    def _recalled(self, items: list[Named | _Recall]) -> list[Named | _Recall]:
        """Read kept outcomes; what is not there any more is passed on."""
        with ExitStack() as files:
            opened = partial(_opened, self._folder, files, {})
            return [item if isinstance(item, Named) else _read(item, opened) for item in items]

    def _link(self, shard: str) -> None:
        self._linked.add(shard)
        target = self._folder / str(self._run) / shard
        with suppress(OSError):
            target.parent.mkdir(exist_ok=True)
            os.link(self._shards / shard, target)


def _entry(named: Named, run: str, place: Place | None) -> dict[str, Any]:
    outcome = named.outcome
    if isinstance(outcome, Missed) or place is None:
        return asdict(outcome)
    entry = {name: getattr(outcome, name) for name in _KEPT_FIELDS}
    at = [f"{run}/{place.shard}", place.offset_bytes, place.size_bytes, named.check_sum]
    return {**entry, "place": at}


def _read(item: _Recall, opened: Callable[[str], BinaryIO]) -> Named | _Recall:
    entry = json.loads(item.value)
    if "reason" in entry:
        return Named(item.key, Missed(**entry))
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
    return Named(item.key, Cut(png=png, box_xyxy_px=box, **entry), check_sum)


def _opened(folder: Path, files: ExitStack, opened: dict[str, BinaryIO], name: str) -> BinaryIO:
    """Open a file once for all pieces that are read of it."""
    if name not in opened:
        opened[name] = files.enter_context((folder / name).open("rb", buffering=0))
    return opened[name]


def _cut_named(chunk: list[Source], settings: CropSettings, maker: str) -> list[Named]:
    named = []
    for source, (digest, outcome) in zip(chunk, cut_and_name(chunk, settings), strict=True):
        key = _key(maker, digest, source.pixels) if digest else b""
        named.append(Named(key, outcome, zlib.crc32(getattr(outcome, "png", b""))))
    return named


def _key(maker: str, digest: str, pixels: int) -> bytes:
    return key_of(maker, digest, str(pixels))


def _digests(sources: list[Source]) -> list[str]:
    """Return the sha256 of pictures' files, "" where one would not be read."""
    digests = []
    for source in sources:
        try:
            content = read_content(source.path, source.pixels)
        except BadImageError:
            digests.append("")
        else:
            digests.append(hashlib.sha256(content).hexdigest())
    return digests


def _make_room(folder: Path) -> int:
    """Return a number above those of earlier runs; of runs that did not end one alone is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = sorted(int(place.name) for place in folder.iterdir() if place.name.isdigit())
    for number in numbers[1:-1]:  # the first is of the last run that ended
        shutil.rmtree(folder / str(number), ignore_errors=True)
    return max(numbers, default=0) + 1


def _nothing_yet(_: object, __: object) -> None:
    """Keep nothing before the crop is in its shard."""
