"""One batch of the inbox: verified where it lies, then moved by one rename, or kept out.

What is about to be moved is in the ledger before it moves, and what was done after it; so a crash
between leaves a step that `flows.inbox_steps` finishes or undoes.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from flows.inbox_steps import Taken, cache_of, finish, free_name, undo
from tasks.check.params import Params as CheckParams
from tasks.core.errors import AffectGapError
from tasks.core.ledger import Arrival, Ledger
from tasks.core.lookalikes import lookalikes_note
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table
from tasks.ingest.inbox.faults import ChangedError, RefusedError, RepeatedError
from tasks.ingest.inbox.found import (
    Found,
    Stamp,
    dataset_of,
    look_at,
    require_same,
    stamp_of,
    stamps_of,
)
from tasks.ingest.inbox.moves import move, opened, remove_sources
from tasks.ingest.inbox.reading import BatchReading, HowToRead, read_batch
from tasks.ingest.inbox.reasons import remove_reason
from tasks.ingest.inbox.repeats import Repeats, find_repeats
from tasks.ingest.inbox.settings import Params, require_taker, takers_of
from tasks.ingest.label import shown
from tasks.ingest.manifest import manifest_table
from tasks.ingest.stage import KEPT
from tasks.ingest.stage import Params as IngestParams

_NO_ROOM = frozenset([errno.ENOSPC, errno.EDQUOT])


class Inbox:
    """The inbox of a project, with what params.yaml says of it.

    Parameters
    ----------
    paths
        The project's paths.

    Raises
    ------
    ParamsError
        One line, where params.yaml would keep out batches that are not to blame.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.params = load_section(paths.params, "intake", Params)
        self.ingest = load_section(paths.params, "ingest", IngestParams)
        require_taker(self.params, self.ingest.datasets, paths.params)
        self.check = load_section(paths.params, "check", CheckParams)
        self.ledger = Ledger(paths.ledger)
        self._waiting: dict[str, pd.DataFrame] = {}  # rows of batches that `ingest` has not read

    def take(self, found: Found) -> Taken:
        """Take in a batch, or quarantine it, or leave it; says which, and why."""
        if found.not_ready:
            return _left(found, found.not_ready)
        if shown(found.path.name) in self._on_their_way():
            return _left(found, "an earlier look could not move it all; the next tries again")
        try:
            batch = free_name(found.name, self.paths, self.ledger)
            try:
                return self._verify_and_accept(found, batch)
            except RefusedError as refused:
                return self._quarantine(found, batch, refused)
        except ChangedError as changed:
            return _left(found, f"{changed}; its sender is still at it")
        except OSError as error:
            if error.errno in _NO_ROOM:
                return _left(found, f"no room on the disk ({error.strerror})")
            name = shown(Path(error.filename or found.path).name)
            return _left(found, f"'{name}' could not be read or moved ({error.strerror or error})")
        except AffectGapError:
            raise  # no batch is to blame
        except Exception as error:  # noqa: BLE001 - one odd batch must not keep the others out
            said = " ".join(f"{type(error).__name__} {error}".split())
            return _left(found, f"it could not be looked at ({said})")

    def _on_their_way(self) -> set[str]:
        """Name the entries of the inbox whose move was begun and could not be done."""
        steps = self.ledger.under_way()
        return {step.detail["source"] for step in steps if step.kind == "taking_in"}

    def _verify_and_accept(self, found: Found, batch: str) -> Taken:
        if found.kind == "link":
            raise RefusedError(["it is a link; put what it leads to into the inbox"])
        if found.kind == "folder":
            remove_reason(found.path)
        before = look_at(found, self.params)
        with _held_still(found, before, self.params):
            how = self.how_to_read(dataset_of(found, self.params))
            with opened(found, self.paths.raw, self.params) as (folder, notes):
                if folder != found.path:
                    stamps_of(folder, self.params)  # the limits hold for what came out, too
                reading = read_batch(folder, batch, how)
                there = self._there()
                repeats = self._judge(reading, there)
                advice = _advice(reading, there)
                require_same(before, look_at(found, self.params))
                self._accept(found, folder, self._arrival(found, batch, reading), before)
        words = ", ".join([_in_words(reading, repeats), *reading.notes, *notes])
        detail = f"{words}, now in data/raw/{how.dataset}/{batch}{advice}"
        return Taken(batch, how.dataset, "accepted", detail, len(reading.rows))

    def how_to_read(self, dataset: str) -> HowToRead:
        """Return how the files of a data set are read.

        Raises RefusedError for one that takes no batches.
        """
        takers = takers_of(self.ingest.datasets)
        if dataset not in takers:
            told = f"takes no batches (ingest.datasets has {', '.join(takers)})"
            raise RefusedError([f"data set '{dataset}' {told}"])
        ingest = self.ingest
        adapter = ingest.datasets[dataset].adapter
        return HowToRead(
            dataset,
            adapter,
            ingest.age_bands,
            ingest.max_pixels,
            ingest.workers,
            self.paths.at(KEPT),
        )

    def _judge(self, reading: BatchReading, there: pd.DataFrame | None) -> Repeats:
        """Raise RefusedError with every reason that keeps a batch out."""
        self._refuse_same(reading)
        from tasks.check.batch import BatchLimits, batch_faults, pipeline_faults

        repeats = find_repeats(reading.rows, there, self.ledger)
        limits = BatchLimits(
            self.params.min_pictures,
            self.params.max_faulty_share,
            self.params.max_repeated_share,
            self.params.max_label_share,
            tuple(self.params.required),
        )
        rows = reading.rows
        faults = batch_faults(rows, reading.reasons, repeats.count, limits, self.check)
        if faults:
            faults += [*reading.examples(), *repeats.lines]
        faults += repeats.conflicts
        if not faults and there is not None:
            faults = [
                f"all data with this batch would stop the stage `check`: {line}"
                for line in pipeline_faults(there, rows, self.check)
            ]
        if faults:
            raise RefusedError(faults, reading)
        return repeats

    def _refuse_same(self, reading: BatchReading) -> None:
        batches, places = self.ledger.batches(), self.ledger.places()
        for row in batches[batches["digest"] == reading.digest].itertuples():
            if row.state == "accepted":
                told = f"the same as batch {row.batch}, which is in the data"
                if not self.paths.at(places[row.batch]).exists():
                    told += ", but whose folder is missing: `affectgap doctor` says what to do"
                raise RepeatedError([told], reading)
            if row.state == "withdrawn" and self.paths.at(places[row.batch]).exists():
                told = f"the same as batch {row.batch}, which was withdrawn ({row.reason})"
                raise RepeatedError([told], reading)

    def _there(self) -> pd.DataFrame | None:
        """Return the rows of all data; None before the first manifest.

        They are those of the manifest, without what was withdrawn since, and of what was accepted
        since.
        """
        if not self.paths.manifest.is_file():
            return None
        manifest = read_table(self.paths.manifest)
        batches = self.ledger.batches()
        known = dict(zip(batches["batch"], batches["state"], strict=True))
        gone = manifest["batch"].map(known) == "withdrawn"
        waiting = [
            self._rows_of(row.dataset, row.batch)
            for row in batches[batches["state"] == "accepted"].itertuples()
            if row.dataset in self.ingest.datasets
            and row.batch not in set(manifest["batch"])
            and (self.paths.raw / row.dataset / row.batch).is_dir()
        ]
        types = manifest.dtypes.to_dict()
        return pd.concat([manifest[~gone], *waiting], ignore_index=True).astype(types)

    def _rows_of(self, dataset: str, batch: str) -> pd.DataFrame:
        if batch not in self._waiting:
            folder, how = self.paths.raw / dataset / batch, self.how_to_read(dataset)
            try:
                rows = read_batch(folder, batch, how, cache_of(self.paths)).rows
            except RefusedError:
                rows = manifest_table([])  # no fault of the new batch; `ingest` will say it
            self._waiting[batch] = rows
        return self._waiting[batch]

    def _accept(
        self, found: Found, folder: Path, arrival: Arrival, before: dict[str, Stamp]
    ) -> None:
        place = self.paths.raw / arrival.dataset / arrival.batch
        self.ledger.begin(arrival, "accepted", self._below(place), [])
        copied = folder != found.path
        try:
            move(folder, place)
            # A sender that still has a file open writes on through the rename.
            after = look_at(found, self.params) if copied else stamps_of(place, self.params)
            require_same(before, after)
        except (OSError, ChangedError, RefusedError) as error:
            undo(self.ledger, arrival.batch, place, folder, str(error))
            raise
        if copied:
            remove_sources(found.sources)
        self.ledger.decide(arrival.batch, "accepted")

    def _quarantine(self, found: Found, batch: str, refused: RefusedError) -> Taken:
        """Move a batch out of the way, whole, with its reasons."""
        reading: BatchReading | None = refused.reading
        place = self.paths.quarantine / batch
        arrival = self._arrival(found, batch, reading)
        self.ledger.begin(arrival, "quarantined", self._below(place), refused.reasons)
        step = next(step for step in self.ledger.under_way() if step.batch == batch)
        finish(self.paths, self.ledger, step, found.sources)
        state = "repeated" if isinstance(refused, RepeatedError) else "quarantined"
        detail = f"now in {self._below(place)}: {'; '.join(refused.reasons)}"
        return Taken(batch, arrival.dataset, state, detail, len(arrival.pictures))

    def _arrival(self, found: Found, batch: str, reading: BatchReading | None) -> Arrival:
        nothing = pd.DataFrame(columns=MANIFEST_SCHEMA.names)
        return Arrival(
            batch=batch,
            dataset=reading.dataset if reading else "",
            digest=reading.digest if reading else "",
            source=shown(found.path.name),
            stamp=stamp_of(found),
            n_files=reading.n_files if reading else 0,
            pictures=reading.rows if reading else nothing,
        )

    def _below(self, place: Path) -> str:
        return place.relative_to(self.paths.root).as_posix()


@contextmanager
def _held_still(found: Found, before: dict[str, Stamp], params: Params) -> Iterator[None]:
    """Let a batch be refused only for what it is, not for what it was while it was written."""
    try:
        yield
    except RefusedError:
        require_same(before, look_at(found, params))
        raise


def _left(found: Found, why: str) -> Taken:
    return Taken(shown(found.path.name), "", "not_ready", why, 0)


def _advice(reading: BatchReading, there: pd.DataFrame | None) -> str:
    """Return "; " and what to look at in a batch that is accepted, or "" where there is nothing."""
    mine = _known_people(reading.rows)
    others = set() if there is None else _known_people(there)
    note = lookalikes_note(mine | others, mine)
    return f"; {note}" if note else ""


def _known_people(rows: pd.DataFrame) -> set[str]:
    return set(rows.loc[rows["subject_known"].astype(bool), "subject_id"])


def _in_words(reading: BatchReading, repeats: Repeats) -> str:
    people = reading.rows["subject_id"].nunique()
    told = [f"{len(reading.rows)} pictures of {people} people"]
    told += [f"left out: {count} {reason}" for reason, count in sorted(reading.reasons.items())]
    if repeats.count:
        told.append(f"{repeats.count} were there already and are left out")
    if repeats.withdrawn:
        told.append(f"{repeats.withdrawn} came before in a batch that was withdrawn")
    return ", ".join(told)
