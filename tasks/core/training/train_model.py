"""Train a network on chosen rows, write its model folder, and return the stage's result."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import Skipped, save_model, write_skipped
from tasks.core.models.spec import ModelSpec
from tasks.core.parallel import process
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.stages import Series, StageResult
from tasks.core.tables import write_csv
from tasks.core.training.config import TrainConfig
from tasks.core.training.data.balanced_sampling import cells_of
from tasks.core.training.data.dataset import ImageDataset, TrainValidRows, load_images
from tasks.core.training.fit import FitResult, fit
from tasks.core.training.linear_probe import HeadOnly, fit_head
from tasks.core.training.strategy import Strategy
from tasks.core.training.validation import eligible_groups

HISTORY = "history.csv"
_NOT_TRAINABLE = ("onnx",)  # architectures
COEFFICIENTS = "coefficients.csv"


def train_and_save(
    stage: str,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    rows: TrainValidRows,
    seen_before: pd.DataFrame,
    recipe: TrainConfig,
    paths: Paths,
    strategy: Strategy | None = None,
) -> StageResult:
    """Train a network on rows of the split table and write it as models/<name>.

    Parameters
    ----------
    stage, name
        The stage (train or finetune) and the model (base, naive, head …).
    seen_before
        Images that the initial weights have seen, with `SEEN_COLUMNS`.
    strategy
        None: all layers, with every image's label.
    """
    work = paths.work(stage, _digest(name, recipe, spec, paths))
    train, validation = load_train_and_validation(rows, recipe, paths, spec)
    from_trained = stage == "finetune"
    strategy = strategy or Strategy()
    arguments = (module, spec, train, validation, recipe)
    if isinstance(strategy, HeadOnly):
        fitted = fit_head(*arguments, strategy, work, from_trained)
    else:
        fitted = fit(*arguments, strategy, work, from_trained)
    seen = pd.concat([seen_before, rows.seen(stage)], ignore_index=True)
    save_model_folder(paths, name, fitted.module, spec, seen, fitted.history)
    shutil.rmtree(work, ignore_errors=True)
    n_per_epoch = strategy.shown(len(rows.train))
    return _result(spec, rows, fitted, paths.model(name), recipe, n_per_epoch)


def load_train_and_validation(
    rows: TrainValidRows, recipe: TrainConfig, paths: Paths, spec: ModelSpec
) -> tuple[ImageDataset, ImageDataset]:
    """Load the training images with their cells and the validation images with their groups."""
    train, validation = (load_images(part, paths, spec) for part in (rows.train, rows.validation))
    if recipe.balance_by:
        train = replace(train, cells=cells_of(rows.train, recipe.balance_by))
    groups = eligible_groups(rows.validation, rows.by, rows.min_n)
    return train, replace(validation, groups=groups)


def save_model_folder(
    paths: Paths,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    seen: pd.DataFrame,
    history: pd.DataFrame,
    more: Mapping[str, pd.DataFrame] | None = None,
) -> ModelSpec:
    """Write a model's folder atomically and return its spec.

    `history` has no rows if nothing was trained. `more` are further tables by file name.
    """
    with atomic_folder(paths.model(name)) as fresh:
        return write_model(fresh, module, spec, seen, {HISTORY: history, **(more or {})}, paths)


def write_model(
    folder: Path,
    module: nn.Module,
    spec: ModelSpec,
    seen: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    paths: Paths,
) -> ModelSpec:
    """Write a model, tables by file name, and the crop settings into a folder."""
    spec = save_model(folder, module, spec, seen)
    for file, table in tables.items():
        write_csv(table, folder / file)
    shutil.copyfile(paths.crop_settings, folder / CROP_SETTINGS)
    return spec


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `folder` when the block succeeds.

    After an error the old folder is unchanged. Only rank 0 enters the block.
    """
    process.first_alone()
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def skip(paths: Paths, name: str, skipped: Skipped) -> StageResult:
    """Write skipped.json instead of models/<name>, with the reason."""
    process.first_alone()
    write_skipped(paths.model(name), skipped)
    return StageResult({"skipped": 1.0}, summary=f"skipped: {skipped.reason}")


def cannot_be_trained(spec: ModelSpec) -> str | None:
    """Return why a model's weights cannot be trained; None if they can."""
    if spec.architecture in _NOT_TRAINABLE:
        return f"the base model cannot be trained: its network is {spec.architecture}"
    return None


def _digest(name: str, recipe: TrainConfig, spec: ModelSpec, paths: Paths) -> str:
    """Return the name of the work folder; the training loop checks the rest."""
    parts = (name, recipe.model_dump_json(), spec.model_dump_json(), sha256_of(paths.split))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _result(
    spec: ModelSpec,
    rows: TrainValidRows,
    fitted: FitResult,
    folder: Path,
    recipe: TrainConfig,
    n_per_epoch: int,
) -> StageResult:
    history = fitted.history
    best = history.set_index("epoch").to_dict("index")[fitted.best_epoch]
    trained = history[history["epoch"] > 0]
    series: dict[str, Series] = {
        name: [
            (int(epoch), float(value))
            for epoch, value in zip(trained["epoch"], trained[name], strict=True)
        ]
        for name in ("train_loss", "valid_loss", "valid_recall_score", "valid_accuracy_score")
    }
    recall = float(best["valid_recall_score"])
    metrics = {
        "best_epoch": float(fitted.best_epoch),
        "valid_recall_score_at_best": recall,
        "valid_loss_at_best": float(best["valid_loss"]),
        "train_images": float(len(rows.train)),
        "train_images_per_epoch": float(n_per_epoch),
        "validation_images": float(len(rows.validation)),
        "left_out_images": float(rows.left_out),
        "train_seconds": fitted.seconds,
        "train_images_per_second": fitted.images_per_second,
    }
    summary = (
        f"{spec.architecture} on {n_per_epoch} pictures an epoch: {recipe.checkpoint} at epoch "
        f"{fitted.best_epoch} of {recipe.epochs}, mean validation recall {recall:.1%}"
    )
    if rows.by:
        summary += " of the worst group"
    if fitted.pieces > 1:
        summary += f"; batches in {fitted.pieces} pieces, to fit into memory"
    if rows.left_out:
        summary += f"; {rows.left_out} pictures left out, since the model lacks their label"
    return StageResult(metrics, series, [folder], summary)
