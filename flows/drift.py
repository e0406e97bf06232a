"""How a batch differs from the training data: gathers both sides; `tasks.drift` compares them.

Advice beside an intake, before any stage has seen the batch: its pictures are read as ingest and
crop would read them. Works without a model, and without any data but the batch.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tasks.core.errors import UserError
from tasks.core.files import write_text
from tasks.core.labels import credit_line
from tasks.core.ledger import Ledger
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv
from tasks.drift.compare import COLUMNS, NUMBERS, SHARES, compare, largest_effect
from tasks.drift.settings import Params
from tasks.drift.words import drift_page

MOST_PICTURES = 1000  # of the batch and of the held-out pictures: more would not change the advice
_FEATURES = ("image_id", "subject_id", "dataset", *SHARES, *NUMBERS)


class _InUse(NamedTuple):
    """The model in use: its folder, and what to call it."""

    folder: Path
    name: str


def advise(paths: Paths, batch: str) -> float | None:
    """Compare an accepted batch with the training data and write the advice.

    Parameters
    ----------
    paths
        The project's paths; the ledger says in which data set the batch is.
    batch
        Its name.

    Returns
    -------
    float or None
        The largest absolute effect whose interval does not hold 0 (0.0 where there is none), or
        None where nothing could be compared: fewer pictures than `drift.min_n`, or no training
        data yet. `reports/drift/<batch>.csv` and `.md` are written in any case.

    Raises
    ------
    UserError
        For a batch that is not in data/raw, or whose data set `ingest.datasets` does not name.
    """
    params = load_section(paths.params, "drift", Params)
    rows = _batch_rows(paths, batch)
    model = _model_in_use(paths)
    training, told = _training(paths, batch, model)
    facts = [f"The batch has {_counted(rows)}.", told]
    sides = (rows, training)
    if len(rows) < params.min_n:
        facts.append(f"Fewer than {params.min_n} pictures (`drift.min_n`) are not compared.")
    elif len(training):
        sides = _with_faces(paths, batch, rows, training, model, facts)
    compares = len(rows) >= params.min_n and len(training) > 0
    compared = compare(*sides, params) if compares else pd.DataFrame(columns=list(COLUMNS))
    notice = credit_line({*rows["dataset"], *sides[1].get("dataset", ())})
    if notice:
        facts.append(f"{notice[0].upper()}{notice[1:]}.")
    folder = paths.at("reports/drift")
    write_csv(compared.assign(notice=notice), folder / f"{batch}.csv")
    lines = drift_page(batch, compared, params, facts)
    write_text(folder / f"{batch}.md", "\n".join(lines) + "\n")
    return largest_effect(compared)


def name_of(version: Any) -> str:
    """Return what a version of the model is called in a report."""
    return f"version {version.number} ({version.digest})"


def _batch_rows(paths: Paths, batch: str) -> pd.DataFrame:
    """Read a batch as ingest does: a row a usable picture, in an order that says nothing."""
    from tasks.core.execution import process_pool
    from tasks.ingest import stage as ingest_stage
    from tasks.ingest.decode import scan_files
    from tasks.ingest.listing import list_files
    from tasks.ingest.manifest import manifest_table
    from tasks.ingest.pictures import make_rows
    from tasks.ingest.sources import read_folder

    known = Ledger(paths.ledger).batches()
    found = known[(known["batch"] == batch) & (known["state"] == "accepted")]
    if found.empty:
        raise UserError(f"{batch}: no such batch in {paths.raw}; `affectgap status` lists them")
    dataset = str(found.iloc[-1]["dataset"])
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
    return _InUse(fetch(paths, version.number), name_of(version))


def _training(paths: Paths, batch: str, model: _InUse | None) -> tuple[pd.DataFrame, str]:
    """Return the pictures that count as training data, and a sentence on what they are."""
    if not paths.split.is_file():
        return pd.DataFrame(), "There is no training data yet (`data/split.parquet`)."
    table = read_table(paths.split)
    table = table[table["batch"] != batch]
    if model is not None:
        from tasks.core.models.checkpoint import load_seen

        seen = table[table["image_id"].isin(load_seen(model.folder)["image_id"])]
        if len(seen):
            told = f"It is compared with {_counted(seen)} that the model in use, {model.name}, saw."
            return seen, told
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
    """Return both sides with what only the pictures tell; adds to `facts` what that was."""
    from flows.drift_faces import ask_held_out, measure

    some = rows.iloc[:MOST_PICTURES]
    if len(some) < len(rows):
        facts.append(f"The faces of {len(some)} of its pictures, chosen at random, are measured.")
    faces = measure(paths, some, model.folder if model else None)
    missed = int(faces["detector_score"].isna().sum())
    facts.append(f"No face was found in {missed} of {len(some)} of its pictures.")
    mine = _features(rows).merge(faces, on="image_id", how="left")
    if model is None:
        facts.append("There is no model in use whose probabilities could be compared.")
        return mine, _features(training)
    held_out = ask_held_out(paths, batch, model.folder, MOST_PICTURES)
    if held_out.empty:
        facts.append("No picture is there of people whom the model did not see, to compare with.")
        return mine, _features(training)
    facts.append(
        f"The model's largest probabilities are compared with those for {_counted(held_out)} that "
        "it did not see, since a model is surer of what it was trained on."
    )
    return mine, pd.concat([_features(training), held_out], ignore_index=True)


def _features(table: pd.DataFrame) -> pd.DataFrame:
    return table[[name for name in _FEATURES if name in table]]


def _counted(table: pd.DataFrame) -> str:
    return f"{len(table)} pictures of {table['subject_id'].nunique()} people"
