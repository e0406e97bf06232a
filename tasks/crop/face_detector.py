"""Finds faces with dlib's frontal HOG detector, on as small a copy as will do.

The detector's window is 80 px wide and its time grows with the area, so a copy in which typical
faces are 100 to 150 px wide is searched first (6 times faster than 1,024 px, same faces). Only
where nothing is found is a copy of twice the side searched, and twice again: taken from the full
picture, so that small faces in large pictures get their real detail. Grey is 1.3 times faster than
colour. N. Dalal, B. Triggs: Histograms of oriented gradients for human detection, CVPR 2005;
D. King: Max-margin object detection, arXiv 1502.00046.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import hypot

import dlib
import numpy as np
from PIL import Image

from tasks.crop.exif_turn import Box, take_back
from tasks.crop.settings import DetectorSettings

Pixels = np.ndarray | Image.Image  # (H, W, 3) uint8 RGB, or the same as a Pillow image

_SURE_SCORE = 1.0  # from here on dlib's frontal detections are hardly ever wrong
_LEAST_TRUST = 0.01  # so that a lone detection of score 0 still has a rank


@dataclass(frozen=True)
class Face:
    """A face in a picture.

    Attributes
    ----------
    box_xyxy_px
        Left, top, right, bottom of dlib's tight box in pixels of the full picture, to 0.01 px; it
        may leave the picture.
    score
        dlib's detection score: 0 is its own threshold, clear frontal faces reach 1 to 3.
    prominence
        0 to 1, see `prominence`; the picture's face is the one with the largest.
    """

    box_xyxy_px: Box
    score: float
    prominence: float


@dataclass(frozen=True)
class Detection:
    """Where faces were found: in `image`, which is stored upright if `turn_taken_back`."""

    image: Image.Image
    faces: list[Face]
    turn_taken_back: bool


def detect_faces(rgb: Pixels, settings: DetectorSettings) -> list[Face]:
    """Find all faces of a picture.

    Parameters
    ----------
    rgb
        The full picture, `(H, W, 3)` uint8 RGB or a Pillow image in mode RGB.
    settings
        `detect_side_px`, `upsample` and `min_score` (the crop section of params has them).

    Returns
    -------
    list of Face
        The most prominent first; empty where no copy showed one.
    """
    image = as_image(rgb)
    side_px = min(max(image.size), settings.detect_side_px)
    for doubled in range(settings.upsample + 1):
        if faces := _search(image, side_px * 2**doubled, settings.min_score):
            return faces
    return []


def detect_either_way(rgb: Pixels, orientation: int, settings: DetectorSettings) -> Detection:
    """Find all faces, and where there are none, look again without the turn of the EXIF flag.

    Parameters
    ----------
    rgb
        The full picture, turned by its EXIF flag.
    orientation
        That flag; 1 for none (`tasks.core.images.Picture.exif_orientation`).
    settings
        As in `detect_faces`.

    Returns
    -------
    Detection
        Boxes are in pixels of its `image`, from which the crop is to be cut.
    """
    image = as_image(rgb)
    faces = detect_faces(image, settings)
    if not faces and orientation != 1:
        stored = take_back(image, orientation)
        if faces := detect_faces(stored, settings):
            return Detection(stored, faces, turn_taken_back=True)
    return Detection(image, faces, turn_taken_back=False)


def prominence(box: Box, score: float, width_px: int, height_px: int) -> float:
    """Rate how much a face is the picture's subject: large, central and surely a face.

    Returns
    -------
    float
        `share × (1 − distance) × trust`: the box's share of the picture's area; the distance of
        the box's centre from the picture's, 0 there and 1 in a corner; and the score, clipped to
        0.01–1, because false detections score low whatever their size.
    """
    left, top, right, bottom = box
    share = (right - left) * (bottom - top) / (width_px * height_px)
    away_x = (left + right) / 2 - width_px / 2
    away_y = (top + bottom) / 2 - height_px / 2
    distance = min(1.0, hypot(away_x, away_y) / (hypot(width_px, height_px) / 2))
    return share * (1 - distance) * min(max(score, _LEAST_TRUST), _SURE_SCORE)


def as_image(rgb: Pixels) -> Image.Image:
    """Return a Pillow image of an array; one that is an image already is passed on."""
    return rgb if isinstance(rgb, Image.Image) else Image.fromarray(rgb)


_idle_detectors: list[dlib.fhog_object_detector] = []


@contextmanager
def _detector() -> Iterator[dlib.fhog_object_detector]:
    """Lend a detector to one thread: dlib's object keeps the image it works on and has no lock.

    There are as many as ever searched at the same time: one in a stage's process, and in a server
    those of its threads, however often threads come and go.
    """
    try:
        detector = _idle_detectors.pop()  # taking and returning are atomic
    except IndexError:
        detector = dlib.get_frontal_face_detector()
    try:
        yield detector
    finally:
        _idle_detectors.append(detector)


def _search(image: Image.Image, side_px: int, min_score: float) -> list[Face]:
    """Search a grey copy whose longer side is `side_px`."""
    factor = side_px / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    copy = np.asarray(_grey_copy(image, size))
    with _detector() as detector:
        boxes, scores, _ = detector.run(copy, 0, min_score)
    by_x, by_y = image.width / size[0], image.height / size[1]
    faces = []
    for found, score in zip(boxes, scores, strict=True):
        corners = (found.left() * by_x, found.top() * by_y)
        ends = ((found.right() + 1) * by_x, (found.bottom() + 1) * by_y)  # dlib's are inclusive
        left, top, right, bottom = (round(edge, 2) for edge in (*corners, *ends))
        box = (left, top, right, bottom)
        faces.append(Face(box, float(score), prominence(box, score, *image.size)))
    return sorted(faces, key=lambda face: (-face.prominence, face.box_xyxy_px))


def _grey_copy(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    # The gap of 1 lets whole-number steps be averaged first, which is fast and does not alias.
    return image.convert("L").resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
