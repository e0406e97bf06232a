"""Rendering of single images with their ground truth; runs in worker processes.

Ground truth of the regions that an expression moves, compared with the same face at rest.

The faces are compared curve by curve. A feature whose points moved further than a threshold counts
with the whole area that it passed over. A furrow or bulge counts if its strength changed visibly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from tasks.core.imaging.shards import Place
from tasks.draw.action_units import UNITS, Expression, Style, express
from tasks.draw.anatomy import Face, build_face, landmarks
from tasks.draw.canvas import Pose, draw_pose
from tasks.draw.identity import draw_identity
from tasks.draw.paint_face import paint_portrait
from tasks.draw.plan import RenderSpec, identity_rng, image_rng
from tasks.draw.scene import draw_scene

_MIN_MOVE_UNITS = 0.004  # smaller moves are invisible: about a third of a pixel at 256 px
_MIN_CHANGE = 0.05  # smaller changes of a crease's strength are invisible
_MARGIN_UNITS = 0.035  # the skin beside a feature moves with it
_JPEG_QUALITY = 92
TRUTH_SCHEMA = pa.schema(
    [
        ("image", pa.string()),  # file name below data/raw/drawn
        ("subject", pa.string()),
        ("cohort", pa.string()),
        ("age_years", pa.int64()),
        ("gender", pa.string()),  # as recorded
        ("emotion", pa.string()),
        ("take", pa.int64()),
        *((f"au_{unit:02d}", pa.float64()) for unit in UNITS),  # intensity, 0 (rest) to 1
        ("moved", pa.list_(pa.string())),  # regions that moved, compared with the face at rest
        ("landmarks_xy_px", pa.list_(pa.float64())),  # 68 pairs of x and y, as iBUG numbers them
        ("shard", pa.string()),  # where the mask `<image's stem>.png` is, below data/truth/masks
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
    ]
)


def moved_mask(
    rest: Face, face: Face, pose: Pose, size_px: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the mask and the sorted names of the regions that moved between two faces.

    The mask is `(size_px, size_px)` uint8, 255 where a region moved.
    """
    mask = np.zeros((size_px, size_px), np.uint8)
    names = set()
    for name, points in _moved_regions(rest, face):
        outline = np.round(pose.pixels(points)).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)
        names.add(name)
    margin_px = max(round(_MARGIN_UNITS * pose.unit_px), 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return cv2.dilate(mask, kernel), tuple(sorted(names))


def _moved_regions(rest: Face, face: Face) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of each moved region, and points whose convex hull covers it."""
    after = _features(face)
    for name, before in _features(rest).items():
        if np.hypot(*(after[name] - before).T).max() > _MIN_MOVE_UNITS:
            yield name, np.concatenate((before, after[name]))
            if name == "chin":  # the skin between lip and chin moves with it
                yield name, np.concatenate((after[name], face.mouth.lower_outer))
    for before_creases, after_creases in ((rest.furrows, face.furrows), (rest.bulges, face.bulges)):
        for name, before_crease in before_creases.items():
            after_crease = after_creases[name]
            if abs(after_crease.strength - before_crease.strength) > _MIN_CHANGE:
                yield name.split()[0], after_crease.outline


def _features(face: Face) -> dict[str, np.ndarray]:
    mouth = face.mouth
    lips = (mouth.upper_outer, mouth.upper_inner, mouth.lower_inner, mouth.lower_outer)
    middle, quarter = len(face.outline) // 2, len(face.outline) // 4
    features = {
        "mouth": np.concatenate(lips),
        "chin": face.outline[middle - quarter // 3 : middle + quarter // 3 + 1],
        "right jaw": face.outline[middle - quarter : middle - quarter // 3 + 1],
        "left jaw": face.outline[middle + quarter // 3 : middle + quarter + 1],
    }
    for side, word in enumerate(("left", "right")):
        eye = face.eyes[side]
        features[f"{word} brow"] = face.brows[side]
        features[f"{word} eye"] = np.concatenate((eye.upper, eye.lower, eye.crease))
        features[f"{word} nostril"] = face.wings[side]
    return features


@dataclass(frozen=True)
class RenderJob:
    """Input of a worker for one image."""

    sitting: RenderSpec
    style: Style
    seed: int
    size_px: int


@dataclass(frozen=True)
class RenderedFace:
    """A drawn image and its ground truth.

    Attributes
    ----------
    mask_png
        Mask of the moved regions: one 8-bit channel, 0 or 255.
    moved
        Names of the moved regions.
    units
        Action unit to true intensity, 0 to 1, without units at rest.
    landmarks_px
        `(68, 2)` float64 x and y in pixels, numbered like iBUG's 68.
    """

    sitting: RenderSpec
    jpeg: bytes
    mask_png: bytes
    moved: tuple[str, ...]
    units: dict[int, float]
    landmarks_px: np.ndarray


def draw_images(orders: list[RenderJob]) -> list[RenderedFace]:
    """Draw a chunk of images."""
    cv2.setNumThreads(1)  # the workers are processes already
    return [draw_image(order) for order in orders]


def draw_image(order: RenderJob) -> RenderedFace:
    """Draw one image; the same order gives the same bytes."""
    sitting, name = order.sitting, order.sitting.name
    subject = draw_identity(name.age_years, name.gender, identity_rng(order.seed, sitting.number))
    rng = image_rng(order.seed, sitting.number, name.emotion, name.take)
    expression = express(name.emotion, order.style, rng)
    pose, scene = draw_pose(order.size_px, rng), draw_scene(rng)
    rest, face = build_face(subject, Expression()), build_face(subject, expression)
    mask, moved = moved_mask(rest, face, pose, order.size_px)
    image = paint_portrait(subject, face, pose, scene, order.size_px)
    return RenderedFace(
        sitting,
        _jpeg(image),
        _png(mask),
        moved,
        {unit: expression.of(unit) for unit in expression.units},
        pose.pixels(landmarks(face)),
    )


def _png(mask: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", mask)
    assert done
    return content.tobytes()


def _jpeg(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def truth_table(drawn: Sequence[tuple[RenderedFace, Place]]) -> pd.DataFrame:
    """Return the table with one row per image, from images and the locations of their masks."""
    rows = [_row(image, location) for image, location in drawn]
    return pd.DataFrame(rows, columns=TRUTH_SCHEMA.names)


def _row(image: RenderedFace, location: Place) -> dict[str, object]:
    name = image.sitting.name
    return {
        "image": name.file_name,
        "subject": name.subject,
        "cohort": image.sitting.cohort,
        "age_years": name.age_years,
        "gender": name.gender,
        "emotion": name.emotion,
        "take": name.take,
        **{f"au_{unit:02d}": image.units.get(unit, 0.0) for unit in UNITS},
        "moved": list(image.moved),
        "landmarks_xy_px": image.landmarks_px.round(2).ravel().tolist(),
        "shard": location.shard,
        "offset_bytes": location.offset_bytes,
        "size_bytes": location.size_bytes,
    }
