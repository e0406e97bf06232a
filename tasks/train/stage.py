"""Stage `train`: the base model.

Reads data/split.parquet and the crops; writes models/base and the figure of the network's training
input. Trains `backbone` with a fresh head from random, ImageNet or an existing model's weights
(`start`) on a group of the training split, and selects an epoch on the same group of the validation
split. If `weights` names a model, that model is used unchanged and the other params are ignored.
The labels of a trained model are the emotions among its training rows, in the vocabulary's order.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import read_table
from tasks.core.training.data.dataset import choose_rows
from tasks.core.training.fit import HISTORY_COLUMNS
from tasks.core.training.train_model import (
    load_train_and_validation,
    save_model_folder,
    train_and_save,
)
from tasks.train.augmentation_figure import augmentation_figure, placeholder_figure
from tasks.train.initial_model import TrainParams as Params
from tasks.train.initial_model import build_initial_model, labels_of
from tasks.train.pretrained.external_model import load_external_model


def run(params: Params, paths: Paths) -> StageResult:
    """Train (or import) the base model into models/base."""
    if params.weights is not None:
        return _import_model(params.weights, paths)
    rows = choose_rows(read_table(paths.split), params.subset, "train.subset", labels=None)
    labels = labels_of(rows, "train.subset")
    initial = build_initial_model(params, labels, rows.train["dataset"], paths)
    result = train_and_save(
        "train", "base", initial.module, initial.spec, rows, initial.seen, params, paths
    )
    train, _ = load_train_and_validation(rows, params, paths, initial.spec)
    augmentation_figure(train, rows.train, initial.spec, params, paths, _sheet(paths))
    summary = "; ".join(filter(None, (result.summary, initial.note)))
    return replace(result, artifacts=[*result.artifacts, _sheet(paths)], summary=summary)


def _import_model(weights: str, paths: Paths) -> StageResult:
    external = load_external_model(weights, paths.root)
    note = external.margin.compare(paths.crop_settings)
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    # In this run it is the base model, whatever stage trained it.
    seen = external.seen.assign(stage="train")
    spec = save_model_folder(paths, "base", external.module, external.spec, seen, history)
    placeholder_figure(f"the base model is {weights}, used unchanged.", _sheet(paths))
    return StageResult(
        metrics={"epochs": 0.0, "labels": float(len(spec.labels))},
        artifacts=[paths.model("base"), _sheet(paths)],
        summary="; ".join(
            filter(None, (f"{weights}, version {spec.version}; nothing was trained", note))
        ),
    )


def _sheet(paths: Paths) -> Path:
    return paths.figures / "augmentation.png"
