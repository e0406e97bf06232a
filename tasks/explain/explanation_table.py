"""Explanations as tables: one row a superpixel, and one row a cell of the figure."""

from collections.abc import Iterable, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.explain.by_lime import Explanation
from tasks.explain.face_layout import REGIONS, region_map, superpixel_regions
from tasks.explain.run_lengths import encode

SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("image_id", pa.string()),
        ("emotion", pa.string()),  # the label, which is also the answer that is explained
        ("probability", pa.float64()),  # of that answer, for the whole picture
        ("superpixel", pa.int64()),  # 0 … n - 1 within the picture
        ("weight", pa.float64()),  # the rise of the probability when it is shown
        ("region", pa.string()),  # part of the face, by position (face_layout)
        ("area_share", pa.float64()),  # of the picture's pixels
        ("r2", pa.float64()),  # the surrogate's fit, as LIME reports it
        ("r2_adjusted", pa.float64()),  # corrected for the number of superpixels
        ("side_px", pa.int64()),  # width and height of the map
        ("mask_rle", pa.string()),  # the superpixel's pixels (run_lengths)
    ]
)


_A_SUPERPIXEL = {"superpixel", "weight", "region", "area_share", "mask_rle"}

Rows = dict[str, Any]  # column: the picture's value, or a sequence with one a superpixel


def explanation_rows(
    explanation: Explanation, image_id: str, groups: dict[str, str], model: str, face_margin: float
) -> Rows:
    """Return a picture's rows, one a superpixel, by column (`SCHEMA`, groups after `emotion`).

    A table of its own for every picture would take longer than all else that is done with it.
    """
    segments, n = explanation.segments, len(explanation.weights)
    side_px = len(segments)
    regions = superpixel_regions(segments, region_map(side_px, face_margin))
    return {
        "model": model,
        "image_id": image_id,
        "emotion": explanation.emotion,
        **groups,
        "probability": explanation.probability,
        "superpixel": range(n),
        "weight": explanation.weights,
        "region": regions,
        "area_share": np.bincount(segments.ravel(), minlength=n) / segments.size,
        "r2": explanation.r2,
        "r2_adjusted": explanation.r2_adjusted,
        "side_px": side_px,
        "mask_rle": encode(segments, n),
    }


def explanations_table(parts: Iterable[Rows], by: Sequence[str]) -> pd.DataFrame:
    """Join the pictures' rows; without any, an empty table with the same columns and types."""
    pictures = list(parts)
    if pictures:
        return pd.DataFrame({name: _column(pictures, name) for name in pictures[0]})
    names = list(SCHEMA.names)
    place = names.index("emotion") + 1
    empty = SCHEMA.empty_table().to_pandas()
    return empty.assign(**dict.fromkeys(by, pd.Series(dtype="str")))[
        [*names[:place], *by, *names[place:]]
    ]


def _column(pictures: Sequence[Rows], name: str) -> list[Any]:
    """Return a column over all pictures; a picture's own value stands in each of its rows."""
    if name in _A_SUPERPIXEL:
        return list(chain.from_iterable(rows[name] for rows in pictures))
    return list(
        chain.from_iterable(repeat(rows[name], len(rows["superpixel"])) for rows in pictures)
    )


def summarise(
    cells: pd.DataFrame, table: pd.DataFrame, by: Sequence[str], model: str, low_r2: float
) -> pd.DataFrame:
    """Summarise each cell of the figure.

    Parameters
    ----------
    cells
        One row a cell with the columns of `by`, `emotion`, `n_held_out` and `n_available`.
    table
        The explanations.
    by
        Columns whose values make the groups.
    model
        The model's name.
    low_r2
        An adjusted R² below this is counted as low.

    Returns
    -------
    pandas.DataFrame
        `n_pictures` explained; `r2_mean`, `r2_sd` (between pictures), `r2_adjusted_mean`,
        `n_low_r2`; `top_region`, the part of the face with the largest mean share of positive
        weight; then `share_<region>`, those shares (means over the pictures that have positive
        weight at all, adding up to 1), and `chance_<region>`, what the same superpixels would
        have with their weights shuffled. Empty where nothing was explained.
    """
    keys = ["emotion", *by]
    pictures = _by_picture(table, keys).assign(low=lambda picture: picture["r2_adjusted"] < low_r2)
    grouped = pictures.groupby(keys)
    figures = grouped.agg(
        n_pictures=("r2", "size"),
        r2_mean=("r2", "mean"),
        r2_sd=("r2", "std"),
        r2_adjusted_mean=("r2_adjusted", "mean"),
        n_low_r2=("low", "sum"),
    )
    names = [f"{kind}_{region}" for kind in ("share", "chance") for region in REGIONS]
    means = grouped[names].mean()
    figures = figures.assign(top_region=_top_region(means)).join(means).reset_index()
    joined = cells.merge(figures, on=keys, how="left", validate="one_to_one")
    for count in ("n_pictures", "n_low_r2"):
        joined[count] = joined[count].fillna(0).astype("int64")
    joined.insert(0, "model", model)
    return joined


def mean_r2(summary: pd.DataFrame) -> float:
    """Return the mean R² over all explained pictures of a summary; NaN where there is none."""
    weighted = (summary["r2_mean"] * summary["n_pictures"]).sum()  # empty cells are NaN: left out
    total = int(summary["n_pictures"].sum())
    return float(weighted / total) if total else float("nan")


def _by_picture(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row a picture: its fit, and each region's share of positive weight and of superpixels."""
    positive = table["weight"].clip(lower=0)
    total = positive.groupby(table["image_id"]).transform("sum")
    shares = positive / total.where(total > 0)  # NaN for a picture without positive weight
    chances = 1 / table.groupby("image_id")["superpixel"].transform("size")
    columns = {}
    for region in REGIONS:
        here = table["region"] == region
        columns[f"share_{region}"] = shares.where(here | shares.isna(), 0.0)
        columns[f"chance_{region}"] = chances.where(here, 0.0)
    wide = pd.DataFrame(columns, index=table.index)
    sums = wide.groupby(table["image_id"]).sum(min_count=1)
    firsts = table.drop_duplicates("image_id").set_index("image_id")
    return firsts[[*keys, "r2", "r2_adjusted"]].join(sums)


def _top_region(figures: pd.DataFrame) -> pd.Series:
    shares = figures[[f"share_{region}" for region in REGIONS]]
    tops = [
        None if row.isna().all() else REGIONS[int(np.nanargmax(row.to_numpy(dtype=float)))]
        for _, row in shares.iterrows()
    ]
    return pd.Series(tops, index=figures.index, dtype="str")
