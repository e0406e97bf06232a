"""Predicting a stream of crops in batches of one size, in memory that does not grow.

The last batch is filled up with its own first picture: the libraries choose their kernels by
batch size, so that a picture's last bits would otherwise depend on how many pictures there are.
A batch is also what travels where the work is shared among machines, so that the bits stay.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from tasks.core.errors import ModelError
from tasks.core.execution import Here, map_in_order, one_process
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.progress import track
from tasks.core.shards import read_crops

PLACE = ["shard", "offset_bytes", "size_bytes"]


@dataclass(frozen=True)
class Asked:
    """A model as other machines load it: its folder, what `model.json` says there, and how.

    `threads` is how many threads torch uses here: sums that are split otherwise end in other bits.
    """

    folder: Path
    spec: str
    shards: Path
    device: str
    batch_size: int
    threads: int


def predict_rows(recogniser: Recogniser, table: pd.DataFrame, asked: Asked) -> np.ndarray:
    """Predict every row's crop, here or on the cluster that the environment names.

    Parameters
    ----------
    recogniser
        The model, as `asked` describes it; used where the work is done here.
    table
        Rows with `shard`, `offset_bytes` and `size_bytes`.
    asked
        The model and the folder of crops.

    Returns
    -------
    numpy.ndarray
        `(rows, K)` float32 probabilities in the order of the model's labels.
    """
    with one_process() as executor:
        if isinstance(executor, Here):
            return predict_crops(recogniser, table, asked.shards)
        size = asked.batch_size
        places = table[PLACE]
        batches = (places.iloc[start : start + size] for start in range(0, len(table), size))
        answers = map_in_order(partial(predict_batches, asked), batches, executor, 1)
        return _collect(answers, len(table), size, len(recogniser.labels))


def predict_batches(asked: Asked, batches: list[pd.DataFrame]) -> list[np.ndarray]:
    """On a worker: predict whole batches of places; one array a batch."""
    torch.set_num_threads(asked.threads)
    recogniser = _load(asked.folder, asked.spec, asked.device, asked.batch_size)
    make_repeatable(recogniser.device)
    return [predict_crops(recogniser, batch, asked.shards, shown=False) for batch in batches]


def predict_crops(
    recogniser: Recogniser, table: pd.DataFrame, shards: Path, shown: bool = True
) -> np.ndarray:
    """Predict every row's crop in this process.

    Parameters
    ----------
    recogniser
        The model; its `batch_size` is the size of every batch.
    table
        Rows with `shard`, `offset_bytes` and `size_bytes`.
    shards
        The folder of crops.
    shown
        Whether progress is shown.

    Returns
    -------
    numpy.ndarray
        `(rows, K)` float32 probabilities in the order of the model's labels.
    """
    size = recogniser.batch_size
    answers = map(partial(_predict, recogniser), _batches(read_crops(table, shards), size))
    return _collect(answers, len(table), size, len(recogniser.labels), shown)


def _predict(recogniser: Recogniser, batch: np.ndarray) -> np.ndarray:
    size = recogniser.batch_size
    filled = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
    return recogniser.predict(filled)[: len(batch)]


def _collect(
    answers: Iterator[np.ndarray], rows: int, size: int, labels: int, shown: bool = True
) -> np.ndarray:
    """Lay the batches' answers below each other."""
    probabilities = np.zeros((rows, labels), dtype=np.float32)
    tracked = track(answers, -(-rows // size), "evaluate") if shown else answers
    for number, answer in enumerate(tracked):
        probabilities[number * size : number * size + len(answer)] = answer
    return probabilities


def _batches(crops: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(islice(crops, size)):
        yield np.stack(batch)


@lru_cache(maxsize=1)
def _load(folder: Path, spec: str, device: str, batch_size: int) -> Recogniser:
    recogniser = Recogniser.load(folder, device, batch_size)
    if recogniser.spec.model_dump_json() != spec:
        raise ModelError(f"{folder}: holds another model than when this stage began")
    return recogniser
