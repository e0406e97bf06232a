"""What `affectgap serve` runs on a schedule or at an event, each run in a process of its own."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.environment import prepare_environment
from flows.retrain import BusyError, retrain
from flows.starter import mark_as_command
from flows.stores import in_one_line
from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths
from tasks.core.process import die_with_parent, process_name
from tasks.core.terminal import Console

INBOX, FULL_AUDIT = "inbox", "full-audit"  # names of the flows and of their deployments
EVENT = "affectgap.data.arrived"  # other systems fire it when they have put a batch there
SERVER_VARIABLE = "AFFECTGAP_SERVE_PID"  # the process that starts these runs
PROCESS_TAG = "process: "
_WIDTH = 120  # characters a line of the log
# For what a person started: the next audit is a week away, and no event may ever come again.
_WAITS_S = 12 * 3600
_LOOK_S = 60


@flow(name=INBOX, persist_result=False, retries=0)
def look_into_inbox(root: str) -> Any:
    """Do one pass over the inbox of the project in `root`, as soon as no other one is at work."""
    paths = _begin(root)
    until = time.monotonic() + _WAITS_S
    try:
        with in_one_line():
            lines = _when_free(
                lambda: retrain(paths, _console(), quiet=True, scheduled=True), until
            )
    except BusyError as error:
        _look_again()
        return Completed(message=f"{error}; another look follows", name="Busy")
    except AffectGapError as error:
        print_fault(error)
        return Failed(message=str(error))
    for line in lines:
        print_line(line)
    return Completed(message="\n".join(lines))


@flow(name=FULL_AUDIT, persist_result=False, retries=0)
def audit_everything(root: str) -> Any:
    """Audit the model in use on all pictures of the project in `root`."""
    from flows.full_audit import full_audit

    paths = _begin(root)
    until = time.monotonic() + _WAITS_S
    try:
        with in_one_line():
            lines = _when_free(lambda: full_audit(paths), until)
    except AffectGapError as error:
        print_fault(error)
        return Failed(message=str(error))
    for line in lines:
        print_line(line)
    return Completed(message="\n".join(lines))


def _when_free(work: Callable[[], list[str]], until: float) -> list[str]:
    """Do this as soon as nothing else is at work; raises BusyError where it still is at `until`."""
    told = ""
    while True:
        try:
            return work()
        except BusyError as error:
            if time.monotonic() >= until:
                raise
            if told != str(error):  # not at every look
                told = str(error)
                print_line(f"waits: {told}")
            time.sleep(_LOOK_S)


def _look_again() -> None:
    """Have the inbox looked into once more: what an event announced may still lie there."""
    from flows.look_after import look_at_once

    if deployment := flow_run.deployment_id:
        look_at_once(UUID(str(deployment)))


def print_line(line: str) -> None:
    """Write a line to the log of `affectgap serve`."""
    _console().say(line)


def print_fault(error: Exception) -> None:
    """Write an error to the log of `affectgap serve`, one line per fault."""
    for line in str(error).splitlines():
        print_line(f"error: {line}")


def _begin(root: str) -> Paths:
    """Die with the server, and leave the process's name where the server looks for dead runs."""
    starter = os.environ.get(SERVER_VARIABLE, "")
    if starter.isdigit():
        die_with_parent(int(starter))
    mark_as_command()
    paths = Paths(Path(root))
    prepare_environment(paths.root)
    with get_client(sync_client=True) as client:
        known = client.read_flow_run(flow_run.id)
        tags = {*known.tags, PROCESS_TAG + process_name(os.getpid())}
        client.update_flow_run(flow_run.id, tags=sorted(tags))
    return paths


def _console() -> Console:
    return Console(file=sys.stdout, width=_WIDTH)
