"""Explanations of earlier runs: found by the model, the crop's bytes, the answer and the settings.

A new model answers otherwise, so all of its pictures are explained; of one that did not change,
only pictures that were not explained yet.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from tasks.core.kept import Kept, key_of, made_by
from tasks.core.models.device import choose_device
from tasks.core.models.spec import ModelSpec
from tasks.explain.by_lime import Explanation, LimeSettings

LIBRARIES = (
    *("lime", "numpy", "onnxruntime", "pillow", "scikit-image", "scikit-learn", "scipy"),
    *("threadpoolctl", "timm", "torch", "torchvision"),
)
_FAST = 1  # zlib's level


class Asked(Protocol):
    """A picture to explain: its identity, the answer, and where its crop is."""

    image_id: str
    emotion: str
    shard: str
    offset_bytes: int
    size_bytes: int


class Recall(NamedTuple):
    """A picture that was explained before, and its key."""

    job: Asked
    key: bytes


class KeptExplanations:
    """The explanations of one model, asked in one way.

    Parameters
    ----------
    kept
        The store, open.
    spec
        The model's description, with the version of its weights.
    shards
        The folder of crops.
    device
        As in params; the kind that it means here goes into the keys.
    settings
        How pictures are explained.
    """

    def __init__(
        self, kept: Kept, spec: ModelSpec, shards: Path, device: str, settings: LimeSettings
    ) -> None:
        how = (choose_device(device).type, spec.model_dump_json(), settings.model_dump_json())
        self._how = (made_by(__name__, LIBRARIES), *how)
        self._kept, self._shards = kept, shards
        self._keys: dict[str, bytes] = {}  # of each picture that is asked about

    def known(self, jobs: Sequence[Asked]) -> list[Recall | None]:
        """Say of each picture whether it was explained before."""
        digests = _digests(jobs, self._shards)
        keys = [
            key_of(*self._how, job.image_id, job.emotion, digest)
            for job, digest in zip(jobs, digests, strict=True)
        ]
        self._keys = {job.image_id: key for job, key in zip(jobs, keys, strict=True)}
        there = self._kept.has(keys)
        return [
            Recall(job, key) if key in there else None for job, key in zip(jobs, keys, strict=True)
        ]

    def put(self, job: Asked, explanation: Explanation) -> None:
        """Keep what was found out about a picture that was asked about."""
        self._kept.put(self._keys[job.image_id], to_bytes(explanation))

    def read(self, recall: Recall) -> Explanation | None:
        """Return an explanation, or None where it is damaged."""
        value = self._kept.find([recall.key]).get(recall.key)
        return None if value is None else from_bytes(value)


def to_bytes(explanation: Explanation) -> bytes:
    """Write an explanation so that `from_bytes` returns the same bits."""
    picture, segments, weights = explanation.picture, explanation.segments, explanation.weights
    numbers = [explanation.probability, explanation.r2, explanation.r2_adjusted]
    head = json.dumps([explanation.emotion, len(weights), picture.shape, numbers]).encode()
    packed = zlib.compress(segments.astype("<i4").tobytes(), _FAST)
    return head + b"\n" + weights.astype("<f8").tobytes() + picture.tobytes() + packed


def from_bytes(content: bytes) -> Explanation:
    """Read what `to_bytes` wrote."""
    head, _, rest = content.partition(b"\n")
    emotion, n_weights, shape, (probability, r2, r2_adjusted) = json.loads(head)
    weights = np.frombuffer(rest, "<f8", n_weights).astype(np.float64)
    start = 8 * n_weights
    picture = np.frombuffer(rest, np.uint8, int(np.prod(shape)), start).reshape(shape)
    segments = np.frombuffer(zlib.decompress(rest[start + picture.size :]), "<i4")
    segments = segments.astype(np.int64).reshape(shape[:2])
    return Explanation(emotion, probability, picture, segments, weights, r2, r2_adjusted)


def _digests(jobs: Sequence[Asked], folder: Path) -> list[str]:
    """Return the sha256 of each crop's bytes; neighbours are mostly in one file."""
    digests: list[str] = []
    for shard, some in groupby(jobs, lambda job: job.shard):
        with (folder / shard).open("rb") as handle:
            for job in some:
                handle.seek(job.offset_bytes)
                digests.append(hashlib.sha256(handle.read(job.size_bytes)).hexdigest())
    return digests
