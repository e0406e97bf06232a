"""Checks of a model's outputs: finite, one number per label, and as declared.

The probe images are predicted once when a model is loaded; later predictions are checked too. This
module does not import torch, since child processes import it.
"""

from typing import Literal

import numpy as np

Output = Literal["probabilities", "logits"]

# How far a row of probabilities may be from a sum of 1.
SUM_TOLERANCE = 1e-3
# A softmax stored in 8 bits is off by up to half of 1/256 per label.
QUANTIZED_SUM_TOLERANCE = 0.02
N_PROBES = 6
_FACE = (  # (center y, center x, radius y, radius x, brightness), as shares of the side
    (0.50, 0.50, 0.44, 0.34, 190),
    (0.40, 0.36, 0.05, 0.08, 60),
    (0.40, 0.64, 0.05, 0.08, 60),
    (0.72, 0.50, 0.05, 0.15, 90),
)


def probe_pixels(side_px: int, channels: int) -> np.ndarray:
    """Return the probe images, `(N_PROBES, side_px, side_px, channels)` uint8, always the same.

    They are a drawn face, the same in low contrast, noise, gray, black and white.
    """
    y, x = np.mgrid[0:side_px, 0:side_px] / side_px
    face = np.full((side_px, side_px), 40.0)
    for center_y, center_x, radius_y, radius_x, brightness in _FACE:
        inside = ((y - center_y) / radius_y) ** 2 + ((x - center_x) / radius_x) ** 2 < 1
        face[inside] = brightness
    tint = np.array([1.0, 0.8, 0.7])[:channels]  # channels in the wrong order would show
    colored = face[..., None] * tint
    shape = (side_px, side_px, channels)
    noise = np.random.default_rng(0).integers(0, 256, shape)
    plain = [np.full(shape, value) for value in (128, 0, 255)]
    return np.stack([colored, 100 + colored / 8, noise, *plain]).astype(np.uint8)


def find_output_fault(rows: np.ndarray, output: Output, tolerance: float = SUM_TOLERANCE) -> str:
    """Return what is wrong with raw outputs `(N, K)`, as a clause of an error message, or "".

    `output` is what the description declares them to be. `tolerance` is the allowed difference of a
    row of probabilities from a sum of 1.
    """
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        return (
            f"gives NaN or infinite numbers for {np.count_nonzero(~finite)} of {len(rows)} "
            "pictures; its weights are damaged, or its input is not scaled as in training"
        )
    if output == "logits" or not rows.size:
        return ""
    sums = rows.sum(axis=1, dtype=np.float64)
    if _is_distribution(rows, sums, 1.0, tolerance):
        return ""
    if _is_distribution(rows, sums, 100.0, tolerance):
        return _PERCENTAGES
    if rows.min() < 0 or rows.max() > 1 + tolerance:
        return (
            f"gives values from {rows.min():.3g} to {rows.max():.3g}, which are not probabilities; "
            f"if they are scores before a softmax, {_set('logits')}"
        )
    return (
        f"gives rows that sum to between {sums.min():.3g} and {sums.max():.3g} instead of 1, so "
        "they are not probabilities of one emotion among all; export the network with a softmax as "
        f"its last step, or give the scores before it and {_set('logits')}"
    )


def find_probe_fault(rows: np.ndarray, output: Output, tolerance: float = SUM_TOLERANCE) -> str:
    """Return what is wrong with the outputs for the probe images; see `find_output_fault`.

    Several rows show more than one does: scores that are never negative and always sum to 1 are
    probabilities, whatever the description declares.
    """
    fault = find_output_fault(rows, output, tolerance)
    if fault or output == "probabilities":
        return fault
    sums = rows.sum(axis=1, dtype=np.float64)
    if _is_distribution(rows, sums, 1.0, tolerance):
        return (
            "gives probabilities (never negative, and each row sums to 1), not logits; "
            f"{_set('probabilities')}"
        )
    return _PERCENTAGES if _is_distribution(rows, sums, 100.0, tolerance) else ""


def _set(output: Output) -> str:
    return f"set output: {output} in the YAML file beside it"


_PERCENTAGES = (
    "gives percentages (each row sums to 100); export the network without the factor of 100 and "
    + _set("probabilities")
)


def _is_distribution(rows: np.ndarray, sums: np.ndarray, total: float, tolerance: float) -> bool:
    near = np.abs(sums - total).max() <= tolerance * total
    return bool(near and rows.min() >= 0)
