"""The crop: a square around the face, resized without aliasing."""

from math import ceil, floor

import numpy as np
from PIL import Image

from tasks.crop.face_detector import Box, Pixels, as_image
from tasks.crop.settings import Resample

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "lanczos": Image.Resampling.LANCZOS}
_WIDEST_SUPPORT = 3  # Lanczos reads 3 source steps to each side; bilinear 1


def cut(rgb: Pixels, box: Box, size_px: int, margin: float, resample: Resample) -> np.ndarray:
    """Crop a face to `(size_px, size_px, 3)` uint8, with the box's center in the middle.

    The margin is a fraction of the box's longer side, added on each side; 0 crops tightly. Where
    the square extends beyond the image, edge pixels are repeated. Both filters, `bilinear` and
    `lanczos`, widen with the reduction, so that fine patterns turn gray instead of aliasing.
    """
    image = as_image(rgb)
    square = square_around(box, margin)
    if square[0] < 0 or square[1] < 0 or square[2] > image.width or square[3] > image.height:
        image, square = _with_repeated_edges(image, square, size_px)
    return np.asarray(image.resize((size_px, size_px), _FILTERS[resample], box=square))


def square_around(box: Box, margin: float) -> Box:
    """Return a square of the box's center and longer side, widened by the margin."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top) * (0.5 + margin)
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return middle_x - half, middle_y - half, middle_x + half, middle_y + half


def _with_repeated_edges(image: Image.Image, square: Box, size_px: int) -> tuple[Image.Image, Box]:
    """Return the padded region that the filter reads, and the square within it."""
    border = ceil(_WIDEST_SUPPORT * max(1.0, (square[2] - square[0]) / size_px)) + 1
    left, top = floor(square[0]) - border, floor(square[1]) - border
    right, bottom = ceil(square[2]) + border, ceil(square[3]) + border
    columns = np.arange(left, right).clip(0, image.width - 1)
    rows = np.arange(top, bottom).clip(0, image.height - 1)
    inside = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    pixels = np.asarray(image.crop(inside))
    filled = pixels[rows - rows[0]][:, columns - columns[0]]
    return Image.fromarray(filled), (
        square[0] - left,
        square[1] - top,
        square[2] - left,
        square[3] - top,
    )
