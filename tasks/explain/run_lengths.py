"""Superpixels as text, so that a map can be rebuilt from the table of explanations alone.

A mask is read row by row as runs of pixels that are in turn outside and inside, starting with
outside (0 where the first pixel is inside), such as "5 3 93 3": the uncompressed counts of the
COCO format, but by rows. https://cocodataset.org/#format-results
"""

from itertools import pairwise

import numpy as np
import pandas as pd


def encode(segments: np.ndarray, n: int) -> list[str]:
    """Write the mask of each superpixel as run lengths.

    Parameters
    ----------
    segments
        `(S, S)` integers 0 … n - 1: which superpixel a pixel is in.
    n
        How many there are.

    Returns
    -------
    list of str
        n texts.
    """
    flat = segments.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")  # by superpixel, and from top to bottom
    starts, ends = starts[order], ends[order]
    firsts = np.searchsorted(flat[starts], np.arange(n + 1))
    outside = starts - np.append(0, ends[:-1])
    opening = firsts[:-1][firsts[:-1] < firsts[1:]]  # of superpixels that have pixels
    outside[opening] = starts[opening]
    words = list(map(str, np.column_stack([outside, ends - starts]).ravel().tolist()))
    pieces = pairwise(firsts.tolist())
    return [
        _text(words[2 * i : 2 * j], flat.size - (int(ends[j - 1]) if j > i else 0))
        for i, j in pieces
    ]


def _text(words: list[str], left: int) -> str:
    """Join runs with what is left outside behind them; nothing after the last."""
    return " ".join([*words, str(left)] if left else words)


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
