"""`affectgap intake` and `withdraw`: batches of the inbox, whole data sets, and back again.

What is given becomes part of data/raw once, or goes to data/quarantine with its reasons; DVC tracks
it, and the ledger knows of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from flows import inbox_steps
from flows.dvc_files import add_to_dvc, mend_after_a_crash
from flows.inbox_steps import (
    Taken,
    cache_of,
    finish,
    free_name,
    track,
    what_is_there,
)
from tasks.core.errors import AffectGapError, DataError, UserError
from tasks.core.ledger import Arrival, Ledger
from tasks.core.locks import alone
from tasks.core.lookalikes import lookalikes_note
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.ingest.catalogue import DATASETS
from tasks.ingest.demographics import Demographics, count_demographics
from tasks.ingest.inbox.faults import RefusedError
from tasks.ingest.inbox.reading import HowToRead, digest_of, read_batch
from tasks.ingest.intake import intake, require_within_project
from tasks.ingest.label import shown
from tasks.ingest.manifest import manifest_table
from tasks.ingest.stage import KEPT, Params

__all__ = ["Taken", "count", "mend", "take_in", "take_in_inbox", "what_stays", "withdraw"]

# The same lock as `affectgap run`: data/raw must not change while stages read it.
_LOCK = "work/run.lock"
# Lines of `what_stays`; the place in the quarantine is put before them.
_STAYS = (
    "  .dvc/cache, and DVC's remote after a push: every file of it",
    "  git history and tags: its digest, by which `dvc checkout` brings it back",
    "  data/ledger.db: its name, and paths, people and labels of its pictures",
    "  mlruns/: models trained with it, their seen.csv, and figures and reports with its faces",
    "  registry/decisions/: image ids of its test pictures",
    "  data/, models/, reports/: results of earlier runs, until they are made again",
    "  work/: crops and measurements that are reused",
)
_BUSY = "another affectgap command is at work here; run this one again when it is done"


def take_in_inbox(paths: Paths, say: Callable[[str], None]) -> list[Taken]:
    """Take in every batch of the inbox that is ready, each by itself; DVC then tracks them.

    Parameters
    ----------
    paths
        The project's paths.
    say
        Told what became of each, and what an earlier crash left and was mended.

    Returns
    -------
    list of Taken
        First the batches that an earlier call had begun to take in, then one an entry of the
        inbox, by name.

    Raises
    ------
    UserError
        Where another command is at work here.
    AffectGapError
        Where a batch cannot be taken in and none is to blame (params.yaml, the ledger, DVC). What
        was moved until then is tracked, now or by the next call.
    """
    from flows.inbox import Inbox
    from tasks.ingest.inbox.found import find_batches

    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        require_within_project(paths)
        ledger = Ledger(paths.ledger)
        before = set(_accepted(ledger)["batch"])
        inbox_steps.mend(paths, say)  # first: it needs nothing of params.yaml
        mended = _accepted(ledger)
        taken = [
            Taken(row.batch, row.dataset, "accepted", "an intake was killed here", row.n_pictures)
            for row in mended[~mended["batch"].isin(before)].itertuples()
        ]
        inbox = Inbox(paths)
        with _tracked_at_the_end(paths, ledger):
            for found in find_batches(paths.inbox):
                taken.append(inbox.take(found))
                say(str(taken[-1]))
    return taken


@contextmanager
def _tracked_at_the_end(paths: Paths, ledger: Ledger) -> Iterator[None]:
    """Have DVC track what was moved, also where a later batch ended it all."""
    try:
        yield
    except Exception:
        with suppress(AffectGapError, OSError):  # what is told is the first failure
            track(paths, ledger)
        raise
    track(paths, ledger)


def mend(paths: Paths, say: Callable[[str], None]) -> list[str]:
    """Finish or undo what a killed intake or withdrawal left; see `inbox_steps.mend`.

    Where another command is at work here nothing is done, for the steps under way are its own.
    """
    try:
        with alone(paths.at(_LOCK), _BUSY):
            return inbox_steps.mend(paths, say)
    except UserError as error:
        if str(error) != _BUSY:
            raise
        return []


def _accepted(ledger: Ledger) -> pd.DataFrame:
    batches = ledger.batches()
    return batches[batches["state"] == "accepted"]


def withdraw(paths: Paths, batch: str, why: str, by: str) -> str:
    """Take an accepted batch out of data/raw again, into the quarantine.

    Of a whole data set, which a person removes by hand, only that is written down.

    Parameters
    ----------
    paths
        The project's paths.
    batch
        Its name in the ledger.
    why, by
        The reason and who gives it; kept with the batch.

    Returns
    -------
    str
        What was done, and what else to do where a model was trained with it.

    Raises
    ------
    UserError
        For a batch that is not part of the data, or a whole data set that is still there.
    DataError
        Where its folder cannot be moved; the next command tries it again.
    """
    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        ledger = Ledger(paths.ledger)
        begun = {step.batch for step in ledger.under_way() if step.kind == "withdrawing"}
        inbox_steps.mend(paths, lambda line: None)
        if batch in begun and batch not in set(_accepted(ledger)["batch"]):
            where = ledger.places()[batch]  # an earlier call was stopped, and this one finished it
        else:
            place = _place_of(batch, ledger, paths)
            sources = [place] if place.is_dir() else []
            reason = f"{why} ({by})" if by else why
            where = _out_of_the_data(paths, ledger, batch, sources, reason)
        track(paths, ledger)
    trained = ledger.trainings()
    models = trained[trained["batch"] == batch]
    told = f"{batch}: withdrawn, now in {where}"
    if models.empty:
        return told
    versions = ", ".join(str(number) for number in models["version"].dropna().unique())
    saw = f"version {versions} of the model was" if versions else "a model was"
    return f"{told}; {saw} trained with it: `affectgap retrain --now` trains without"


def what_stays(paths: Paths, batch: str) -> list[str]:
    """Return lines on what a withdrawal did not remove; docs/operations.md explains them."""
    where = Ledger(paths.ledger).places()[batch]
    there = [f"  {where}/: its pictures and labels"] if paths.at(where).is_dir() else []
    return ["this erases nothing; what stays until you remove it:", *there, *_STAYS]


def _out_of_the_data(
    paths: Paths, ledger: Ledger, batch: str, sources: Sequence[Path], reason: str
) -> str:
    """Move a batch to the quarantine; returns its place there, below the project's folder."""
    target = paths.quarantine / batch
    number = 2
    while target.exists():
        target, number = paths.quarantine / f"{batch}.{number}", number + 1
    where = target.relative_to(paths.root).as_posix()
    ledger.begin_withdrawal(batch, where, [reason])
    step = next(step for step in ledger.under_way() if step.batch == batch)
    try:
        finish(paths, ledger, step, sources)
    except OSError as error:
        why = error.strerror or error
        told = f"cannot be moved to {where} ({why}); the next command here tries it again"
        raise DataError(f"{batch}: {told}") from None
    return where


def _place_of(batch: str, ledger: Ledger, paths: Paths) -> Path:
    batches = ledger.batches().set_index("batch")
    if batch not in batches.index or batches.loc[batch, "state"] != "accepted":
        listed = ", ".join(_accepted(ledger)["batch"]) or "none"
        raise UserError(f"batch '{batch}' is not part of the data; these are: {listed}")
    place = paths.at(ledger.places()[batch])
    if place.parent == paths.raw and (there := what_is_there(paths, place.name)):
        told = f"remove {' and '.join(there)}, then withdraw it"
        raise UserError(f"'{batch}' is a whole data set; {told}")
    return place


def take_in(paths: Paths, source: Path, dataset: str) -> str:
    """Check and copy a whole data set, then have DVC track it and the ledger know of it.

    Parameters
    ----------
    paths
        The project's paths.
    source
        The folder that was given; it is read, never changed.
    dataset
        Its name from now on: the folder below data/raw, and the batch's name in the ledger.

    Returns
    -------
    str
        What was done, in one line, and what else to do where params.yaml does not name it.
    """
    params = load_section(paths.params, "ingest", Params)
    with alone(paths.at(_LOCK), f"{paths.root}: {_BUSY}"):
        require_within_project(paths)
        mended = [f"; mended: {line}" for line in mend_after_a_crash(paths.root)]
        summary = intake(source, dataset, paths, params.max_pixels)
        # Again after a crash between these steps: what was done is not done twice.
        add_to_dvc(paths, dataset)
        told = _tell_ledger(paths, source, dataset, params)
    return f"{summary}{told}{_not_read_yet(dataset, params)}{''.join(mended)}"


def _tell_ledger(paths: Paths, source: Path, dataset: str, params: Params) -> str:
    """Write a whole data set into the ledger; returns what to look at in it, or ""."""
    ledger = Ledger(paths.ledger)
    place = f"data/raw/{dataset}"
    folder = paths.raw / dataset
    if _is_known(paths, ledger, folder):
        return ""
    known = params.datasets.get(dataset)
    adapter = known.adapter if known else _adapter_of(dataset)
    how = HowToRead(
        dataset, adapter, params.age_bands, params.max_pixels, params.workers, paths.at(KEPT)
    )
    told, rows = "", manifest_table([])
    try:
        reading = read_batch(folder, "", how, cache_of(paths))
        rows, digest, n_files = reading.rows, reading.digest, reading.n_files
    except RefusedError as error:
        told = f"; the adapter {adapter} cannot read it: {'; '.join(error.reasons)}"
        digest = digest_of(folder, cache_of(paths))
        n_files = sum(path.is_file() for path in folder.rglob("*"))
    name = dataset
    if name in ledger.places():
        name = free_name(name, paths, ledger)
    arrival = Arrival(name, dataset, digest, shown(source), "", n_files, rows)
    ledger.begin(arrival, "accepted", place, [])
    ledger.decide(name, "accepted")
    ledger.mark_tracked([name])
    note = lookalikes_note(rows.loc[rows["subject_known"].astype(bool), "subject_id"])
    return f"{told}; {note}" if note else told


def _is_known(paths: Paths, ledger: Ledger, folder: Path) -> bool:
    """Whether the ledger has this data set; what lay there before it is written down as gone."""
    there = folder.relative_to(paths.root).as_posix()
    batches, places = ledger.batches(), ledger.places()
    before = batches[(batches["state"] == "accepted") & (batches["batch"].map(places) == there)]
    if before.empty:
        return False
    digest = digest_of(folder, cache_of(paths))
    for batch, known in before[["batch", "digest"]].itertuples(index=False):
        if known == digest:
            return True
        reason = "its folder was removed, and another data set was taken in under its name"
        _out_of_the_data(paths, ledger, batch, [], reason)
    return False


def _adapter_of(dataset: str) -> str:
    known = DATASETS.get(dataset)
    return known.adapter if known else "folder"


def _not_read_yet(dataset: str, params: Params) -> str:
    """Return what to do where params.yaml does not name the data set, else ""."""
    if dataset in params.datasets:
        return ""
    known = DATASETS.get(dataset)
    adapter = _adapter_of(dataset)
    remedy = f"`affectgap use PRESET`, or add it to ingest.datasets with the adapter {adapter}"
    if known and known.preset:
        remedy = f"`affectgap use {known.preset}`"
    return f"; params.yaml does not read it yet: {remedy}"


def count(paths: Paths, folder: Path, adapter: str, out: Path | None) -> Demographics:
    """Count a folder's people by the age bands of params.yaml, and write the table where asked.

    Parameters
    ----------
    paths
        The project's paths.
    folder
        A data set's folder, anywhere; it is read, never changed.
    adapter
        How its files are named.
    out
        The CSV to write, or None.
    """
    params = load_section(paths.params, "ingest", Params)
    counted = count_demographics(folder, adapter, params.age_bands)
    if out is not None:
        write_csv(counted.table, out)
    return counted
