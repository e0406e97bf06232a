"""Finds faces with dlib's frontal HOG detector, in the smallest copy that shows one.

The detector's window is 80 px wide and its run time grows with the area. The first copy is
therefore sized so that typical faces are 100 to 150 px wide: 6 times faster than 1,024 px, with the
same faces. Only if nothing is found are copies of twice and four times the side searched. They are
resized from the full image, so that small faces in large images keep their detail. Gray is 1.3
times faster than color.

N. Dalal, B. Triggs: Histograms of oriented gradients for human detection, CVPR 2005.
D. King: Max-margin object detection, arXiv 1502.00046.

Undoes an EXIF orientation that the pixels already have, as some cameras and editors write it.

Orientation as in EXIF 2.32, tag 0x0112: 1 is upright, 2 to 8 are the rotations and reflections that
a viewer has to apply to the stored pixels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot

import dlib
import numpy as np
from PIL import Image

from tasks.crop.settings import CropSettings

Box = tuple[float, float, float, float]
_INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
_SWAPS_AXES = (5, 6, 7, 8)
_MIRRORS_X = (2, 3, 6, 7)  # after the swap, where there is one
_MIRRORS_Y = (3, 4, 7, 8)
Pixels = np.ndarray | Image.Image  # (H, W, 3) uint8 RGB, or the same as a Pillow image
_SURE_SCORE = 1.0  # dlib's frontal detections above it are hardly ever wrong
_MIN_TRUST = 0.01  # keeps the rank of detections with score 0 above zero
_idle_detectors: list[dlib.fhog_object_detector] = []


def undo_exif_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image as its pixels are stored, given the one with its orientation applied."""
    return image.transpose(_INVERSE[orientation]) if orientation in _INVERSE else image


def box_in_oriented_image(box: Box, orientation: int, stored_size_px: tuple[int, int]) -> Box:
    """Map a box from the stored pixels to the image with its EXIF orientation (1 to 8) applied.

    Boxes are left, top, right, bottom; `stored_size_px` is width and height.
    """
    left, top, right, bottom = box
    width, height = stored_size_px
    if orientation in _SWAPS_AXES:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if orientation in _MIRRORS_X:
        left, right = width - right, width - left
    if orientation in _MIRRORS_Y:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


@dataclass(frozen=True)
class Face:
    """A face in an image."""

    box_xyxy_px: Box  # tight, in the full image, to 0.01 px; may extend beyond the image
    score: float  # dlib's: 0 is its own threshold, clear frontal faces reach 1 to 3
    prominence: float  # 0 to 1; the most prominent face is the one that is cropped


@dataclass(frozen=True)
class Detection:
    """Faces in `image`, which has its EXIF orientation undone if `exif_orientation_ignored`."""

    image: Image.Image
    faces: list[Face]
    exif_orientation_ignored: bool


def detect_faces(rgb: Pixels, settings: CropSettings) -> list[Face]:
    """Find all faces of an image, most prominent first; empty if no copy showed one.

    `rgb` is the full image, `(H, W, 3)` uint8 RGB or a Pillow image in mode RGB.
    """
    image = as_image(rgb)
    side_px = min(max(image.size), settings.detector_side_px)
    for doubled in range(settings.max_upsamples + 1):
        if faces := _search(image, side_px * 2**doubled, settings.min_score):
            return faces
    return []


def detect_with_exif_fallback(rgb: Pixels, orientation: int, settings: CropSettings) -> Detection:
    """Find all faces; if there are none, search again with the EXIF orientation undone.

    `rgb` has its `orientation` (1 for none) applied. Boxes are in pixels of the detection's
    `image`, which is the one to crop from.
    """
    image = as_image(rgb)
    faces = detect_faces(image, settings)
    if not faces and orientation != 1:
        stored = undo_exif_orientation(image, orientation)
        if faces := detect_faces(stored, settings):
            return Detection(stored, faces, exif_orientation_ignored=True)
    return Detection(image, faces, exif_orientation_ignored=False)


def prominence(box: Box, score: float, width_px: int, height_px: int) -> float:
    """Rate from 0 to 1 how much a face is the subject of the image.

    Its subject is large, central and surely a face: `share × (1 − distance) × trust`: the box's
    share of the image's area; the distance of the two centers, 1 in a corner; and the score,
    clipped to 0.01–1, because false detections score low whatever their size.
    """
    left, top, right, bottom = box
    share = (right - left) * (bottom - top) / (width_px * height_px)
    offset_x = (left + right) / 2 - width_px / 2
    offset_y = (top + bottom) / 2 - height_px / 2
    distance = min(1.0, hypot(offset_x, offset_y) / (hypot(width_px, height_px) / 2))
    return share * (1 - distance) * min(max(score, _MIN_TRUST), _SURE_SCORE)


def as_image(rgb: Pixels) -> Image.Image:
    """Return the array as a Pillow image; Pillow images are returned unchanged."""
    return rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)


@contextmanager
def _detector() -> Iterator[dlib.fhog_object_detector]:
    """Lend a detector to one thread: dlib's object keeps the image it works on and has no lock.

    The pool grows to the number of concurrent searches and is reused by later threads.
    """
    try:
        detector = _idle_detectors.pop()  # pop and append are atomic
    except IndexError:
        detector = dlib.get_frontal_face_detector()
    try:
        yield detector
    finally:
        _idle_detectors.append(detector)


def _search(image: Image.Image, side_px: int, min_score: float) -> list[Face]:
    """Search a gray copy whose longer side is `side_px`."""
    factor = side_px / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    copy = np.asarray(_gray_copy(image, size))
    with _detector() as detector:
        boxes, scores, _ = detector.run(copy, 0, min_score)
    scale_x, scale_y = image.width / size[0], image.height / size[1]
    faces = []
    for rectangle, score in zip(boxes, scores, strict=True):
        left, right = rectangle.left() * scale_x, (rectangle.right() + 1) * scale_x
        top, bottom = rectangle.top() * scale_y, (rectangle.bottom() + 1) * scale_y  # inclusive
        box = (round(left, 2), round(top, 2), round(right, 2), round(bottom, 2))
        faces.append(Face(box, float(score), prominence(box, score, *image.size)))
    return sorted(faces, key=lambda face: (-face.prominence, face.box_xyxy_px))


def _gray_copy(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # A gap of 1 averages by an integer factor first, which is fast and does not alias.
    return image.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
