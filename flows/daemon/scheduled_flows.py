"""The flows that `affectgap serve` runs on a schedule or at an event, each in its own process."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.daemon.run_supervisor import PROCESS_TAG
from flows.outages import translate_outages
from flows.process_env import export_command_id, prepare_environment
from flows.retraining.retrain import retrain
from tasks.core.errors import AffectGapError, BusyError
from tasks.core.parallel.process import die_with_parent, process_name
from tasks.core.paths import Paths
from tasks.core.terminal import Console

INBOX, FULL_AUDIT = "inbox", "full-audit"  # names of the flows and of their deployments
EVENT = "affectgap.data.arrived"  # other systems fire it after delivering a batch
SERVER_VARIABLE = "AFFECTGAP_SERVE_PID"  # the process that starts these runs
_WIDTH = 120  # characters per log line
# How long a run waits for a manual command: the next audit or event may be a week away.
_MAX_WAIT_S = 12 * 3600
_POLL_S = 60


@flow(name=INBOX, persist_result=False, retries=0)
def poll_inbox(root: str) -> Any:
    """Run one pass over the inbox of the project in `root`, once no other one is running."""
    paths = _begin(root)
    try:
        return _run(lambda: retrain(paths, _console(), quiet=True, scheduled=True))
    except BusyError as error:
        _look_again()
        return Completed(message=f"{error}; another look follows", name="Busy")
    except AffectGapError as error:
        return _failed(error)


@flow(name=FULL_AUDIT, persist_result=False, retries=0)
def run_full_audit(root: str) -> Any:
    """Audit the model in use on all images of the project in `root`."""
    from flows.retraining.full_audit import full_audit

    paths = _begin(root)
    try:
        return _run(lambda: full_audit(paths))
    except AffectGapError as error:
        return _failed(error)


def _run(work: Callable[[], list[str]]) -> State:
    with translate_outages():
        lines = _when_free(work, time.monotonic() + _MAX_WAIT_S)
    for line in lines:
        print_line(line)
    return Completed(message="\n".join(lines))


def _failed(error: AffectGapError) -> State:
    print_fault(error)
    return Failed(message=str(error))


def _when_free(work: Callable[[], list[str]], until: float) -> list[str]:
    """Run `work` once nothing else is running; raises BusyError if that is not so by `until`."""
    reported = ""
    while True:
        try:
            return work()
        except BusyError as error:
            if time.monotonic() >= until:
                raise
            if reported != str(error):  # once, not at every poll
                reported = str(error)
                print_line(f"waits: {reported}")
            time.sleep(_POLL_S)


def _look_again() -> None:
    """Schedule another poll: a batch that an event announced may still be in the inbox."""
    from flows.daemon.run_supervisor import trigger_now

    if deployment := flow_run.deployment_id:
        trigger_now(UUID(str(deployment)))


def print_line(line: str) -> None:
    """Write a line to the log of `affectgap serve`."""
    _console().say(line)


def print_fault(error: Exception) -> None:
    """Write an error to the log of `affectgap serve`, one line per fault."""
    for line in str(error).splitlines():
        print_line(f"error: {line}")


def _begin(root: str) -> Paths:
    """Tie this process to the server's life, and tag the run with the process's name."""
    starter = os.environ.get(SERVER_VARIABLE, "")
    if starter.isdigit():
        die_with_parent(int(starter))
    export_command_id()
    paths = Paths(Path(root))
    prepare_environment(paths.root)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(flow_run.id)
        tags = {*run.tags, PROCESS_TAG + process_name(os.getpid())}
        client.update_flow_run(flow_run.id, tags=sorted(tags))
    return paths


def _console() -> Console:
    return Console(file=sys.stdout, width=_WIDTH)
