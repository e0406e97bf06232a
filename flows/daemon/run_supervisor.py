"""Supervises the flow runs of `affectgap serve`: crashed, overdue and upcoming ones."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Crashed

from tasks.core.errors import UserError
from tasks.core.parallel.process import is_dead

PROCESS_TAG = "process: "
AGAIN = "done again"  # tag of a run that repeats a crashed one
_OPEN = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_STARTED = (*_OPEN, StateType.CRASHED, StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
_MAX_RUNS = 50


def supervise(deployments: Mapping[str, UUID], starting: bool) -> list[str]:
    """Close crashed runs, repeat the last one, and delete all but one overdue run per deployment.

    `starting` is true while no run of this server can be active yet: then even a run that did not
    record its process has crashed. Returns lines on what was done.
    """
    lines = []
    with get_client(sync_client=True) as client:
        for name, deployment in deployments.items():
            started = _runs(client, deployment, _STARTED)
            for run in started:
                if run.state_type in _OPEN and _has_crashed(run, starting):
                    state = Crashed(message="its process is gone")
                    client.set_flow_run_state(run.id, state, force=True)
                    lines.append(f"closed: {name} run {run.name}, which died")
            repeats = started and _needs_repeat(client.read_flow_run(started[0].id))
            if repeats and _repeat(client, deployment, started[0]):
                lines.append(f"done again: {name} run {started[0].name}")
            for run in _overdue(client, deployment)[1:]:
                client.delete_flow_run(run.id)
    return lines


def assert_deployments_ours(roots: Mapping[str, str]) -> None:
    """Raise UserError if the server has a deployment of these names for another project.

    `roots` maps each name to this project's folder. Two projects would take each other's runs.
    """
    with get_client(sync_client=True) as client:
        for name, root in roots.items():
            try:
                known = client.read_deployment_by_name(f"{name}/{name}")
            except ObjectNotFound:
                continue
            if (other := known.parameters.get("root", root)) != root:
                raise UserError(
                    f"this Prefect server serves {other}: give each project a server and a "
                    f"database of its own (where that one is gone or was moved: `prefect "
                    f"deployment delete {name}/{name}`)"
                )


def trigger_now(deployment: UUID) -> None:
    """Run a deployment now, unless a run of it is waiting already."""
    with get_client(sync_client=True) as client:
        if not _overdue(client, deployment):
            client.create_flow_run_from_deployment(deployment)


def drop_schedules(deployment: UUID) -> None:
    """Remove a deployment's schedules, for params that name none."""
    with get_client(sync_client=True) as client:
        known = client.read_deployment(deployment)
        for schedule in known.schedules:
            client.delete_deployment_schedule(deployment, schedule.id)


def next_runs(url: str, secret: str, names: Iterable[str]) -> dict[str, datetime]:
    """Return the next run of each deployment at the server `url`; missing if it has none.

    `secret` is that server's secret; "" uses the environment's.
    """
    times = {}
    settings = {PREFECT_API_URL: url, **({PREFECT_API_AUTH_STRING: secret} if secret else {})}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        for name in names:
            deployment = client.read_deployment_by_name(f"{name}/{name}")
            runs = _runs(client, deployment.id, (StateType.SCHEDULED,), newest_first=False)
            if runs and runs[0].expected_start_time:
                times[name] = runs[0].expected_start_time
    return times


def _runs(
    client: SyncPrefectClient,
    deployment: UUID,
    states: Iterable[StateType],
    newest_first: bool = True,
) -> list[FlowRun]:
    wanted: dict[str, Any] = {
        "deployment_id": {"any_": [deployment]},
        "state": {"type": {"any_": list(states)}},
    }
    order = FlowRunSort.EXPECTED_START_TIME_DESC if newest_first else None
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter.model_validate(wanted),
        sort=order or FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=_MAX_RUNS,
    )


def _overdue(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """Return the runs that should have begun by now, newest first."""
    now = datetime.now(UTC)
    waiting = _runs(client, deployment, (StateType.SCHEDULED,), newest_first=False)
    late = [run for run in waiting if run.expected_start_time and run.expected_start_time <= now]
    return late[::-1]


def _has_crashed(run: FlowRun, starting: bool) -> bool:
    processes = [tag for tag in run.tags if tag.startswith(PROCESS_TAG)]
    if not processes:
        return starting
    return all(is_dead(tag.removeprefix(PROCESS_TAG)) for tag in processes)


def _needs_repeat(run: FlowRun) -> bool:
    """Return whether a run crashed and is not itself a repetition."""
    return run.state_type is StateType.CRASHED and AGAIN not in run.tags


def _repeat(client: SyncPrefectClient, deployment: UUID, run: FlowRun) -> bool:
    """Repeat a run; return False if its repetition is scheduled already."""
    key = f"again-{run.id}"
    waiting = _runs(client, deployment, (StateType.SCHEDULED,), newest_first=False)
    if any(other.idempotency_key == key for other in waiting):
        return False
    client.create_flow_run_from_deployment(deployment, idempotency_key=key, tags=[AGAIN])
    return True
