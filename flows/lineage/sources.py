"""Data for lineage: all images that are or were here, and all models with their seen.csv.

Nothing is changed. Missing sources (no ledger, run or registry) count as empty.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from flows.ledger.ledger import Ledger
from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import SEEN, empty_seen_table, load_seen, load_spec
from tasks.core.paths import EVALUATED, Paths
from tasks.core.tables import current_subjects, read_csv, read_table

_TEST = "test.csv"  # a registered model's test split at registration
_COLUMNS = ("image_id", "subject_id", "dataset", "batch", "path", "emotion", "age_band", "gender")


@dataclass(frozen=True)
class ModelLineage:
    """A model and the images that were used for it.

    `names` are those under which a user may ask for it. `seen` is its `seen.csv`; `tested` has the
    `image_id` of the images on which it was judged. If its files are `lost`, both are empty.
    """

    title: str
    names: tuple[str, ...]
    seen: pd.DataFrame
    tested: frozenset[str]
    tested_people: int
    lost: bool = False


def known_images(paths: Paths) -> pd.DataFrame:
    """Return every known image, of the last run and of every batch there ever was.

    Returns
    -------
    DataFrame
        `image_id, subject_id, dataset, batch, path, emotion, age_band, gender`, `state` (of its
        batch; accepted if it has none) and `split` ("" if none).
    """
    found = pd.concat([_of_run(paths), _of_ledger(paths)], ignore_index=True)
    # Rows in data/raw first: the same image may also have come in a rejected batch.
    found = found.sort_values("state", key=lambda state: state != "accepted", kind="stable")
    found = found.drop_duplicates(["image_id", "batch"], ignore_index=True)
    splits = _splits(paths)
    return found.assign(split=[splits.get(name, "") for name in found["image_id"]])


def with_locations(paths: Paths, images: pd.DataFrame) -> pd.DataFrame:
    """Add the present location of images: `place` (a phrase) and `there` (whether in data/raw).

    `images` are rows of `known_images`; the column `state` is dropped. Each image is looked up on
    disk, so select rows first.
    """
    ledger = Ledger(paths.ledger)
    elsewhere = ledger.places()
    elsewhere |= {
        batch: f"removed from data/raw by hand, its reason in {elsewhere[batch]}"
        for batch in ledger.whole()  # nothing of these was moved to the quarantine
    }
    places = [_place(paths, row, elsewhere) for row in images.itertuples(index=False)]
    phrases = [phrase for phrase, _ in places]
    there = pd.Series([there for _, there in places], index=images.index, dtype=bool)
    return images.drop(columns="state").assign(place=phrases, there=there)


def all_models(paths: Paths) -> list[ModelLineage]:
    """Return the registered versions, then the unregistered models of the last run.

    A version whose files are missing or damaged is included as `lost`, so that it is not mistaken
    for one that saw nobody.
    """
    from tasks.register.registry import fetch, versions

    models, digests = [], set()
    for version in versions(paths):
        aliases = f", {', '.join(version.aliases)}" if version.aliases else ""
        title = f"version {version.number} ({version.digest}{aliases})"
        names = (str(version.number), version.digest)
        try:
            folder = _cached_folder(paths, version) or fetch(paths, version.number)
            models.append(_read(folder, title, names))
        except ModelError:
            models.append(ModelLineage(title, names, empty_seen_table(), frozenset(), 0, lost=True))
        digests.add(version.digest)
    for name in EVALUATED:
        try:
            digest = load_spec(paths.model(name)).version
            if digest not in digests:
                title = f"models/{name} ({digest}, not registered)"
                models.append(_read(paths.model(name), title, (name, f"models/{name}", digest)))
        except ModelError:  # not trained yet, or skipped
            continue
    return models


def reject_reasons(paths: Paths) -> dict[str, str]:
    """Return, by `image_id`, which stage of the last run rejected an image and why."""
    reasons = {}
    for stage in ("ingest", "check", "crop"):
        if paths.rejects(stage).is_file():
            rejects = read_csv(paths.rejects(stage), dtype="str", keep_default_na=False)
            for row in rejects[rejects["image_id"] != ""].itertuples(index=False):
                reasons[row.image_id] = f"; left out by {stage}: {row.reason}"
    return reasons


def _of_run(paths: Paths) -> pd.DataFrame:
    """Read the first table that exists: during a run DVC has removed some of them."""
    for table in (paths.manifest, paths.checked, paths.crops, paths.split):
        if table.is_file():
            return _with_batches(paths, read_table(table, _COLUMNS))
    return pd.DataFrame(columns=[*_COLUMNS, "state"])


def _with_batches(paths: Paths, rows: pd.DataFrame) -> pd.DataFrame:
    """Add states, and the batch of whole data sets, which the run's tables lack.

    A data set that was imported several times counts as the last of its batches.
    """
    ledger = Ledger(paths.ledger)
    last = {dataset: batch for batch, dataset in ledger.whole().items()}
    pairs = zip(rows["batch"].fillna(""), rows["dataset"], strict=True)
    names = [batch or last.get(dataset, "") for batch, dataset in pairs]
    known = ledger.batches()
    states = dict(zip(known["batch"], known["state"], strict=True))
    return rows.assign(batch=names, state=[states.get(name, "accepted") for name in names])


def _of_ledger(paths: Paths) -> pd.DataFrame:
    return Ledger(paths.ledger).images()[[*_COLUMNS, "state"]]


def _splits(paths: Paths) -> dict[str, str]:
    if not paths.split.is_file():
        return {}
    table = read_table(paths.split, ("image_id", "split"))
    return dict(zip(table["image_id"], table["split"], strict=True))


def _place(paths: Paths, row: Any, elsewhere: Mapping[str, str]) -> tuple[str, bool]:
    """Return an image's present location, and whether that is in data/raw."""
    if row.state not in ("accepted", "taking_in"):
        return f"{elsewhere.get(row.batch, 'nowhere')} ({row.state})", False
    present = (paths.raw / row.path).is_file()
    return f"data/raw/{row.path}" + ("" if present else ": gone"), present


def _cached_folder(paths: Paths, version: Any) -> Path | None:
    """Return a version's folder in work/registry if the two tables read here are intact.

    The weights, which are most of it, are not compared; otherwise the whole folder is fetched.
    """
    from tasks.register.version_artifacts import FILES, LIST

    folder = paths.work("registry", str(version.number))
    try:
        content = (folder / LIST).read_bytes()
        if hashlib.sha256(content).hexdigest() != version.tags.get(FILES):
            return None
        listed = json.loads(content)
        intact = all(sha256_of(folder / name) == listed.get(name) for name in (SEEN, _TEST))
    except OSError:
        return None
    return folder if intact else None


def _read(folder: Path, title: str, names: tuple[str, ...]) -> ModelLineage:
    tested = pd.DataFrame({"image_id": [], "subject_id": []}, dtype="str")
    if (folder / _TEST).is_file():
        tested = read_csv(folder / _TEST, dtype="str", keep_default_na=False)
        tested = current_subjects(tested)
    ids, people = frozenset(tested["image_id"]), tested["subject_id"].nunique()
    return ModelLineage(title, names, load_seen(folder), ids, people)
