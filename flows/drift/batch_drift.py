"""Gathers a new batch and the training data for `tasks.drift`, which compares them.

This runs at intake, before any stage has seen the batch: its images are read as `ingest` and `crop`
would read them. It works without a model, and without any data but the batch.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from flows.ledger.ledger import Ledger
from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.labels import credit_line
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv
from tasks.drift.compare import COLUMNS, NUMBERS, SHARES, compare, largest_effect
from tasks.drift.drift_report import drift_page
from tasks.drift.settings import Params

MAX_IMAGES = 1000  # of the batch and of the held-out images: more would not change the report
_FEATURES = ("image_id", "subject_id", "dataset", *SHARES, *NUMBERS)


class _InUse(NamedTuple):
    folder: Path
    name: str


def write_drift_report(paths: Paths, batch: str) -> float | None:
    """Compare an accepted batch with the training data and write `reports/drift/<batch>.csv|.md`.

    Returns the largest absolute effect whose interval excludes 0 (0.0 if there is none). None means
    that nothing could be compared: fewer images than `drift.min_n`, or no training data yet. Raises
    UserError for a batch that is not in data/raw, or whose data set `ingest.datasets` does not
    name.
    """
    params = load_section(paths.params, "drift", Params)
    rows = _batch_rows(paths, batch)
    model = _model_in_use(paths)
    training, description = _training(paths, batch, model)
    facts = [f"The batch has {_counted(rows)}.", description]
    sides = (rows, training)
    if len(rows) < params.min_n:
        facts.append(f"Fewer than {params.min_n} pictures (`drift.min_n`) are not compared.")
    elif len(training):
        sides = _with_faces(paths, batch, rows, training, model, facts)
    comparable = len(rows) >= params.min_n and len(training) > 0
    effects = compare(*sides, params) if comparable else pd.DataFrame(columns=list(COLUMNS))
    notice = credit_line({*rows["dataset"], *sides[1].get("dataset", ())})
    if notice:
        facts.append(f"{notice[0].upper()}{notice[1:]}.")
    folder = paths.at("reports/drift")
    write_csv(effects.assign(notice=notice), folder / f"{batch}.csv")
    lines = drift_page(batch, effects, params, facts)
    write_text(folder / f"{batch}.md", "\n".join(lines) + "\n")
    return largest_effect(effects)


def version_title(version: Any) -> str:
    """Return the name of a model version as reports print it."""
    return f"version {version.number} ({version.digest})"


def _batch_rows(paths: Paths, batch: str) -> pd.DataFrame:
    """Read a batch as `ingest` does: one row per usable image, in an order without meaning."""
    from tasks.core.parallel.execution import process_pool
    from tasks.ingest import stage as ingest_stage
    from tasks.ingest.dataset_reader import read_folder
    from tasks.ingest.list_files import list_files
    from tasks.ingest.manifest import make_rows, manifest_table
    from tasks.ingest.scan import scan_files

    batches = Ledger(paths.ledger).batches()
    accepted = batches[(batches["batch"] == batch) & (batches["state"] == "accepted")]
    if accepted.empty:
        raise UserError(f"{batch}: no such batch in {paths.raw}; `affectgap status` lists them")
    dataset = str(accepted.iloc[-1]["dataset"])
    params = load_section(paths.params, "ingest", ingest_stage.Params)
    if dataset not in params.datasets:
        raise UserError(f"{batch}: params.yaml has no `ingest.datasets.{dataset}`: it is not read")
    adapter = params.datasets[dataset].adapter
    folder = paths.raw / dataset / batch
    listing = list_files(folder, linked_from=[paths.at(".dvc/cache")])
    entries = read_folder(folder, listing, dataset, batch, adapter).entries
    with process_pool(params.workers) as executor:
        files = (paths.raw / dataset / entry.path for entry in entries)
        scans = scan_files(files, params.max_pixels, executor, params.workers)
        rows, _ = make_rows(entries, scans, params.age_bands)
    return manifest_table(rows).sort_values("image_id", ignore_index=True)


def _model_in_use(paths: Paths) -> _InUse | None:
    from tasks.register.registry import champion, fetch

    version = champion(paths)
    if version is None:
        return None
    return _InUse(fetch(paths, version.number), version_title(version))


def _training(paths: Paths, batch: str, model: _InUse | None) -> tuple[pd.DataFrame, str]:
    """Return the images that count as training data, and a sentence that describes them."""
    if not paths.split.is_file():
        return pd.DataFrame(), "There is no training data yet (`data/split.parquet`)."
    table = read_table(paths.split)
    table = table[table["batch"] != batch]
    if model is not None:
        from tasks.core.models.checkpoint import load_seen

        seen = table[table["image_id"].isin(load_seen(model.folder)["image_id"])]
        if len(seen):
            saw = f"that the model in use, {model.name}, saw"
            return seen, f"It is compared with {_counted(seen)} {saw}."
    table = table[table["split"] == "train"]
    return table, f"It is compared with {_counted(table)} of the training split."


def _with_faces(
    paths: Paths,
    batch: str,
    rows: pd.DataFrame,
    training: pd.DataFrame,
    model: _InUse | None,
    facts: list[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add what only the images tell to both sides, and sentences about it to `facts`."""
    from flows.drift.face_features import face_features, held_out_confidence

    sample = rows.iloc[:MAX_IMAGES]
    if len(sample) < len(rows):
        facts.append(f"The faces of {len(sample)} of its pictures, chosen at random, are measured.")
    faces = face_features(paths, sample, model.folder if model else None)
    n_missed = int(faces["detector_score"].isna().sum())
    facts.append(f"No face was found in {n_missed} of {len(sample)} of its pictures.")
    new = _features(rows).merge(faces, on="image_id", how="left")
    if model is None:
        facts.append("There is no model in use whose probabilities could be compared.")
        return new, _features(training)
    held_out = held_out_confidence(paths, batch, model.folder, MAX_IMAGES)
    if held_out.empty:
        facts.append("There are no pictures of people whom the model did not see to compare with.")
        return new, _features(training)
    facts.append(
        f"The model's largest probabilities are compared with those for {_counted(held_out)} that "
        "it did not see, since a model is more confident about what it was trained on."
    )
    return new, pd.concat([_features(training), held_out], ignore_index=True)


def _features(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in _FEATURES if name in table]]


def _counted(table: pd.DataFrame) -> str:
    return f"{len(table)} pictures of {table['subject_id'].nunique()} people"
