"""Explaining many pictures side by side, with the same weights whatever the number of workers.

Every worker loads the model once and computes in one thread: a sum that is split among threads
ends in other last bits, and processes use the cores better than threads do here. A few pictures are
done by threads of this process before another one has started.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from tasks.core.errors import ModelError
from tasks.core.execution import cpu_count, process_pool
from tasks.core.kept import Kept, Where, map_what_is_new
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.models.spec import ModelSpec
from tasks.core.shards import read_crops
from tasks.explain.by_lime import Explanation, LimeSettings, explain_picture
from tasks.explain.kept_explanations import KeptExplanations, Recall

_CHUNK = 4  # pictures; enough to spread a worker's start, few enough to end together
_FEW = 12  # explained sooner than another process is there


class Job(NamedTuple):
    """One picture to explain: its identity, the answer, and where its crop is."""

    image_id: str
    emotion: str
    shard: str
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Asked:
    """Which model is explained (its folder, and the spec found there), on which crops, and how."""

    folder: Path
    spec: ModelSpec
    shards: Path
    device: str
    settings: LimeSettings


def explain_rows(
    rows: pd.DataFrame, asked: Asked, workers: int, kept: Kept
) -> Iterator[Explanation]:
    """Explain pictures side by side, those alone that no earlier run explained.

    Parameters
    ----------
    rows
        One row a picture: `image_id`, `emotion` (the answer to explain) and the crop's place.
    asked
        The model and how it is explained.
    workers
        Number of processes (0: one a core).
    kept
        Explanations of earlier runs; those of this one are put there.

    Yields
    ------
    Explanation
        One a row, in their order.
    """
    jobs = [Job(*row) for row in rows[list(Job._fields)].itertuples(index=False)]
    store = KeptExplanations(kept, asked.spec, asked.shards, asked.device, asked.settings)
    work = partial(explain_chunk, asked)
    with ExitStack() as stack:
        stack.enter_context(_one_thread_each())
        pool = stack.enter_context(process_pool(workers))
        threads = stack.enter_context(ThreadPoolExecutor(workers or cpu_count()))
        where = Where(pool, _CHUNK, workers, _FEW, threads)
        for item in map_what_is_new(work, jobs, store.known, store.put, where):
            if isinstance(item, Recall):
                item = store.read(item) or explain_chunk(asked, [item.job])[0]
            yield item


def explain_chunk(asked: Asked, jobs: list[Job]) -> list[Explanation]:
    """Explain a few pictures in this process."""
    with _one_thread_each():
        recogniser = _load(asked.folder, asked.spec, asked.device, asked.settings.batch_size)
        crops = read_crops(pd.DataFrame(jobs), asked.shards)
        return [
            explain_picture(recogniser, crop, asked.settings, job.emotion, job.image_id)
            for job, crop in zip(jobs, crops, strict=True)
        ]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let threads compute by themselves; a library's limit is for all, so it is set around them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _load(folder: Path, spec: ModelSpec, device: str, batch_size: int) -> Recogniser:
    recogniser = _load_text(folder, spec.model_dump_json(), device, batch_size)
    make_repeatable(recogniser.device)
    return recogniser


@lru_cache(maxsize=1)
def _load_text(folder: Path, spec: str, device: str, batch_size: int) -> Recogniser:
    recogniser = Recogniser.load(folder, device, batch_size)
    if recogniser.spec.model_dump_json() != spec:
        raise ModelError(f"{folder}: holds another model than when this stage began")
    return recogniser
