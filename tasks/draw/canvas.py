"""Where shapes become pixels: anti-aliased fills at twice the size, and soft light and shadow.

Opaque shapes go onto a picture of twice the wanted size, which is averaged down at the end. Light
and shadow are blurred masks at the wanted size, gathered into a few layers of one softness each,
so that a face needs a handful of blurs whatever its number of folds.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from tasks.draw.curves import ribbon
from tasks.draw.identity import Colour
from tasks.draw.pose import Pose

_FACTOR = 2  # supersampling of opaque shapes
_SHIFT = 4  # binary places of a pixel's fraction in OpenCV's integer coordinates
# Blur in face units, and how much coarser a grid it needs.
_SOFTNESS = {"line": (0.007, 1), "fold": (0.030, 2), "form": (0.085, 4)}


class Canvas:
    """One picture in the making.

    Parameters
    ----------
    size_px
        Width and height of the picture.
    pose
        Where face units lie in it.
    """

    def __init__(self, size_px: int, pose: Pose) -> None:
        self.size_px = size_px
        self.pose = pose
        self.paint = np.zeros((size_px * _FACTOR, size_px * _FACTOR, 3), np.uint8)
        self._origin = np.zeros(2)
        self._soft: dict[tuple[str, str], list[tuple[float, np.ndarray]]] = {}

    def fill(self, points: np.ndarray, colour: Colour, lift: float = 0.0) -> None:
        """Fill an outline of `(n, 2)` points in face units with an RGB colour."""
        self._fill(self._pixels(points, lift), colour)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """Draw an open line with a width in face units."""
        self.fill(ribbon(points, width), colour)

    @contextmanager
    def within(self, points: np.ndarray, opacity: float = 1.0) -> Iterator[None]:
        """Keep what is painted in the block inside an outline of points in face units."""
        outline = self._pixels(points)
        low = np.maximum(np.floor(outline.min(axis=0)) - 2, 0).astype(int)
        high = np.maximum(np.ceil(outline.max(axis=0)) + 3, low + 1).astype(int)
        whole, origin = self.paint, self._origin
        part = whole[low[1] : high[1], low[0] : high[0]]
        self.paint, self._origin = part.copy(), origin + low
        try:
            yield
        finally:
            painted = self.paint
            self.paint, self._origin = whole, origin
        if part.size == 0:
            return
        mask = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(mask, [_fixed(outline - low)], 255, cv2.LINE_AA, _SHIFT)
        share = mask[:, :, None].astype(np.float32) * (opacity / 255)
        part[:] = (part + (painted.astype(np.float32) - part) * share + 0.5).astype(np.uint8)

    def shadow(self, points: np.ndarray, strength: float, softness: str, lift: float = 0) -> None:
        """Darken inside an outline by a share from 0 to 1; softness: line, fold or form."""
        self._soften("shadow", softness, points, strength, lift)

    def glow(self, points: np.ndarray, strength: float, softness: str, lift: float = 0) -> None:
        """Lighten inside an outline by a share from 0 to 1; softness: line, fold or form."""
        self._soften("glow", softness, points, strength, lift)

    def blush(self, points: np.ndarray, strength: float) -> None:
        """Redden the skin inside an outline by a share from 0 to 1."""
        self._soften("blush", "form", points, strength, 0.0)

    def mask(self, points: np.ndarray) -> np.ndarray:
        """Return an outline's inside as `(H, W)` uint8 at the finished picture's size."""
        made = np.zeros((self.size_px, self.size_px), np.uint8)
        cv2.fillPoly(made, [_fixed(self.pose.pixels(points))], 255, cv2.LINE_AA, _SHIFT)
        return made

    def finish(self, skin: np.ndarray) -> np.ndarray:
        """Return `(H, W, 3)` float32 RGB with light and shadow laid over.

        Parameters
        ----------
        skin
            `(H, W)` float32 from 0 to 1: where light and shadow show.
        """
        side = (self.size_px, self.size_px)
        picture = cv2.resize(self.paint, side, interpolation=cv2.INTER_AREA).astype(np.float32)
        shade, light, red = (self._layers(kind) * skin for kind in ("shadow", "glow", "blush"))
        # Shadows on skin stay warm: red falls less than blue.
        for channel, (darken, redden) in enumerate(((0.88, 0.0), (1.0, 0.45), (1.04, 0.40))):
            layer = picture[:, :, channel]
            layer *= (1 - darken * shade) * (1 - redden * red)
            layer += (255 - layer) * light
        return picture

    def _layers(self, kind: str) -> np.ndarray:
        """Return the joint strength of all layers of one kind, `(H, W)` float32 below 1."""
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

    def _fill(self, points: np.ndarray, colour: Colour) -> None:
        cv2.fillPoly(self.paint, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def toned(colour: Colour, share: float) -> Colour:
    """Return a colour made darker (share below 1) or lighter, as RGB from 0 to 255."""
    red, green, blue = (min(value * share, 255.0) for value in colour)
    return red, green, blue


def _fixed(points: np.ndarray) -> np.ndarray:
    """Return pixel centres as OpenCV's fixed-point integers."""
    return np.rint((points - 0.5) * (1 << _SHIFT)).astype(np.int32)
