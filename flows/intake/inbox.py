"""Import of one inbox batch: verified where it lies, then moved by one rename, or kept out.

The ledger records a move before it begins and its outcome afterwards, so a crash in between leaves
a step that `flows.intake.recovery` completes or undoes.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from flows.intake.atomic_moves import move, opened, remove_sources
from flows.intake.duplicates import DuplicateReport, find_known_images
from flows.intake.entries import (
    BatchReading,
    BatchRejectedError,
    BatchStillChangingError,
    DuplicateBatchError,
    InboxEntry,
    Stamp,
    dataset_of,
    require_unchanged,
    snapshot,
    snapshot_folder,
    stamp_of,
)
from flows.intake.recovery import (
    IntakeOutcome,
    cache_of,
    finish,
    read_options,
    undo,
    unique_batch_name,
)
from flows.intake.rejection_notice import remove_reason
from flows.intake.settings import Params, check_intake_dataset, intake_datasets
from flows.intake.validate_batch import ReadOptions, read_batch
from flows.ledger.ledger import Arrival, Ledger
from tasks.check.settings import Params as CheckParams
from tasks.core.errors import AffectGapError
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table
from tasks.core.text import lookalikes_note
from tasks.ingest.label import printable_path
from tasks.ingest.manifest import manifest_table
from tasks.ingest.stage import Params as IngestParams

_DISK_FULL = frozenset([errno.ENOSPC, errno.EDQUOT])


class Inbox:
    """The inbox of a project, with the settings of params.yaml.

    Raises ParamsError if params.yaml would keep out batches that are not at fault.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.params = load_section(paths.params, "intake", Params)
        self.ingest = load_section(paths.params, "ingest", IngestParams)
        check_intake_dataset(self.params, self.ingest.datasets, paths.params)
        self.check = load_section(paths.params, "check", CheckParams)
        self.ledger = Ledger(paths.ledger)
        self._waiting: dict[str, pd.DataFrame] = {}  # rows that `ingest` has not read yet

    def take(self, entry: InboxEntry) -> IntakeOutcome:
        """Import a batch, or quarantine it, or leave it in the inbox; return which, and why."""
        if entry.not_ready:
            return _postponed(entry, entry.not_ready)
        if printable_path(entry.path.name) in self._pending_sources():
            return _postponed(entry, "an earlier run could not move it completely; it is retried")
        try:
            batch = unique_batch_name(entry.name, self.paths, self.ledger)
            try:
                return self._verify_and_accept(entry, batch)
            except BatchRejectedError as refused:
                return self._quarantine(entry, batch, refused)
        except BatchStillChangingError as changed:
            return _postponed(entry, f"{changed}; its sender is still writing")
        except OSError as error:
            if error.errno in _DISK_FULL:
                return _postponed(entry, f"the disk is full ({error.strerror})")
            name = printable_path(Path(error.filename or entry.path).name)
            fault = error.strerror or error
            return _postponed(entry, f"'{name}' could not be read or moved ({fault})")
        except AffectGapError:
            raise  # not the batch's fault
        except Exception as error:  # noqa: BLE001 - one bad batch must not block the others
            fault = " ".join(f"{type(error).__name__} {error}".split())
            return _postponed(entry, f"it could not be checked ({fault})")

    def _pending_sources(self) -> set[str]:
        """Return the entries of the inbox whose move began and failed."""
        steps = self.ledger.under_way()
        return {step.detail["source"] for step in steps if step.kind == "taking_in"}

    def _verify_and_accept(self, entry: InboxEntry, batch: str) -> IntakeOutcome:
        if entry.kind == "link":
            raise BatchRejectedError(["it is a link; put what it leads to into the inbox"])
        if entry.kind == "folder":
            remove_reason(entry.path)
        before = snapshot(entry, self.params)
        with _require_unchanged(entry, before, self.params):
            options = self.how_to_read(dataset_of(entry, self.params))
            with opened(entry, self.paths.raw, self.params) as (folder, notes):
                if folder != entry.path:
                    snapshot_folder(folder, self.params)  # the limits hold for extracted files, too
                reading = read_batch(folder, batch, options)
                current = self._current_manifest()
                repeats = self._find_repeats_or_reject(reading, current)
                advice = _advice(reading, current)
                require_unchanged(before, snapshot(entry, self.params))
                self._accept(entry, folder, self._arrival(entry, batch, reading), before)
        summary = ", ".join([_summary(reading, repeats), *reading.notes, *notes])
        detail = f"{summary}, now in data/raw/{options.dataset}/{batch}{advice}"
        return IntakeOutcome(batch, options.dataset, "accepted", detail, len(reading.rows))

    def how_to_read(self, dataset: str) -> ReadOptions:
        """Return how to read the files of a data set; BatchRejectedError if it takes no batches."""
        takers = intake_datasets(self.ingest.datasets)
        if dataset not in takers:
            known = ", ".join(takers)
            fault = f"data set '{dataset}' takes no batches (ingest.datasets has {known})"
            raise BatchRejectedError([fault])
        adapter = self.ingest.datasets[dataset].adapter
        return read_options(self.paths, self.ingest, dataset, adapter)

    def _find_repeats_or_reject(
        self, reading: BatchReading, current: pd.DataFrame | None
    ) -> DuplicateReport:
        """Raise BatchRejectedError with every reason that keeps a batch out."""
        self._reject_duplicate(reading)
        from tasks.check.batch_checks import BatchLimits, batch_faults, pipeline_faults

        repeats = find_known_images(reading.rows, current, self.ledger)
        limits = BatchLimits(
            self.params.min_images,
            self.params.max_faulty_share,
            self.params.max_repeated_share,
            self.params.max_label_share,
            tuple(self.params.required_columns),
        )
        rows = reading.rows
        faults = batch_faults(rows, reading.reasons, repeats.count, limits, self.check)
        if faults:
            faults += [*reading.examples(), *repeats.lines]
        faults += repeats.conflicts
        if not faults and current is not None:
            faults = [
                f"all data with this batch would stop the stage `check`: {line}"
                for line in pipeline_faults(current, rows, self.check)
            ]
        if faults:
            raise BatchRejectedError(faults, reading)
        return repeats

    def _reject_duplicate(self, reading: BatchReading) -> None:
        batches, places = self.ledger.batches(), self.ledger.places()
        for row in batches[batches["digest"] == reading.digest].itertuples():
            if row.state == "accepted":
                reason = f"the same as batch {row.batch}, which is in the data"
                if not self.paths.at(places[row.batch]).exists():
                    reason += ", but whose folder is missing: `affectgap doctor` says what to do"
                raise DuplicateBatchError([reason], reading)
            if row.state == "withdrawn" and self.paths.at(places[row.batch]).exists():
                reason = f"the same as batch {row.batch}, which was withdrawn ({row.reason})"
                raise DuplicateBatchError([reason], reading)

    def _current_manifest(self) -> pd.DataFrame | None:
        """Return the rows of all data; None before the first manifest.

        These are the rows of the manifest, without batches withdrawn since, and with batches
        accepted since.
        """
        if not self.paths.manifest.is_file():
            return None
        manifest = read_table(self.paths.manifest)
        batches = self.ledger.batches()
        states = dict(zip(batches["batch"], batches["state"], strict=True))
        withdrawn = manifest["batch"].map(states) == "withdrawn"
        waiting = [
            self._rows_of(row.dataset, row.batch)
            for row in batches[batches["state"] == "accepted"].itertuples()
            if row.dataset in self.ingest.datasets
            and row.batch not in set(manifest["batch"])
            and (self.paths.raw / row.dataset / row.batch).is_dir()
        ]
        types = manifest.dtypes.to_dict()
        return pd.concat([manifest[~withdrawn], *waiting], ignore_index=True).astype(types)

    def _rows_of(self, dataset: str, batch: str) -> pd.DataFrame:
        if batch not in self._waiting:
            folder, options = self.paths.raw / dataset / batch, self.how_to_read(dataset)
            try:
                rows = read_batch(folder, batch, options, cache_of(self.paths)).rows
            except BatchRejectedError:
                rows = manifest_table([])  # not the new batch's fault; `ingest` will report it
            self._waiting[batch] = rows
        return self._waiting[batch]

    def _accept(
        self, entry: InboxEntry, folder: Path, arrival: Arrival, before: dict[str, Stamp]
    ) -> None:
        place = self.paths.raw / arrival.dataset / arrival.batch
        self.ledger.begin(arrival, "accepted", self._relative(place), [])
        copied = folder != entry.path
        try:
            move(folder, place)
            # A sender that still has a file open goes on writing after the rename.
            after = snapshot(entry, self.params) if copied else snapshot_folder(place, self.params)
            require_unchanged(before, after)
        except (OSError, BatchStillChangingError, BatchRejectedError) as error:
            undo(self.ledger, arrival.batch, place, folder, str(error))
            raise
        if copied:
            remove_sources(entry.sources)
        self.ledger.decide(arrival.batch, "accepted")

    def _quarantine(
        self, entry: InboxEntry, batch: str, refused: BatchRejectedError
    ) -> IntakeOutcome:
        reading: BatchReading | None = refused.reading
        place = self.paths.quarantine / batch
        arrival = self._arrival(entry, batch, reading)
        self.ledger.begin(arrival, "quarantined", self._relative(place), refused.reasons)
        step = next(step for step in self.ledger.under_way() if step.batch == batch)
        finish(self.paths, self.ledger, step, entry.sources)
        state = "repeated" if isinstance(refused, DuplicateBatchError) else "quarantined"
        detail = f"now in {self._relative(place)}: {'; '.join(refused.reasons)}"
        return IntakeOutcome(batch, arrival.dataset, state, detail, len(arrival.images))

    def _arrival(self, entry: InboxEntry, batch: str, reading: BatchReading | None) -> Arrival:
        nothing = pd.DataFrame(columns=MANIFEST_SCHEMA.names)
        return Arrival(
            batch=batch,
            dataset=reading.dataset if reading else "",
            digest=reading.digest if reading else "",
            source=printable_path(entry.path.name),
            stamp=stamp_of(entry),
            n_files=reading.n_files if reading else 0,
            images=reading.rows if reading else nothing,
        )

    def _relative(self, place: Path) -> str:
        return place.relative_to(self.paths.root).as_posix()


@contextmanager
def _require_unchanged(
    entry: InboxEntry, before: dict[str, Stamp], params: Params
) -> Iterator[None]:
    """Reject a batch only for its final content, not for files that were still being written."""
    try:
        yield
    except BatchRejectedError:
        require_unchanged(before, snapshot(entry, params))
        raise


def _postponed(entry: InboxEntry, reason: str) -> IntakeOutcome:
    return IntakeOutcome(printable_path(entry.path.name), "", "not_ready", reason, 0)


def _advice(reading: BatchReading, current: pd.DataFrame | None) -> str:
    """Return "; " and a note on ids of an accepted batch that look alike, or ""."""
    new = _known_people(reading.rows)
    known = set() if current is None else _known_people(current)
    note = lookalikes_note(new | known, new)
    return f"; {note}" if note else ""


def _known_people(rows: pd.DataFrame) -> set[str]:
    return set(rows.loc[rows["subject_known"].astype(bool), "subject_id"])


def _summary(reading: BatchReading, repeats: DuplicateReport) -> str:
    people = reading.rows["subject_id"].nunique()
    parts = [f"{len(reading.rows)} pictures of {people} people"]
    parts += [f"left out: {count} {reason}" for reason, count in sorted(reading.reasons.items())]
    if repeats.count:
        parts.append(f"{repeats.count} are in the data already and are left out")
    if repeats.withdrawn:
        parts.append(f"{repeats.withdrawn} came before in a batch that was withdrawn")
    return ", ".join(parts)
