"""A model's predictions for the test images, and whether small perturbations change them.

The perturbations mimic what cameras and detectors do to a face without changing it: a mirrored
selfie, other light, a shifted box, stronger compression (as in S. Zheng, Y. Song, T. Leung,
I. Goodfellow 2016, Improving the robustness of deep neural networks via stability training, CVPR).
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.imaging.shards import read_crops
from tasks.core.labels import in_order
from tasks.core.models.device import make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.parallel.progress import track
from tasks.gate.settings import Changes, Params

FLIP, BRIGHTNESS, SHIFT, JPEG = "left-right flip", "brightness", "small shift", "JPEG"
KINDS: tuple[str, ...] = (FLIP, BRIGHTNESS, SHIFT, JPEG)
FLIPS = "flips: "  # prefix of columns: share of a kind's perturbations that change the prediction


def small_changes(crops: np.ndarray, changes: Changes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the kind and the perturbed crops for every perturbation.

    Crops are `(N, H, W, 3)` uint8 RGB. Brightness comes twice, shift four times. A shift repeats
    the edge that it uncovers.
    """
    yield FLIP, np.ascontiguousarray(crops[:, :, ::-1])
    for factor in (1 - changes.brightness, 1 + changes.brightness):
        yield BRIGHTNESS, np.rint(crops * np.float32(factor)).clip(0, 255).astype(np.uint8)
    step = max(1, round(changes.shift * crops.shape[2])) if changes.shift else 0
    for down, right in ((0, step), (0, -step), (step, 0), (-step, 0)):
        yield SHIFT, _shifted(crops, down, right)
    compressed = [_through_jpeg(crop, changes.jpeg_quality) for crop in crops]
    yield JPEG, np.stack(compressed) if compressed else crops


def _shifted(crops: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = crops.shape[1:3]
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = (np.arange(width) - right).clip(0, width - 1)
    return np.ascontiguousarray(crops[:, rows][:, :, columns])


def _through_jpeg(crop: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Scores:
    """A model's predictions.

    Attributes
    ----------
    labels
        The labels it can predict, in the vocabulary's order.
    table
        One row per test image: `image_id`, `y_pred`, `p_<label>`…, and `flips: <kind>` from 0 to 1
        for each kind of perturbation.
    """

    labels: tuple[str, ...]
    table: pd.DataFrame


def score(folder: Path, images: pd.DataFrame, shards: Path, params: Params) -> Scores:
    """Predict images with a model, as they are and perturbed.

    Every batch has the same size (the last is padded), since the last bits depend on it: the same
    model and images give the same scores. Memory does not grow with the number of images.

    Parameters
    ----------
    pictures
        Columns `image_id, shard, offset_bytes, size_bytes`.
    shards
        The crops, made as the model's `crop.json` says.

    Raises
    ------
    ModelError
        If the model cannot be read.
    """
    recognizer = EmotionClassifier.load(folder, params.device, params.batch_size)
    make_deterministic(recognizer.device)
    size, labels = params.batch_size, recognizer.labels
    parts = [(np.zeros((0, len(labels)), dtype=np.float32), np.zeros((0, len(KINDS))))]
    batches = track(_batches(images, shards, size), -(-len(images) // size), "promote")
    for batch in batches:
        padded = np.concatenate([batch, np.repeat(batch[:1], size - len(batch), axis=0)])
        probabilities, flips = _predict(recognizer, padded, params)
        parts.append((probabilities[: len(batch)], flips[: len(batch)]))
    probabilities, flips = (np.concatenate(part) for part in zip(*parts, strict=True))
    answers = np.array(labels)[probabilities.argmax(axis=1)] if len(probabilities) else []
    columns = {f"p_{name}": probabilities[:, labels.index(name)] for name in in_order(labels)}
    columns |= {f"{FLIPS}{kind}": flips[:, index] for index, kind in enumerate(KINDS)}
    predictions = {"image_id": images["image_id"].to_numpy(), "y_pred": answers}
    return Scores(tuple(in_order(labels)), pd.DataFrame(predictions | columns))


def _predict(
    recognizer: EmotionClassifier, crops: np.ndarray, params: Params
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, `(N, K)`, and the share of flips, `(N, kinds)`."""
    probabilities = recognizer.predict(crops)
    answers = probabilities.argmax(axis=1)
    flipped: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for kind, perturbed in small_changes(crops, params.perturbations):
        flipped[kind].append(recognizer.predict(perturbed).argmax(axis=1) != answers)
    return probabilities, np.stack([np.mean(flipped[kind], axis=0) for kind in KINDS], axis=1)


def _batches(images: pd.DataFrame, shards: Path, size: int) -> Iterator[np.ndarray]:
    crops = read_crops(images, shards)
    while batch := list(islice(crops, size)):
        yield np.stack(batch)
