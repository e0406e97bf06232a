"""The scheduled full audit: the model in use on all present images, by group.

New images are processed up to the split table first; nothing is trained. The rest equals `affectgap
audit` on any system's predictions.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from flows.pipeline.dvc_graph import changed_stages
from flows.pipeline.dvc_repair import try_lock
from flows.pipeline.flow import reproduce
from flows.registry.gate_inputs import crops_for
from flows.retraining.retrain import pass_lock
from tasks.audit.csv_audit.audit_csv import audit_csv
from tasks.audit.settings import Settings
from tasks.core.errors import BusyError, UserError
from tasks.core.labels import in_order
from tasks.core.models.checkpoint import load_seen
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv
from tasks.core.terminal import Console
from tasks.core.tracking import mlflow_runs
from tasks.crop.settings import model_crop_settings
from tasks.evaluate.stage import Params as EvaluateParams
from tasks.register.registry import champion, fetch
from tasks.register.versions import Version

_BUSY = "a run or a study is at work here; audit when it is done"
_LEFT_OUT = ("path", "sha256", "shard", "offset_bytes", "size_bytes", "box_xyxy_px")
_LEFT_OUT += ("landmarks_xy_px", "emotion_raw")


def full_audit(paths: Paths) -> list[str]:
    """Audit the model in use on all images, into reports/full_audit/<date>/.

    Raises BusyError while a pass or a run is active here, since it changes what an audit reads, and
    UserError if no model is in use or the data cannot be read.
    """
    with pass_lock(paths):
        version = champion(paths)
        if version is None:
            raise UserError("no model is in use; `affectgap retrain` trains the first one")
        if changed := changed_stages(paths.root, "split"):
            reproduce(paths, "split", changed, Console(file=sys.stdout, width=120), quiet=True)
        with try_lock(paths) as free:
            if not free:
                raise BusyError(f"{paths.root}: {_BUSY}")
            return _audit(paths, version)


def _audit(paths: Paths, version: Version) -> list[str]:
    """Write the audit; the caller holds the locks of a pass and of a run."""
    folder = paths.at(f"reports/full_audit/{datetime.now(UTC):%Y-%m-%d}")
    predictions = _predictions(paths, version)
    write_csv(predictions, folder / "predictions.csv")
    settings = load_section(paths.params, "audit", Settings)
    bands = load_yaml(paths.params)["ingest"]["age_bands"]
    with mlflow_runs.open_run(
        paths, "full_audit", {"version": version.number}, "full_audit"
    ) as run:
        written = audit_csv(folder / "predictions.csv", folder, settings, None, [], bands)
        for path in written.paths:
            run.log_artifact(path)
    n_answered = int((predictions["y_pred"] != "").sum())
    n_unanswered = len(predictions) - n_answered
    counts = f"{n_answered} pictures, {n_unanswered} more without an answer"
    return [f"full audit: version {version.number} on {counts}: {folder / 'audit.md'}"]


def _predictions(paths: Paths, version: Version) -> pd.DataFrame:
    """Return one row per image with the model's answer, empty if no face was found."""
    from tasks.core.models.device import make_deterministic
    from tasks.core.models.predictor import EmotionClassifier
    from tasks.evaluate.batch_prediction import predict_crops

    folder = fetch(paths, version.number)
    params = load_section(paths.params, "evaluate", EvaluateParams)
    model = EmotionClassifier.load(folder, params.device, params.batch_size)
    make_deterministic(model.device)
    table, shards = _images_with_crops(paths, folder)
    probabilities = predict_crops(model, table, shards)
    labels = list(model.labels)
    answers = pd.DataFrame(
        {f"p_{label}": probabilities[:, labels.index(label)] for label in in_order(labels)}
    ).assign(
        image_id=table["image_id"].to_numpy(),
        y_pred=[labels[index] for index in probabilities.argmax(axis=1)],
    )
    images = _checked_images(paths).merge(answers, on="image_id", how="left", validate="1:1")
    has_label = images["emotion"].isin(labels)  # the model cannot answer any other label
    seen = load_seen(folder)["subject_id"]
    # An image of an unknown subject has an id of its own in the manifest, which names no person.
    named = images["subject_known"].astype(bool)
    return images[has_label].assign(
        model=f"version {version.number}",
        y_pred=images["y_pred"].fillna(""),
        seen_in_training=images["subject_id"].isin(seen),
        subject_id=images["subject_id"].where(named, ""),
    )


def _images_with_crops(paths: Paths, folder: Path) -> tuple[pd.DataFrame, Path]:
    """Return the images with a crop as the model needs it, and the folder of shards."""
    split = read_table(paths.split)
    places, shards = crops_for(paths, model_crop_settings(folder), split)
    return places[["image_id", "shard", "offset_bytes", "size_bytes"]], shards


def _checked_images(paths: Paths) -> pd.DataFrame:
    """Return every checked image, with the columns of the crops where there is one."""
    checked, split = read_table(paths.checked), read_table(paths.split)
    added = [name for name in split.columns if name not in checked.columns]
    table = checked.merge(split[["image_id", *added]], on="image_id", how="left", validate="1:1")
    return table.drop(columns=[name for name in _LEFT_OUT if name in table.columns])
