"""What lineage is read from: every picture that is or was here, and every model with its seen.csv.

Nothing here changes anything; what is missing (no ledger, no run, no registry) is simply empty.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.ledger import Ledger
from tasks.core.models.checkpoint import SEEN, load_seen, load_spec, no_pictures_seen
from tasks.core.paths import EVALUATED, Paths
from tasks.core.tables import current_subjects, read_csv, read_table

_TEST = "test.csv"  # in a registered model's folder: the test split when it was registered
_COLUMNS = ("image_id", "subject_id", "dataset", "batch", "path", "emotion", "age_band", "gender")


@dataclass(frozen=True)
class SeenBy:
    """A model and the pictures that had a part in it.

    Attributes
    ----------
    title
        What to call it in a line.
    names
        What a user may call it.
    seen
        Its `seen.csv`.
    tested
        `image_id` of the pictures that it was judged on.
    tested_people
        How many people those are.
    lost
        Whether its files cannot be read: `seen` and `tested` are then empty, and say nothing.
    """

    title: str
    names: tuple[str, ...]
    seen: pd.DataFrame
    tested: frozenset[str]
    tested_people: int
    lost: bool = False


def all_pictures(paths: Paths) -> pd.DataFrame:
    """Return every picture that is known: of the last run, and of every batch there ever was.

    Returns
    -------
    DataFrame
        `image_id, subject_id, dataset, batch, path, emotion, age_band, gender`, `state` (of its
        batch; accepted where it came in none) and `split` ("" where none).
    """
    found = pd.concat([_of_run(paths), _of_ledger(paths)], ignore_index=True)
    # What is in data/raw first: the same picture may also have come in a batch that was refused.
    found = found.sort_values("state", key=lambda state: state != "accepted", kind="stable")
    found = found.drop_duplicates(["image_id", "batch"], ignore_index=True)
    splits = _splits(paths)
    return found.assign(split=[splits.get(name, "") for name in found["image_id"]])


def with_places(paths: Paths, pictures: pd.DataFrame) -> pd.DataFrame:
    """Say where pictures are now; each is looked for on the disk, so choose them first.

    Parameters
    ----------
    paths
        The project's paths.
    pictures
        Rows of `all_pictures`.

    Returns
    -------
    DataFrame
        The rows, without `state`, with `place` (a phrase) and `there` (whether in data/raw).
    """
    ledger = Ledger(paths.ledger)
    elsewhere = ledger.places()
    elsewhere |= {
        batch: f"removed from data/raw by hand, its reason in {elsewhere[batch]}"
        for batch in ledger.whole()  # of which nothing was moved to the quarantine
    }
    places = [_place(paths, row, elsewhere) for row in pictures.itertuples(index=False)]
    phrases = [phrase for phrase, _ in places]
    there = pd.Series([there for _, there in places], index=pictures.index, dtype=bool)
    return pictures.drop(columns="state").assign(place=phrases, there=there)


def all_models(paths: Paths) -> list[SeenBy]:
    """Return the registered versions, then the models of the last run that are not among them.

    A version whose files the store has lost or damaged is among them as `lost`, so that it cannot
    be taken for one that saw nobody.
    """
    from tasks.register.registry import fetch, versions

    models, digests = [], set()
    for version in versions(paths):
        aliases = f", {', '.join(version.aliases)}" if version.aliases else ""
        title = f"version {version.number} ({version.digest}{aliases})"
        names = (str(version.number), version.digest)
        try:
            folder = _kept(paths, version) or fetch(paths, version.number)
            models.append(_read(folder, title, names))
        except ModelError:
            models.append(SeenBy(title, names, no_pictures_seen(), frozenset(), 0, lost=True))
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


def left_out_by(paths: Paths) -> dict[str, str]:
    """Return, by `image_id`, which stage of the last run left a picture out and why."""
    told = {}
    for stage in ("ingest", "check", "crop"):
        if paths.rejects(stage).is_file():
            rejects = read_csv(paths.rejects(stage), dtype="str", keep_default_na=False)
            for row in rejects[rejects["image_id"] != ""].itertuples(index=False):
                told[row.image_id] = f"; left out by {stage}: {row.reason}"
    return told


def _of_run(paths: Paths) -> pd.DataFrame:
    """Read the first table that is there: while a run is at work, DVC has removed some."""
    for table in (paths.manifest, paths.checked, paths.crops, paths.split):
        if table.is_file():
            return _with_batches(paths, read_table(table, _COLUMNS))
    return pd.DataFrame(columns=[*_COLUMNS, "state"])


def _with_batches(paths: Paths, rows: pd.DataFrame) -> pd.DataFrame:
    """Add what the ledger says: a whole data set's batch, which the run does not know, and states.

    A data set that came more than once is the last of its batches.
    """
    ledger = Ledger(paths.ledger)
    last = {dataset: batch for batch, dataset in ledger.whole().items()}
    pairs = zip(rows["batch"].fillna(""), rows["dataset"], strict=True)
    names = [batch or last.get(dataset, "") for batch, dataset in pairs]
    known = ledger.batches()
    states = dict(zip(known["batch"], known["state"], strict=True))
    return rows.assign(batch=names, state=[states.get(name, "accepted") for name in names])


def _of_ledger(paths: Paths) -> pd.DataFrame:
    return Ledger(paths.ledger).pictures()[[*_COLUMNS, "state"]]


def _splits(paths: Paths) -> dict[str, str]:
    if not paths.split.is_file():
        return {}
    table = read_table(paths.split, ("image_id", "split"))
    return dict(zip(table["image_id"], table["split"], strict=True))


def _place(paths: Paths, row: Any, elsewhere: Mapping[str, str]) -> tuple[str, bool]:
    """Say where a picture is now, and whether that is in data/raw."""
    if row.state not in ("accepted", "taking_in"):
        return f"{elsewhere.get(row.batch, 'nowhere')} ({row.state})", False
    there = (paths.raw / row.path).is_file()
    return f"data/raw/{row.path}" + ("" if there else ": gone"), there


def _kept(paths: Paths, version: Any) -> Path | None:
    """Return a version's folder in work/registry where the two tables read here are whole.

    The weights, which are most of it, are not compared; else the whole folder is fetched anew.
    """
    from tasks.register.kept_files import FILES, LIST

    folder = paths.work("registry", str(version.number))
    try:
        content = (folder / LIST).read_bytes()
        if hashlib.sha256(content).hexdigest() != version.tags.get(FILES):
            return None
        listed = json.loads(content)
        same = all(sha256_of(folder / name) == listed.get(name) for name in (SEEN, _TEST))
    except OSError:
        return None
    return folder if same else None


def _read(folder: Path, title: str, names: tuple[str, ...]) -> SeenBy:
    tested = pd.DataFrame({"image_id": [], "subject_id": []}, dtype="str")
    if (folder / _TEST).is_file():
        tested = read_csv(folder / _TEST, dtype="str", keep_default_na=False)
        tested = current_subjects(tested)
    ids, people = frozenset(tested["image_id"]), tested["subject_id"].nunique()
    return SeenBy(title, names, load_seen(folder), ids, people)
