"""Crops every face of an image the way a model's own crops were made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.imaging.decode import LoadedImage
from tasks.crop.face_crop import cut
from tasks.crop.face_detector import Box, Pixels, box_in_oriented_image, detect_with_exif_fallback
from tasks.crop.settings import CropSettings, model_crop_settings


@dataclass(frozen=True)
class CroppedFaces:
    """The faces of an image, most prominent first."""

    crops: np.ndarray  # (N, S, S, 3) uint8 RGB
    boxes_xyxy_px: list[Box]  # tight, in the image after its EXIF orientation is applied
    scores: list[float]  # the detector's


def crop_all_faces(image: LoadedImage, settings: CropSettings) -> CroppedFaces:
    """Find and crop every face of an image; an image without faces is no error."""
    return _cut_all(image.rgb, image.exif_orientation, settings)


def _cut_all(rgb: Pixels, exif_orientation: int, settings: CropSettings) -> CroppedFaces:
    detection = detect_with_exif_fallback(rgb, exif_orientation, settings)
    boxes = [face.box_xyxy_px for face in detection.faces]
    shape = (0, settings.size_px, settings.size_px, 3)
    crops = [
        cut(detection.image, box, settings.size_px, settings.margin, settings.resample)
        for box in boxes
    ]
    if detection.exif_orientation_ignored:
        orientation, size = exif_orientation, detection.image.size
        boxes = [box_in_oriented_image(box, orientation, size) for box in boxes]
    scores = [face.score for face in detection.faces]
    return CroppedFaces(np.stack(crops) if crops else np.zeros(shape, np.uint8), boxes, scores)


def face_cropper(folder: Path) -> Callable[[Image.Image, int], CroppedFaces]:
    """Return a function that crops all faces of an image with a model's own settings.

    The function takes what `tasks.core.imaging.decode.decode_image` returns: the Pillow image, so
    that a large one is not copied, and the EXIF orientation. It is safe to call from several
    threads. Raises ModelError if the folder's crop.json is missing or damaged.
    """
    settings = model_crop_settings(folder)
    return lambda image, exif_orientation: _cut_all(image, exif_orientation, settings)
