"""Decodes images, finds faces, crops and encodes them, on all cores.

Each worker holds one image at a time and sends back only encoded crops, so that memory does not
grow with the number of images. Sharpness and brightness may differ between groups; both are
measured on the crop at its own size (`crop.size_px`), so that all faces are on one scale, and on
its luma (ITU-R BT.601). The sums are integers, so that every machine returns the same bits.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tasks.core.imaging.decode import BadImageError, decode_image, read_content
from tasks.core.imaging.shards import encode_png
from tasks.core.parallel.execution import map_in_order, process_pool
from tasks.crop.face_crop import cut
from tasks.crop.face_detector import Box, box_in_oriented_image, detect_with_exif_fallback
from tasks.crop.settings import CropSettings

_LUMA = (299, 587, 114)  # of ITU-R BT.601, in thousandths
_SCALE = sum(_LUMA)
NO_FACE = "no_face"
CHUNK = 8  # images: small, so that the last chunks spread evenly over the workers


def sharpness(rgb: np.ndarray) -> float:
    """Return the variance of a crop's Laplacian in squared gray levels; higher is sharper.

    The crop is `(H, W, 3)` uint8, at least 3 pixels each way. The Laplacian is the sum of the four
    neighbors less four times the pixel, on inner pixels (J. L. Pech-Pacheco et al. (2000), ICPR,
    314-317). Enlarged, blurred and padded faces score lower. The value depends on `crop.size_px`,
    on the content and on noise: compare only crops of one run.
    """
    gray = _luma(rgb)
    neighbors = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    edges = (neighbors - 4 * gray[1:-1, 1:-1]).ravel()
    n, total, squares = edges.size, int(edges.sum()), int(edges @ edges)
    return (n * squares - total * total) / (n * n * _SCALE**2)


def brightness(rgb: np.ndarray) -> float:
    """Return the mean gray level of an `(H, W, 3)` uint8 crop, from 0 (black) to 255 (white)."""
    gray = _luma(rgb)
    return int(gray.sum()) / (gray.size * _SCALE)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Return `(H, W)` int64 luma, times 1000."""
    return rgb.astype(np.int64) @ np.array(_LUMA)


class Source(NamedTuple):
    """An image file and its number of pixels."""

    path: Path
    pixels: int


@dataclass(frozen=True)
class FaceCrop:
    """A cropped face."""

    png: bytes
    n_faces: int  # in the copy that was searched last
    score: float  # the detector's
    box_xyxy_px: Box  # tight, in the image as `tasks.core.imaging.decode` reads it (EXIF applied)
    exif_orientation_ignored: bool  # the face is upright only without the EXIF orientation
    sharpness: float  # of the crop, see `sharpness`
    brightness: float


@dataclass(frozen=True)
class NoFace:
    """An image without a crop; `reason` is `no_face` or a reason of `tasks.core.imaging.decode`."""

    reason: str
    detail: str


def crop_faces(
    sources: Iterable[Source], settings: CropSettings, workers: int
) -> Iterator[FaceCrop | NoFace]:
    """Crop the most prominent face of each image.

    `sources` is read lazily; `workers` 0 means one process per core. Yields one outcome per source,
    in order and independent of the number of workers.
    """
    with process_pool(workers) as pool:
        work = partial(crop_chunk, settings=settings)
        yield from map_in_order(work, sources, pool, CHUNK, workers)


def crop_chunk(chunk: list[Source], settings: CropSettings) -> list[FaceCrop | NoFace]:
    """Crop the faces of a few images in this process; see `cut_faces`."""
    return [outcome for _, outcome in crop_with_digests(chunk, settings)]


def crop_with_digests(
    chunk: list[Source], settings: CropSettings
) -> list[tuple[str, FaceCrop | NoFace]]:
    """Return each outcome with its file's sha256; "" if the file could not be read."""
    outcomes: list[tuple[str, FaceCrop | NoFace]] = []
    for source in chunk:
        try:
            # A file with more pixels than the manifest says was replaced after ingestion.
            content = read_content(source.path, source.pixels)
        except BadImageError as error:
            outcomes.append(("", NoFace(error.reason, error.detail)))
        else:
            outcome = _cut_one(content, source.pixels, settings)
            outcomes.append((hashlib.sha256(content).hexdigest(), outcome))
    return outcomes


def _cut_one(content: bytes, pixels: int, settings: CropSettings) -> FaceCrop | NoFace:
    try:
        image, orientation, _ = decode_image(content, pixels)
    except BadImageError as error:
        return NoFace(error.reason, error.detail)
    detection = detect_with_exif_fallback(image, orientation, settings)
    if not detection.faces:
        return NoFace(NO_FACE, f"none up to {_largest_side(image.size, settings)} px")
    face = detection.faces[0]
    crop = cut(
        detection.image, face.box_xyxy_px, settings.size_px, settings.margin, settings.resample
    )
    box = face.box_xyxy_px
    if detection.exif_orientation_ignored:
        box = box_in_oriented_image(box, orientation, detection.image.size)
    return FaceCrop(
        png=encode_png(crop),
        n_faces=len(detection.faces),
        score=face.score,
        box_xyxy_px=box,
        exif_orientation_ignored=detection.exif_orientation_ignored,
        sharpness=sharpness(crop),
        brightness=brightness(crop),
    )


def _largest_side(size: tuple[int, int], settings: CropSettings) -> int:
    return min(max(size), settings.detector_side_px) * 2**settings.max_upsamples
