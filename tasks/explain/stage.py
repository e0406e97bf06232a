"""Stage `explain`: LIME on held-out images that a model classifies correctly.

Reads data/predictions/<model>.parquet, the crops and models/<model>. Writes
data/explanations/<model>.parquet (one row per image and superpixel, from which every map can be
rebuilt), reports/tables/lime_<model>.csv (one row per cell: emotion and group) and
reports/figures/lime_<model>.png. At most `images_per_group` images are explained per cell: they
illustrate, and support no claim about a difference between groups.
"""

from typing import Annotated

import pandas as pd
from pydantic import Field, field_validator

from tasks.core.cache.result_cache import kept_results
from tasks.core.imaging.shards import crop_margin
from tasks.core.labels import credit_line
from tasks.core.models.checkpoint import load_spec
from tasks.core.parallel.progress import track
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.stages import StageResult
from tasks.core.tables import check_conservation, read_table, write_csv, write_table
from tasks.explain.explanation_figure import Cell, draw_cells, figure_texts, save_figure
from tasks.explain.explanation_table import (
    SCHEMA,
    Rows,
    explanation_rows,
    explanations_table,
    mean_r2,
    summarize,
)
from tasks.explain.lime_explainer import LimeSettings
from tasks.explain.overlay import Overlay
from tasks.explain.parallel_explain import ExplainJob, explain_rows
from tasks.explain.sample_selection import cells_of, choose, select_held_out


class Params(LimeSettings):
    """Section `explain` of params.yaml."""

    by: list[str]
    images_per_group: Annotated[int, Field(ge=1)]
    min_r2: Annotated[float, Field(ge=0, le=1)]
    device: str
    workers: Annotated[int, Field(ge=0)]

    @field_validator("by")
    @classmethod
    def _groups(cls, by: list[str]) -> list[str]:
        reserved = {*SCHEMA.names} & {*by}
        if not by or len(set(by)) < len(by) or reserved:
            raise ValueError(
                "names columns of the manifest, each once, such as age_band and gender"
            )
        return by


def run(params: Params, paths: Paths, model: str) -> StageResult:
    """Explain the predictions of models/<model>; write the table, the summary and the figure."""
    held_out = select_held_out(read_table(paths.predictions(model)), params.by)
    cells = cells_of(held_out, params.by)
    chosen = choose(held_out, params.by, params.images_per_group, params.seed)

    overlays: dict[Cell, Overlay] = {}
    parts: list[Rows] = []
    margin = crop_margin(paths.crop_shards / CROP_SETTINGS) or 0.0
    rows = chosen[["image_id", "emotion", *params.by]].to_dict("records")
    with kept_results(paths.at(f"work/kept/explain-{model}.sqlite")) as store:
        explanations = explain_rows(chosen, _model(params, paths, model), params.workers, store)
        explained = track(explanations, len(chosen), f"explain {model}")
        for row, explanation in zip(rows, explained, strict=True):
            groups = {column: row[column] for column in params.by}
            cell = (row["emotion"], *groups.values())
            overlays.setdefault(cell, Overlay(params.num_features)).add(explanation)
            parts.append(explanation_rows(explanation, row["image_id"], groups, model, margin))
    check_conservation("explain", len(chosen), len(parts), 0)

    table = explanations_table(parts, params.by)
    summary = summarize(cells, table, params.by, model, params.min_r2)
    write_table(table, paths.explanations(model), SCHEMA)
    notice = credit_line(chosen["dataset"])
    write_csv(summary.assign(notice=notice), paths.tables / f"lime_{model}.csv")
    texts = figure_texts(model, summary, params.min_r2, chosen["dataset"])
    figure = draw_cells(summary, overlays, params.by, params.images_per_group, texts)
    save_figure(figure, paths.figures / f"lime_{model}.png")
    return _result(summary, paths, model)


def _model(params: Params, paths: Paths, model: str) -> ExplainJob:
    """Return what the workers need, without types of this module, which they need not import."""
    settings = LimeSettings.model_validate(params.model_dump(include={*LimeSettings.model_fields}))
    folder = paths.model(model)
    return ExplainJob(folder, load_spec(folder), paths.crop_shards, params.device, settings)


def _result(summary: pd.DataFrame, paths: Paths, model: str) -> StageResult:
    explained, low = int(summary["n_images"].sum()), int(summary["n_low_r2"].sum())
    empty = int((summary["n_images"] == 0).sum())
    metrics = {"pictures": float(explained), "cells_without_pictures": float(empty)}
    message = f"{explained} pictures in {len(summary)} cells, {empty} of them empty"
    if explained:
        metrics |= {"r2_mean": mean_r2(summary), "low_r2_share": low / explained}
        message += f"; mean R² {metrics['r2_mean']:.2f}, low for {low} pictures"
    files = [paths.figures / f"lime_{model}.png", paths.tables / f"lime_{model}.csv"]
    return StageResult(metrics, artifacts=[*files, paths.explanations(model)], summary=message)
