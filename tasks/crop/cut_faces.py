"""From files to crops, on all cores: decode, find, cut, encode; one picture at a time a worker.

Only the encoded crops travel back, so that memory does not grow with the number of pictures.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tasks.core.execution import map_in_order, process_pool
from tasks.core.images import BadImageError, decode_image, read_content
from tasks.core.shards import encode_png
from tasks.crop.exif_turn import Box, box_after_turn
from tasks.crop.face_crop import cut
from tasks.crop.face_detector import detect_either_way
from tasks.crop.picture_quality import brightness, sharpness
from tasks.crop.settings import CropSettings

NO_FACE = "no_face"
CHUNK = 8  # pictures: little enough to share the end of the work evenly


class Source(NamedTuple):
    """A picture's file, and how many pixels it has."""

    path: Path
    pixels: int


@dataclass(frozen=True)
class Cut:
    """A face that was cut out.

    Attributes
    ----------
    png
        The crop.
    n_faces
        How many faces the copy showed on which this one was found; a search for the smaller ones
        in a larger copy is not made.
    score
        The detector's score of the face that was cut out.
    box_xyxy_px
        Its tight box in pixels of the picture as `tasks.core.images` reads it (EXIF applied).
    turn_taken_back
        Whether the face is upright only without the turn of the EXIF flag.
    sharpness, brightness
        Of the crop, see `tasks.crop.picture_quality`.
    """

    png: bytes
    n_faces: int
    score: float
    box_xyxy_px: Box
    turn_taken_back: bool
    sharpness: float
    brightness: float


@dataclass(frozen=True)
class Missed:
    """A picture without a crop: `reason` is `no_face` or a reason of `tasks.core.images`."""

    reason: str
    detail: str


def cut_faces(
    sources: Iterable[Source], settings: CropSettings, workers: int
) -> Iterator[Cut | Missed]:
    """Cut the most prominent face out of each picture.

    Parameters
    ----------
    sources
        The pictures; read lazily.
    settings
        How to find and to cut.
    workers
        Processes; 0: one a core.

    Yields
    ------
    Cut or Missed
        One a picture in the order of the sources, the same for any number of workers.
    """
    with process_pool(workers) as pool:
        work = partial(cut_chunk, settings=settings)
        yield from map_in_order(work, sources, pool, CHUNK, workers)


def cut_chunk(chunk: list[Source], settings: CropSettings) -> list[Cut | Missed]:
    """Cut the faces out of a few pictures, one after the other; see `cut_faces`."""
    return [outcome for _, outcome in cut_and_name(chunk, settings)]


def cut_and_name(chunk: list[Source], settings: CropSettings) -> list[tuple[str, Cut | Missed]]:
    """Do as `cut_chunk` does; each outcome with its file's sha256, "" where it was not read."""
    named: list[tuple[str, Cut | Missed]] = []
    for source in chunk:
        try:
            # A file with more pixels than the manifest says is not the file that was taken in.
            content = read_content(source.path, source.pixels)
        except BadImageError as error:
            named.append(("", Missed(error.reason, error.detail)))
        else:
            outcome = _cut_one(content, source.pixels, settings)
            named.append((hashlib.sha256(content).hexdigest(), outcome))
    return named


def _cut_one(content: bytes, pixels: int, settings: CropSettings) -> Cut | Missed:
    try:
        image, orientation, _ = decode_image(content, pixels)
    except BadImageError as error:
        return Missed(error.reason, error.detail)
    found = detect_either_way(image, orientation, settings)
    if not found.faces:
        return Missed(NO_FACE, f"none up to {_largest_side(image.size, settings)} px")
    face = found.faces[0]
    crop = cut(found.image, face.box_xyxy_px, settings.size_px, settings.margin, settings.resample)
    box = face.box_xyxy_px
    if found.turn_taken_back:
        box = box_after_turn(box, orientation, found.image.size)
    return Cut(
        png=encode_png(crop),
        n_faces=len(found.faces),
        score=face.score,
        box_xyxy_px=box,
        turn_taken_back=found.turn_taken_back,
        sharpness=sharpness(crop),
        brightness=brightness(crop),
    )


def _largest_side(size: tuple[int, int], settings: CropSettings) -> int:
    return min(max(size), settings.detect_side_px) * 2**settings.upsample
