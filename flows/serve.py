"""`affectgap serve`: the Prefect server and what it runs, until Ctrl-C or SIGTERM.

Each look into the inbox is a run in a process of its own, which dies with this one. The server's
database is SQLite in .prefect/, or what PREFECT_API_DATABASE_CONNECTION_URL names.
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

from flows.access import SERVING, noted
from flows.look_after import assert_not_anothers, drop_schedules, look_after, look_at_once
from flows.policy import Params
from flows.scheduled import (
    EVENT,
    FULL_AUDIT,
    INBOX,
    SERVER_VARIABLE,
    audit_everything,
    look_into_inbox,
)
from flows.server import Server, standing_server
from flows.stores import behind, told_as_away
from tasks.core.errors import AffectGapError, ParamsError
from tasks.core.locks import alone
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.terminal import Console

_QUERY_S = 5  # between two looks for runs that are to begin
_LOOK_AFTER_S = 10  # between two looks for runs that died
_STOP_S = 10
_HEED_S = 1.0  # until a run has heeded SIGTERM


def serve(paths: Paths, port: int, console: Console) -> None:
    """Stand by until Ctrl-C or SIGTERM.

    Parameters
    ----------
    paths
        The project's paths.
    port
        Of the server, on 127.0.0.1; unused where `PREFECT_API_URL` names another.
    console
        Where to write.

    Raises
    ------
    UserError
        Where another one serves here already, the port is taken, or the server has deployments of
        another project.
    ParamsError
        For a cron line that is none.
    AffectGapError
        Where the Prefect server does not answer, or does not start again.
    """
    params = load_section(paths.params, "retrain", Params)
    deployments = _deployments(paths, params)
    busy = f"{paths.root}: another `affectgap serve` stands by here"
    logging.getLogger("prefect.runner").setLevel(logging.WARNING)  # it tells of every run it starts
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
    """Register the deployments, then run what is due and look after what runs."""
    here, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert here is not None
    # Not by SIGINT: a shell that starts this in the background has it ignored.
    runner = _Runner(lambda: loop.call_soon_threadsafe(here.cancel))
    ids = {}
    if not _has_own_database(server):
        roots = {one.name: str((one.parameters or {})["root"]) for one in deployments}
        await asyncio.to_thread(assert_not_anothers, roots)
    for deployment in deployments:
        ids[deployment.name] = await runner.aadd_deployment(deployment)
        if not deployment.schedules:
            await asyncio.to_thread(drop_schedules, ids[deployment.name])
    for line in await asyncio.to_thread(look_after, ids, True):
        console.say(line)
    await asyncio.to_thread(look_at_once, ids[INBOX])
    for deployment in deployments:
        console.say(f"{deployment.name}: {_when(deployment)}")
    if server:
        page = server.url.removesuffix("/api")
        how = "`affectgap status --ui` shows the secret that it asks for; Ctrl-C ends it"
        console.say(f"runs: {page} ({how})")
    async with asyncio.TaskGroup() as group:
        group.create_task(runner.start())
        group.create_task(_keep_looking(ids, server, console))


async def _keep_looking(ids: dict[str, UUID], server: Server | None, console: Console) -> None:
    """Look after the runs, and after the server; what fails is tried at the next look."""
    while True:
        await asyncio.sleep(_LOOK_AFTER_S)
        if server and not server.is_running():
            console.say("the Prefect server was gone and is started again")
            server.start()  # in the thread that lives as long as this process
        try:
            lines = await asyncio.to_thread(look_after, ids, False)
        except (HTTPError, PrefectException) as error:
            lines = [f"the Prefect server did not answer: {error}"]
        for line in lines:
            console.say(line)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Say in one line what ends this: the server is away, or what a task of ours says."""
    try:
        yield
    except (Exception, BaseExceptionGroup) as error:
        first = next(one for one in behind(error) if not isinstance(one, BaseExceptionGroup))
        if isinstance(first, AffectGapError):
            raise first from None
        if told := told_as_away(error):
            raise AffectGapError(told) from first
        raise


class _Runner(Runner):
    """Prefect's runner, which ends in the same way at SIGTERM as at Ctrl-C, and soon.

    Parameters
    ----------
    end
        What SIGTERM does: it cancels the task that all of this runs in.
    """

    def __init__(self, end: Callable[[], object]) -> None:
        super().__init__("affectgap", query_seconds=_QUERY_S, limit=1, pause_on_shutdown=False)
        self._end = end

    def handle_sigterm(self, *_arguments: Any, **_more: Any) -> None:
        """Begin to end."""
        self._end()

    async def __aexit__(self, *error: Any) -> None:
        """End the runs: Prefect would wait half a minute for a run that waits for its stages."""
        for run in psutil.Process().children():
            if "prefect.engine" in _command_line(run):
                _signal(run, signal.SIGTERM)  # first: it is told to stop, not that a stage failed
                await asyncio.sleep(_HEED_S)
                for child in _below(run):
                    _signal(child, signal.SIGTERM)
        await super().__aexit__(*error)


def _deployments(paths: Paths, params: Params) -> list[RunnerDeployment]:
    """Say what runs when; one run of each at a time, a second one waits."""
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
        look_into_inbox.to_deployment(INBOX, schedules=looks, triggers=[arrived], **common),
        audit_everything.to_deployment(FULL_AUDIT, schedules=audits, **common),
    ]


def _has_own_database(server: Server | None) -> bool:
    """Tell whether Prefect's database lies in the project, and so moves with it."""
    if server is None:
        return False
    settings = (
        Settings()
    )  # made anew, as the server makes its own; it has several names to set it by
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
    told = []
    for entry in deployment.schedules or []:
        if interval := getattr(entry.schedule, "interval", None):
            told.append(f"every {interval.total_seconds() / 60:g} minutes")
        else:
            told.append(f"at '{entry.schedule.cron}' (cron, UTC)")
    if deployment.triggers:
        told.append(f"at the event {EVENT}")
    return ", ".join(told) or "never"


@contextmanager
def _server(paths: Paths, port: int) -> Iterator[Server | None]:
    """Start the server unless one is named, and leave a note of where it is."""
    note = paths.at(SERVING)
    if url := os.environ.get("PREFECT_API_URL"):
        with noted(note, url, own=False):
            yield None
        return
    with standing_server(paths.root, port) as server, noted(note, server.url, own=True):
        yield server


@contextmanager
def _ending(console: Console) -> Iterator[None]:
    """End every process that is left; another Ctrl-C meanwhile does not stop that."""
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
