"""Stage `draw`: the embedded cohort, with which the pipeline runs without licensed data.

Writes `data/raw/drawn/*.jpg` (see `names`), `data/truth/truth.parquet` (action units, landmarks,
moved regions) and the masks of the moved regions in WebDataset shards. Without subjects, all are
empty. The cohort is a demonstration, not evidence about children.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from tasks.core.imaging.shards import write_shards
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.parallel.execution import map_in_order, process_pool
from tasks.core.parallel.progress import track
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import check_conservation, write_table
from tasks.draw.action_units import PROTOTYPES, Style
from tasks.draw.plan import MAX_SUBJECTS, Cohort, plan_images
from tasks.draw.render import TRUTH_SCHEMA, RenderedFace, RenderJob, draw_images, truth_table

_CHUNK = 16  # images per task of a worker
_MASKS_PER_SHARD = 1000


def _known(emotion: str) -> str:
    if emotion not in PROTOTYPES:
        raise ValueError(f"cannot be drawn; use one of {', '.join(PROTOTYPES)}")
    return emotion


class Params(Section):
    """Section `draw` of params.yaml."""

    seed: int = Field(ge=0)
    size_px: int = Field(ge=128, le=1024)
    subjects: dict[Cohort, Annotated[int, Field(ge=0, le=MAX_SUBJECTS)]]
    images_per_emotion: int = Field(ge=1, le=100)
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
            raise ValueError(f"lacks {', '.join(missing)}, which draw.subjects names")
        return expression


def run(params: Params, paths: Paths) -> StageResult:
    """Draw every image of the cohort and write its ground truth."""
    masks = paths.truth / "masks"
    for folder in (paths.drawn, paths.truth):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in (paths.drawn, masks):
        folder.mkdir(parents=True)
    sittings = plan_images(params.subjects, params.emotions, params.images_per_emotion)
    orders = [
        RenderJob(sitting, params.expression[sitting.cohort], params.seed, params.size_px)
        for sitting in sittings
    ]
    images: list[RenderedFace] = []  # without their bytes

    def members() -> Iterator[tuple[str, bytes]]:
        if not orders:
            return
        with process_pool(params.workers) as pool:
            drawn = map_in_order(draw_images, orders, pool, _CHUNK, params.workers)
            for image in track(drawn, len(orders), "draw"):
                name = image.sitting.name
                (paths.drawn / name.file_name).write_bytes(image.jpeg)
                images.append(replace(image, jpeg=b"", mask_png=b""))
                yield f"{name.stem}.png", image.mask_png

    locations = list(write_shards(members(), masks, _MASKS_PER_SHARD, prefix="masks"))
    check_conservation("draw", len(orders), len(locations), 0)
    table = truth_table(list(zip(images, locations, strict=True)))
    write_table(table, paths.truth / "truth.parquet", TRUTH_SCHEMA)
    subjects = sum(params.subjects.values())
    return StageResult(
        metrics={"pictures": float(len(table)), "subjects": float(subjects)},
        summary=f"{len(table)} pictures of {subjects} subjects ({DRAWN_NOTICE})"
        if subjects
        else "no cohort is drawn, as draw.subjects is empty",
    )
