"""`affectgap status`: model in use, inbox, untrained data, last passes and next run."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import shorten
from typing import Any

import pandas as pd

from flows.access import SERVING, SERVING_UI, existing_server_secret
from flows.ledger.ledger import Ledger
from flows.registry.model_table import describe_untested_groups, describe_worst_group, notices
from flows.retraining.backoff import Failures
from flows.retraining.retrain import distance_to_trigger, trigger_reason
from flows.retraining.trigger_policy import configured_datasets
from tasks.core.errors import AffectGapError, UserError
from tasks.core.parallel.process import is_dead
from tasks.core.paths import Paths

_LAST_PASSES = 5
_NOTES = {"runs": SERVING, "models": SERVING_UI}
# Libraries whose errors are outages, not defects.
_STORES = ("sqlalchemy", "alembic", "mlflow", "prefect", "httpx")
_WIDTH = 90  # characters of a pass's outcome


def status_lines(paths: Paths) -> tuple[list[str], bool]:
    """Return the state of the project on one screen, and whether all of it could be read.

    A part that cannot be read is replaced by its error.
    """
    ledger = Ledger(paths.ledger)
    parts = [
        _read_part("in use", _model_in_use, paths),
        _read_part("inbox", _inbox, paths, ledger),
        _read_part("untrained", _untrained, paths, ledger),
        _read_part("failed", _failed, paths),
        _read_part("passes", _passes, ledger),
        _read_part("next", _next, paths),
    ]
    return [line for lines, _ in parts for line in lines], all(read for _, read in parts)


def _read_part(name, part, *arguments) -> tuple[list[str], bool]:  # type: ignore[no-untyped-def]
    """Return a part's lines, or its error if for example a store is damaged."""
    try:
        return list(part(*arguments)), True
    except AffectGapError as error:
        return str(error).splitlines(), False
    except Exception as error:
        known = isinstance(error, OSError) or type(error).__module__.partition(".")[0] in _STORES
        if not known:
            raise
        message, *_ = str(error).strip().splitlines() or [""]
        line = f"{name:<12} cannot be read: {type(error).__name__}: {shorten(message, _WIDTH)}"
        return [line], False


def _model_in_use(paths: Paths) -> Iterator[str]:
    from flows.registry.model_table import withdrawn_batches
    from tasks.register.registry import champion, previous

    version, before = champion(paths), previous(paths)
    if version is None:
        yield "in use       no model yet"
        yield from _waiting(paths, 0)
        return
    former = f", before it version {before.number}" if before else ""
    yield f"in use       version {version.number} ({version.digest}){former}"
    if worst := describe_worst_group(version.tags):
        yield f"worst group  recall of {worst}"
        if unknown := describe_untested_groups(version.tags):
            yield f"             {unknown}"
        yield from (f"             {notice}" for notice in notices([version.tags]))
    else:
        yield "worst group  not known: every group was too small to be judged (promote.min_n)"
    yield from _waiting(paths, version.number)
    if gone := withdrawn_batches(paths, version):
        names = ", ".join(gone)
        yield f"             was trained with what is withdrawn now: {names} (retrain --now)"


def _waiting(paths: Paths, in_use: int) -> Iterator[str]:
    """List the versions, newer than the one in use, that wait for approval."""
    from flows.registry.model_table import approval_command
    from tasks.register.promotion_log import WAITING, last_record, read_records
    from tasks.register.registry import versions

    records = read_records(paths)
    for newer in (version for version in versions(paths) if version.number > in_use):
        row = last_record(records, newer.number, newer.digest)
        if row is not None and row["action"] == WAITING:
            why = newer.tags.get("reasons", "") or row["why"]
            yield f"waiting      version {newer.number} waits for a person: {why}".rstrip(": ")
            yield f"             to promote it: {approval_command(newer.number)}"


def _inbox(paths: Paths, ledger: Ledger) -> Iterator[str]:
    from flows.intake.entries import find_batches

    found = find_batches(paths.inbox)
    ready = [batch.name for batch in found if not batch.not_ready]
    waiting = [f"{batch.name} ({batch.not_ready})" for batch in found if batch.not_ready]
    yield f"inbox        {_listed(ready, 'ready')}; {_listed(waiting, 'not ready')}"
    batches = ledger.batches()
    quarantined = batches[batches["state"] == "quarantined"]
    if len(quarantined):
        last = quarantined.iloc[-1]
        reason = str(last["reason"]).partition("\n")[0]
        yield f"quarantine   {len(quarantined)} batches, the last one {last['batch']}: {reason}"


def _untrained(paths: Paths, ledger: Ledger) -> Iterator[str]:
    reason = trigger_reason(paths, ledger)
    yield f"training     {f'due: {reason}' if reason else distance_to_trigger(paths, ledger)}"
    untrained, batches = ledger.untrained(), ledger.batches().set_index("batch")
    datasets = configured_datasets(paths)
    for batch, rows in untrained.groupby("batch", sort=False):
        drift = batches.loc[batch, "drift"]
        note = "" if pd.isna(drift) else f", drift {drift:.2f}"
        people = rows["subject_id"].nunique()
        if (dataset := rows["dataset"].iloc[0]) not in datasets:
            note = f"; not read: ingest.datasets has no {dataset}"
        yield f"             {batch}: {len(rows)} pictures of {people} people{note}"


def _failed(paths: Paths) -> Iterator[str]:
    """Describe the last failure, until a pass gets past it."""
    states = [Failures(paths, before_training=before) for before in (False, True)]
    recorded = [(last, failures) for failures in states if (last := failures.last())]
    for last, failures in sorted(recorded, key=lambda pair: pair[0].at)[-1:]:
        times = f" ({last.tries} times)" if last.tries > 1 else ""
        yield f"failed       {last.at:%Y-%m-%d %H:%M} UTC{times}: {last.message}"
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
        outcome = shorten(f"{state}: {version}{row.detail}".rstrip(": "), _WIDTH, placeholder=" …")
        at = str(row.started_at)[:16].replace("T", " ")
        yield f"{heading:<12} {row.pass_id}  {at} UTC  {outcome}  [{row.trigger}]"
        heading = ""


def ui_lines(paths: Paths) -> list[str]:
    """Return the addresses of the pages that run here, and the secret that they ask for.

    Raises UserError if no server of this project runs.
    """
    pages = {name: _note(paths, file) for name, file in _NOTES.items()}
    running = {name: note for name, note in pages.items() if note and note["own"]}
    if not running:
        raise UserError(
            f"{paths.root}: no server of this project runs; start `affectgap serve` or `affectgap "
            "ui` (a server that PREFECT_API_URL names asks for its own secret)"
        )
    lines = [f"{name:<12} {note['url'].removesuffix('/api')}" for name, note in running.items()]
    user, _, password = existing_server_secret(paths.root).partition(":")
    return [*lines, f"secret       {user}:{password}", f"             (user {user}, then password)"]


def _next(paths: Paths) -> Iterator[str]:
    """Query a running server for the next runs."""
    from flows.pipeline.prefect_server import answers

    note = _note(paths, SERVING)
    if note is None:
        yield "next look    none: `affectgap serve` is not running here"
        return
    url = note["url"]
    if not answers(url):
        yield f"next look    unknown: the Prefect server at {url} does not answer"
        return
    from flows.daemon.run_supervisor import next_runs
    from flows.daemon.scheduled_flows import FULL_AUDIT, INBOX

    secret = existing_server_secret(paths.root) if note["own"] else ""
    runs = next_runs(url, secret, (INBOX, FULL_AUDIT))
    yield f"next look    {_at(runs.get(INBOX))}; full audit {_at(runs.get(FULL_AUDIT))}"


def _note(paths: Paths, file: str) -> dict[str, Any] | None:
    """Read what a long-running server recorded about itself; None if none is running."""
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
