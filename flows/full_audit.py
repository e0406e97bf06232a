"""The weekly full audit: the model in use on all pictures that are there, by group.

New pictures are brought as far as the split table first; nothing is trained. The rest is what
`affectgap audit` does with any system's predictions: a CSV, and tables and figures made of it.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from flows.dvc_graph import changed_stages
from flows.gate import crops_for
from flows.mending import if_alone
from flows.reproduce import reproduce
from flows.retrain import BusyError, alone_here
from tasks.audit.from_csv import audit_csv
from tasks.audit.settings import Settings
from tasks.core import tracking
from tasks.core.errors import UserError
from tasks.core.labels import in_order
from tasks.core.models.checkpoint import load_seen
from tasks.core.params import load_section, load_yaml
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv
from tasks.core.terminal import Console
from tasks.crop.settings import settings_of_model
from tasks.evaluate.stage import Params as EvaluateParams
from tasks.register.registry import Version, champion, fetch

_BUSY = "a run or a study is at work here; audit when it is done"
_LEFT_OUT = ("path", "sha256", "shard", "offset_bytes", "size_bytes", "box_xyxy_px")
_LEFT_OUT += ("landmarks_xy_px", "emotion_raw")


def full_audit(paths: Paths) -> list[str]:
    """Audit the model in use on everything that is there.

    Parameters
    ----------
    paths
        The project's paths; tables, figures and audit.md go to reports/full_audit/<date>/.

    Returns
    -------
    list of str
        What was audited and where it is.

    Raises
    ------
    BusyError
        One line, where a pass or a run is at work here: it changes what an audit reads.
    UserError
        One line: no model is in use, or the data cannot be read.
    """
    with alone_here(paths):
        version = champion(paths)
        if version is None:
            raise UserError("no model is in use; `affectgap retrain` trains the first one")
        if changed := changed_stages(paths.root, "split"):
            reproduce(paths, "split", changed, Console(file=sys.stdout, width=120), quiet=True)
        with if_alone(paths) as free:
            if not free:
                raise BusyError(f"{paths.root}: {_BUSY}")
            return _audit(paths, version)


def _audit(paths: Paths, version: Version) -> list[str]:
    """See `full_audit`; the locks of a pass and of a run are held: nothing read is replaced."""
    folder = paths.at(f"reports/full_audit/{datetime.now(UTC):%Y-%m-%d}")
    predictions = _predictions(paths, version)
    write_csv(predictions, folder / "predictions.csv")
    settings = load_section(paths.params, "audit", Settings)
    bands = load_yaml(paths.params)["ingest"]["age_bands"]
    with tracking.open_run(paths, "full_audit", {"version": version.number}, "full_audit") as run:
        written = audit_csv(folder / "predictions.csv", folder, settings, None, [], bands)
        for path in written.paths:
            run.log_artifact(path)
    asked = int((predictions["y_pred"] != "").sum())
    missed = len(predictions) - asked
    told = f"version {version.number} on {asked} pictures, {missed} more without an answer"
    return [f"full audit: {told}: {folder / 'audit.md'}"]


def _predictions(paths: Paths, version: Version) -> pd.DataFrame:
    """Ask a version about every picture; one without a face has no answer, and is counted so."""
    from tasks.core.models.device import make_repeatable
    from tasks.core.models.recogniser import Recogniser
    from tasks.evaluate.in_batches import predict_crops

    folder = fetch(paths, version.number)
    params = load_section(paths.params, "evaluate", EvaluateParams)
    recogniser = Recogniser.load(folder, params.device, params.batch_size)
    make_repeatable(recogniser.device)
    table, shards = _pictures(paths, folder)
    probabilities = predict_crops(recogniser, table, shards)
    labels = list(recogniser.labels)
    answers = pd.DataFrame(
        {f"p_{label}": probabilities[:, labels.index(label)] for label in in_order(labels)}
    ).assign(
        image_id=table["image_id"].to_numpy(),
        y_pred=[labels[index] for index in probabilities.argmax(axis=1)],
    )
    everyone = _everyone(paths).merge(answers, on="image_id", how="left", validate="1:1")
    known = everyone["emotion"].isin(labels)  # a label that the model lacks is no fault of its
    seen = load_seen(folder)["subject_id"]
    # In the manifest an image of an unknown subject has an id of its own, which is no person's.
    someone = everyone["subject_known"].astype(bool)
    return everyone[known].assign(
        model=f"version {version.number}",
        y_pred=everyone["y_pred"].fillna(""),
        seen_in_training=everyone["subject_id"].isin(seen),
        subject_id=everyone["subject_id"].where(someone, ""),
    )


def _pictures(paths: Paths, folder: Path) -> tuple[pd.DataFrame, Path]:
    """Return the pictures with a crop cut as the model needs it, and the folder of shards."""
    split = read_table(paths.split)
    places, shards = crops_for(paths, settings_of_model(folder), split)
    return places[["image_id", "shard", "offset_bytes", "size_bytes"]], shards


def _everyone(paths: Paths) -> pd.DataFrame:
    """Return every checked picture, with what the crops tell where there is one."""
    checked, split = read_table(paths.checked), read_table(paths.split)
    more = [name for name in split.columns if name not in checked.columns]
    table = checked.merge(split[["image_id", *more]], on="image_id", how="left", validate="1:1")
    return table.drop(columns=[name for name in _LEFT_OUT if name in table.columns])
