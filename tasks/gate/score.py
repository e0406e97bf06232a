"""What a model says about the test pictures, and which answers flip under small changes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.core.labels import in_order
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.progress import track
from tasks.core.shards import read_crops
from tasks.gate.changes import KINDS, small_changes
from tasks.gate.settings import Params

FLIPS = "flips: "  # columns: share of a kind's changes under which the answer is another one


@dataclass(frozen=True)
class Scores:
    """A model's answers.

    Attributes
    ----------
    labels
        What it can answer, in the vocabulary's order.
    table
        One row a test picture: `image_id`, `y_pred`, `p_<label>`…, and `flips: <kind>` from 0 to 1
        for each kind of small change.
    """

    labels: tuple[str, ...]
    table: pd.DataFrame


def score(folder: Path, pictures: pd.DataFrame, shards: Path, params: Params) -> Scores:
    """Ask a model about pictures as they are, and changed a little.

    Parameters
    ----------
    folder
        The model's folder.
    pictures
        One row a picture: `image_id, shard, offset_bytes, size_bytes`.
    shards
        The crops, cut as this model's `crop.json` says.
    params
        Of them: changes, device, batch_size.

    Raises
    ------
    ModelError
        One line, where the model cannot be read.

    Notes
    -----
    Every batch has the same size (the last is filled up), since the last bits depend on it: the
    same model and pictures give the same scores. Memory does not grow with the pictures.
    """
    recogniser = Recogniser.load(folder, params.device, params.batch_size)
    make_repeatable(recogniser.device)
    size, labels = params.batch_size, recogniser.labels
    parts = [(np.zeros((0, len(labels)), dtype=np.float32), np.zeros((0, len(KINDS))))]
    batches = track(_batches(pictures, shards, size), -(-len(pictures) // size), "promote")
    for batch in batches:
        filled = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        probabilities, flips = _ask(recogniser, filled, params)
        parts.append((probabilities[: len(batch)], flips[: len(batch)]))
    probabilities, flips = (np.concatenate(part) for part in zip(*parts, strict=True))
    answers = np.array(labels)[probabilities.argmax(axis=1)] if len(probabilities) else []
    columns = {f"p_{name}": probabilities[:, labels.index(name)] for name in in_order(labels)}
    columns |= {f"{FLIPS}{kind}": flips[:, place] for place, kind in enumerate(KINDS)}
    answered = {"image_id": pictures["image_id"].to_numpy(), "y_pred": answers}
    return Scores(tuple(in_order(labels)), pd.DataFrame(answered | columns))


def _ask(
    recogniser: Recogniser, crops: np.ndarray, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities `(N, K)` and, for each kind of change, the share that flips."""
    probabilities = recogniser.predict(crops)
    answers = probabilities.argmax(axis=1)
    flipped: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for kind, changed in small_changes(crops, params.changes):
        flipped[kind].append(recogniser.predict(changed).argmax(axis=1) != answers)
    return probabilities, np.stack([np.mean(flipped[kind], axis=0) for kind in KINDS], axis=1)


def _batches(pictures: pd.DataFrame, shards: Path, size: int) -> Iterator[np.ndarray]:
    crops = read_crops(pictures, shards)
    while batch := list(islice(crops, size)):
        yield np.stack(batch)
