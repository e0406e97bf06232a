"""Image features for drift: the faces of a batch, and the model's confidence in them."""

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.imaging.shards import read_crops
from tasks.core.models.checkpoint import load_seen
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.params import DEVICE, load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.crop.crop_faces import FaceCrop, Source, crop_faces
from tasks.crop.settings import CropSettings, model_crop_settings
from tasks.crop.stage import Params as CropParams
from tasks.drift.compare import CONFIDENCE

_BATCH_SIZE = 64  # crops in memory


def face_features(paths: Paths, rows: pd.DataFrame, folder: Path | None) -> pd.DataFrame:
    """Return `image_id`, `detector_score`, `sharpness` and `brightness` of the images' crops.

    The values are NaN if no face was found. If `folder` names a model, `confidence` is the largest
    of its probabilities for the face cut as that model needs it.
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
    model_settings = model_crop_settings(folder)
    of_model = cuts if model_settings == settings else _cut(paths, rows, model_settings)
    return table.assign(**{CONFIDENCE: _ask(paths, folder, map(_decode, of_model))})


def held_out_confidence(paths: Paths, batch: str, folder: Path, most: int) -> pd.DataFrame:
    """Return `image_id, subject_id, dataset, confidence` for subjects that the model did not see.

    At most `most` images are used, chosen by `image_id`; as a digest that is a random choice. No
    image of `batch` is among them, since it would be compared with itself.
    """
    table = read_table(paths.split)
    table = table[table["batch"] != batch]
    unseen = table[~table["subject_id"].isin(load_seen(folder)["subject_id"])]
    sample = unseen.sort_values("image_id").iloc[:most].sort_values(["shard", "offset_bytes"])
    settings = model_crop_settings(folder)
    if paths.crop_settings.is_file() and settings == model_crop_settings(paths.crop_shards):
        crops: Iterable[np.ndarray | None] = read_crops(sample, paths.crop_shards)
    else:
        crops = map(_decode, _cut(paths, sample, settings))
    confidence = _ask(paths, folder, crops)
    return sample[["image_id", "subject_id", "dataset"]].assign(**{CONFIDENCE: confidence})


def _settings(paths: Paths) -> CropSettings:
    params = load_section(paths.params, "crop", CropParams)
    return CropSettings(**{name: getattr(params, name) for name in CropSettings.__annotations__})


def _cut(paths: Paths, rows: pd.DataFrame, settings: CropSettings) -> Iterator[FaceCrop | None]:
    """Yield the crop of each image; None if no face was found."""
    sources = (
        Source(paths.raw / row.path, row.width_px * row.height_px)
        for row in rows[["path", "width_px", "height_px"]].itertuples(index=False)
    )
    workers = load_section(paths.params, "crop", CropParams).workers
    for outcome in crop_faces(sources, settings, workers):
        yield outcome if isinstance(outcome, FaceCrop) else None


def _ask(paths: Paths, folder: Path, crops: Iterable[np.ndarray | None]) -> np.ndarray:
    """Return the largest probability for each crop, NaN if there is no crop."""
    device = str(load_yaml(paths.params)[DEVICE])
    model = EmotionClassifier.load(folder, device, _BATCH_SIZE)
    remaining = iter(crops)
    parts = [np.zeros(0)]
    while batch := list(islice(remaining, _BATCH_SIZE)):
        confidence = np.full(len(batch), np.nan)
        positions = [index for index, crop in enumerate(batch) if crop is not None]
        if positions:
            faces = np.stack([crop for crop in batch if crop is not None])
            confidence[positions] = model.predict(faces).max(axis=1)
        parts.append(confidence)
    return np.concatenate(parts)


def _decode(cut: FaceCrop | None) -> np.ndarray | None:
    if cut is None:
        return None
    with Image.open(io.BytesIO(cut.png)) as image:
        return np.asarray(image.convert("RGB"))
