"""Which regions of a face really moved, compared with the same face at rest.

Two faces of one subject, at rest and with an expression, are compared curve by curve: a feature
whose points went further than a threshold counts with all the ground that it covered, a furrow or
bulge counts where it shows clearly more (or less) than at rest.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from tasks.draw.anatomy import Face
from tasks.draw.pose import Pose

_MOVED_UNITS = 0.004  # shorter ways are not seen: about a third of a pixel at 256 px
_SHOWN_SHARE = 0.05  # smaller changes of a fold's strength are not seen
_MARGIN_UNITS = 0.035  # the skin beside a feature moves with it


def moved_mask(
    rest: Face, face: Face, pose: Pose, size_px: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return what an expression moved.

    Parameters
    ----------
    rest, face
        The same subject at rest and with the expression.
    pose
        Where the face is in the picture.
    size_px
        Width and height of the picture.

    Returns
    -------
    tuple
        `(size_px, size_px)` uint8 mask, 255 where a region moved, and the regions' names, sorted.
    """
    mask = np.zeros((size_px, size_px), np.uint8)
    names = set()
    for name, ground in _moved_grounds(rest, face):
        outline = np.round(pose.pixels(ground)).astype(np.int32)
        cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255)
        names.add(name)
    margin_px = max(round(_MARGIN_UNITS * pose.unit_px), 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin_px + 1, 2 * margin_px + 1))
    return cv2.dilate(mask, kernel), tuple(sorted(names))


def _moved_grounds(rest: Face, face: Face) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and the covered points of everything that moved."""
    after = _features(face)
    for name, before in _features(rest).items():
        if np.hypot(*(after[name] - before).T).max() > _MOVED_UNITS:
            yield name, np.concatenate((before, after[name]))
            if name == "chin":  # the skin between lip and chin goes along
                yield name, np.concatenate((after[name], face.mouth.lower_outer))
    for before_creases, after_creases in ((rest.furrows, face.furrows), (rest.bulges, face.bulges)):
        for name, before_crease in before_creases.items():
            after_crease = after_creases[name]
            if abs(after_crease.strength - before_crease.strength) > _SHOWN_SHARE:
                yield name.split()[0], after_crease.outline


def _features(face: Face) -> dict[str, np.ndarray]:
    mouth = face.mouth
    lips = (mouth.upper_outer, mouth.upper_inner, mouth.lower_inner, mouth.lower_outer)
    middle, quarter = len(face.outline) // 2, len(face.outline) // 4
    made = {
        "mouth": np.concatenate(lips),
        "chin": face.outline[middle - quarter // 3 : middle + quarter // 3 + 1],
        "right jaw": face.outline[middle - quarter : middle - quarter // 3 + 1],
        "left jaw": face.outline[middle + quarter // 3 : middle + quarter + 1],
    }
    for side, word in enumerate(("left", "right")):
        eye = face.eyes[side]
        made[f"{word} brow"] = face.brows[side]
        made[f"{word} eye"] = np.concatenate((eye.upper, eye.lower, eye.crease))
        made[f"{word} nostril"] = face.wings[side]
    return made
