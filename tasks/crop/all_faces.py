"""All faces of one picture, cut as a model's own crops were: what asking a model begins with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.images import Picture
from tasks.crop.exif_turn import Box, box_after_turn
from tasks.crop.face_crop import cut
from tasks.crop.face_detector import Pixels, detect_either_way
from tasks.crop.settings import CropSettings, settings_of_model


@dataclass(frozen=True)
class CutFaces:
    """The faces of a picture, the most prominent first.

    Attributes
    ----------
    crops
        `(N, S, S, 3)` uint8 RGB.
    boxes_xyxy_px
        N tight boxes in pixels of the picture as its EXIF flag turns it.
    scores
        The detector's N scores.
    """

    crops: np.ndarray
    boxes_xyxy_px: list[Box]
    scores: list[float]


def cut_all_faces(picture: Picture, settings: CropSettings) -> CutFaces:
    """Find and cut every face of a picture; none is no error."""
    return _cut_all(picture.rgb, picture.exif_orientation, settings)


def _cut_all(rgb: Pixels, exif_orientation: int, settings: CropSettings) -> CutFaces:
    found = detect_either_way(rgb, exif_orientation, settings)
    boxes = [face.box_xyxy_px for face in found.faces]
    shape = (0, settings.size_px, settings.size_px, 3)
    crops = [
        cut(found.image, box, settings.size_px, settings.margin, settings.resample) for box in boxes
    ]
    if found.turn_taken_back:
        turn, size = exif_orientation, found.image.size
        boxes = [box_after_turn(box, turn, size) for box in boxes]
    scores = [face.score for face in found.faces]
    return CutFaces(np.stack(crops) if crops else np.zeros(shape, np.uint8), boxes, scores)


def face_finder(folder: Path) -> Callable[[Image.Image, int], CutFaces]:
    """Return a function that cuts the faces of a picture as the model in a folder needs them.

    It takes what `tasks.core.images.decode_image` returns: the Pillow image, of which a large one
    is not copied, and the EXIF flag. Several threads may call it at once.

    Raises
    ------
    ModelError
        One line where the folder's crop.json is missing or damaged.
    """
    settings = settings_of_model(folder)
    return lambda image, exif_orientation: _cut_all(image, exif_orientation, settings)
