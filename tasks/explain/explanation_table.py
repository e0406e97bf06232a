"""Tables of explanations: one row per superpixel, and one row per cell of the figure.

Face regions of a crop, by position alone.

No landmark model is shipped, so the regions are fixed areas of the square that dlib's frontal face
detector finds, the same for every image. They were set by eye on mean faces (frontal adults of the
London Set, and the three ages of the drawn cohort) and are approximate: a turned or tilted head, a
child's lower eyes or an open mouth moves the true regions by up to about a tenth of the square's
side.

Run-length encoding of superpixel masks, so that maps can be rebuilt from the table alone.

A mask is a row-major sequence of runs that are alternately outside and inside, starting with
outside (0 where the first pixel is inside), such as "5 3 93 3". This is COCO's uncompressed RLE,
but row-major instead of column-major. https://cocodataset.org/#format-results
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, pairwise, repeat
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from tasks.explain.lime_explainer import LimeExplanation

# In order of precedence: a pixel belongs to the first region that contains it.
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

# The face's outline is an ellipse in units of the detector's square, with x from left to right and
# y from top to bottom. Crops have a margin beyond the square.
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
SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("image_id", pa.string()),
        ("emotion", pa.string()),  # the label, which is also the explained prediction
        ("probability", pa.float64()),  # of that emotion, for the unperturbed image
        ("superpixel", pa.int64()),  # 0 … n - 1 within the image
        ("weight", pa.float64()),  # rise of the probability when it is visible
        ("region", pa.string()),  # part of the face, by position (face_layout)
        ("area_share", pa.float64()),  # of the image's pixels
        ("r2", pa.float64()),  # fit of the surrogate, as LIME reports it
        ("r2_adjusted", pa.float64()),  # adjusted for the number of superpixels
        ("side_px", pa.int64()),  # width and height of the map
        ("mask_rle", pa.string()),  # the superpixel's pixels (run_lengths)
    ]
)
_PER_SUPERPIXEL = {"superpixel", "weight", "region", "area_share", "mask_rle"}
Rows = dict[str, Any]  # column: one value for the image, or a sequence with one per superpixel


@lru_cache(maxsize=4)  # the same for every image of a model
def region_map(side_px: int, face_margin: float) -> np.ndarray:
    """Return the region of each pixel, `(side_px, side_px)` int64 indices into `REGIONS`.

    `face_margin` is the crop's margin around the detector's square, as a share of the square's
    side.
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
    """Return the region that contains most pixels of each of n superpixels; ties: the first.

    The centroid would be misleading: that of a background around the head lies on the nose.
    """
    counts = np.zeros((int(segments.max()) + 1, len(REGIONS)), dtype=np.int64)
    np.add.at(counts, (segments.ravel(), regions.ravel()), 1)
    return [REGIONS[index] for index in counts.argmax(axis=1)]


def encode(segments: np.ndarray, n: int) -> list[str]:
    """Encode the masks of n superpixels, given as `(S, S)` labels 0 … n - 1."""
    flat = segments.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 1))
    ends = np.append(starts[1:], flat.size)
    order = np.argsort(flat[starts], kind="stable")  # by superpixel, then from top to bottom
    starts, ends = starts[order], ends[order]
    firsts = np.searchsorted(flat[starts], np.arange(n + 1))
    outside = starts - np.append(0, ends[:-1])
    first_runs = firsts[:-1][firsts[:-1] < firsts[1:]]  # of superpixels that have pixels
    outside[first_runs] = starts[first_runs]
    words = list(map(str, np.column_stack([outside, ends - starts]).ravel().tolist()))
    return [
        _text(words[2 * i : 2 * j], flat.size - (int(ends[j - 1]) if j > i else 0))
        for i, j in pairwise(firsts.tolist())
    ]


def _text(words: list[str], rest: int) -> str:
    """Join runs; `rest` pixels after the last run are outside."""
    return " ".join([*words, str(rest)] if rest else words)


def decode(text: str, side_px: int) -> np.ndarray:
    """Decode run lengths to a `(side_px, side_px)` bool mask."""
    runs = np.array(text.split(), dtype=np.int64)
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(side_px, side_px)


def weight_map(rows: pd.DataFrame) -> np.ndarray:
    """Return one image's weights per pixel, `(S, S)` float64, from its rows of the table."""
    side_px = int(rows["side_px"].iloc[0])
    weights = np.zeros((side_px, side_px))
    for weight, text in zip(rows["weight"], rows["mask_rle"], strict=True):
        weights[decode(text, side_px)] = weight
    return weights


def explanation_rows(
    explanation: LimeExplanation,
    image_id: str,
    groups: dict[str, str],
    model: str,
    face_margin: float,
) -> Rows:
    """Return an image's rows, one per superpixel, by column (`SCHEMA`, groups after `emotion`).

    A data frame per image would take longer than everything else done with its explanation.
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
    """Concatenate the images' rows; without images, return an empty table of the same schema."""
    images = list(parts)
    if images:
        return pd.DataFrame({name: _column(images, name) for name in images[0]})
    names = list(SCHEMA.names)
    position = names.index("emotion") + 1
    empty = SCHEMA.empty_table().to_pandas()
    return empty.assign(**dict.fromkeys(by, pd.Series(dtype="str")))[
        [*names[:position], *by, *names[position:]]
    ]


def _column(images: Sequence[Rows], name: str) -> list[Any]:
    """Return a column over all images, with values of an image repeated in each of its rows."""
    values = (
        rows[name] if name in _PER_SUPERPIXEL else repeat(rows[name], len(rows["superpixel"]))
        for rows in images
    )
    return list(chain.from_iterable(values))


def summarize(
    cells: pd.DataFrame, table: pd.DataFrame, by: Sequence[str], model: str, min_r2: float
) -> pd.DataFrame:
    """Summarize each cell of the figure.

    Parameters
    ----------
    cells
        One row per cell with the columns of `by`, `emotion`, `n_held_out` and `n_available`.
    table
        The explanations.
    min_r2
        An adjusted R² below this is counted in `n_low_r2`.

    Returns
    -------
    pandas.DataFrame
        `cells` with `n_images` explained, `r2_mean`, `r2_sd` (between images),
        `r2_adjusted_mean`, `n_low_r2`, `top_region` (with the largest mean share of positive
        weight), `share_<region>` (those shares, which add up to 1: means over the images that have
        positive weight), and `chance_<region>` (the expected share with shuffled weights). Empty
        where nothing was explained.
    """
    keys = ["emotion", *by]
    images = _by_image(table, keys).assign(low=lambda image: image["r2_adjusted"] < min_r2)
    grouped = images.groupby(keys)
    statistics = grouped.agg(
        n_images=("r2", "size"),
        r2_mean=("r2", "mean"),
        r2_sd=("r2", "std"),
        r2_adjusted_mean=("r2_adjusted", "mean"),
        n_low_r2=("low", "sum"),
    )
    names = [f"{kind}_{region}" for kind in ("share", "chance") for region in REGIONS]
    means = grouped[names].mean()
    statistics = statistics.assign(top_region=_top_region(means)).join(means).reset_index()
    joined = cells.merge(statistics, on=keys, how="left", validate="one_to_one")
    for count in ("n_images", "n_low_r2"):
        joined[count] = joined[count].fillna(0).astype("int64")
    joined.insert(0, "model", model)
    return joined


def mean_r2(summary: pd.DataFrame) -> float:
    """Return the mean R² over all explained images of a summary; NaN without images."""
    weighted = (summary["r2_mean"] * summary["n_images"]).sum()  # skips empty cells, which are NaN
    total = int(summary["n_images"].sum())
    return float(weighted / total) if total else float("nan")


def _by_image(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return R² and each region's share of positive weight and of superpixels, per image."""
    positive = table["weight"].clip(lower=0)
    total = positive.groupby(table["image_id"]).transform("sum")
    shares = positive / total.where(total > 0)  # NaN for an image without positive weight
    chances = 1 / table.groupby("image_id")["superpixel"].transform("size")
    columns = {}
    for region in REGIONS:
        inside = table["region"] == region
        columns[f"share_{region}"] = shares.where(inside | shares.isna(), 0.0)
        columns[f"chance_{region}"] = chances.where(inside, 0.0)
    wide = pd.DataFrame(columns, index=table.index)
    sums = wide.groupby(table["image_id"]).sum(min_count=1)
    firsts = table.drop_duplicates("image_id").set_index("image_id")
    return firsts[[*keys, "r2", "r2_adjusted"]].join(sums)


def _top_region(means: pd.DataFrame) -> pd.Series:
    shares = means[[f"share_{region}" for region in REGIONS]]
    tops = [
        None if row.isna().all() else REGIONS[int(np.nanargmax(row.to_numpy(dtype=float)))]
        for _, row in shares.iterrows()
    ]
    return pd.Series(tops, index=means.index, dtype="str")
