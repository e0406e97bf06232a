"""Stage `study_run KEY`: one training of a study, and the checks of its search space.

Reads study/runs/KEY.yaml, data/split.parquet and the crops; writes study/results/KEY/: result.json
(result and cost), history.csv, validation.csv (predictions on the validation images at the selected
epoch) and, after the last epoch, model/.

A training that stops early leaves its state in work/study/, and the run that asks for more epochs
resumes from it. Without that state the run trains from the first epoch and ends with the same bits.
A training that diverges is recorded as failed, and its arm loses.

The search space is checked before the first run. A study may take days; a misspelled loss or an
unavailable weights file must not end it in the last round. Weights that need downloading are
downloaded here.
"""

import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import nn

from tasks.core.errors import (
    DataError,
    DivergedError,
    DownloadError,
    ModelError,
    ParamsError,
    UserError,
)
from tasks.core.files import write_text
from tasks.core.models.device import choose_device
from tasks.core.models.spec import ModelSpec, select_rows
from tasks.core.parallel import process
from tasks.core.params import Section, load_yaml, parse_section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import read_table, write_csv
from tasks.core.training.config import LossName, OptimizerName
from tasks.core.training.data.dataset import TrainValidRows, choose_rows
from tasks.core.training.fit import HISTORY_COLUMNS, FitResult, fit
from tasks.core.training.strategy import Strategy
from tasks.core.training.train_model import (
    HISTORY,
    atomic_folder,
    load_train_and_validation,
    write_model,
)
from tasks.train.initial_model import InitialModel, TrainParams, build_initial_model, labels_of

RESULT, VALIDATION, MODEL = "result.json", "validation.csv", "model"
GROUP = "study.subset"  # the params key that the rows come from, for messages
VALIDATION_COLUMNS: tuple[str, ...] = (
    "image_id",
    "subject_id",
    "subject_known",
    "age_band",
    "gender",
    "emotion",
)
_KEY = re.compile(r"(?P<home>[A-Za-z0-9._-]+)-e\d+")


class Params(Section):
    """The content of study/runs/KEY.yaml.

    Attributes
    ----------
    round, arm, seed
        Position of the run in the study.
    until
        The epoch after which to stop; training ends at `train.epochs`.
    train
        A complete section `train`.
    """

    round: Literal["backbones", "losses", "optimizers"]
    arm: str
    seed: Annotated[int, Field(ge=0)]
    until: Annotated[int, Field(ge=1)]
    train: TrainParams

    @model_validator(mode="after")
    def _ends(self) -> "Params":
        if self.until > self.train.epochs:
            raise ValueError("until lies beyond the last epoch")
        return self

    @property
    def to_the_end(self) -> bool:
        """Whether the run trains to the last epoch."""
        return self.until == self.train.epochs


def load_run(paths: Paths, key: str) -> Params:
    """Read a run's file; raise UserError if there is none."""
    path = paths.study_run(key)
    if not _KEY.fullmatch(key) or not path.is_file():
        raise UserError(f"no run '{key}' in study/runs; `affectgap study` writes them")
    return parse_section(key, {key: load_yaml(path)}, Params, path)


def run(params: Params, paths: Paths, key: str) -> StageResult:
    """Train up to the run's epoch and write study/results/KEY."""
    rows = choose_rows(read_table(paths.split), params.train.subset, GROUP, labels=None)
    labels = labels_of(rows, GROUP)
    initial = build_initial_model(params.train, labels, rows.train["dataset"], paths)
    work = _work(paths, key)
    record = _initial_record(params, initial.module, rows)
    try:
        fitted = _fit(params, initial, rows, paths, work)
    except DivergedError as error:
        process.first_alone()
        _write_failed(paths.study_result(key), record, error)
        shutil.rmtree(work, ignore_errors=True)
        return StageResult({"failed": 1.0}, summary=f"{_name(params)}: {error}")
    record |= _scores(fitted, rows, initial.spec)
    with atomic_folder(paths.study_result(key)) as folder:
        _write(folder, record, fitted.history, _predictions(rows, fitted, initial.spec))
        if params.to_the_end:
            seen = pd.concat([initial.seen, rows.seen("train")], ignore_index=True)
            tables = {HISTORY: fitted.history}
            write_model(folder / MODEL, fitted.module, initial.spec, seen, tables, paths)
    if params.to_the_end:
        shutil.rmtree(work, ignore_errors=True)
    return _result(params, record, fitted.history, paths.study_result(key))


def _work(paths: Paths, key: str) -> Path:
    """Return the state folder, shared by all runs that continue one another."""
    match = _KEY.fullmatch(key)
    assert match is not None  # checked by load_run
    return paths.at(f"work/study/{match['home']}")


def _fit(
    params: Params, initial: InitialModel, rows: TrainValidRows, paths: Paths, work: Path
) -> FitResult:
    train, validation = load_train_and_validation(rows, params.train, paths, initial.spec)
    return fit(
        initial.module,
        initial.spec,
        train,
        validation,
        params.train,
        Strategy(),
        work,
        from_trained=False,
        until=params.until,
    )


def _initial_record(params: Params, module: nn.Module, rows: TrainValidRows) -> dict[str, Any]:
    """Return the fields of result.json that are known before training."""
    return {
        "round": params.round,
        "arm": params.arm,
        "seed": params.seed,
        "until": params.until,
        "epochs": params.train.epochs,
        "backbone": params.train.backbone,
        "parameters": sum(weight.numel() for weight in module.parameters()),
        "input_size_px": params.train.input_size_px,
        "device": _device(params.train.device),
        "train_images": len(rows.train),
        "validation_images": len(rows.validation),
        "train_seconds": 0.0,
        "failed": None,
    }


def _device(name: str) -> str:
    device = choose_device(name)
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _scores(fitted: FitResult, rows: TrainValidRows, spec: ModelSpec) -> dict[str, Any]:
    """Return the results at the selected epoch."""
    selected = fitted.history.set_index("epoch").loc[fitted.best_epoch]
    loss = float(selected["valid_loss"])
    return {
        "train_seconds": round(fitted.seconds, 3),
        "images_per_second": round(fitted.images_per_second, 2),
        "kept_epoch": fitted.best_epoch,
        "valid_recall_score": float(selected["valid_recall_score"]),
        "valid_accuracy_score": float(selected["valid_accuracy_score"]),
        "valid_loss": loss if math.isfinite(loss) else None,
        "labels": list(spec.labels),
        "batch_pieces": fitted.pieces,
    }


def _predictions(rows: TrainValidRows, fitted: FitResult, spec: ModelSpec) -> pd.DataFrame:
    table = rows.validation[list(VALIDATION_COLUMNS)]
    return table.assign(y_pred=np.array(spec.labels)[fitted.found])


def _write(
    folder: Path, record: dict[str, Any], history: pd.DataFrame, predictions: pd.DataFrame
) -> None:
    write_csv(history, folder / HISTORY)
    write_csv(predictions, folder / VALIDATION)
    write_text(folder / RESULT, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _write_failed(folder: Path, record: dict[str, Any], error: DivergedError) -> None:
    with atomic_folder(folder) as fresh:
        history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
        predictions = pd.DataFrame(columns=[*VALIDATION_COLUMNS, "y_pred"])
        _write(fresh, {**record, "failed": str(error)}, history, predictions)


def _name(params: Params) -> str:
    return f"{params.arm}, seed {params.seed}"


def _result(
    params: Params, record: dict[str, Any], history: pd.DataFrame, folder: Path
) -> StageResult:
    names = [name for name in HISTORY_COLUMNS if name != "epoch"]
    curves = {
        name: [(int(e), float(v)) for e, v in zip(history["epoch"], history[name], strict=True)]
        for name in names
    }
    metrics = {
        name: float(record[name])
        for name in ("parameters", "train_seconds", "images_per_second", "kept_epoch", *names[1:])
        if record[name] is not None
    }
    summary = (
        f"{_name(params)}: mean validation recall {record['valid_recall_score']:.1%} after epoch "
        f"{params.until} of {params.train.epochs}"
    )
    artifacts = [folder / name for name in (RESULT, HISTORY, VALIDATION)]
    return StageResult(metrics, curves, artifacts, summary)


def check_names(losses: Sequence[str], optimizers: Sequence[str]) -> None:
    """Check that the losses and optimizers exist; raise ParamsError otherwise."""
    choices = (("losses", losses, LossName), ("optimizers", optimizers, OptimizerName))
    for key, names, known in choices:
        for name in names:
            if name not in get_args(known):
                raise ParamsError(
                    f"study.{key}: there is no '{name}'; there are {', '.join(get_args(known))}"
                )


def check_recipe(train: Mapping[str, Any], paths: Paths) -> TrainParams:
    """Parse a section `train`; raise ParamsError if it is invalid."""
    return parse_section("train", {"train": train}, TrainParams, paths.params)


def check_trainable(recipes: Sequence[Mapping[str, Any]], paths: Paths) -> None:
    """Check that every split has images and that every network can be built.

    `recipes` holds a complete section `train` per backbone. Errors (ParamsError, DataError,
    ModelError, DownloadError) are one line that names the key of section `study`.
    """
    table = read_table(paths.split)
    for recipe in recipes:
        params = check_recipe(recipe, paths)
        rows = choose_rows(table, params.subset, GROUP, labels=None)
        labels = labels_of(rows, GROUP)
        test_rows = select_rows(
            table[table["split"] == "test"], params.subset, f"{GROUP} (test split)"
        )
        if not test_rows["emotion"].isin(labels).any():
            raise DataError(f"{GROUP}: no test picture shows {', '.join(labels)}")
        try:
            build_initial_model(params, labels, rows.train["dataset"], paths)
        except (ModelError, ParamsError, DownloadError) as error:
            raise type(error)(f"study.backbones, {params.backbone}: {error}") from None
