"""Finds the face in every picture and cuts it out.

Reads `data/checked.parquet` and `data/raw`; writes `data/crops.parquet` (the rows with a face, and
where its crop is), `data/crops/*.tar`, `data/rejects/crop.csv` and `reports/figures/crops.png`;
raises DataError where no picture shows a face. Misses are counted by age band and gender.
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

from tasks.core.errors import DataError
from tasks.core.files import write_bytes, write_text
from tasks.core.kept import kept_results
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.result import StageResult
from tasks.core.shards import Place, encode_png, write_shards
from tasks.core.tables import (
    check_conservation,
    read_schema,
    read_table,
    rejects_table,
    write_csv,
    write_table,
)
from tasks.crop.by_group import as_metrics, describe, detector_by_group
from tasks.crop.contact_sheet import draw_contact_sheet
from tasks.crop.crops_table import COLUMNS, with_crops, without_crops
from tasks.crop.cut_faces import NO_FACE, Cut, Missed, Source
from tasks.crop.kept_cuts import INDEX, KeptCuts, Named
from tasks.crop.settings import CropSettings, Resample


class Params(Section):
    """The section `crop` of params.yaml, which says what each key is."""

    size_px: int = Field(ge=16, le=1024)
    margin: float = Field(ge=0, le=2)
    resample: Resample
    detect_side_px: int = Field(ge=80, le=4096)
    upsample: int = Field(ge=0, le=3)
    min_score: float
    per_shard: int = Field(gt=0)
    workers: int = Field(ge=0)


def run(params: Params, paths: Paths) -> StageResult:
    """Cut the most prominent face out of every checked picture; see the module's text."""
    checked = read_table(paths.checked)
    outcomes, places = _cut_into_shards(checked, params, paths)
    crops, left_out = with_crops(checked, outcomes, places), without_crops(checked, outcomes)
    check_conservation("crop", len(checked), len(crops), len(left_out))
    rejects = left_out[["image_id", "path", "reason", "detail"]].to_numpy().tolist()
    write_csv(rejects_table(rejects), paths.rejects("crop"))
    if crops.empty:
        raise DataError(f"crop: no face in {len(checked)} pictures; see {paths.rejects('crop')}")
    write_table(crops, paths.crops, pa.schema([*read_schema(paths.checked), *COLUMNS]))
    faceless = left_out[left_out["reason"] == NO_FACE]
    groups = detector_by_group(crops, faceless)
    sheet = paths.figures / "crops.png"
    write_bytes(sheet, encode_png(draw_contact_sheet(crops, faceless, groups, paths)))
    turned = sum(isinstance(outcome, Cut) and outcome.turn_taken_back for outcome in outcomes)
    return StageResult(
        metrics={
            "pictures": float(len(checked)),
            "crops": float(len(crops)),
            "no_face": float(len(faceless)),
            "several_faces": float((crops["n_faces"] > 1).sum()),
            "exif_turns_taken_back": float(turned),
            **as_metrics(groups),
        },
        artifacts=[sheet, paths.rejects("crop")],
        summary=f"{len(crops)} faces cut out of {len(checked)} pictures, {describe(groups)}",
    )


def _cut_into_shards(
    checked: pd.DataFrame, params: Params, paths: Paths
) -> tuple[list[Cut | Missed], list[Place]]:
    """Write the shards; return each picture's outcome (without its bytes) and each crop's place."""
    shutil.rmtree(paths.crop_shards, ignore_errors=True)  # what an earlier, longer run left
    paths.crop_shards.mkdir(parents=True)
    settings = CropSettings(**params.model_dump(exclude={"per_shard", "workers"}))
    write_text(paths.crop_settings, json.dumps(asdict(settings), indent=2) + "\n")
    rows = checked[["path", "width_px", "height_px"]].itertuples(index=False)
    sources = [Source(paths.raw / row.path, row.width_px * row.height_px) for row in rows]
    with kept_results(paths.at("work/kept/crop") / INDEX) as kept:
        cuts = KeptCuts(paths.at("work/kept/crop"), kept, paths.crop_shards, settings)
        named = zip(checked["image_id"], cuts.cut(sources, params.workers), strict=True)
        made = _write(track(named, len(checked), "crop"), cuts, paths.crop_shards, params.per_shard)
        cuts.finish()
    return made


def _write(
    named: Iterable[tuple[str, Named]], cuts: KeptCuts, folder: Path, per_shard: int
) -> tuple[list[Cut | Missed], list[Place]]:
    outcomes: list[Cut | Missed] = []
    places: list[Place] = []
    written: deque[Named] = deque()  # of which the place is not known yet

    def members() -> Iterator[tuple[str, bytes]]:
        for image_id, item in named:
            outcome = item.outcome
            outcomes.append(replace(outcome, png=b"") if isinstance(outcome, Cut) else outcome)
            if isinstance(outcome, Cut):
                written.append(item)
                yield f"{image_id}.png", outcome.png
            else:
                cuts.put(item, None)

    for place in write_shards(members(), folder, per_shard):
        places.append(place)
        cuts.put(written.popleft(), place)
    return outcomes, places
