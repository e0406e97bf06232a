"""Rasterization of shapes: anti-aliased opaque fills, and soft light and shadow.

Opaque shapes are painted at twice the final size and averaged down at the end. Light and shadow are
blurred masks at the final size. Shapes of equal softness share a layer, so that the number of blurs
does not depend on the number of folds.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np

from tasks.draw.curves import ribbon
from tasks.draw.identity import Color

_DEPTH = 0.5  # depth of the face from its sides to its middle, in face units
_HALF_WIDTH = 0.95
_FACTOR = 2  # supersampling of opaque shapes
_SHIFT = 4  # fractional bits of OpenCV's fixed-point coordinates

# Blur in face units, and the factor by which its grid is coarser.
_SOFTNESS = {"line": (0.007, 1), "fold": (0.030, 2), "form": (0.085, 4)}


@dataclass(frozen=True)
class Pose:
    """Pose of a head.

    Attributes
    ----------
    centre_px
        Position of the point between the eyes, as x and y in pixels.
    unit_px
        Pixels per face unit.
    tilt_rad
        Rotation in the image plane, clockwise.
    turn_rad
        Rotation about the vertical axis; positive moves the nose to the right of the image.
    """

    centre_px: tuple[float, float]
    unit_px: float
    tilt_rad: float
    turn_rad: float

    def pixels(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        """Map `(n, 2)` points in face units to float64 x and y in pixels.

        `lift` is the height of the points above the face's surface, in face units.
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
        """Map `(n, 2)` pixels back to face units, ignoring the turn, which is small."""
        shifted = (pixels - np.asarray(self.centre_px)) / self.unit_px
        cos, sin = np.cos(self.tilt_rad), np.sin(self.tilt_rad)
        x, y = shifted[:, 0], shifted[:, 1]
        return np.stack((x * cos + y * sin, y * cos - x * sin), axis=1)


def draw_pose(size_px: int, rng: np.random.Generator) -> Pose:
    """Sample a pose for an image of `size_px` × `size_px`."""
    scale = size_px / 256
    tilt_deg = np.clip(rng.normal(0, 4.5), -11, 11)
    turn_deg = np.clip(rng.normal(0, 6), -12, 12)
    shift = rng.normal(0, 4.5, 2).clip(-10, 10)
    return Pose(
        centre_px=(float(128 + shift[0]) * scale, float(124 + shift[1]) * scale),
        unit_px=float(rng.uniform(70, 82) * scale),
        tilt_rad=float(np.deg2rad(tilt_deg)),
        turn_rad=float(np.deg2rad(turn_deg)),
    )


class Canvas:
    """An image of `size_px` × `size_px` being painted; `pose` maps face units to its pixels."""

    def __init__(self, size_px: int, pose: Pose) -> None:
        self.size_px = size_px
        self.pose = pose
        self.paint = np.zeros((size_px * _FACTOR, size_px * _FACTOR, 3), np.uint8)
        self._origin = np.zeros(2)
        self._soft: dict[tuple[str, str], list[tuple[float, np.ndarray]]] = {}

    def fill(self, points: np.ndarray, color: Color, lift: float = 0.0) -> None:
        """Fill an outline of `(n, 2)` points in face units with an RGB color."""
        points = self._pixels(points, lift)
        cv2.fillPoly(self.paint, [_fixed(points)], color, cv2.LINE_AA, _SHIFT)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        """Draw an open line of a width in face units."""
        self.fill(ribbon(points, width), color)

    @contextmanager
    def within(self, points: np.ndarray, opacity: float = 1.0) -> Iterator[None]:
        """Clip the painting done in the `with` block to an outline in face units."""
        outline = self._pixels(points)
        low = np.maximum(np.floor(outline.min(axis=0)) - 2, 0).astype(int)
        high = np.maximum(np.ceil(outline.max(axis=0)) + 3, low + 1).astype(int)
        paint, origin = self.paint, self._origin
        part = paint[low[1] : high[1], low[0] : high[0]]
        self.paint, self._origin = part.copy(), origin + low
        try:
            yield
        finally:
            painted = self.paint
            self.paint, self._origin = paint, origin
        if part.size == 0:
            return
        mask = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(mask, [_fixed(outline - low)], 255, cv2.LINE_AA, _SHIFT)
        share = mask[:, :, None].astype(np.float32) * (opacity / 255)
        part[:] = (part + (painted.astype(np.float32) - part) * share + 0.5).astype(np.uint8)

    def shadow(self, points: np.ndarray, strength: float, softness: str, lift: float = 0) -> None:
        """Darken the inside of an outline; strength 0 to 1, softness line, fold or form."""
        self._soften("shadow", softness, points, strength, lift)

    def glow(self, points: np.ndarray, strength: float, softness: str, lift: float = 0) -> None:
        """Lighten the inside of an outline; strength 0 to 1, softness line, fold or form."""
        self._soften("glow", softness, points, strength, lift)

    def blush(self, points: np.ndarray, strength: float) -> None:
        """Redden the skin inside an outline; strength 0 to 1."""
        self._soften("blush", "form", points, strength, 0.0)

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Return the inside of an outline as a `(H, W)` uint8 mask of the final size."""
        mask = np.zeros((self.size_px, self.size_px), np.uint8)
        cv2.fillPoly(mask, [_fixed(self.pose.pixels(points))], 255, cv2.LINE_AA, _SHIFT)
        return mask

    def finish(self, skin: np.ndarray) -> np.ndarray:
        """Return `(H, W, 3)` float32 RGB, with light and shadow applied where there is skin.

        `skin` is `(H, W)` float32 from 0 to 1.
        """
        side = (self.size_px, self.size_px)
        image = cv2.resize(self.paint, side, interpolation=cv2.INTER_AREA).astype(np.float32)
        shade, light, red = (self._layers(kind) * skin for kind in ("shadow", "glow", "blush"))
        # Shadows on skin stay warm: red falls less than blue.
        for channel, (darken, redden) in enumerate(((0.88, 0.0), (1.0, 0.45), (1.04, 0.40))):
            layer = image[:, :, channel]
            layer *= (1 - darken * shade) * (1 - redden * red)
            layer += (255 - layer) * light
        return image

    def _layers(self, kind: str) -> np.ndarray:
        """Return the combined strength of all layers of one kind, `(H, W)` float32 below 1."""
        rest = np.ones((self.size_px, self.size_px), np.float32)
        for softness, (width, shrink) in _SOFTNESS.items():
            shapes = self._soft.get((kind, softness))
            if not shapes:
                continue
            side = self.size_px // shrink
            layer: np.ndarray = np.zeros((side, side), np.uint8)
            for strength, points in sorted(shapes, key=lambda shape: shape[0]):
                cv2.fillPoly(layer, [_fixed(points / shrink)], strength * 255, cv2.LINE_AA, _SHIFT)
            blur_px = max(width * self.pose.unit_px / shrink, 0.4)
            layer = cv2.GaussianBlur(layer, (0, 0), blur_px)
            if shrink > 1:
                layer = cv2.resize(layer, rest.shape, interpolation=cv2.INTER_LINEAR)
            rest *= 1 - layer * np.float32(1 / 255)
        return 1 - rest

    def _soften(
        self, kind: str, softness: str, points: np.ndarray, strength: float, lift: float
    ) -> None:
        if strength > 0:
            shape = (min(strength, 1.0), self.pose.pixels(points, lift))
            self._soft.setdefault((kind, softness), []).append(shape)

    def _pixels(self, points: np.ndarray, lift: float = 0.0) -> np.ndarray:
        return self.pose.pixels(points, lift) * _FACTOR - self._origin


def toned(color: Color, share: float) -> Color:
    """Return a color multiplied by `share`, as RGB from 0 to 255."""
    red, green, blue = (min(value * share, 255.0) for value in color)
    return red, green, blue


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return pixel coordinates as OpenCV's fixed-point integers."""
    return np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)
