"""Cutting a face crop into superpixels, the units that LIME shows and hides.

Every model's picture is cut on the same small copy of the crop, so that two models are explained
by the same superpixels and the parameters mean the same whatever a model's input size is.
Quickshift: Vedaldi and Soatto 2008, "Quick shift and kernel methods for mode seeking". SLIC:
Achanta et al. 2012, doi 10.1109/TPAMI.2012.120; both as scikit-image has them.
"""

from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field
from skimage.segmentation import quickshift, slic

from tasks.core.params import Section


class Quickshift(Section):
    """Quickshift's parameters; lengths in pixels of the copy that is cut."""

    kernel_size: Annotated[float, Field(ge=1)]
    max_dist: Annotated[float, Field(gt=0)]
    ratio: Annotated[float, Field(ge=0, le=1)]


class Slic(Section):
    """SLIC's parameters."""

    n_segments: Annotated[int, Field(ge=2)]
    compactness: Annotated[float, Field(gt=0)]
    sigma: Annotated[float, Field(ge=0)]


class Superpixels(Section):
    """How a crop is cut into superpixels.

    Attributes
    ----------
    superpixels
        Which of the two methods below.
    superpixel_side_px
        Width and height of the copy that is cut.
    """

    superpixels: Literal["quickshift", "slic"]
    superpixel_side_px: Annotated[int, Field(ge=16)]
    quickshift: Quickshift
    slic: Slic


def cut(crop: np.ndarray, side_px: int, params: Superpixels, seed: int) -> np.ndarray:
    """Cut a crop into superpixels.

    Parameters
    ----------
    crop
        `(H, W, 3)` uint8 RGB.
    side_px
        Width and height of the map that is returned: the model's input size.
    params
        Method and parameters.
    seed
        Breaks quickshift's ties (SLIC has none).

    Returns
    -------
    numpy.ndarray
        `(side_px, side_px)` int64: 0 … n - 1, each present, in the order in which they appear row
        by row. LIME numbers its features from 0: with labels from 1, as scikit-image's SLIC gives
        them, it would never hide the last superpixel.
    """
    cut_px = params.superpixel_side_px
    copy = np.asarray(Image.fromarray(crop).resize((cut_px, cut_px), Image.Resampling.BILINEAR))
    if params.superpixels == "quickshift":
        labels = quickshift(copy, rng=seed, channel_axis=-1, **params.quickshift.model_dump())
    else:
        labels = slic(copy, start_label=0, channel_axis=-1, **params.slic.model_dump())
    centres = (2 * np.arange(side_px) + 1) * cut_px // (2 * side_px)  # nearest pixel of the copy
    return _number_by_appearance(labels[np.ix_(centres, centres)])


def _number_by_appearance(labels: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].reshape(labels.shape)
