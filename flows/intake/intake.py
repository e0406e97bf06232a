"""`affectgap intake` and `withdraw`: import of inbox batches and data sets, and their removal.

Every delivery either becomes part of data/raw, or goes to data/quarantine with the reasons. DVC
tracks the data, and the ledger records each batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from flows.datasets.catalog import DATASETS
from flows.datasets.demographics import Demographics, count_demographics
from flows.intake import recovery
from flows.intake.entries import BatchRejectedError
from flows.intake.place_images import intake, require_within_project
from flows.intake.recovery import (
    IntakeOutcome,
    cache_of,
    existing_dataset_files,
    finish,
    read_options,
    track,
    unique_batch_name,
)
from flows.intake.validate_batch import digest_of, read_batch
from flows.ledger.ledger import Arrival, Ledger
from flows.pipeline.dvc_repair import add_to_dvc, repair_after_crash
from tasks.core.errors import AffectGapError, BusyError, DataError, UserError
from tasks.core.files import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.core.text import lookalikes_note
from tasks.ingest.label import printable_path
from tasks.ingest.manifest import manifest_table
from tasks.ingest.stage import Params

__all__ = [
    "IntakeOutcome",
    "count",
    "intake_dataset",
    "intake_inbox",
    "recover",
    "remaining_copies",
    "withdraw",
]

# Shared with `affectgap run`: data/raw must not change while stages read it.
_LOCK = "work/run.lock"
# Lines of `remaining_copies`, after the place in the quarantine.
_REMAINING = (
    "  .dvc/cache, and DVC's remote after a push: every file of it",
    "  git history and tags: its digest, by which `dvc checkout` brings it back",
    "  data/ledger.db: its name, and paths, people and labels of its pictures",
    "  mlruns/: models trained with it, their seen.csv, and figures and reports with its faces",
    "  registry/decisions/: image ids of its test pictures",
    "  data/, models/, reports/: results of earlier runs, until they are recomputed",
    "  work/: crops and measurements that are reused",
)
_BUSY = "another affectgap command is at work here; run this one again when it is done"


def intake_inbox(paths: Paths, say: Callable[[str], None]) -> list[IntakeOutcome]:
    """Import every ready batch of the inbox, one by one, then have DVC track them.

    Returns batches that an interrupted call had begun, then one outcome per entry of the inbox, by
    name. Raises UserError while another command is running here, and AffectGapError if params.yaml,
    the ledger or DVC prevents an import; what was moved until then is tracked, now or by the next
    call.
    """
    from flows.intake.entries import find_batches
    from flows.intake.inbox import Inbox

    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        require_within_project(paths)
        ledger = Ledger(paths.ledger)
        accepted = set(_accepted(ledger)["batch"])
        recovery.recover(paths, say)  # first: works even if params.yaml is invalid
        repaired = _accepted(ledger)
        outcomes = [
            IntakeOutcome(
                row.batch, row.dataset, "accepted", "an intake was killed here", row.n_pictures
            )
            for row in repaired[~repaired["batch"].isin(accepted)].itertuples()
        ]
        inbox = Inbox(paths)
        with _track_at_the_end(paths, ledger):
            for entry in find_batches(paths.inbox):
                outcomes.append(inbox.take(entry))
                say(str(outcomes[-1]))
    return outcomes


@contextmanager
def _track_at_the_end(paths: Paths, ledger: Ledger) -> Iterator[None]:
    """Have DVC track what was moved, even if a later batch failed."""
    try:
        yield
    except Exception:
        with suppress(AffectGapError, OSError):  # report the first failure
            track(paths, ledger)
        raise
    track(paths, ledger)


def recover(paths: Paths, say: Callable[[str], None]) -> list[str]:
    """Complete or undo what a killed intake or withdrawal left; see `flows.intake.recovery`.

    While another command is running here nothing is done, since the open steps belong to it.
    """
    try:
        with alone(paths.at(_LOCK), _BUSY):
            return [str(repair) for repair in recovery.recover(paths, say)]
    except BusyError:
        return []


def _accepted(ledger: Ledger) -> pd.DataFrame:
    batches = ledger.batches()
    return batches[batches["state"] == "accepted"]


def withdraw(paths: Paths, batch: str, why: str, by: str) -> str:
    """Move an accepted batch from data/raw to the quarantine, and return a line on it.

    A whole data set is removed by hand; then this only records the withdrawal. Raises UserError for
    a batch that is not part of the data, or a data set that is still there, and DataError if the
    folder cannot be moved; the next command tries that again.
    """
    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        ledger = Ledger(paths.ledger)
        interrupted = {step.batch for step in ledger.under_way() if step.kind == "withdrawing"}
        recovery.recover(paths, lambda line: None)
        if batch in interrupted and batch not in set(_accepted(ledger)["batch"]):
            target = ledger.places()[batch]  # this call completed an interrupted one
        else:
            place = _place_of(batch, ledger, paths)
            sources = [place] if place.is_dir() else []
            reason = f"{why} ({by})" if by else why
            target = _quarantine(paths, ledger, batch, sources, reason)
        track(paths, ledger)
    trained = ledger.trainings()
    models = trained[trained["batch"] == batch]
    message = f"{batch}: withdrawn, now in {target}"
    if models.empty:
        return message
    versions = ", ".join(str(number) for number in models["version"].dropna().unique())
    saw = f"version {versions} of the model was" if versions else "a model was"
    return f"{message}; {saw} trained with it: `affectgap retrain --now` trains without"


def remaining_copies(paths: Paths, batch: str) -> list[str]:
    """Return lines on what a withdrawal did not remove; docs/operations.md explains them."""
    target = Ledger(paths.ledger).places()[batch]
    quarantined = [f"  {target}/: its pictures and labels"] if paths.at(target).is_dir() else []
    return ["this erases nothing; what stays until you remove it:", *quarantined, *_REMAINING]


def _quarantine(
    paths: Paths, ledger: Ledger, batch: str, sources: Sequence[Path], reason: str
) -> str:
    """Move a batch to the quarantine; return its path there, below the project's folder."""
    folder = paths.quarantine / batch
    number = 2
    while folder.exists():
        folder, number = paths.quarantine / f"{batch}.{number}", number + 1
    target = folder.relative_to(paths.root).as_posix()
    ledger.begin_withdrawal(batch, target, [reason])
    step = next(step for step in ledger.under_way() if step.batch == batch)
    try:
        finish(paths, ledger, step, sources)
    except OSError as error:
        fault = f"cannot be moved to {target} ({error.strerror or error})"
        raise DataError(f"{batch}: {fault}; the next command here tries it again") from None
    return target


def _place_of(batch: str, ledger: Ledger, paths: Paths) -> Path:
    batches = ledger.batches().set_index("batch")
    if batch not in batches.index or batches.loc[batch, "state"] != "accepted":
        listed = ", ".join(_accepted(ledger)["batch"]) or "none"
        raise UserError(f"batch '{batch}' is not part of the data; these are: {listed}")
    place = paths.at(ledger.places()[batch])
    if place.parent == paths.raw and (present := existing_dataset_files(paths, place.name)):
        files = " and ".join(present)
        raise UserError(f"'{batch}' is a whole data set; remove {files}, then withdraw it")
    return place


def intake_dataset(paths: Paths, source: Path, dataset: str) -> str:
    """Check and copy a whole data set, have DVC track it, and record it in the ledger.

    `source` is read, never changed. `dataset` names the folder below data/raw and the batch.
    Returns one line on what was done, and what else to do if params.yaml does not name the data
    set.
    """
    params = load_section(paths.params, "ingest", Params)
    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        require_within_project(paths)
        mended = [f"; mended: {line}" for line in repair_after_crash(paths.root)]
        summary = intake(source, dataset, paths, params.max_pixels)
        # Each step is idempotent, so a call after a crash completes them.
        add_to_dvc(paths, dataset)
        note = _record_in_ledger(paths, source, dataset, params)
    return f"{summary}{note}{_params_note(dataset, params)}{''.join(mended)}"


def _record_in_ledger(paths: Paths, source: Path, dataset: str, params: Params) -> str:
    """Record a whole data set in the ledger; return a note on its content, or ""."""
    ledger = Ledger(paths.ledger)
    below = f"data/raw/{dataset}"
    folder = paths.raw / dataset
    if _is_recorded(paths, ledger, folder):
        return ""
    known = params.datasets.get(dataset)
    adapter = known.adapter if known else _adapter_of(dataset)
    options = read_options(paths, params, dataset, adapter)
    fault, rows = "", manifest_table([])
    try:
        reading = read_batch(folder, "", options, cache_of(paths))
        rows, digest, n_files = reading.rows, reading.digest, reading.n_files
    except BatchRejectedError as error:
        fault = f"; the adapter {adapter} cannot read it: {'; '.join(error.reasons)}"
        digest = digest_of(folder, cache_of(paths))
        n_files = sum(path.is_file() for path in folder.rglob("*"))
    name = dataset
    if name in ledger.places():
        name = unique_batch_name(name, paths, ledger)
    arrival = Arrival(name, dataset, digest, printable_path(source), "", n_files, rows)
    ledger.begin(arrival, "accepted", below, [])
    ledger.decide(name, "accepted")
    ledger.mark_tracked([name])
    note = lookalikes_note(rows.loc[rows["subject_known"].astype(bool), "subject_id"])
    return f"{fault}; {note}" if note else fault


def _is_recorded(paths: Paths, ledger: Ledger, folder: Path) -> bool:
    """Return whether the ledger has this data set; a different former one is withdrawn."""
    below = folder.relative_to(paths.root).as_posix()
    batches, places = ledger.batches(), ledger.places()
    earlier = batches[(batches["state"] == "accepted") & (batches["batch"].map(places) == below)]
    if earlier.empty:
        return False
    digest = digest_of(folder, cache_of(paths))
    for batch, recorded in earlier[["batch", "digest"]].itertuples(index=False):
        if recorded == digest:
            return True
        reason = "its folder was removed, and another data set was imported under its name"
        _quarantine(paths, ledger, batch, [], reason)
    return False


def _adapter_of(dataset: str) -> str:
    known = DATASETS.get(dataset)
    return known.adapter if known else "folder"


def _params_note(dataset: str, params: Params) -> str:
    """Return what to do if params.yaml does not name the data set, else ""."""
    if dataset in params.datasets:
        return ""
    known = DATASETS.get(dataset)
    adapter = _adapter_of(dataset)
    remedy = f"`affectgap use PRESET`, or add it to ingest.datasets with the adapter {adapter}"
    if known and known.preset:
        remedy = f"`affectgap use {known.preset}`"
    return f"; params.yaml does not read it yet: {remedy}"


def count(paths: Paths, folder: Path, adapter: str, out: Path | None) -> Demographics:
    """Count a folder's subjects by the age bands of params.yaml, and write the table to `out`."""
    params = load_section(paths.params, "ingest", Params)
    counted = count_demographics(folder, adapter, params.age_bands)
    if out is not None:
        write_csv(counted.table, out)
    return counted
