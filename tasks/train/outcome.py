"""From chosen rows to a model's folder: find the pixels, fit, keep, and say what came out."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core import ranks
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import CROP_SETTINGS, Paths
from tasks.core.result import Series, StageResult
from tasks.core.skipped import Skipped, write_skipped
from tasks.core.tables import write_csv
from tasks.train.balance import cells_of
from tasks.train.features import fit_head
from tasks.train.groups import counting_groups
from tasks.train.head_only import HeadOnly
from tasks.train.loop import Fitted, fit
from tasks.train.pictures import Pictures, Rows, load_pictures
from tasks.train.recipe import Recipe
from tasks.train.strategy import Strategy

HISTORY = "history.csv"
_FIXED = ("onnx",)  # architectures whose weights cannot be changed


def fit_and_keep(
    stage: str,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    rows: Rows,
    seen_before: pd.DataFrame,
    recipe: Recipe,
    paths: Paths,
    strategy: Strategy | None = None,
) -> StageResult:
    """Train a network on rows of the split table and write it as models/<name>.

    Parameters
    ----------
    stage, name
        The stage (train or finetune) and the model (base, naive, head …).
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
    strategy
        What is fitted to what; None: all layers to every picture's label.
    """
    work = paths.work(stage, _digest(name, recipe, spec, paths))
    train, validation = load_both(rows, recipe, paths, spec)
    from_trained = stage == "finetune"
    strategy = strategy or Strategy()
    how = (module, spec, train, validation, recipe)
    if isinstance(strategy, HeadOnly):
        fitted = fit_head(*how, strategy, work, from_trained)
    else:
        fitted = fit(*how, strategy, work, from_trained)
    seen = pd.concat([seen_before, rows.seen(stage)], ignore_index=True)
    keep_model(paths, name, fitted.module, spec, seen, fitted.history)
    shutil.rmtree(work, ignore_errors=True)
    shown = strategy.shown(len(rows.train))
    return _result(spec, rows, fitted, paths.model(name), recipe, shown)


def load_both(
    rows: Rows, recipe: Recipe, paths: Paths, spec: ModelSpec
) -> tuple[Pictures, Pictures]:
    """Find the pictures to train on, with their cells, and to validate on, with their groups."""
    train, validation = (load_pictures(part, paths, spec) for part in (rows.train, rows.validation))
    if recipe.balance:
        train = replace(train, cells=cells_of(rows.train, recipe.balance))
    groups = counting_groups(rows.validation, rows.by, rows.min_n)
    return train, replace(validation, groups=groups)


def keep_model(
    paths: Paths,
    name: str,
    module: nn.Module,
    spec: ModelSpec,
    seen: pd.DataFrame,
    history: pd.DataFrame,
    more: Mapping[str, pd.DataFrame] | None = None,
) -> ModelSpec:
    """Write a model's folder beside its place and move it there whole; return its spec.

    Parameters
    ----------
    paths, name
        The project's paths, and the model.
    module, spec, seen
        As for `save_model`.
    history
        The training's history, without rows where nothing was trained.
    more
        Further tables for the folder, by file name.
    """
    with whole_folder(paths.model(name)) as fresh:
        return write_model(fresh, module, spec, seen, {HISTORY: history, **(more or {})}, paths)


def write_model(
    folder: Path,
    module: nn.Module,
    spec: ModelSpec,
    seen: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    paths: Paths,
) -> ModelSpec:
    """Write a model, tables by file name, and how the crops were cut, into a folder."""
    spec = save_model(folder, module, spec, seen)
    for file, table in tables.items():
        write_csv(table, folder / file)
    shutil.copyfile(paths.crop_settings, folder / CROP_SETTINGS)
    return spec


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a path beside a folder to write it at; it takes the folder's place when all is done.

    After an error the old folder is as it was. Of several processes the first alone gets here.
    """
    ranks.first_alone()
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        yield fresh
        shutil.rmtree(folder, ignore_errors=True)
        fresh.replace(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def skip(paths: Paths, name: str, skipped: Skipped) -> StageResult:
    """Write that models/<name> was not made, and why."""
    ranks.first_alone()
    write_skipped(paths.model(name), skipped)
    return StageResult({"skipped": 1.0}, summary=f"skipped: {skipped.reason}")


def cannot_be_trained(spec: ModelSpec) -> str | None:
    """Say why a model's weights cannot be changed; None where they can."""
    if spec.architecture in _FIXED:
        return f"the base model cannot be trained: its network is {spec.architecture}"
    return None


def _digest(name: str, recipe: Recipe, spec: ModelSpec, paths: Paths) -> str:
    """Name the folder for progress after what is trained on what; the loop checks the rest."""
    parts = (name, recipe.model_dump_json(), spec.model_dump_json(), sha256_of(paths.split))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _result(
    spec: ModelSpec, rows: Rows, fitted: Fitted, folder: Path, recipe: Recipe, shown: int
) -> StageResult:
    history = fitted.history
    best = history.set_index("epoch").loc[fitted.best_epoch]
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
        "train_pictures": float(len(rows.train)),
        "train_pictures_an_epoch": float(shown),
        "validation_pictures": float(len(rows.validation)),
        "left_out_pictures": float(rows.left_out),
        "train_seconds": fitted.seconds,
        "train_pictures_per_second": fitted.pictures_per_second,
    }
    summary = (
        f"{spec.architecture} on {shown} pictures an epoch: {recipe.keep} at epoch "
        f"{fitted.best_epoch} of {recipe.epochs}, mean validation recall {recall:.1%}"
    )
    if rows.by:
        summary += " of the worst group"
    if fitted.pieces > 1:
        summary += f"; batches in {fitted.pieces} pieces, to fit into memory"
    if rows.left_out:
        summary += f"; {rows.left_out} pictures left out, since the model lacks their label"
    return StageResult(metrics, series, [folder], summary)
