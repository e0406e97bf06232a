"""Random test pictures: as each came, with the face's box, the crop, and a bar a class.

A picture comes from data/raw, turned by its EXIF flag as the box is.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.faces_figure import Answer, Box, Shown, faces_figure, thumbnail
from tasks.core.figure_style import empty_figure
from tasks.core.images import BadImageError, decode_image, read_content
from tasks.core.labels import UNKNOWN
from tasks.core.paths import MODELS, Paths
from tasks.core.shards import read_crops
from tasks.core.tables import read_table
from tasks.report.words import model_word

_PLACES = ("shard", "offset_bytes", "size_bytes")
_COLUMNS = ("image_id", "path", "width_px", "height_px", "box_xyxy_px", *_PLACES)


def choose_pictures(predictions: Mapping[str, pd.DataFrame], number: int, seed: int) -> list[str]:
    """Choose random test pictures that no model was trained on.

    Parameters
    ----------
    predictions
        Each model's predictions.
    number
        How many to choose, at most.
    seed
        Another seed chooses others. The choice depends on the seed and each picture alone, so that
        the order of the rows is of no matter.

    Returns
    -------
    list of str
        Their `image_id`s.
    """
    candidates: set[str] | None = None
    for table in predictions.values():
        held_out = (table["split"] == "test") & ~table["seen_in_training"].astype(bool)
        own = set(table["image_id"][held_out])
        candidates = own if candidates is None else candidates & own
    ranked = sorted(
        candidates or (), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()
    )
    return ranked[:number]


def pictures_figure(
    paths: Paths,
    predictions: Mapping[str, pd.DataFrame],
    image_ids: Sequence[str],
    credit: str,
    path: Path,
) -> None:
    """Draw each picture with the probabilities that the models gave.

    Parameters
    ----------
    paths
        Where pictures, crops and their table are.
    predictions
        Each model's predictions.
    image_ids
        Which pictures, in order.
    credit
        Notices and credits of the data sets.
    path
        The PNG.
    """
    if not image_ids:
        empty_figure(path, "No test picture is held out from every model.", credit)
        return
    rows = read_table(paths.crops, list(_COLUMNS)).set_index("image_id").loc[list(image_ids)]
    by_id = {name: predictions[name].set_index("image_id") for name in MODELS}
    crops = read_crops(rows, paths.crop_shards)
    cells = [
        _cell(row, crop, {name: table.loc[row.name] for name, table in by_id.items()}, paths)
        for (_, row), crop in zip(rows.iterrows(), crops, strict=True)
    ]
    faces_figure(cells, [model_word(name) for name in MODELS], credit, path)


def _cell(
    row: pd.Series, crop: np.ndarray, answers: Mapping[str, pd.Series], paths: Paths
) -> Shown:
    first = next(iter(answers.values()))
    words = [str(first[name]) for name in ("age_band", "gender") if name in first]
    picture, boxes, why_not = _picture(row, paths)
    known = [word for word in words if word != UNKNOWN]
    return Shown(
        heading=f"label: {first['emotion']}",
        detail=", ".join([*known, *([why_not] if why_not else [])]),
        picture=picture,
        boxes=boxes,
        own=0,
        crop=crop,
        answers={model_word(name): _answer(answer) for name, answer in answers.items()},
        label=str(first["emotion"]),
    )


def _picture(row: pd.Series, paths: Paths) -> tuple[np.ndarray | None, tuple[Box, ...], str]:
    """Return the picture and its box as shown; else None and why."""
    limit = int(row["width_px"]) * int(row["height_px"])
    try:
        image = decode_image(read_content(paths.raw / str(row["path"]), limit), limit).image
    except BadImageError as error:
        return None, (), f"picture: {error.reason}"
    x0, y0, x1, y1 = (float(edge) for edge in row["box_xyxy_px"])
    return *thumbnail(image, [(x0, y0, x1, y1)]), ""


def _answer(row: pd.Series) -> Answer:
    """Read a model's answer: the labels that it has are those with a probability."""
    shares: dict[str, Any] = {
        str(name).removeprefix("p_"): value
        for name, value in row.items()
        if str(name).startswith("p_") and value == value
    }
    return Answer(str(row["y_pred"]), {label: float(p) for label, p in shares.items()})
