"""`affectgap serve`: a Prefect server and its scheduled runs, until Ctrl-C or SIGTERM.

Each poll of the inbox is a run in its own process, which dies with this one. The server's database
is SQLite in .prefect/, or the one that PREFECT_API_DATABASE_CONNECTION_URL names.
"""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import psutil
from httpx import HTTPError
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import EntrypointType, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.schedules import Cron, Interval, Schedule
from prefect.settings import Settings

from flows.access import SERVING, announce_server
from flows.daemon.run_supervisor import (
    assert_deployments_ours,
    drop_schedules,
    supervise,
    trigger_now,
)
from flows.daemon.scheduled_flows import (
    EVENT,
    FULL_AUDIT,
    INBOX,
    SERVER_VARIABLE,
    poll_inbox,
    run_full_audit,
)
from flows.outages import error_chain, outage_message
from flows.pipeline.prefect_server import Server, scheduling_server
from flows.retraining.trigger_policy import Params
from tasks.core.errors import AffectGapError, ParamsError
from tasks.core.files import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.terminal import Console

_QUERY_S = 5  # between polls for runs that are due
_SUPERVISE_S = 10  # between checks for crashed runs
_STOP_S = 10
_GRACE_S = 1.0  # for a run to handle SIGTERM


def serve(paths: Paths, port: int, console: Console) -> None:
    """Serve until Ctrl-C or SIGTERM.

    `port` is the server's on 127.0.0.1; it is unused if `PREFECT_API_URL` names another server.

    Raises UserError if another `serve` runs here, the port is taken, or the server has deployments
    of another project; ParamsError for an invalid cron line; AffectGapError if the Prefect server
    does not answer, or cannot be restarted.
    """
    params = load_section(paths.params, "retrain", Params)
    deployments = _deployments(paths, params)
    busy = f"{paths.root}: another `affectgap serve` runs here"
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # it logs every run it starts
    with alone(paths.at("work/serve.lock"), busy), _ending(console), _server(paths, port) as server:
        os.environ[SERVER_VARIABLE] = str(os.getpid())
        try:
            with _in_one_line():
                asyncio.run(_stand_by(deployments, server, console))
        except (KeyboardInterrupt, asyncio.CancelledError):
            console.say("ending; what is at work is done again at the next start")


async def _stand_by(
    deployments: list[RunnerDeployment], server: Server | None, console: Console
) -> None:
    """Register the deployments, then run what is due and supervise the runs."""
    here, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert here is not None
    # Not by SIGINT, which is ignored if a shell starts this in the background.
    runner = _Runner(lambda: loop.call_soon_threadsafe(here.cancel))
    ids = {}
    if not _has_own_database(server):
        roots = {one.name: str((one.parameters or {})["root"]) for one in deployments}
        await asyncio.to_thread(assert_deployments_ours, roots)
    for deployment in deployments:
        ids[deployment.name] = await runner.aadd_deployment(deployment)
        if not deployment.schedules:
            await asyncio.to_thread(drop_schedules, ids[deployment.name])
    for line in await asyncio.to_thread(supervise, ids, True):
        console.say(line)
    await asyncio.to_thread(trigger_now, ids[INBOX])
    for deployment in deployments:
        console.say(f"{deployment.name}: {_when(deployment)}")
    if server:
        page = server.url.removesuffix("/api")
        hint = "`affectgap status --ui` shows the secret that it asks for; Ctrl-C ends it"
        console.say(f"runs: {page} ({hint})")
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.start())
        group.create_task(_keep_looking(ids, server, console))


async def _keep_looking(ids: dict[str, UUID], server: Server | None, console: Console) -> None:
    """Supervise the runs and the server; failures are retried at the next poll."""
    while True:
        await asyncio.sleep(_SUPERVISE_S)
        if server and not server.is_running():
            console.say("the Prefect server was gone and is started again")
            server.start()  # on the main thread: the server dies with its starting thread
        try:
            lines = await asyncio.to_thread(supervise, ids, False)
        except (HTTPError, PrefectException) as error:
            lines = [f"the Prefect server did not answer: {error}"]
        for line in lines:
            console.say(line)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Turn what ends the server, an outage or an error of ours, into a one-line error."""
    try:
        yield
    except (Exception, BaseExceptionGroup) as error:
        first = next(
            link for link in error_chain(error) if not isinstance(link, BaseExceptionGroup)
        )
        if isinstance(first, AffectGapError):
            raise first from None
        if outage := outage_message(error):
            raise AffectGapError(outage) from first
        raise


class _Runner(Runner):
    """Prefect's runner, which handles SIGTERM like Ctrl-C and ends soon.

    `end` is called at SIGTERM; it cancels the task in which everything runs.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__("affectgap", query_seconds=_QUERY_S, limit=1, pause_on_shutdown=False)
        self._end = end

    def handle_sigterm(self, *_arguments: Any, **_options: Any) -> None:
        """Start to shut down."""
        self._end()

    async def __aexit__(self, *error: Any) -> None:
        """End the runs: Prefect would wait half a minute for one that waits for its stages."""
        for run in psutil.Process().children():
            if "prefect.engine" in _command_line(run):
                _signal(run, signal.SIGTERM)  # first, so that it sees a stop and not a failed stage
                await asyncio.sleep(_GRACE_S)
                for child in _below(run):
                    _signal(child, signal.SIGTERM)
        await super().__aexit__(*error)


def _deployments(paths: Paths, params: Params) -> list[RunnerDeployment]:
    """Return the deployments; runs of each one are queued, one at a time."""
    looks = [Interval(timedelta(minutes=params.poll_minutes))] if params.poll_minutes else []
    looks += _cron("cron", params.cron)
    audits = _cron("full_audit_cron", params.full_audit_cron)
    arrived = DeploymentEventTrigger(name=EVENT, expect={EVENT}, threshold=1)
    common: dict[str, Any] = {
        "parameters": {"root": str(paths.root)},
        "entrypoint_type": EntrypointType.MODULE_PATH,
        "concurrency_limit": ConcurrencyLimitConfig(
            limit=1, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
    }
    return [
        poll_inbox.to_deployment(INBOX, schedules=looks, triggers=[arrived], **common),
        run_full_audit.to_deployment(FULL_AUDIT, schedules=audits, **common),
    ]


def _has_own_database(server: Server | None) -> bool:
    """Return whether Prefect's database is in the project, and so moves with it."""
    if server is None:
        return False
    settings = Settings()  # read anew, as the server does: several variables may set it
    url = settings.server.database.connection_url
    return url is not None and str(settings.home) in unquote(url.get_secret_value())


def _cron(key: str, line: str | None) -> list[Schedule]:
    if line is None:
        return []
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=line)
    except ValueError:
        raise ParamsError(
            f"params.yaml: retrain.{key}: is no cron line (minute hour day month weekday): {line!r}"
        ) from None
    return [Cron(line, timezone="UTC")]


def _when(deployment: RunnerDeployment) -> str:
    parts = []
    for entry in deployment.schedules or []:
        if interval := getattr(entry.schedule, "interval", None):
            parts.append(f"every {interval.total_seconds() / 60:g} minutes")
        else:
            parts.append(f"at '{entry.schedule.cron}' (cron, UTC)")
    if deployment.triggers:
        parts.append(f"at the event {EVENT}")
    return ", ".join(parts) or "never"


@contextmanager
def _server(paths: Paths, port: int) -> Iterator[Server | None]:
    """Start the server unless one is named, and record where it is."""
    note = paths.at(SERVING)
    if url := os.environ.get("PREFECT_API_URL"):
        with announce_server(note, url, own=False):
            yield None
        return
    with scheduling_server(paths.root, port) as server, announce_server(note, server.url, own=True):
        yield server


@contextmanager
def _ending(console: Console) -> Iterator[None]:
    """End all remaining processes; another Ctrl-C meanwhile does not prevent it."""
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        left = psutil.Process().children(recursive=True)
        for process in left:
            _signal(process, signal.SIGTERM)
        for process in psutil.wait_procs(left, timeout=_STOP_S)[1]:
            _signal(process, signal.SIGKILL)
        console.say("ended")


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
