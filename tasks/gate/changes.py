"""Small changes of a crop under which a model's answer should stay the same.

They stand for what cameras and detectors do to a face without changing it: a mirrored selfie, other
light, a box that lies a little beside, a smaller file (S. Zheng, Y. Song, T. Leung, I. Goodfellow
2016, Improving the robustness of deep neural networks via stability training, CVPR, has such ones).
"""

import io
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

from tasks.gate.settings import Changes

FLIP, BRIGHTNESS, SHIFT, JPEG = "left-right flip", "brightness", "small shift", "JPEG"
KINDS: tuple[str, ...] = (FLIP, BRIGHTNESS, SHIFT, JPEG)


def small_changes(crops: np.ndarray, changes: Changes) -> Iterator[tuple[str, np.ndarray]]:
    """Yield crops changed in every way, one way after the other.

    Parameters
    ----------
    crops
        `(N, H, W, 3)` uint8 RGB.
    changes
        How far each change goes.

    Yields
    ------
    kind, changed
        One of `KINDS` (brightness twice, shift four times) and `(N, H, W, 3)` uint8. A shift
        repeats the edge that it uncovers.
    """
    yield FLIP, np.ascontiguousarray(crops[:, :, ::-1])
    for factor in (1 - changes.brightness, 1 + changes.brightness):
        yield BRIGHTNESS, np.rint(crops * np.float32(factor)).clip(0, 255).astype(np.uint8)
    step = max(1, round(changes.shift * crops.shape[2])) if changes.shift else 0
    for down, right in ((0, step), (0, -step), (step, 0), (-step, 0)):
        yield SHIFT, _shifted(crops, down, right)
    yield JPEG, _each(crops, lambda crop: _through_jpeg(crop, changes.jpeg_quality))


def _shifted(crops: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = crops.shape[1:3]
    rows = (np.arange(height) - down).clip(0, height - 1)
    columns = (np.arange(width) - right).clip(0, width - 1)
    return np.ascontiguousarray(crops[:, rows][:, :, columns])


def _through_jpeg(crop: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as picture:
        return np.asarray(picture.convert("RGB"))


def _each(crops: np.ndarray, work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.stack([work(crop) for crop in crops]) if len(crops) else crops
