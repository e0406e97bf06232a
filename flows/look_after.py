"""Runs of `affectgap serve` in Prefect's database: which died, which pile up, which come next."""

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

from flows.scheduled import PROCESS_TAG
from tasks.core.errors import UserError
from tasks.core.process import is_dead

AGAIN = "done again"  # tag of a run that was made because another one died
_OPEN = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_BEGUN = (*_OPEN, StateType.CRASHED, StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)
_LOOKED_AT = 50


def look_after(deployments: Mapping[str, UUID], starting: bool) -> list[str]:
    """Close runs that died, have the last one done again, and let runs not pile up.

    Parameters
    ----------
    deployments
        Name to id.
    starting
        True while nothing of this server's can be running yet: what did not even say which process
        it is in has died as well.

    Returns
    -------
    list of str
        What was done.
    """
    lines = []
    with get_client(sync_client=True) as client:
        for name, deployment in deployments.items():
            begun = _runs(client, deployment, _BEGUN)
            for run in begun:
                if run.state_type in _OPEN and _is_gone(run, starting):
                    state = Crashed(message="its process is gone")
                    client.set_flow_run_state(run.id, state, force=True)
                    lines.append(f"closed: {name} run {run.name}, which died")
            again = begun and _is_to_do_again(client.read_flow_run(begun[0].id))
            if again and _again(client, deployment, begun[0]):
                lines.append(f"done again: {name} run {begun[0].name}")
            for run in _late(client, deployment)[1:]:
                client.delete_flow_run(run.id)
    return lines


def assert_not_anothers(roots: Mapping[str, str]) -> None:
    """Raise where the server has a deployment of a name for another project than `roots` says.

    Raises
    ------
    UserError
        One line: the two would take each other's runs.
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


def look_at_once(deployment: UUID) -> None:
    """Have a deployment run now, unless a run of it is waiting already."""
    with get_client(sync_client=True) as client:
        if not _late(client, deployment):
            client.create_flow_run_from_deployment(deployment)


def drop_schedules(deployment: UUID) -> None:
    """Remove the schedules that a deployment had before params named none."""
    with get_client(sync_client=True) as client:
        known = client.read_deployment(deployment)
        for schedule in known.schedules:
            client.delete_deployment_schedule(deployment, schedule.id)


def next_runs(url: str, secret: str, names: Iterable[str]) -> dict[str, datetime]:
    """Return when each deployment runs next, by the server at `url`; none: it is not in it.

    `secret` is what that server asks for; "": what the environment says.
    """
    found = {}
    settings = {PREFECT_API_URL: url, **({PREFECT_API_AUTH_STRING: secret} if secret else {})}
    with (
        temporary_settings(settings),
        get_client(sync_client=True) as client,
    ):
        for name in names:
            deployment = client.read_deployment_by_name(f"{name}/{name}")
            runs = _runs(client, deployment.id, (StateType.SCHEDULED,), newest_first=False)
            if runs and runs[0].expected_start_time:
                found[name] = runs[0].expected_start_time
    return found


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
        limit=_LOOKED_AT,
    )


def _late(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """Return the runs that should have begun by now, the newest first."""
    now = datetime.now(UTC)
    waiting = _runs(client, deployment, (StateType.SCHEDULED,), newest_first=False)
    late = [run for run in waiting if run.expected_start_time and run.expected_start_time <= now]
    return late[::-1]


def _is_gone(run: FlowRun, starting: bool) -> bool:
    processes = [tag for tag in run.tags if tag.startswith(PROCESS_TAG)]
    if not processes:
        return starting
    return all(is_dead(tag.removeprefix(PROCESS_TAG)) for tag in processes)


def _is_to_do_again(run: FlowRun) -> bool:
    """Tell whether a run crashed; one that was made because another one had is not repeated."""
    return run.state_type is StateType.CRASHED and AGAIN not in run.tags


def _again(client: SyncPrefectClient, deployment: UUID, run: FlowRun) -> bool:
    """Have a run done again; returns False where it waits for that already."""
    # The key makes it once, however often this is asked.
    key = f"again-{run.id}"
    waiting = _runs(client, deployment, (StateType.SCHEDULED,), newest_first=False)
    if any(one.idempotency_key == key for one in waiting):
        return False
    client.create_flow_run_from_deployment(deployment, idempotency_key=key, tags=[AGAIN])
    return True
