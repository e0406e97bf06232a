"""Explaining many pictures side by side, with the same weights whatever the number of workers.

Every worker loads the model once and computes in one thread: a sum that is split among threads
ends in other last bits, and processes use the cores better than threads do here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tasks.core.execution import map_in_order, process_pool
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.shards import read_crops
from tasks.explain.by_lime import Explanation, LimeSettings, explain_picture

_CHUNK = 4  # pictures; enough to spread a worker's start, few enough to end together


@dataclass(frozen=True)
class Job:
    """One picture to explain: its identity, the answer, and the crop `(H, W, 3)` uint8 RGB."""

    image_id: str
    emotion: str
    crop: np.ndarray


@dataclass(frozen=True)
class Asked:
    """Which model is explained and how."""

    folder: Path
    device: str
    settings: LimeSettings


def explain_rows(
    rows: pd.DataFrame, shards: Path, asked: Asked, workers: int
) -> Iterator[Explanation]:
    """Explain pictures side by side.

    Parameters
    ----------
    rows
        One row a picture: `image_id`, `emotion` (the answer to explain) and the crop's place.
    shards
        The folder of crops.
    asked
        The model and how it is explained.
    workers
        Number of processes (0: one a core).

    Yields
    ------
    Explanation
        One a row, in their order.
    """
    crops = read_crops(rows, shards)
    jobs = map(Job, rows["image_id"], rows["emotion"], crops)
    with process_pool(workers) as pool:
        yield from map_in_order(partial(explain_chunk, asked), jobs, pool, _CHUNK, workers)


def explain_chunk(asked: Asked, jobs: list[Job]) -> list[Explanation]:
    """Explain a few pictures in this process, which is left computing in one thread."""
    torch.set_num_threads(1)
    recogniser = _load(asked.folder, asked.device, asked.settings.batch_size)
    return [
        explain_picture(recogniser, job.crop, asked.settings, job.emotion, job.image_id)
        for job in jobs
    ]


@lru_cache(maxsize=1)
def _load(folder: Path, device: str, batch_size: int) -> Recogniser:
    recogniser = Recogniser.load(folder, device, batch_size)
    make_repeatable(recogniser.device)
    return recogniser
