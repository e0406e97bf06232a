"""The ledger: every batch of images that ever arrived, and what became of it.

One SQLite file with two tables that only grow (triggers refuse anything else): `events`, one row
per event, and `pictures`, the images that a batch brought. What is true now is read from the events
in the order of their ids; the clock only dates them, so that setting it back changes nothing. Every
method is one transaction, so that a killed process leaves an event or none.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from flows.ledger.events import (
    BATCHES,
    IMAGES,
    PASSES,
    TRAININGS,
    Event,
    batches_of,
    passes_of,
    trainings_of,
)
from flows.ledger.sqlite import (
    EVENTS,
    IMAGE_COLUMNS,
    LedgerFile,
    add_event,
    add_images,
    read_images,
    read_people,
)
from tasks.core.parallel.process import is_dead, process_name

State = Literal["accepted", "quarantined", "withdrawn"]

_ASKED = 500  # values a query; SQLite takes 999 or more


@dataclass(frozen=True)
class Arrival:
    """A batch as it was found.

    Attributes
    ----------
    batch
        Its name from now on, unique in the ledger.
    dataset
        The data set that it belongs to, "" where that is not known.
    digest
        sha256 of its files' names and contents, "" where they could not all be read.
    source, stamp
        Its entry of the inbox, and what tells this delivery from another of that name.
    n_files
        Files, side files and hidden ones among them.
    pictures
        Its usable images: at least the columns of `Ledger.pictures` from `path` to `gender`.
    """

    batch: str
    dataset: str
    digest: str
    source: str
    stamp: str
    n_files: int
    images: pd.DataFrame


class Ledger:
    """The ledger in one SQLite file; several processes may use it at once.

    Parameters
    ----------
    path
        The file; made by the first thing that is written. Until then everything reads as empty.

    Raises
    ------
    DataError
        From every method, one line: the file is no ledger, is of another version, is locked for
        more than a minute, or cannot be written (a full disk).
    """

    def __init__(self, path: Path) -> None:
        self._file = LedgerFile(path)

    def events(self) -> pd.DataFrame:
        """Return all events: `id`, `at` (UTC), `kind`, `batch`, `pass_id`, `detail` (JSON text)."""
        with self._file.reading() as database:
            return pd.read_sql_query(EVENTS, database, dtype={"pass_id": "Int64"})

    def batches(self) -> pd.DataFrame:
        """Return one row per batch, in the order of their arrival.

        Returns
        -------
        pandas.DataFrame
            `batch`, `dataset`, `digest`, `state` (taking_in, accepted, quarantined or withdrawn),
            `n_files`, `n_pictures`, `n_subjects`, `received_at`, `decided_at` (UTC; "" while
            undecided), `reason`, `drift` (largest effect, NaN where none was measured).
        """
        return pd.DataFrame(batches_of(self._events()), columns=[*BATCHES])

    def images(self) -> pd.DataFrame:
        """Return the images of all batches.

        Returns
        -------
        pandas.DataFrame
            `batch`, `dataset`, `path` (below data/raw, where it lies or would have lain), `sha256`,
            `image_id`, `subject_id`, `emotion`, `age_band`, `gender`, and the batch's `state`.
        """
        return self._images(batches_of(self._events()))

    def untrained(self) -> pd.DataFrame:
        """Return the images of accepted batches that no pass has trained on, as `images`."""
        rows = [row for row in batches_of(self._events()) if _waits(row)]
        # Asked at every look, so that what was trained on long ago is not read again.
        return _named(self._select("event", [row["event"] for row in rows]), rows)

    def trained_people(self) -> frozenset[str]:
        """Return the `subject_id` of all who were in a batch that a pass trained with.

        Also of a batch that was withdrawn since, or came again as another delivery of its name.
        """
        rows = batches_of(self._events())
        events = sorted(event for row in rows for event in row["trained_events"])
        people: frozenset[str] = frozenset()
        with self._file.reading() as database:
            for at in range(0, len(events), _ASKED):
                people |= read_people(database, events[at : at + _ASKED])
        return people

    def not_trained(self) -> frozenset[str]:
        """Return the batches, in whatever state, that no pass trained with as they came last."""
        rows = batches_of(self._events())
        return frozenset(row["batch"] for row in rows if not row["trained"])

    def trainings(self) -> pd.DataFrame:
        """Return `batch`, `pass_id`, `digest` of the model and its `version` (NA: none)."""
        table = pd.DataFrame(trainings_of(self._events()), columns=[*TRAININGS])
        return table.astype({"version": "Int64"})

    def passes(self) -> pd.DataFrame:
        """Return one row per pass.

        Returns
        -------
        pandas.DataFrame
            `pass_id`, `process`, `trigger`, `started_at`, `ended_at` ("" while running), `state`
            (running, trained, nothing_to_do, failed, died or waiting), `detail`, `version` (NA
            where it made none).
        """
        table = pd.DataFrame(passes_of(self._events()), columns=[*PASSES])
        return table.astype({"version": "Int64"})

    def where(self, sha256s: Sequence[str]) -> pd.DataFrame:
        """Return the rows of `images` with one of these contents, in the order of arrival."""
        rows = batches_of(self._events())
        table = self._select("sha256", sha256s)
        return _named(table.sort_values("event", kind="stable"), rows)

    def places(self) -> dict[str, str]:
        """Return where each batch is, below the project's folder, by its name."""
        return {row["batch"]: row["place"] for row in batches_of(self._events())}

    def whole(self) -> dict[str, str]:
        """Return the batches that are a whole data set, also withdrawn ones: name to data set.

        The names may differ, and the manifest has "" as the batch of their images.
        """
        return {row["batch"]: row["dataset"] for row in batches_of(self._events()) if row["whole"]}

    def advised(self) -> dict[str, str]:
        """Return the batches whose drift was asked for since they came, measured or not.

        By name what the model in use was called then, "" where there was none.
        """
        rows = batches_of(self._events())
        return {row["batch"]: row["advised"] for row in rows if row["advised"] is not None}

    def begin(self, arrival: Arrival, target: State, place: str, reasons: Sequence[str]) -> None:
        """Write down what is about to be done with a batch, before anything is moved.

        Parameters
        ----------
        arrival
            The batch and its images.
        target
            What it will be when it is done: `accepted` or `quarantined`.
        place
            Where it goes, below the project's folder.
        reasons
            Why, a line each.
        """
        detail = {
            "dataset": arrival.dataset,
            "digest": arrival.digest,
            "source": arrival.source,
            "stamp": arrival.stamp,
            "n_files": arrival.n_files,
            "n_pictures": len(arrival.images),
            "n_subjects": int(arrival.images["subject_id"].nunique()),
            "target": target,
            "place": place,
            "reasons": list(reasons),
        }
        rows = arrival.images[[*IMAGE_COLUMNS]].itertuples(index=False, name=None)
        with self._file.writing() as database:
            event = add_event(database, "taking_in", detail, arrival.batch)
            add_images(database, event, rows)

    def begin_withdrawal(self, batch: str, place: str, reasons: Sequence[str]) -> None:
        """Write down that an accepted batch is about to leave data/raw for `place`."""
        with self._file.writing() as database:
            add_event(database, "withdrawing", {"place": place, "reasons": list(reasons)}, batch)

    def decide(self, batch: str, state: State) -> None:
        """Write down that what was begun is done."""
        with self._file.writing() as database:
            add_event(database, state, {}, batch)

    def undo(self, batch: str, why: str) -> None:
        """Write down that what was begun did not happen: the batch is where it was before."""
        with self._file.writing() as database:
            add_event(database, "undone", {"reason": why}, batch)

    def mark_tracked(self, batches: Sequence[str]) -> None:
        """Write down that DVC has seen the data set since the batch moved."""
        with self._file.writing() as database:
            for batch in batches:
                add_event(database, "tracked", {}, batch)

    def under_way(self) -> list[Event]:
        """Return the batches whose last step was begun and not done: what a crash left.

        Each event's `detail` is that of `begin` or of `begin_withdrawal`; its `kind` is
        `taking_in` or `withdrawing`.
        """
        return [row["open"] for row in batches_of(self._events()) if row["open"] is not None]

    def untracked(self) -> pd.DataFrame:
        """Return the batches, as `batches`, that moved since DVC saw their data set."""
        rows = [row for row in batches_of(self._events()) if row["untracked"]]
        return pd.DataFrame(rows, columns=[*BATCHES])

    def mark_trained(self, batches: Sequence[str], pass_id: int, digest: str) -> None:
        """Write down that a pass trained a model (its digest) with batches; again: nothing."""
        trained = trainings_of(self._events())
        known = {(row["batch"], row["pass_id"], row["digest"]) for row in trained}
        with self._file.writing() as database:
            for batch in batches:
                if (batch, pass_id, digest) not in known:
                    add_event(database, "trained", {"digest": digest}, batch, pass_id)

    def mark_promoted(self, digest: str, version: int) -> None:
        """Write down that a version came into use; again: nothing."""
        self._mark_version("promoted", digest, version)

    def mark_registered(self, digest: str, version: int) -> None:
        """Write down the registry's version of a model that is not in use; again: nothing."""
        self._mark_version("registered", digest, version)

    def set_drift(self, batch: str, effect: float | None, model: str) -> None:
        """Keep the largest effect by which a batch differs from what a model was trained on.

        Parameters
        ----------
        batch
            Its name.
        effect
            None where nothing could be compared.
        model
            What the model in use is called, "" where there is none.
        """
        with self._file.writing() as database:
            add_event(database, "drift", {"effect": effect, "model": model}, batch)

    def start_pass(self, trigger: str) -> int:
        """Write down that this process begins a pass; returns its number, from 1 on."""
        detail = {"process": process_name(os.getpid()), "trigger": trigger}
        with self._file.writing() as database:
            last = database.execute("SELECT coalesce(max(pass_id), 0) FROM events").fetchone()[0]
            add_event(database, "pass_started", detail, pass_id=last + 1)
        return int(last) + 1

    def end_pass(self, pass_id: int, state: str, detail: str, version: int | None) -> None:
        """Write down how a pass ended; the last word counts."""
        with self._file.writing() as database:
            told = {"state": state, "detail": detail, "version": version}
            add_event(database, "pass_ended", told, pass_id=pass_id)

    def close_dead_passes(self, alone: bool = False) -> list[int]:
        """End, as `died`, the running passes whose process on this machine is gone.

        With `alone` (the caller holds a pass's lock) those of other machines' names as well.
        """
        running = [row for row in passes_of(self._events()) if row["state"] == "running"]
        dead = [int(row["pass_id"]) for row in running if alone or is_dead(row["process"])]
        for pass_id in dead:
            self.end_pass(pass_id, "died", "its process is gone", None)
        return dead

    def _mark_version(self, kind: str, digest: str, version: int) -> None:
        detail = {"digest": digest, "version": version}
        known = [event.detail for event in self._events() if event.kind == kind]
        if detail not in known:
            with self._file.writing() as database:
                add_event(database, kind, detail)

    def _events(self) -> list[Event]:
        with self._file.reading() as database:
            rows = database.execute(EVENTS).fetchall()
        return [
            Event(number, at, kind, batch, pass_id, json.loads(detail))
            for number, at, kind, batch, pass_id, detail in rows
        ]

    def _select(self, column: str, values: Sequence[Any]) -> pd.DataFrame:
        """Return the images with one of these values, and no others read."""
        starts = range(0, max(1, len(values)), _ASKED)  # at least once, for the columns
        with self._file.reading() as database:
            return pd.concat(
                read_images(database, f"WHERE {column} IN ({{}})", values[at : at + _ASKED])
                for at in starts
            )

    def _images(self, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
        """Return the images of these batches, in their order and by path."""
        with self._file.reading() as database:
            table = read_images(database)
        return _named(table, rows)


def _named(table: pd.DataFrame, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Keep the images of these batches, and add the batches' columns."""
    table = table[table["event"].isin([row["event"] for row in rows])].reset_index(drop=True)
    for column in ("batch", "dataset", "state"):
        names = {row["event"]: row[column] for row in rows}
        table[column] = table["event"].map(names).astype("str")
    return table.reindex(columns=[*IMAGES])


def _waits(row: dict[str, Any]) -> bool:
    return row["state"] == "accepted" and not row["trained"]
