"""Stage `evaluate`: what a model says about every picture of the split table, once.

Reads data/split.parquet, the crops and models/<model>; writes data/predictions/<model>.parquet:
the split table with the columns `model`, `model_version`, `y_pred`, `p_<emotion>` for each label
of the model (in the vocabulary's order) and `seen_in_training`. Pictures of every split are asked
about, since the published protocol wants them all; `seen_in_training` tells which are held out: it
marks every picture of a subject of whom any picture had a part in the weights or in their choice.
"""

from typing import Annotated

from pydantic import Field

from tasks.core.labels import in_order
from tasks.core.models.checkpoint import load_seen
from tasks.core.models.device import make_repeatable
from tasks.core.models.recogniser import Recogniser
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.result import StageResult
from tasks.core.tables import MANIFEST_SCHEMA, check_conservation, read_table, write_table
from tasks.evaluate.in_batches import predict_crops


class Params(Section):
    """Section `evaluate` of params.yaml."""

    batch_size: Annotated[int, Field(ge=1)]
    device: str


def run(params: Params, paths: Paths, model: str) -> StageResult:
    """Ask models/<model> about every picture and write its predictions."""
    table = read_table(paths.split)
    recogniser = Recogniser.load(paths.model(model), params.device, params.batch_size)
    make_repeatable(recogniser.device)
    probabilities = predict_crops(recogniser, table, paths.crop_shards)
    check_conservation("evaluate", len(table), len(probabilities), 0)

    labels = recogniser.labels
    predictions = table.assign(
        model=model,
        model_version=recogniser.spec.version,
        y_pred=[labels[index] for index in probabilities.argmax(axis=1)],
        **{f"p_{label}": probabilities[:, labels.index(label)] for label in in_order(labels)},
    )
    seen = set(load_seen(paths.model(model))["subject_id"])
    predictions["seen_in_training"] = predictions["subject_id"].isin(seen)
    write_table(predictions, paths.predictions(model), MANIFEST_SCHEMA)

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
    return StageResult(metrics, artifacts=[paths.predictions(model)], summary=summary)
