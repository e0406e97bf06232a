"""From chosen rows to a model's folder: load the pixels, fit, keep, and say what came out."""

import hashlib
import os
import shutil
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import channels, save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.result import Series, StageResult
from tasks.core.tables import write_csv
from tasks.train.loop import Fitted, fit
from tasks.train.pictures import Rows, load_pictures
from tasks.train.recipe import Recipe

HISTORY = "history.csv"


def fit_and_keep(
    stage: str,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    rows: Rows,
    seen_before: pd.DataFrame,
    recipe: Recipe,
    paths: Paths,
) -> StageResult:
    """Train a network on rows of the split table and write it as models/<name>.

    Parameters
    ----------
    stage, name
        The stage (train or finetune) and the model (base or finetuned).
    module, spec
        The network as it starts, and what it expects and answers.
    rows
        What is trained and validated on.
    seen_before
        The pictures that the starting weights have seen, with `SEEN_COLUMNS`.
    recipe
        How to train.
    paths
        The project's paths.
    """
    work = paths.work(stage, _digest(recipe, spec, paths))
    pictures = [
        load_pictures(part, paths.crop_shards, spec, channels(spec), work / f"{role}.npy")
        for role, part in (("train", rows.train), ("validation", rows.validation))
    ]
    fitted = fit(module, spec, *pictures, recipe, work, from_trained=stage == "finetune")
    seen = pd.concat([seen_before, rows.seen(stage)], ignore_index=True)
    keep_model(paths, name, fitted.module, spec, seen, fitted.history)
    del pictures  # the files below are mapped
    shutil.rmtree(work)
    return _result(spec, rows, fitted, paths.model(name), recipe)


def keep_model(
    paths: Paths,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    seen: pd.DataFrame,
    history: pd.DataFrame,
) -> ModelSpec:
    """Write a model's folder beside its place and move it there whole; return its spec."""
    folder = paths.model(name)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        spec = save_model(fresh, module, spec, seen)
        write_csv(history, fresh / HISTORY)
        shutil.copyfile(paths.crop_settings, fresh / CROP_SETTINGS)
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return spec


def _digest(recipe: Recipe, spec: ModelSpec, paths: Paths) -> str:
    """Name the folder for progress after what is trained on what; the loop checks the pixels."""
    parts = (recipe.model_dump_json(), spec.model_dump_json(), sha256_of(paths.split))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _result(
    spec: ModelSpec, rows: Rows, fitted: Fitted, folder: Path, recipe: Recipe
) -> StageResult:
    history = fitted.history
    best = history.set_index("epoch").loc[fitted.best_epoch]
    trained = history[history["epoch"] > 0]
    series: dict[str, Series] = {
        name: [
            (int(epoch), float(value))
            for epoch, value in zip(trained["epoch"], trained[name], strict=True)
        ]
        for name in ("train_loss", "valid_loss", "valid_recall_score")
    }
    recall = float(best["valid_recall_score"])
    metrics = {
        "best_epoch": float(fitted.best_epoch),
        "valid_recall_score_at_best": recall,
        "valid_loss_at_best": float(best["valid_loss"]),
        "train_pictures": float(len(rows.train)),
        "validation_pictures": float(len(rows.validation)),
        "left_out_pictures": float(rows.left_out),
    }
    summary = (
        f"{spec.architecture} on {len(rows.train)} pictures: best at epoch {fitted.best_epoch} of "
        f"{recipe.epochs}, mean validation recall {recall:.1%}"
    )
    if rows.left_out:
        summary += f"; {rows.left_out} pictures left out, since the model lacks their label"
    return StageResult(metrics, series, [folder], summary)
