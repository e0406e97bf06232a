"""What only the pictures tell of a batch: its faces, and what the model in use says of them."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.models.checkpoint import load_seen
from tasks.core.models.recogniser import Recogniser
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.shards import read_crops
from tasks.core.tables import read_table
from tasks.crop.cut_faces import Cut, Source, cut_faces
from tasks.crop.settings import CropSettings, settings_of_model
from tasks.crop.stage import Params as CropParams
from tasks.drift.compare import CONFIDENCE

_AT_ONCE = 64  # crops in memory


def measure(paths: Paths, rows: pd.DataFrame, folder: Path | None) -> pd.DataFrame:
    """Find the faces in pictures and ask the model in use.

    Parameters
    ----------
    paths
        The project's paths.
    rows
        Rows of the manifest; the pictures lie in data/raw.
    folder
        The model in use, or None where there is none.

    Returns
    -------
    DataFrame
        `image_id`, `detector_score`, `sharpness`, `brightness` of crops cut as params say (NaN
        where no face was found) and, with a model, `confidence`: the largest of its
        probabilities for the face cut as that model needs it.
    """
    settings = _settings(paths)
    cuts = list(_cut(paths, rows, settings))
    table = rows[["image_id"]].assign(
        detector_score=[cut.score if cut else np.nan for cut in cuts],
        sharpness=[cut.sharpness if cut else np.nan for cut in cuts],
        brightness=[cut.brightness if cut else np.nan for cut in cuts],
    )
    if folder is None:
        return table
    own = settings_of_model(folder)
    of_model = cuts if own == settings else _cut(paths, rows, own)
    return table.assign(**{CONFIDENCE: _ask(paths, folder, map(_decode, of_model))})


def ask_held_out(paths: Paths, batch: str, folder: Path, most: int) -> pd.DataFrame:
    """Ask the model in use about pictures of people whom it did not see.

    Parameters
    ----------
    paths
        The project's paths.
    batch
        The batch that is compared; none of its own pictures is asked about.
    folder
        The model, with its `seen.csv`.
    most
        At most so many pictures, chosen by `image_id`, which is a digest: at random.

    Returns
    -------
    DataFrame
        `image_id, subject_id, dataset, confidence`.
    """
    table = read_table(paths.split)
    table = table[table["batch"] != batch]  # it would be compared with itself
    unseen = table[~table["subject_id"].isin(load_seen(folder)["subject_id"])]
    some = unseen.sort_values("image_id").iloc[:most].sort_values(["shard", "offset_bytes"])
    own = settings_of_model(folder)
    if paths.crop_settings.is_file() and own == settings_of_model(paths.crop_shards):
        crops: Iterable[np.ndarray | None] = read_crops(some, paths.crop_shards)
    else:
        crops = map(_decode, _cut(paths, some, own))
    confidence = _ask(paths, folder, crops)
    return some[["image_id", "subject_id", "dataset"]].assign(**{CONFIDENCE: confidence})


def _settings(paths: Paths) -> CropSettings:
    params = load_section(paths.params, "crop", CropParams)
    return CropSettings(**{name: getattr(params, name) for name in CropSettings.__annotations__})


def _cut(paths: Paths, rows: pd.DataFrame, settings: CropSettings) -> Iterator[Cut | None]:
    """Cut the pictures' faces; None where none was found."""
    sources = (
        Source(paths.raw / row.path, row.width_px * row.height_px)
        for row in rows[["path", "width_px", "height_px"]].itertuples(index=False)
    )
    workers = load_section(paths.params, "crop", CropParams).workers
    for outcome in cut_faces(sources, settings, workers):
        yield outcome if isinstance(outcome, Cut) else None


def _ask(paths: Paths, folder: Path, crops: Iterable[np.ndarray | None]) -> np.ndarray:
    """Return the largest probability for each crop, NaN where there is none."""
    device = str(load_yaml(paths.params)["evaluate"]["device"])
    recogniser = Recogniser.load(folder, device, _AT_ONCE)
    waiting = iter(crops)
    parts = [np.zeros(0)]
    while batch := list(islice(waiting, _AT_ONCE)):
        largest = np.full(len(batch), np.nan)
        found = [place for place, crop in enumerate(batch) if crop is not None]
        if found:
            faces = np.stack([crop for crop in batch if crop is not None])
            largest[found] = recogniser.predict(faces).max(axis=1)
        parts.append(largest)
    return np.concatenate(parts)


def _decode(cut: Cut | None) -> np.ndarray | None:
    if cut is None:
        return None
    with Image.open(io.BytesIO(cut.png)) as picture:
        return np.asarray(picture.convert("RGB"))
