"""How sharp and how bright a crop is: properties of a picture that may differ between groups.

Both are taken of the crop at its own size (`crop.size_px`), so that faces of all pictures are
measured at one scale, and of its luma (ITU-R BT.601: .299 red, .587 green, .114 blue). The sums are
whole numbers: every machine gives the same bits.
"""

import numpy as np

_LUMA = (299, 587, 114)  # of ITU-R BT.601, in thousandths
_SCALE = sum(_LUMA)


def sharpness(rgb: np.ndarray) -> float:
    """Return the variance of a crop's Laplacian; higher is sharper.

    Parameters
    ----------
    rgb
        `(H, W, 3)` uint8, at least 3 pixels each way.

    Returns
    -------
    float
        From 0 (one grey, or an even ramp) up, in squared grey levels. A face that was enlarged to
        the crop's size, a blurred one and one that its box cuts at the picture's edge have less.

    Notes
    -----
    The Laplacian is the four neighbours less four times the pixel, on pixels that have all four.
    J. L. Pech-Pacheco et al. (2000), ICPR, 314-317: variance of the Laplacian as a focus measure.
    It depends on `crop.size_px` and on what is shown, noise too: a figure for comparing crops of
    one run.
    """
    grey = _luma(rgb)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    edges = (around - 4 * grey[1:-1, 1:-1]).ravel()
    n, total, squares = edges.size, int(edges.sum()), int(edges @ edges)
    return (n * squares - total * total) / (n * n * _SCALE**2)


def brightness(rgb: np.ndarray) -> float:
    """Return the mean grey level of a crop, from 0 (black) to 255 (white).

    Parameters
    ----------
    rgb
        `(H, W, 3)` uint8.
    """
    grey = _luma(rgb)
    return int(grey.sum()) / (grey.size * _SCALE)


def _luma(rgb: np.ndarray) -> np.ndarray:
    """Return `(H, W)` int64 luma, times 1000."""
    return rgb.astype(np.int64) @ np.array(_LUMA)
