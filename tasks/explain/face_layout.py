"""Which part of the face a place in a crop belongs to, by position alone.

No landmark model is shipped, so the parts are fixed areas of the square that dlib's frontal face
detector finds, the same for every picture. They were set by eye on mean faces (the London
Set's adults, front view, and the drawn cohort's three ages), so that they are approximate: a turned
or tilted head, a child's lower eyes or an open mouth moves the true parts by up to about a tenth of
the square's side.
"""

from functools import lru_cache

import numpy as np

# In the order in which they are asked: a pixel belongs to the first that holds it.
REGIONS: tuple[str, ...] = (
    "surroundings",  # hair, ears, neck, clothes, background
    "nose",
    "mouth",
    "eyes",
    "brows",
    "forehead",
    "chin",
    "cheeks",
)

# The face's outline as an ellipse, in units of the detector's square: x from its left edge to the
# right one, y from its top edge to the bottom one. Crops show a margin beyond the square.
_CENTRE_X, _CENTRE_Y, _RADIUS_X, _RADIUS_Y = 0.50, 0.42, 0.46, 0.68
_BOXES: dict[str, tuple[float, float, float, float]] = {  # left, top, right, bottom
    "nose": (0.35, 0.34, 0.65, 0.62),
    "mouth": (0.22, 0.62, 0.78, 0.87),
    "eyes": (0.00, 0.20, 1.00, 0.37),
    "brows": (0.00, 0.05, 1.00, 0.20),
    "forehead": (0.00, -1.00, 1.00, 0.05),
    "chin": (0.00, 0.87, 1.00, 2.00),
    "cheeks": (0.00, 0.37, 1.00, 0.87),
}


@lru_cache(maxsize=4)  # the same for every picture of a model
def region_map(side_px: int, face_margin: float) -> np.ndarray:
    """Name each pixel's part of the face.

    Parameters
    ----------
    side_px
        Width and height of the crop.
    face_margin
        How far the crop reaches beyond the detector's square on each side, as a share of the
        square's side.

    Returns
    -------
    numpy.ndarray
        `(side_px, side_px)` int64, indices into `REGIONS`.
    """
    steps = (np.arange(side_px) + 0.5) / side_px * (1 + 2 * face_margin) - face_margin
    x, y = np.meshgrid(steps, steps)
    regions = np.full(x.shape, -1)
    outside = ((x - _CENTRE_X) / _RADIUS_X) ** 2 + ((y - _CENTRE_Y) / _RADIUS_Y) ** 2 > 1
    regions[outside] = REGIONS.index("surroundings")
    for name, (left, top, right, bottom) in _BOXES.items():
        inside = (x >= left) & (x < right) & (y >= top) & (y < bottom)
        regions[inside & (regions < 0)] = REGIONS.index(name)
    regions.setflags(write=False)
    return regions


def superpixel_regions(segments: np.ndarray, regions: np.ndarray) -> list[str]:
    """Name each superpixel's part of the face: the one that holds most of its pixels.

    Not the part at its centroid: a background that runs around the head has its centroid on the
    nose.

    Parameters
    ----------
    segments
        `(S, S)` superpixels 0 … n - 1.
    regions
        `(S, S)` as `region_map` gives it.

    Returns
    -------
    list of str
        n names from `REGIONS`; of parts with equally many pixels the first.
    """
    counts = np.zeros((int(segments.max()) + 1, len(REGIONS)), dtype=np.int64)
    np.add.at(counts, (segments.ravel(), regions.ravel()), 1)
    return [REGIONS[index] for index in counts.argmax(axis=1)]
