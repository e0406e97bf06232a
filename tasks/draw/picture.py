"""Draws one picture from its plan and tells the truth about it; runs in worker processes."""

from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from tasks.draw.anatomy import build_face, landmarks
from tasks.draw.cohort import Sitting, identity_rng, picture_rng
from tasks.draw.facs import Expression, Style, express
from tasks.draw.identity import draw_identity
from tasks.draw.moved import moved_mask
from tasks.draw.portrait import paint_portrait
from tasks.draw.pose import draw_pose
from tasks.draw.scene import draw_scene

_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Order:
    """Everything that a worker needs for one picture."""

    sitting: Sitting
    style: Style
    seed: int
    size_px: int


@dataclass(frozen=True)
class Drawn:
    """A drawn picture and its truth.

    Attributes
    ----------
    jpeg
        The encoded picture.
    mask_png
        Where the face moved, compared with rest: one 8-bit channel, 0 or 255.
    moved
        Names of the regions that moved.
    units
        Action unit to true intensity, 0 to 1, without units at rest.
    landmarks_px
        `(68, 2)` float64 x and y in pixels, numbered like iBUG's 68.
    """

    sitting: Sitting
    jpeg: bytes
    mask_png: bytes
    moved: tuple[str, ...]
    units: dict[int, float]
    landmarks_px: np.ndarray


def draw_pictures(orders: list[Order]) -> list[Drawn]:
    """Draw a chunk of pictures."""
    cv2.setNumThreads(1)  # the processes are the parallelism
    return [draw_picture(order) for order in orders]


def draw_picture(order: Order) -> Drawn:
    """Draw one picture; the same order gives the same bytes."""
    sitting, name = order.sitting, order.sitting.name
    who = draw_identity(name.age_years, name.gender, identity_rng(order.seed, sitting.number))
    rng = picture_rng(order.seed, sitting.number, name.emotion, name.take)
    expression = express(name.emotion, order.style, rng)
    pose, scene = draw_pose(order.size_px, rng), draw_scene(rng)
    rest, face = build_face(who, Expression()), build_face(who, expression)
    mask, moved = moved_mask(rest, face, pose, order.size_px)
    picture = paint_portrait(who, face, pose, scene, order.size_px)
    return Drawn(
        sitting,
        _jpeg(picture),
        _png(mask),
        moved,
        {unit: expression.of(unit) for unit in expression.units},
        pose.pixels(landmarks(face)),
    )


def _png(mask: np.ndarray) -> bytes:
    done, content = cv2.imencode(".png", mask)
    assert done
    return content.tobytes()


def _jpeg(picture: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
