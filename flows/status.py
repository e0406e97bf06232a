"""`affectgap status`: model in use, inbox, what waits for a training, last passes, next run."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import shorten
from typing import Any

import pandas as pd

from flows.access import SERVING, SERVING_UI, known_secret
from flows.failures import Failures
from flows.policy import datasets_read
from flows.retrain import what_is_missing, why_due
from flows.worst_group import not_judged_words, notices, worst_words
from tasks.core.errors import AffectGapError, UserError
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.core.process import is_dead

_LAST_PASSES = 5
_NOTES = {"runs": SERVING, "models": SERVING_UI}
_STORES = ("sqlalchemy", "alembic", "mlflow", "prefect", "httpx")  # whose errors are no defects
_WIDTH = 90  # characters of what came out of a pass


def status_lines(paths: Paths) -> tuple[list[str], bool]:
    """Return what an engineer asks first, in one screen.

    Parameters
    ----------
    paths
        The project's paths.

    Returns
    -------
    list of str
        Lines; what cannot be read is said in its place.
    bool
        Whether everything could be read.
    """
    ledger = Ledger(paths.ledger)
    parts = [
        _said(_model_in_use, paths),
        _said(_inbox, paths, ledger),
        _said(_untrained, paths, ledger),
        _said(_failed, paths),
        _said(_passes, ledger),
        _said(_next, paths),
    ]
    return [line for lines, _ in parts for line in lines], all(read for _, read in parts)


def _said(part, *arguments) -> tuple[list[str], bool]:  # type: ignore[no-untyped-def]
    """Return a part's lines; the others are shown where it has a fault, as a damaged store."""
    try:
        return list(part(*arguments)), True
    except AffectGapError as error:
        return str(error).splitlines(), False
    except Exception as error:
        known = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _STORES
        if not known:
            raise
        told, *_ = str(error).strip().splitlines() or [""]
        name = part.__name__.strip("_").replace("_", " ").removeprefix("model ")
        line = f"{name:<12} cannot be told: {type(error).__name__}: {shorten(told, _WIDTH)}"
        return [line], False


def _model_in_use(paths: Paths) -> Iterator[str]:
    from flows.registry import withdrawn_batches
    from tasks.register.registry import champion, previous

    version, before = champion(paths), previous(paths)
    if version is None:
        yield "in use       no model yet"
        yield from _waiting(paths, 0)
        return
    back = f", before it version {before.number}" if before else ""
    yield f"in use       version {version.number} ({version.digest}){back}"
    if worst := worst_words(version.tags):
        yield f"worst group  recall of {worst}"
        if unknown := not_judged_words(version.tags):
            yield f"             {unknown}"
        yield from (f"             {notice}" for notice in notices([version.tags]))
    else:
        yield "worst group  not known: every group was too small to be judged (promote.min_n)"
    yield from _waiting(paths, version.number)
    if gone := withdrawn_batches(paths, version):
        names = ", ".join(gone)
        yield f"             was trained with what is withdrawn now: {names} (retrain --now)"


def _waiting(paths: Paths, in_use: int) -> Iterator[str]:
    """Name the versions, newer than the one in use, that wait for a person's approval."""
    from tasks.register.records import WAITING, last_record, read_records
    from tasks.register.registry import versions

    records = read_records(paths)
    for newer in (one for one in versions(paths) if one.number > in_use):
        row = last_record(records, newer.number, newer.digest)
        if row is not None and row["action"] == WAITING:
            how = f"affectgap promote --approve {newer.number} --by NAME --why REASON"
            why = newer.tags.get("reasons", "") or row["why"]
            yield f"waiting      version {newer.number} waits for a person: {why}".rstrip(": ")
            yield f"             to let it through: {how}"


def _inbox(paths: Paths, ledger: Ledger) -> Iterator[str]:
    from tasks.ingest.inbox.found import find_batches

    found = find_batches(paths.inbox)
    ready = [one.name for one in found if not one.not_ready]
    waiting = [f"{one.name} ({one.not_ready})" for one in found if one.not_ready]
    yield f"inbox        {_listed(ready, 'ready')}; {_listed(waiting, 'not ready')}"
    batches = ledger.batches()
    quarantined = batches[batches["state"] == "quarantined"]
    if len(quarantined):
        last = quarantined.iloc[-1]
        reason = str(last["reason"]).partition("\n")[0]
        yield f"quarantine   {len(quarantined)} batches, the last one {last['batch']}: {reason}"


def _untrained(paths: Paths, ledger: Ledger) -> Iterator[str]:
    reason = why_due(paths, ledger)
    yield f"training     {f'due: {reason}' if reason else what_is_missing(paths, ledger)}"
    untrained, batches = ledger.untrained(), ledger.batches().set_index("batch")
    read = datasets_read(paths)
    for batch, rows in untrained.groupby("batch", sort=False):
        drift = batches.loc[batch, "drift"]
        told = "" if pd.isna(drift) else f", drift {drift:.2f}"
        people = rows["subject_id"].nunique()
        if (dataset := rows["dataset"].iloc[0]) not in read:
            told = f"; not read: ingest.datasets has no {dataset}"
        yield f"             {batch}: {len(rows)} pictures of {people} people{told}"


def _failed(paths: Paths) -> Iterator[str]:
    """Tell what the last pass failed of, until a pass gets past it."""
    kept = [Failures(paths, before_training=before) for before in (False, True)]
    known = [(last, failures) for failures in kept if (last := failures.last())]
    for last, failures in sorted(known, key=lambda pair: pair[0].at)[-1:]:
        times = f" ({last.tries} times)" if last.tries > 1 else ""
        yield f"failed       {last.at:%Y-%m-%d %H:%M} UTC{times}: {last.told}"
        yield f"             {failures.when_again(datetime.now(UTC))}"


def _passes(ledger: Ledger) -> Iterator[str]:
    passes = ledger.passes()
    if passes.empty:
        yield "passes       none yet"
    heading = "passes"
    for row in passes.tail(_LAST_PASSES)[::-1].itertuples(index=False):
        version = "" if pd.isna(row.version) else f"version {row.version} "
        state = str(row.state)
        if state == "running":
            state = "died" if is_dead(str(row.process)) else "a pass is at work"
        told = shorten(f"{state}: {version}{row.detail}".rstrip(": "), _WIDTH, placeholder=" …")
        at = str(row.started_at)[:16].replace("T", " ")
        yield f"{heading:<12} {row.pass_id}  {at} UTC  {told}  [{row.trigger}]"
        heading = ""


def ui_lines(paths: Paths) -> list[str]:
    """Return the addresses of the pages that run here, and the secret that they ask for.

    Raises
    ------
    UserError
        Where no server of this project runs.
    """
    pages = {name: _note(paths, file) for name, file in _NOTES.items()}
    running = {name: note for name, note in pages.items() if note and note["own"]}
    if not running:
        raise UserError(
            f"{paths.root}: no server of this project runs; start `affectgap serve` or `affectgap "
            "ui` (a server that PREFECT_API_URL names asks for its own secret)"
        )
    lines = [f"{name:<12} {note['url'].removesuffix('/api')}" for name, note in running.items()]
    user, _, password = known_secret(paths.root).partition(":")
    return [*lines, f"secret       {user}:{password}", f"             (user {user}, then password)"]


def _next(paths: Paths) -> Iterator[str]:
    """Ask the server for the next runs, where one stands by."""
    from flows.server import answers

    note = _note(paths, SERVING)
    if note is None:
        yield "next look    none: `affectgap serve` is not running here"
        return
    url = note["url"]
    if not answers(url):
        yield f"next look    unknown: the Prefect server at {url} does not answer"
        return
    from flows.look_after import next_runs
    from flows.scheduled import FULL_AUDIT, INBOX

    secret = known_secret(paths.root) if note["own"] else ""
    runs = next_runs(url, secret, (INBOX, FULL_AUDIT))
    yield f"next look    {_at(runs.get(INBOX))}; full audit {_at(runs.get(FULL_AUDIT))}"


def _note(paths: Paths, file: str) -> dict[str, Any] | None:
    """Read what a standing server wrote about itself; None where none is running."""
    try:
        note = json.loads(paths.at(file).read_text(encoding="utf-8"))
        url, process = str(note["url"]), str(note["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if is_dead(process) else {"url": url, "own": bool(note.get("own", True))}


def _at(time: datetime | None) -> str:
    if time is None:
        return "none"
    minutes = (time - datetime.now(UTC)).total_seconds() / 60
    return f"{time:%Y-%m-%d %H:%M} UTC" + (f" (in {minutes:.0f} min)" if 0 <= minutes < 120 else "")


def _listed(names: list[str], what: str) -> str:
    some = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
    return f"{len(names)} {what}" + (f" ({some})" if names else "")
