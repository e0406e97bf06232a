"""Superpixels as text, so that a map can be rebuilt from the table of explanations alone.

A mask is read row by row as runs of pixels that are in turn outside and inside, starting with
outside (0 where the first pixel is inside), such as "5 3 93 3": the uncompressed counts of the
COCO format, but by rows. https://cocodataset.org/#format-results
"""

import numpy as np
import pandas as pd


def encode(mask: np.ndarray) -> str:
    """Write a mask `(S, S)` bool as run lengths."""
    flat = np.concatenate(([False], mask.ravel(), [not mask.ravel()[-1]]))
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    return " ".join(map(str, np.diff(np.concatenate(([0], turns))).tolist()))


def decode(text: str, side_px: int) -> np.ndarray:
    """Read run lengths back as a mask `(side_px, side_px)` bool."""
    runs = np.array(text.split(), dtype=np.int64)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(side_px, side_px)


def weight_map(rows: pd.DataFrame) -> np.ndarray:
    """Rebuild one picture's map from its rows of the table of explanations.

    Parameters
    ----------
    rows
        All rows of one picture: `weight`, `mask_rle`, `side_px`.

    Returns
    -------
    numpy.ndarray
        `(S, S)` float64: each pixel has its superpixel's weight.
    """
    side_px = int(rows["side_px"].iloc[0])
    weights = np.zeros((side_px, side_px))
    for weight, text in zip(rows["weight"], rows["mask_rle"], strict=True):
        weights[decode(text, side_px)] = weight
    return weights
