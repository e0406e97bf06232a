"""Stage `study_run KEY`: one training of a study, as far as its file says.

Reads study/runs/KEY.yaml, data/split.parquet and the crops; writes study/results/KEY/: result.json
(what came out and what it cost), history.csv, validation.csv (the answers about the validation
pictures at the kept epoch) and, where the training went to its end, model/.

A training that stops before its end leaves its progress in work/study/, where the run that asks for
more epochs goes on; without it that run trains from the first epoch and ends with the same bits. A
training whose loss is no finite number any more is a result too: it says so, and its arm loses.
"""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field, model_validator
from torch import nn

from tasks.core import ranks
from tasks.core.errors import DivergedError, UserError
from tasks.core.files import write_text
from tasks.core.models.device import choose_device
from tasks.core.models.spec import ModelSpec
from tasks.core.params import Section, load_yaml, parse_section
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import read_table, write_csv
from tasks.train.loop import HISTORY_COLUMNS, Fitted, fit
from tasks.train.outcome import HISTORY, load_both, whole_folder, write_model
from tasks.train.pictures import Rows, choose_rows
from tasks.train.strategy import Strategy
from tasks.train.untrained import TrainParams, Untrained, labels_of, untrained

RESULT, VALIDATION, MODEL = "result.json", "validation.csv", "model"
GROUP = "study.group"  # the params key that the rows come from, for messages
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
        What of the study this is a training of.
    until
        The epoch after which to stop; `train.epochs` is where the training ends.
    train
        The whole recipe, as a section `train`.
    """

    round: Literal["backbones", "losses", "optimisers"]
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
        """Whether no run goes on from this one."""
        return self.until == self.train.epochs


def load_run(paths: Paths, key: str) -> Params:
    """Read a run's file; raises UserError where there is none of that key."""
    path = paths.study_run(key)
    if not _KEY.fullmatch(key) or not path.is_file():
        raise UserError(f"no run '{key}' in study/runs; `affectgap study` writes them")
    return parse_section(key, {key: load_yaml(path)}, Params, path)


def run(params: Params, paths: Paths, key: str) -> StageResult:
    """Train until the run's epoch and write study/results/KEY."""
    rows = choose_rows(read_table(paths.split), params.train.group, GROUP, labels=None)
    labels = labels_of(rows, GROUP)
    first = untrained(params.train, labels, rows.train["dataset"], paths)
    work = _work(paths, key)
    facts = _facts(params, first.module, rows)
    try:
        fitted = _fit(params, first, rows, paths, work)
    except DivergedError as error:
        ranks.first_alone()
        _write_failed(paths.study_result(key), facts, error)
        shutil.rmtree(work, ignore_errors=True)
        return StageResult({"failed": 1.0}, summary=f"{_name(params)}: {error}")
    facts |= _figures(fitted, rows, first.spec)
    with whole_folder(paths.study_result(key)) as folder:
        _write(folder, facts, fitted.history, _answers(rows, fitted, first.spec))
        if params.to_the_end:
            seen = pd.concat([first.seen, rows.seen("train")], ignore_index=True)
            tables = {HISTORY: fitted.history}
            write_model(folder / MODEL, fitted.module, first.spec, seen, tables, paths)
    if params.to_the_end:
        shutil.rmtree(work, ignore_errors=True)
    return _result(params, facts, fitted.history, paths.study_result(key))


def _work(paths: Paths, key: str) -> Path:
    """Return where progress is kept: one folder for all runs that go on from each other."""
    found = _KEY.fullmatch(key)
    assert found is not None  # load_run looked
    return paths.at(f"work/study/{found['home']}")


def _fit(params: Params, first: Untrained, rows: Rows, paths: Paths, work: Path) -> Fitted:
    train, validation = load_both(rows, params.train, paths, first.spec)
    return fit(
        first.module,
        first.spec,
        train,
        validation,
        params.train,
        Strategy(),
        work,
        from_trained=False,
        until=params.until,
    )


def _facts(params: Params, module: nn.Module, rows: Rows) -> dict[str, Any]:
    """Collect what is known before the training, and would be there without its end."""
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
        "train_pictures": len(rows.train),
        "validation_pictures": len(rows.validation),
        "train_seconds": 0.0,
        "failed": None,
    }


def _device(name: str) -> str:
    device = choose_device(name)
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _figures(fitted: Fitted, rows: Rows, spec: ModelSpec) -> dict[str, Any]:
    """Collect what the training came to at the kept epoch."""
    kept = fitted.history.set_index("epoch").loc[fitted.best_epoch]
    loss = float(kept["valid_loss"])
    return {
        "train_seconds": round(fitted.seconds, 3),
        "pictures_per_second": round(fitted.pictures_per_second, 2),
        "kept_epoch": fitted.best_epoch,
        "valid_recall_score": float(kept["valid_recall_score"]),
        "valid_accuracy_score": float(kept["valid_accuracy_score"]),
        "valid_loss": loss if math.isfinite(loss) else None,
        "labels": list(spec.labels),
        "batch_pieces": fitted.pieces,
    }


def _answers(rows: Rows, fitted: Fitted, spec: ModelSpec) -> pd.DataFrame:
    table = rows.validation[list(VALIDATION_COLUMNS)]
    return table.assign(y_pred=np.array(spec.labels)[fitted.found])


def _write(
    folder: Path, facts: dict[str, Any], history: pd.DataFrame, answers: pd.DataFrame
) -> None:
    write_csv(history, folder / HISTORY)
    write_csv(answers, folder / VALIDATION)
    write_text(folder / RESULT, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")


def _write_failed(folder: Path, facts: dict[str, Any], error: DivergedError) -> None:
    with whole_folder(folder) as fresh:
        history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
        answers = pd.DataFrame(columns=[*VALIDATION_COLUMNS, "y_pred"])
        _write(fresh, {**facts, "failed": str(error)}, history, answers)


def _name(params: Params) -> str:
    return f"{params.arm}, seed {params.seed}"


def _result(
    params: Params, facts: dict[str, Any], history: pd.DataFrame, folder: Path
) -> StageResult:
    names = [name for name in HISTORY_COLUMNS if name != "epoch"]
    curves = {
        name: [(int(e), float(v)) for e, v in zip(history["epoch"], history[name], strict=True)]
        for name in names
    }
    metrics = {
        name: float(facts[name])
        for name in ("parameters", "train_seconds", "pictures_per_second", "kept_epoch", *names[1:])
        if facts[name] is not None
    }
    summary = (
        f"{_name(params)}: mean validation recall {facts['valid_recall_score']:.1%} after epoch "
        f"{params.until} of {params.train.epochs}"
    )
    artifacts = [folder / name for name in (RESULT, HISTORY, VALIDATION)]
    return StageResult(metrics, curves, artifacts, summary)
