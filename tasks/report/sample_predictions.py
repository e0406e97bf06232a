"""Random test images with the face's box, the crop, and one probability bar per class."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.imaging.decode import BadImageError, decode_image, read_content
from tasks.core.imaging.shards import read_crops
from tasks.core.labels import UNKNOWN
from tasks.core.paths import MODELS, Paths
from tasks.core.plotting.face_grid import Answer, Box, Shown, faces_figure, thumbnail
from tasks.core.plotting.style import empty_figure
from tasks.core.tables import read_table
from tasks.report.html.formatting import model_name

_CROP_COLUMNS = ("shard", "offset_bytes", "size_bytes")
_COLUMNS = ("image_id", "path", "width_px", "height_px", "box_xyxy_px", *_CROP_COLUMNS)


def choose_images(predictions: Mapping[str, pd.DataFrame], number: int, seed: int) -> list[str]:
    """Return the `image_id`s of up to `number` random test images that no model was trained on.

    The choice depends only on the seed and the candidates, not on the order of rows.
    """
    candidates: set[str] | None = None
    for table in predictions.values():
        held_out = (table["split"] == "test") & ~table["seen_in_training"].astype(bool)
        unseen = set(table["image_id"][held_out])
        candidates = unseen if candidates is None else candidates & unseen
    ranked = sorted(
        candidates or (), key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest()
    )
    return ranked[:number]


def sample_predictions_figure(
    paths: Paths,
    predictions: Mapping[str, pd.DataFrame],
    image_ids: Sequence[str],
    credit: str,
    path: Path,
) -> None:
    """Draw each image with the probabilities of every model."""
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
    faces_figure(cells, [model_name(name) for name in MODELS], credit, path)


def _cell(
    row: pd.Series, crop: np.ndarray, answers: Mapping[str, pd.Series], paths: Paths
) -> Shown:
    first = next(iter(answers.values()))
    group = [str(first[name]) for name in ("age_band", "gender") if name in first]
    image, boxes, problem = _image(row, paths)
    known = [word for word in group if word != UNKNOWN]
    return Shown(
        heading=f"label: {first['emotion']}",
        detail=", ".join([*known, *([problem] if problem else [])]),
        image=image,
        boxes=boxes,
        own=0,
        crop=crop,
        answers={model_name(name): _answer(answer) for name, answer in answers.items()},
        label=str(first["emotion"]),
    )


def _image(row: pd.Series, paths: Paths) -> tuple[np.ndarray | None, tuple[Box, ...], str]:
    """Return the image as drawn, its box, and ""; or None, no box, and the reason."""
    limit = int(row["width_px"]) * int(row["height_px"])
    try:
        image = decode_image(read_content(paths.raw / str(row["path"]), limit), limit).image
    except BadImageError as error:
        return None, (), f"picture: {error.reason}"
    x0, y0, x1, y1 = (float(edge) for edge in row["box_xyxy_px"])
    return *thumbnail(image, [(x0, y0, x1, y1)]), ""


def _answer(row: pd.Series) -> Answer:
    """Return a model's answer; its labels are those with a probability."""
    shares: dict[str, Any] = {
        str(name).removeprefix("p_"): value
        for name, value in row.items()
        if str(name).startswith("p_") and value == value
    }
    return Answer(str(row["y_pred"]), {label: float(p) for label, p in shares.items()})
