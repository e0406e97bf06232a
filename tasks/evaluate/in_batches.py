"""Predicting a stream of crops in batches of one size, in memory that does not grow.

The last batch is filled up with its own first picture: the libraries choose their kernels by
batch size, so that a picture's last bits would otherwise depend on how many pictures there are.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.models.recogniser import Recogniser
from tasks.core.progress import track
from tasks.core.shards import read_crops


def predict_crops(recogniser: Recogniser, table: pd.DataFrame, shards: Path) -> np.ndarray:
    """Predict every row's crop.

    Parameters
    ----------
    recogniser
        The model; its `batch_size` is the size of every batch.
    table
        Rows with `shard`, `offset_bytes` and `size_bytes`.
    shards
        The folder of crops.

    Returns
    -------
    numpy.ndarray
        `(rows, K)` float32 probabilities in the order of the model's labels.
    """
    size = recogniser.batch_size
    probabilities = np.zeros((len(table), len(recogniser.labels)), dtype=np.float32)
    batches = track(_batches(read_crops(table, shards), size), -(-len(table) // size), "evaluate")
    for number, batch in enumerate(batches):
        filled = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        start = number * size
        probabilities[start : start + len(batch)] = recogniser.predict(filled)[: len(batch)]
    return probabilities


def _batches(crops: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    while batch := list(islice(crops, size)):
        yield np.stack(batch)
