"""The crops table: which rows keep a face, where its crop is, and which rows are left out."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.core.shards import Place
from tasks.crop.cut_faces import Cut, Missed

COLUMNS = pa.schema(
    [
        ("n_faces", pa.int64()),  # on the copy where the first was found
        ("detector_score", pa.float64()),  # of the face that was cut out
        ("box_xyxy_px", pa.list_(pa.float64())),  # tight, in the full picture, EXIF applied
        ("landmarks_xy_px", pa.list_(pa.list_(pa.float64()))),  # null: no landmark model is shipped
        ("sharpness", pa.float64()),  # variance of the crop's Laplacian: higher is sharper
        ("brightness", pa.float64()),  # mean grey level of the crop, 0 to 255
        ("shard", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
    ]
)


def with_crops(
    checked: pd.DataFrame, outcomes: Sequence[Cut | Missed], places: Sequence[Place]
) -> pd.DataFrame:
    """Return the rows with a face, with `COLUMNS` added.

    Parameters
    ----------
    checked
        One row a picture.
    outcomes
        One a row, in the same order.
    places
        Where each crop is, in the order of the `Cut`s among the outcomes.
    """
    cuts = [outcome for outcome in outcomes if isinstance(outcome, Cut)]
    return checked[_is_cut(outcomes)].assign(
        n_faces=[cut.n_faces for cut in cuts],
        detector_score=[cut.score for cut in cuts],
        box_xyxy_px=[list(cut.box_xyxy_px) for cut in cuts],
        landmarks_xy_px=None,
        sharpness=[cut.sharpness for cut in cuts],
        brightness=[cut.brightness for cut in cuts],
        shard=[place.shard for place in places],
        offset_bytes=[place.offset_bytes for place in places],
        size_bytes=[place.size_bytes for place in places],
    )


def without_crops(checked: pd.DataFrame, outcomes: Sequence[Cut | Missed]) -> pd.DataFrame:
    """Return the rows with no crop, with `reason` and `detail` added."""
    missed = [outcome for outcome in outcomes if isinstance(outcome, Missed)]
    return checked[~_is_cut(outcomes)].assign(
        reason=[outcome.reason for outcome in missed],
        detail=[outcome.detail for outcome in missed],
    )


def _is_cut(outcomes: Sequence[Cut | Missed]) -> np.ndarray:
    return np.array([isinstance(outcome, Cut) for outcome in outcomes], dtype=bool)
