"""Stage `train`: the base recogniser.

Reads data/split.parquet and the crops; writes models/base, and the figure of what the network is
shown in training. Trains `backbone` from random weights, from those of ImageNet or from those of a
model that is there already, with a fresh head (`start`), on a group of the training split, and
keeps an epoch by the same group of the validation split; or, where `weights` names a model, takes
that one as it is and trains nothing (then only `weights` matters: start, backbone, size, colour,
epochs and the rest are not used). The labels of a model that is trained are the emotions among its
training rows, in the vocabulary's order.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from tasks.core.models.given import load_given
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import read_table
from tasks.train.augmentation_sheet import augmentation_sheet, nothing_trained
from tasks.train.loop import HISTORY_COLUMNS
from tasks.train.outcome import fit_and_keep, keep_model, load_both
from tasks.train.pictures import choose_rows
from tasks.train.untrained import TrainParams as Params
from tasks.train.untrained import labels_of, untrained


def run(params: Params, paths: Paths) -> StageResult:
    """Train (or convert) the base model into models/base."""
    if params.weights is not None:
        return _take_over(params.weights, paths)
    rows = choose_rows(read_table(paths.split), params.group, "train.group", labels=None)
    labels = labels_of(rows, "train.group")
    first = untrained(params, labels, rows.train["dataset"], paths)
    result = fit_and_keep(
        "train", "base", first.module, first.spec, rows, first.seen, params, paths
    )
    shown, _ = load_both(rows, params, paths, first.spec)
    augmentation_sheet(shown, rows.train, first.spec, params, paths, _sheet(paths))
    summary = "; ".join(filter(None, (result.summary, first.note)))
    return replace(result, artifacts=[*result.artifacts, _sheet(paths)], summary=summary)


def _take_over(weights: str, paths: Paths) -> StageResult:
    given = load_given(weights, paths.root)
    note = given.margin.compare(paths.crop_settings)
    history = pd.DataFrame(columns=list(HISTORY_COLUMNS))
    # Whatever it was trained as: in this run it is the base model.
    seen = given.seen.assign(stage="train")
    spec = keep_model(paths, "base", given.module, given.spec, seen, history)
    nothing_trained(f"the base model is {weights}, taken as it is.", _sheet(paths))
    return StageResult(
        metrics={"epochs": 0.0, "labels": float(len(spec.labels))},
        artifacts=[paths.model("base"), _sheet(paths)],
        summary="; ".join(
            filter(None, (f"{weights}, version {spec.version}; nothing was trained", note))
        ),
    )


def _sheet(paths: Paths) -> Path:
    return paths.figures / "augmentation.png"
