"""Where the head is in the picture: from face units to pixels, with tilt, turn and distance."""

import math
from dataclasses import dataclass

import numpy as np

_DEPTH = 0.5  # how far the middle of the face stands before its sides, in face units
_HALF_WIDTH = 0.95


@dataclass(frozen=True)
class Pose:
    """A head's place.

    Attributes
    ----------
    centre_px
        Where the point between the eyes lies, as x and y in pixels.
    unit_px
        Pixels a face unit.
    tilt_rad
        Turn in the picture plane, clockwise as seen.
    turn_rad
        Turn about the vertical axis; positive moves the nose to the right of the picture.
    """

    centre_px: tuple[float, float]
    unit_px: float
    tilt_rad: float
    turn_rad: float

    def pixels(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Map points into the picture.

        Parameters
        ----------
        points
            `(n, 2)` in face units.
        lift
            How far the points stand out of the face's surface, in face units.

        Returns
        -------
        numpy.ndarray
            `(n, 2)` float64 x and y in pixels.
        """
        x, y = points[:, 0], points[:, 1]
        depth = _DEPTH * np.sqrt(np.maximum(1 - (x / _HALF_WIDTH) ** 2, 0)) + (lift - _DEPTH / 2)
        across = x * math.cos(self.turn_rad) + depth * math.sin(self.turn_rad)
        cos, sin = math.cos(self.tilt_rad) * self.unit_px, math.sin(self.tilt_rad) * self.unit_px
        mapped = np.empty((len(points), 2))
        mapped[:, 0] = across * cos - y * sin + self.centre_px[0]
        mapped[:, 1] = across * sin + y * cos + self.centre_px[1]
        return mapped

    def face_units(self, pixels: np.ndarray) -> np.ndarray:
        """Map `(n, 2)` pixels back onto the face, leaving the small turn out."""
        shifted = (pixels - np.asarray(self.centre_px)) / self.unit_px
        cos, sin = np.cos(self.tilt_rad), np.sin(self.tilt_rad)
        x, y = shifted[:, 0], shifted[:, 1]
        return np.stack((x * cos + y * sin, y * cos - x * sin), axis=1)


def draw_pose(size_px: int, rng: np.random.Generator) -> Pose:
    """Draw a pose for a picture of `size_px` × `size_px`."""
    share = size_px / 256
    tilt_deg = np.clip(rng.normal(0, 4.5), -11, 11)
    turn_deg = np.clip(rng.normal(0, 6), -12, 12)
    shift = rng.normal(0, 4.5, 2).clip(-10, 10)
    return Pose(
        centre_px=(float(128 + shift[0]) * share, float(124 + shift[1]) * share),
        unit_px=float(rng.uniform(70, 82) * share),
        tilt_rad=float(np.deg2rad(tilt_deg)),
        turn_rad=float(np.deg2rad(turn_deg)),
    )
