"""Draws the embedded cohort, so that the whole pipeline runs with no licensed data.

Writes `data/raw/drawn/*.jpg`, named as `names` says, and `data/truth/`: `truth.parquet` (action
units, landmarks, moved regions) and the masks of the moved regions in WebDataset shards. A
demonstration, not evidence about children. Without subjects both are left empty.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tasks.core.execution import map_in_order, process_pool
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.result import StageResult
from tasks.core.shards import write_shards
from tasks.core.tables import check_conservation, write_table
from tasks.draw.cohort import MOST_SUBJECTS, Cohort, plan_sittings
from tasks.draw.facs import PROTOTYPES, Style
from tasks.draw.picture import Drawn, Order, draw_pictures
from tasks.draw.truth import TRUTH_SCHEMA, truth_table

_CHUNK = 16  # pictures a worker draws at a time
_MASKS_PER_SHARD = 1000


def _known(emotion: str) -> str:
    if emotion not in PROTOTYPES:
        raise ValueError(f"no prototype of action units; known are {', '.join(PROTOTYPES)}")
    return emotion


class Params(Section):
    """Section `draw` of params.yaml."""

    seed: int = Field(ge=0)
    size_px: int = Field(ge=128, le=1024)
    subjects: dict[Cohort, Annotated[int, Field(ge=0, le=MOST_SUBJECTS)]]
    pictures_per_emotion: int = Field(ge=1, le=100)
    emotions: tuple[Annotated[str, AfterValidator(_known)], ...] = Field(min_length=1)
    expression: dict[Cohort, Style]
    workers: int = Field(ge=0)

    @field_validator("emotions")
    @classmethod
    def _listed_once(cls, emotions: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(emotions)) < len(emotions):
            raise ValueError("an emotion is listed twice")
        return emotions

    @field_validator("expression")
    @classmethod
    def _for_each_cohort(
        cls, expression: dict[Cohort, Style], info: ValidationInfo
    ) -> dict[Cohort, Style]:
        missing = [cohort for cohort in info.data.get("subjects", ()) if cohort not in expression]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}, of whom there are subjects")
        return expression


def run(params: Params, paths: Paths) -> StageResult:
    """Draw every picture of the cohort and write what is true of it."""
    masks = paths.truth / "masks"
    for folder in (paths.drawn, paths.truth):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (paths.drawn, masks):
        folder.mkdir(parents=True)
    sittings = plan_sittings(params.subjects, params.emotions, params.pictures_per_emotion)
    orders = [
        Order(sitting, params.expression[sitting.cohort], params.seed, params.size_px)
        for sitting in sittings
    ]
    kept: list[Drawn] = []

    def members() -> Iterator[tuple[str, bytes]]:
        if not orders:
            return
        with process_pool(params.workers) as pool:
            drawn = map_in_order(draw_pictures, orders, pool, _CHUNK, params.workers)
            for picture in track(drawn, len(orders), "draw"):
                name = picture.sitting.name
                (paths.drawn / name.file_name).write_bytes(picture.jpeg)
                kept.append(replace(picture, jpeg=b"", mask_png=b""))
                yield f"{name.stem}.png", picture.mask_png

    places = list(write_shards(members(), masks, _MASKS_PER_SHARD, prefix="masks"))
    check_conservation("draw", len(orders), len(places), 0)
    table = truth_table(list(zip(kept, places, strict=True)))
    write_table(table, paths.truth / "truth.parquet", TRUTH_SCHEMA)
    people = sum(params.subjects.values())
    return StageResult(
        metrics={"pictures": float(len(table)), "subjects": float(people)},
        summary=f"{len(table)} pictures of {people} subjects ({DRAWN_NOTICE})"
        if people
        else "no cohort is drawn, as draw.subjects is empty",
    )
