"""The crops table: images with a face and where their crops are, and images without one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.core.imaging.shards import Place
from tasks.core.labels import UNKNOWN
from tasks.crop.crop_faces import FaceCrop, NoFace

COLUMNS = pa.schema(
    [
        ("n_faces", pa.int64()),  # in the copy in which the face was found
        ("detector_score", pa.float64()),  # of the cropped face
        ("box_xyxy_px", pa.list_(pa.float64())),  # tight, in the full image, EXIF applied
        ("landmarks_xy_px", pa.list_(pa.list_(pa.float64()))),  # null: no landmark model is shipped
        ("sharpness", pa.float64()),  # variance of the crop's Laplacian: higher is sharper
        ("brightness", pa.float64()),  # mean gray level of the crop, 0 to 255
        ("shard", pa.string()),
        ("offset_bytes", pa.int64()),
        ("size_bytes", pa.int64()),
    ]
)
GROUP = ["age_band", "gender"]


def with_crops(
    checked: pd.DataFrame, outcomes: Sequence[FaceCrop | NoFace], places: Sequence[Place]
) -> pd.DataFrame:
    """Return the rows with a face, with `COLUMNS` added.

    `outcomes` has one entry per row of `checked`; `places` has one entry per `Cut` among them.
    """
    cuts = [outcome for outcome in outcomes if isinstance(outcome, FaceCrop)]
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


def without_crops(checked: pd.DataFrame, outcomes: Sequence[FaceCrop | NoFace]) -> pd.DataFrame:
    """Return the rows without a crop, with `reason` and `detail` added."""
    missed = [outcome for outcome in outcomes if isinstance(outcome, NoFace)]
    return checked[~_is_cut(outcomes)].assign(
        reason=[outcome.reason for outcome in missed],
        detail=[outcome.detail for outcome in missed],
    )


def _is_cut(outcomes: Sequence[FaceCrop | NoFace]) -> np.ndarray:
    return np.array([isinstance(outcome, FaceCrop) for outcome in outcomes], dtype=bool)


def miss_rates_by_group(crops: pd.DataFrame, faceless: pd.DataFrame) -> pd.DataFrame:
    """Count images and misses per group, sorted by group.

    `crops` (with `detector_score`) has one row per image with a face, `faceless` one per image
    without; missing labels count as "unknown". Returns `age_band, gender, images, no_face,
    no_face_share` (0 to 1) and `median_score` (NaN where no face was found).
    """
    images = pd.concat(
        [crops[[*GROUP, "detector_score"]].assign(no_face=0), faceless[GROUP].assign(no_face=1)]
    )
    labelled = images.assign(**images[GROUP].fillna(UNKNOWN))
    return (
        labelled.groupby(GROUP, sort=True)
        .agg(
            images=("no_face", "size"),
            no_face=("no_face", "sum"),
            no_face_share=("no_face", "mean"),
            median_score=("detector_score", "median"),
        )
        .reset_index()
    )


def as_metrics(groups: pd.DataFrame) -> dict[str, float]:
    """Return each group's numbers as metrics named `<number>_<age band>_<gender>`."""
    metrics: dict[str, float] = {}
    for row in groups.itertuples(index=False):
        group = f"{row.age_band}_{row.gender}"
        metrics[f"no_face_{group}"] = float(row.no_face)
        metrics[f"no_face_share_{group}"] = float(row.no_face_share)
        if row.no_face < row.images:
            metrics[f"detector_score_median_{group}"] = float(row.median_score)
    return metrics


def miss_counts(groups: pd.DataFrame) -> list[str]:
    """Return each group's misses, as in "child female 3 of 120"."""
    return [
        f"{row.age_band} {row.gender} {row.no_face} of {row.images}"
        for row in groups.itertuples(index=False)
    ]


def misses_phrase(groups: pd.DataFrame) -> str:
    """Return one line with the number of images without a face, in total and per group."""
    parts = miss_counts(groups[groups["no_face"] > 0])
    return f"no face in {groups['no_face'].sum()}" + (f" ({', '.join(parts)})" if parts else "")
