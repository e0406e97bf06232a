"""Smooth curves, ribbons and ellipses, which all shapes of a drawn face consist of."""

from functools import lru_cache

import numpy as np

_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack((np.cos(_ANGLES), np.sin(_ANGLES)), axis=1)


@lru_cache(maxsize=256)
def _basis(count: int, closed: bool, steps: int) -> np.ndarray:
    """Return the matrix from `count` points to samples of their Catmull-Rom spline."""
    segments = count if closed else count - 1
    t = np.arange(steps) / steps
    weights = 0.5 * np.stack(
        (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2),
        axis=1,
    )
    rows = np.zeros((segments * steps + (not closed), count))
    for segment in range(segments):
        for knot in range(4):
            index = segment + knot - 1
            index = index % count if closed else min(max(index, 0), count - 1)
            rows[segment * steps : (segment + 1) * steps, index] += weights[:, knot]
    if not closed:
        rows[-1, -1] = 1.0
    rows.setflags(write=False)
    return rows


def smooth(points: np.ndarray, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Return a Catmull-Rom spline through `(n, 2)` points, with `steps` samples per segment."""
    samples: np.ndarray = _basis(len(points), closed, steps) @ points
    return samples


def ribbon(line: np.ndarray, widths: np.ndarray | float) -> np.ndarray:
    """Return the closed outline, `(2n, 2)`, of an open line of `(n, 2)` points.

    `widths` holds the full width at each point, or one width for all.
    """
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    half = np.asarray(widths) / 2 / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    outline = np.empty((2 * len(line), 2))
    across = np.empty_like(line)
    across[:, 0], across[:, 1] = -along[:, 1] * half, along[:, 0] * half
    outline[: len(line)] = line + across
    outline[len(line) :] = (line - across)[::-1]
    return outline


def tapered(line: np.ndarray, width: float) -> np.ndarray:
    """Return the outline of an open line that is thickest in the middle and thin at the ends."""
    return ribbon(line, width * _taper(len(line)))


@lru_cache(maxsize=64)
def _taper(count: int) -> np.ndarray:
    """Return the relative width of a tapered line at each of its points, from 0 to 1."""
    return np.sin(np.linspace(0.12, np.pi - 0.12, count))


def disc(center: tuple[float, float], radius_x: float, radius_y: float) -> np.ndarray:
    """Return the outline of an ellipse as `(28, 2)` points."""
    outline: np.ndarray = _CIRCLE * (radius_x, radius_y)
    outline += center
    return outline


def shifted(points: np.ndarray, down: float, across: float = 0.0) -> np.ndarray:
    """Return points moved down and to the right."""
    result: np.ndarray = points + np.array((across, down))
    return result


def mirrored(points: np.ndarray) -> np.ndarray:
    """Return points reflected at the face's middle line, in reverse order."""
    return (points * (-1.0, 1.0))[::-1]
