"""The detector by age band and gender: whom it misses is itself a finding."""

import pandas as pd

from tasks.core.labels import UNKNOWN

GROUP = ["age_band", "gender"]


def detector_by_group(crops: pd.DataFrame, faceless: pd.DataFrame) -> pd.DataFrame:
    """Count pictures and misses by group.

    Parameters
    ----------
    crops
        One row a picture with a face: `age_band`, `gender` (a missing label counts as "unknown")
        and `detector_score`.
    faceless
        One row a picture without one: `age_band` and `gender`.

    Returns
    -------
    DataFrame
        `age_band, gender, pictures, no_face, no_face_share` (0 to 1) and `median_score` (NaN
        where no face was found at all), sorted by group.
    """
    both = pd.concat(
        [crops[[*GROUP, "detector_score"]].assign(no_face=0), faceless[GROUP].assign(no_face=1)]
    )
    labelled = both.assign(**both[GROUP].fillna(UNKNOWN))
    return (
        labelled.groupby(GROUP, sort=True)
        .agg(
            pictures=("no_face", "size"),
            no_face=("no_face", "sum"),
            no_face_share=("no_face", "mean"),
            median_score=("detector_score", "median"),
        )
        .reset_index()
    )


def as_metrics(groups: pd.DataFrame) -> dict[str, float]:
    """Return each group's figures as `<figure>_<age band>_<gender>`."""
    metrics: dict[str, float] = {}
    for row in groups.itertuples(index=False):
        group = f"{row.age_band}_{row.gender}"
        metrics[f"no_face_{group}"] = float(row.no_face)
        metrics[f"no_face_share_{group}"] = float(row.no_face_share)
        if row.no_face < row.pictures:
            metrics[f"detector_score_median_{group}"] = float(row.median_score)
    return metrics


def describe(groups: pd.DataFrame) -> str:
    """Say in one line in how many pictures of which groups no face was found."""
    parts = [
        f"{row.age_band} {row.gender} {row.no_face} of {row.pictures}"
        for row in groups.itertuples(index=False)
        if row.no_face
    ]
    return f"no face in {groups['no_face'].sum()}" + (f" ({', '.join(parts)})" if parts else "")
