"""Parallel explanation of many images, with the same weights for any number of workers.

Every worker loads the model once and computes in one thread: splitting sums among threads would
change the last bits, and processes use the cores better here. A few images are explained by threads
of this process, which is faster than starting another process.

Cache of explanations, keyed by the model, the crop's bytes, the prediction and the settings.

A new model invalidates all entries; for an unchanged model only new images are explained.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from tasks.core.cache.result_cache import Kept, Where, key_of, made_by, map_what_is_new
from tasks.core.errors import ModelError
from tasks.core.imaging.shards import read_crops
from tasks.core.models.device import choose_device, make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel.execution import cpu_count, process_pool
from tasks.explain.lime_explainer import LimeExplanation, LimeSettings, explain_image

LIBRARIES = (
    *(
        "lime",
        "numpy",
        "onnxruntime",
        "opencv-python-headless",
        "pillow",
        "scikit-image",
        "scikit-learn",
        "scipy",
    ),
    *("threadpoolctl", "timm", "torch", "torchvision"),
)
_ZLIB_LEVEL = 1  # fastest
_CHUNK = 4  # images; large enough to amortize a worker's start, small enough to balance the load
_FEW = 12  # images that this process explains before another one has started


class Job(NamedTuple):
    """An image to explain: its ID, the predicted emotion, and the location of its crop."""

    image_id: str
    emotion: str
    shard: str
    offset_bytes: int
    size_bytes: int


class CacheHit(NamedTuple):
    """A cached image and its key."""

    job: Job
    key: bytes


class ExplanationCache:
    """The cached explanations of one model with one set of parameters.

    `shards` is the folder of crops. The type of `device` (cpu, cuda) is part of the keys.
    """

    def __init__(
        self, store: Kept, spec: ModelSpec, shards: Path, device: str, settings: LimeSettings
    ) -> None:
        self._key_parts = (
            made_by(__name__, LIBRARIES),
            choose_device(device).type,
            spec.model_dump_json(),
            settings.model_dump_json(),
        )
        self._store, self._shards = store, shards
        self._keys: dict[str, bytes] = {}  # of the images of the last `known`, by ID

    def known(self, jobs: Sequence[Job]) -> list[CacheHit | None]:
        """Return the cached entry of each image, None for images to explain."""
        digests = _digests(jobs, self._shards)
        keys = [
            key_of(*self._key_parts, job.image_id, job.emotion, digest)
            for job, digest in zip(jobs, digests, strict=True)
        ]
        self._keys = {job.image_id: key for job, key in zip(jobs, keys, strict=True)}
        cached = self._store.has(keys)
        return [
            CacheHit(job, key) if key in cached else None
            for job, key in zip(jobs, keys, strict=True)
        ]

    def put(self, job: Job, explanation: LimeExplanation) -> None:
        """Cache the explanation of an image that `known` looked up."""
        self._store.put(self._keys[job.image_id], to_bytes(explanation))

    def read(self, hit: CacheHit) -> LimeExplanation | None:
        """Return a cached explanation, or None where it is damaged."""
        value = self._store.find([hit.key]).get(hit.key)
        return None if value is None else from_bytes(value)


def to_bytes(explanation: LimeExplanation) -> bytes:
    """Serialize an explanation; `from_bytes` restores it bit by bit."""
    image, segments, weights = explanation.image, explanation.segments, explanation.weights
    numbers = [explanation.probability, explanation.r2, explanation.r2_adjusted]
    head = json.dumps([explanation.emotion, len(weights), image.shape, numbers]).encode()
    packed = zlib.compress(segments.astype("<i4").tobytes(), _ZLIB_LEVEL)
    return head + b"\n" + weights.astype("<f8").tobytes() + image.tobytes() + packed


def from_bytes(content: bytes) -> LimeExplanation:
    """Deserialize the result of `to_bytes`."""
    head, _, rest = content.partition(b"\n")
    emotion, n_weights, shape, (probability, r2, r2_adjusted) = json.loads(head)
    weights = np.frombuffer(rest, "<f8", n_weights).astype(np.float64)
    start = 8 * n_weights
    image = np.frombuffer(rest, np.uint8, int(np.prod(shape)), start).reshape(shape)
    segments = np.frombuffer(zlib.decompress(rest[start + image.size :]), "<i4")
    segments = segments.astype(np.int64).reshape(shape[:2])
    return LimeExplanation(emotion, probability, image, segments, weights, r2, r2_adjusted)


def _digests(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Return the sha256 of each crop's bytes, opening each run of equal shards once."""
    digests: list[str] = []
    for shard, jobs_of_shard in groupby(jobs, lambda job: job.shard):
        with (folder / shard).open("rb") as handle:
            for job in jobs_of_shard:
                handle.seek(job.offset_bytes)
                digests.append(hashlib.sha256(handle.read(job.size_bytes)).hexdigest())
    return digests


@dataclass(frozen=True)
class ExplainJob:
    """The model (its folder, and the spec in it), the folder of crops, and the settings."""

    folder: Path
    spec: ModelSpec
    shards: Path
    device: str
    settings: LimeSettings


def explain_rows(
    rows: pd.DataFrame, model: ExplainJob, workers: int, store: Kept
) -> Iterator[LimeExplanation]:
    """Explain images in parallel, reusing the explanations of earlier runs.

    Parameters
    ----------
    rows
        One row per image, with the fields of `Job`.
    workers
        Number of processes (0: one per core).
    store
        Explanations of earlier runs; new ones are added.

    Yields
    ------
    Explanation
        In the order of `rows`.
    """
    jobs = [Job(*row) for row in rows[list(Job._fields)].itertuples(index=False)]
    cache = ExplanationCache(store, model.spec, model.shards, model.device, model.settings)
    work = partial(explain_chunk, model)
    with ExitStack() as stack:
        stack.enter_context(_single_threaded())
        pool = stack.enter_context(process_pool(workers))
        threads = stack.enter_context(ThreadPoolExecutor(workers or cpu_count()))
        where = Where(pool, _CHUNK, workers, _FEW, threads)
        for item in map_what_is_new(work, jobs, cache.known, cache.put, where):
            if isinstance(item, CacheHit):
                item = cache.read(item) or explain_chunk(model, [item.job])[0]
            yield item


def explain_chunk(model: ExplainJob, jobs: list[Job]) -> list[LimeExplanation]:
    """Explain a few images in this process."""
    with _single_threaded():
        recognizer = _load(model.folder, model.spec, model.device, model.settings.batch_size)
        crops = read_crops(pd.DataFrame(jobs), model.shards)
        return [
            explain_image(recognizer, crop, model.settings, job.emotion, job.image_id)
            for job, crop in zip(jobs, crops, strict=True)
        ]


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Limit PyTorch to one thread; the limit holds for the process, so callers set it once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _load(folder: Path, spec: ModelSpec, device: str, batch_size: int) -> EmotionClassifier:
    recognizer = _load_cached(folder, spec.model_dump_json(), device, batch_size)
    make_deterministic(recognizer.device)
    return recognizer


@lru_cache(maxsize=1)
def _load_cached(folder: Path, spec_json: str, device: str, batch_size: int) -> EmotionClassifier:
    recognizer = EmotionClassifier.load(folder, device, batch_size)
    if recognizer.spec.model_dump_json() != spec_json:
        raise ModelError(f"{folder}: the model was replaced after this stage started; run it again")
    return recognizer
