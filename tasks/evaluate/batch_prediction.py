"""Predicts a stream of crops in batches of one size, in constant memory.

The last batch is filled up with copies of its first image: the libraries choose their kernels by
batch size, so that an image's last bits would otherwise depend on the number of images. Work is
distributed among machines in the same batches, for the same reason.
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
from tasks.core.imaging.shards import read_crops
from tasks.core.models.device import make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.parallel.execution import Here, map_in_order, one_process
from tasks.core.parallel.progress import track

PLACE = ["shard", "offset_bytes", "size_bytes"]


@dataclass(frozen=True)
class PredictionJob:
    """A model as other machines load it.

    `spec` is the content of `model.json`. `threads` is the number of torch threads here: another
    number changes the last bits of sums.
    """

    folder: Path
    spec: str
    shards: Path
    device: str
    batch_size: int
    threads: int


def predict_rows(
    recognizer: EmotionClassifier, table: pd.DataFrame, asked: PredictionJob
) -> np.ndarray:
    """Predict every row's crop, here or on the cluster that the environment names.

    `recognizer` is the model that `asked` describes, for local work. `table` has `shard`,
    `offset_bytes` and `size_bytes`. Returns `(rows, K)` float32 probabilities in the order of the
    model's labels.
    """
    with one_process() as executor:
        if isinstance(executor, Here):
            return predict_crops(recognizer, table, asked.shards)
        size = asked.batch_size
        places = table[PLACE]
        batches = (places.iloc[start : start + size] for start in range(0, len(table), size))
        answers = map_in_order(partial(predict_batches, asked), batches, executor, 1)
        return _collect(answers, len(table), size, len(recognizer.labels))


def predict_batches(asked: PredictionJob, batches: list[pd.DataFrame]) -> list[np.ndarray]:
    """Predict complete batches on a worker; return one array per batch."""
    torch.set_num_threads(asked.threads)
    recognizer = _load(asked.folder, asked.spec, asked.device, asked.batch_size)
    make_deterministic(recognizer.device)
    return [predict_crops(recognizer, batch, asked.shards, shown=False) for batch in batches]


def predict_crops(
    recognizer: EmotionClassifier, table: pd.DataFrame, shards: Path, shown: bool = True
) -> np.ndarray:
    """Predict every row's crop in this process.

    `table` has `shard`, `offset_bytes` and `size_bytes`. Returns `(rows, K)` float32 probabilities
    in the order of the model's labels.
    """
    size = recognizer.batch_size
    answers = map(partial(_predict, recognizer), _batches(read_crops(table, shards), size))
    return _collect(answers, len(table), size, len(recognizer.labels), shown)


def _predict(recognizer: EmotionClassifier, batch: np.ndarray) -> np.ndarray:
    size = recognizer.batch_size
    filled = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
    return recognizer.predict(filled)[: len(batch)]


def _collect(
    answers: Iterator[np.ndarray], rows: int, size: int, labels: int, shown: bool = True
) -> np.ndarray:
    """Concatenate the batches' answers."""
    probabilities = np.zeros((rows, labels), dtype=np.float32)
    tracked = track(answers, -(-rows // size), "evaluate") if shown else answers
    for number, answer in enumerate(tracked):
        probabilities[number * size : number * size + len(answer)] = answer
    return probabilities


def _batches(crops: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(islice(crops, size)):
        yield np.stack(batch)


@lru_cache(maxsize=1)
def _load(folder: Path, spec: str, device: str, batch_size: int) -> EmotionClassifier:
    recognizer = EmotionClassifier.load(folder, device, batch_size)
    if recognizer.spec.model_dump_json() != spec:
        raise ModelError(f"{folder}: holds another model than when this stage began")
    return recognizer
