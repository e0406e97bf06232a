"""Remote stages: with `AFFECTGAP_WORK_POOL`, a Prefect work pool executes them.

Only small files are sent: the commit, params.yaml, dvc.lock and the `.dvc` files. Data goes through
the DVC remote, and results come back through DVC's run-cache, as if the stage had run here.
Whatever fails on the way, DVC decides here what is up to date.
"""

import os
import subprocess
import threading
import time
from pathlib import Path
from uuid import UUID

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, WorkerStatus
from prefect.exceptions import ObjectNotFound
from prefect.flows import EntrypointType
from prefect.states import Crashed

from flows.pipeline.dvc_graph import StageFailedError, dvc_errors, run_dvc, stage_graph
from flows.pipeline.dvc_repair import is_complete_lock
from flows.pipeline.remote_worker import WORKER_TAG, parse_exit, stage_on_worker
from tasks.core.errors import AffectGapError, UserError
from tasks.core.tracking.mlflow_runs import PARENT_VARIABLE
from tasks.core.tracking.versions import commit_of

POOL_VARIABLE = "AFFECTGAP_WORK_POOL"

_POLL_S = 1.0
_TRIES = 3  # a stage whose worker was lost goes to another one
_HEARTBEAT_S = 30  # Prefect's default
_NO_WORKER_S = 120.0  # a pool may be without a live worker for this long
_LOCK_READS = 50  # attempts while another process writes dvc.lock
_MAX_LISTED = 3  # files listed in a message
_once = threading.Lock()
_prepared: dict[tuple[Path, str], UUID] = {}  # deployments by clone and pool


def run_on_worker(root: Path, pool: str, stage: str) -> str:
    """Have a worker bring one stage up to date, and return the worker's name.

    `pool` is a Prefect work pool of type `process`; the stage's inputs are up to date here. The
    results are in the DVC remote: `dvc repro --pull` restores them.

    Raises StageFailedError if the stage failed, which is not retried; UserError if there is no such
    pool or live worker, or the code is not committed; AffectGapError after three workers were lost.
    """
    with get_client(sync_client=True) as client:
        deployment = _prepare(client, root, pool)
        parameters = {
            "stage": stage,
            "upstreams": stage_graph(root, stage)[stage],
            "commit": commit_of(root),
            "files": _files(root),
            "parent": os.environ.get(PARENT_VARIABLE, ""),
        }
        for _ in range(_TRIES):
            created = client.create_flow_run_from_deployment(
                deployment, parameters=parameters, name=stage
            )
            run = _wait(client, pool, created.id)
            if run.state is not None and run.state.is_completed():
                return _worker(run)
            if run.state is not None and run.state.is_failed():
                code, text = parse_exit(run.state.message or "no message")
                raise StageFailedError(f"{text} (on worker {_worker(run)})", code)
    raise AffectGapError(f"stage {stage}: {_TRIES} workers of {pool} were lost with it")


def _prepare(client: SyncPrefectClient, root: Path, pool: str) -> UUID:
    """Once per process, push local results to the remote and register the flow."""
    with _once:
        if (root, pool) not in _prepared:
            _assert_committed(root)
            try:
                client.read_work_pool(pool)
            except ObjectNotFound:
                raise UserError(
                    f"there is no work pool {pool}; "
                    f"`prefect work-pool create {pool} --type process` makes it"
                ) from None
            *lines, code = run_dvc(root, "--wait-for-lock", "push", "--run-cache")
            if code != "exit 0":
                message = " ".join(dvc_errors(lines).split())
                raise UserError(f"{root}: cannot push to the DVC remote: {message}")
            deployment = stage_on_worker.to_deployment(
                name=pool, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH
            )
            _prepared[root, pool] = deployment.apply()
        return _prepared[root, pool]


def _assert_committed(root: Path) -> None:
    """Raise if workers would check out other code: DVC would not accept their results."""
    command = ["git", "-C", str(root), "status", "--porcelain", "-z", "--untracked-files=all"]
    status = subprocess.run(
        [*command, "--no-renames"], capture_output=True, text=True, errors="replace", check=False
    )
    names = [entry[3:] for entry in status.stdout.split("\0") if entry]
    inputs, sent = _read_by_stages(root), _files(root)
    changed = [name for name in names if name not in sent and _is_below(name, inputs)]
    if changed:
        listed = ", ".join(changed[:_MAX_LISTED]) + (" …" if len(changed) > _MAX_LISTED else "")
        raise UserError(f"{listed}: not committed, so workers lack it; commit and push it first")


def _read_by_stages(root: Path) -> set[str]:
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    deps = [dep for stage in stages for dep in stage.get("do", stage).get("deps", [])]
    return {"dvc.yaml", *(str(next(iter(dep))) if isinstance(dep, dict) else dep for dep in deps)}


def _is_below(name: str, places: set[str]) -> bool:
    return any(str(part) in places for part in (Path(name), *Path(name).parents))


def _files(root: Path) -> dict[str, str]:
    """Return the files that determine params and data, with their text."""
    names = [root / "params.yaml", *sorted(root.glob("data/raw/*.dvc"))]
    texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in names}
    return {**texts, "dvc.lock": _whole_lock(root / "dvc.lock")}


def _whole_lock(path: Path) -> str:
    """Read dvc.lock, which DVC does not write atomically, until it is complete."""
    for _ in range(_LOCK_READS):
        text = "schema: '2.0'\n"
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
        if is_complete_lock(text):
            return text
        time.sleep(0.1)
    raise UserError(f"{path}: is torn; `affectgap doctor` mends it")


class _Watch:
    """Tracks which workers of a pool are alive, by changes of their heartbeat.

    Prefect's own status comes from a service that not every server runs, and a heartbeat's time is
    that of the server's clock; its changes are therefore timed by the local clock.
    """

    def __init__(self, client: SyncPrefectClient, pool: str) -> None:
        self._client, self._pool = client, pool
        self._last: dict[str, tuple[object, float]] = {}

    def answering(self) -> set[str]:
        """Return the workers that were alive within three heartbeats."""
        now, names = time.monotonic(), set()
        for worker in self._client.read_workers_for_work_pool(self._pool):
            beat = worker.last_heartbeat_time
            if self._last.get(worker.name, (None, 0.0))[0] != beat:
                self._last[worker.name] = beat, now
            patience = 3 * (worker.heartbeat_interval_seconds or _HEARTBEAT_S)
            moved = now - self._last[worker.name][1] <= patience
            if worker.status == WorkerStatus.ONLINE and moved:
                names.add(worker.name)
        return names


def _wait(client: SyncPrefectClient, pool: str, run_id: UUID) -> FlowRun:
    """Wait for a run to end; if its worker is gone, close it as crashed."""
    watch, answered = _Watch(client, pool), time.monotonic()
    while True:
        run = client.read_flow_run(run_id)
        if run.state is not None and run.state.is_final():
            return run
        workers = watch.answering()
        if workers:
            answered = time.monotonic()
        elif time.monotonic() - answered > _NO_WORKER_S:
            client.set_flow_run_state(run_id, Crashed(message="no worker answers"), force=True)
            raise UserError(f"no worker of {pool} answers; docs/scaling.md says how to start one")
        worker = _worker(run)
        if worker and worker not in workers:
            lost = Crashed(message=f"worker {worker} is gone")
            client.set_flow_run_state(run_id, lost, force=True)
        time.sleep(_POLL_S)


def _worker(run: FlowRun) -> str:
    tags = (tag.removeprefix(WORKER_TAG) for tag in run.tags if tag.startswith(WORKER_TAG))
    return next(tags, "")
