"""Stage `evaluate`: what a model says about every image of the split table, once.

Reads data/split.parquet, the crops and models/<model>; writes data/predictions/<model>.parquet:
the split table with the columns `model`, `model_version`, `y_pred`, `p_<emotion>` for each label
of the model (in the vocabulary's order), `seen_in_training` and `is_target_group`. Images of every
split are asked about, since the published protocol wants them all; `seen_in_training` tells which
are held out: it marks every image of a subject of whom any image had a part in the weights or
in their choice (of the epoch, the coefficient or the strategy). `is_target_group` marks the images
themselves that the weights were fine-tuned to as the group's own, without those that were only
replayed. A model that was skipped gives an empty table.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from tasks.core.labels import in_order
from tasks.core.models.checkpoint import FINETUNE, empty_seen_table, load_seen, read_skipped
from tasks.core.models.device import make_deterministic
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import MANIFEST_SCHEMA, check_conservation, read_table, write_table
from tasks.evaluate.batch_prediction import PredictionJob, predict_rows


class Params(Section):
    """Section `evaluate` of params.yaml."""

    batch_size: Annotated[int, Field(ge=1)]
    device: str


def run(params: Params, paths: Paths, model: str) -> StageResult:
    """Predict every image with models/<model> and write the predictions."""
    table = read_table(paths.split)
    skipped = read_skipped(paths.model(model))
    if skipped:
        nothing = np.zeros((0, len(skipped.labels)), dtype=np.float32)
        empty = _predictions(table.iloc[:0], model, "", skipped.labels, nothing, empty_seen_table())
        write_table(empty, paths.predictions(model), MANIFEST_SCHEMA)
        return StageResult({"pictures": 0.0}, summary=f"no pictures, since {skipped.reason}")
    recognizer = EmotionClassifier.load(paths.model(model), params.device, params.batch_size)
    make_deterministic(recognizer.device)
    how = (paths.crop_shards, params.device, params.batch_size, torch.get_num_threads())
    asked = PredictionJob(paths.model(model), recognizer.spec.model_dump_json(), *how)
    probabilities = predict_rows(recognizer, table, asked)
    check_conservation("evaluate", len(table), len(probabilities), 0)

    labels = recognizer.labels
    seen = load_seen(paths.model(model))
    version = recognizer.spec.version
    predictions = _predictions(table, model, version, labels, probabilities, seen)
    write_table(predictions, paths.predictions(model), MANIFEST_SCHEMA)
    return _result(predictions, labels, paths.predictions(model))


def _predictions(
    table: pd.DataFrame,
    model: str,
    version: str,
    labels: Sequence[str],
    probabilities: np.ndarray,
    seen: pd.DataFrame,
) -> pd.DataFrame:
    """Add what a model says, `(rows, K)` in the order of `labels`, to the split table."""
    answers = [labels[index] for index in probabilities.argmax(axis=1)] if len(table) else []
    fitted = seen[(seen["stage"] == FINETUNE) & (seen["role"] == "train")]
    return table.assign(
        model=pd.Series(model, table.index, dtype="str"),
        model_version=pd.Series(version, table.index, dtype="str"),
        y_pred=pd.Series(answers, table.index, dtype="str"),
        **{f"p_{label}": probabilities[:, labels.index(label)] for label in in_order(labels)},
        seen_in_training=table["subject_id"].isin(seen["subject_id"]),
        is_target_group=table["image_id"].isin(fitted["image_id"]),
    )


def _result(predictions: pd.DataFrame, labels: Sequence[str], artifact: Path) -> StageResult:
    known = predictions["emotion"].isin(labels)
    held_out = predictions[known & (predictions["split"] == "test")]
    metrics = {
        "pictures": float(len(predictions)),
        "pictures_of_unknown_label": float((~known).sum()),
        "seen_in_training": float(predictions["seen_in_training"].sum()),
    }
    summary = f"{len(predictions)} pictures"
    if len(held_out):
        accuracy = float((held_out["y_pred"] == held_out["emotion"]).mean())
        metrics["test_accuracy"] = accuracy
        summary += f"; of {len(held_out)} in the test split {accuracy:.1%} read right"
    return StageResult(metrics, artifacts=[artifact], summary=summary)
