"""Finds the face in every image and crops it.

Reads `data/checked.parquet` and `data/raw`. Writes `data/crops.parquet` (the rows with a face and
where their crops are), `data/crops/*.tar`, `data/rejects/crop.csv` and `reports/figures/crops.png`.
Misses are counted by age band and gender.
"""

import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pydantic import Field

from tasks.core.cache.result_cache import kept_results
from tasks.core.errors import DataError
from tasks.core.files import write_bytes, write_text
from tasks.core.imaging.shards import Place, encode_png, write_shards
from tasks.core.parallel.progress import track
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import (
    check_conservation,
    read_schema,
    read_table,
    rejects_table,
    write_csv,
    write_table,
)
from tasks.crop.contact_sheet import draw_contact_sheet
from tasks.crop.crop_cache import INDEX, CropCache, KeyedCrop
from tasks.crop.crop_faces import NO_FACE, FaceCrop, NoFace, Source
from tasks.crop.crops_table import (
    COLUMNS,
    as_metrics,
    miss_rates_by_group,
    misses_phrase,
    with_crops,
    without_crops,
)
from tasks.crop.settings import CropSettings, Resample


class Params(Section):
    """The section `crop` of params.yaml, which explains each key."""

    size_px: int = Field(ge=16, le=1024)
    margin: float = Field(ge=0, le=2)
    resample: Resample
    detector_side_px: int = Field(ge=80, le=4096)
    max_upsamples: int = Field(ge=0, le=3)
    min_score: float
    images_per_shard: int = Field(gt=0)
    workers: int = Field(ge=0)


def run(params: Params, paths: Paths) -> StageResult:
    """Crop the most prominent face of every image; raises DataError if no image shows one."""
    checked = read_table(paths.checked)
    outcomes, places = _crop_into_shards(checked, params, paths)
    crops, left_out = with_crops(checked, outcomes, places), without_crops(checked, outcomes)
    check_conservation("crop", len(checked), len(crops), len(left_out))
    rejects = left_out[["image_id", "path", "reason", "detail"]].to_numpy().tolist()
    write_csv(rejects_table(rejects), paths.rejects("crop"))
    if crops.empty:
        raise DataError(f"crop: no face in {len(checked)} pictures; see {paths.rejects('crop')}")
    write_table(crops, paths.crops, pa.schema([*read_schema(paths.checked), *COLUMNS]))
    faceless = left_out[left_out["reason"] == NO_FACE]
    groups = miss_rates_by_group(crops, faceless)
    sheet = paths.figures / "crops.png"
    write_bytes(sheet, encode_png(draw_contact_sheet(crops, faceless, groups, paths)))
    undone = sum(
        isinstance(outcome, FaceCrop) and outcome.exif_orientation_ignored for outcome in outcomes
    )
    return StageResult(
        metrics={
            "pictures": float(len(checked)),
            "crops": float(len(crops)),
            "no_face": float(len(faceless)),
            "several_faces": float((crops["n_faces"] > 1).sum()),
            "exif_turns_taken_back": float(undone),
            **as_metrics(groups),
        },
        artifacts=[sheet, paths.rejects("crop")],
        summary=f"{len(crops)} faces cropped from {len(checked)} pictures, {misses_phrase(groups)}",
    )


def _crop_into_shards(
    checked: pd.DataFrame, params: Params, paths: Paths
) -> tuple[list[FaceCrop | NoFace], list[Place]]:
    """Write the shards; return each image's outcome (without its bytes) and each crop's place."""
    shutil.rmtree(paths.crop_shards, ignore_errors=True)  # a longer run may have left more shards
    paths.crop_shards.mkdir(parents=True)
    settings = CropSettings(**params.model_dump(exclude={"images_per_shard", "workers"}))
    write_text(paths.crop_settings, json.dumps(asdict(settings), indent=2) + "\n")
    rows = checked[["path", "width_px", "height_px"]].itertuples(index=False)
    sources = [Source(paths.raw / row.path, row.width_px * row.height_px) for row in rows]
    with kept_results(paths.at("work/kept/crop") / INDEX) as index:
        cache = CropCache(paths.at("work/kept/crop"), index, paths.crop_shards, settings)
        items = zip(checked["image_id"], cache.cut(sources, params.workers), strict=True)
        result = _write_shards(
            track(items, len(checked), "crop"), cache, paths.crop_shards, params.images_per_shard
        )
        cache.finish()
    return result


def _write_shards(
    items: Iterable[tuple[str, KeyedCrop]], cache: CropCache, folder: Path, images_per_shard: int
) -> tuple[list[FaceCrop | NoFace], list[Place]]:
    outcomes: list[FaceCrop | NoFace] = []
    places: list[Place] = []
    pending: deque[KeyedCrop] = deque()  # whose place is not known yet

    def members() -> Iterator[tuple[str, bytes]]:
        for image_id, item in items:
            outcome = item.outcome
            outcomes.append(replace(outcome, png=b"") if isinstance(outcome, FaceCrop) else outcome)
            if isinstance(outcome, FaceCrop):
                pending.append(item)
                yield f"{image_id}.png", outcome.png
            else:
                cache.put(item, None)

    for place in write_shards(members(), folder, images_per_shard):
        places.append(place)
        cache.put(pending.popleft(), place)
    return outcomes, places
