"""Stages on other machines: with `AFFECTGAP_WORK_POOL`, a Prefect work pool carries them out.

What travels is small: the commit, params.yaml, dvc.lock and the `.dvc` files. Data goes through the
DVC remote, and a stage's outcome comes back through DVC's run-cache, as if it had run here before:
whatever goes wrong on the way, DVC decides here what is up to date.
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

from flows.dvc_files import is_whole_lock
from flows.dvc_graph import run_dvc, stage_graph, what_dvc_said
from flows.worker_stage import WORKER_TAG, exit_of, stage_on_worker
from tasks.core.errors import AffectGapError, UserError
from tasks.core.provenance import commit_of
from tasks.core.tracking import PARENT_VARIABLE

POOL_VARIABLE = "AFFECTGAP_WORK_POOL"

_POLL_S = 1.0
_TRIES = 3  # a stage whose worker was lost is given to another one
_HEARTBEAT_S = 30  # Prefect's own default
_NO_WORKER_S = 120.0  # so long may a pool be without a worker that answers
_LOCK_READS = 50  # of a dvc.lock that another process is writing
_SHOWN = 3  # files named in a message
_once = threading.Lock()
_prepared: dict[tuple[Path, str], UUID] = {}  # clones and pools that this process has prepared


class WorkerStageError(AffectGapError):
    """A stage failed on a worker; the text is what it said there."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(*text.splitlines())
        self.exit_code = exit_code


def run_on_worker(root: Path, pool: str, stage: str) -> str:
    """Let a worker of a pool bring one stage up to date, and wait for it.

    Parameters
    ----------
    root
        The project's folder; what the stage reads is up to date here.
    pool
        The name of a Prefect work pool of type `process`.
    stage
        As DVC calls it.

    Returns
    -------
    str
        The worker's name. Its outcome is in the DVC remote: `dvc repro --pull` restores it.

    Raises
    ------
    WorkerStageError
        The stage failed; it is not tried again.
    UserError
        There is no such pool, or no worker in it; or code that the workers cannot have.
    AffectGapError
        Three workers were lost with the stage.
    """
    with get_client(sync_client=True) as client:
        deployment = _prepare(client, root, pool)
        asked = {
            "stage": stage,
            "upstreams": stage_graph(root, stage)[stage],
            "commit": commit_of(root),
            "files": _files(root),
            "parent": os.environ.get(PARENT_VARIABLE, ""),
        }
        for _ in range(_TRIES):
            run = client.create_flow_run_from_deployment(deployment, parameters=asked, name=stage)
            run = _wait(client, pool, run.id)
            if run.state is not None and run.state.is_completed():
                return _worker(run)
            if run.state is not None and run.state.is_failed():
                code, text = exit_of(run.state.message or "no message")
                raise WorkerStageError(f"{text} (on worker {_worker(run)})", code)
    raise AffectGapError(f"stage {stage}: {_TRIES} workers of {pool} were lost with it")


def _prepare(client: SyncPrefectClient, root: Path, pool: str) -> UUID:
    """Once a process: put what is here into the remote, and tell the server of the flow."""
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
                said = " ".join(what_dvc_said(lines).split())
                raise UserError(f"{root}: cannot push to the DVC remote: {said}")
            deployment = stage_on_worker.to_deployment(
                name=pool, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH
            )
            _prepared[root, pool] = deployment.apply()
        return _prepared[root, pool]


def _assert_committed(root: Path) -> None:
    """Raise where workers would check out other code than is here: DVC would not take theirs."""
    command = ["git", "-C", str(root), "status", "--porcelain", "-z", "--untracked-files=all"]
    told = subprocess.run(
        [*command, "--no-renames"], capture_output=True, text=True, errors="replace", check=False
    )
    names = [entry[3:] for entry in told.stdout.split("\0") if entry]
    read, travelling = _read_by_stages(root), _files(root)
    changed = [name for name in names if name not in travelling and _is_below(name, read)]
    if changed:
        some = ", ".join(changed[:_SHOWN]) + (" …" if len(changed) > _SHOWN else "")
        raise UserError(f"{some}: not committed, so that workers lack it; commit and push it first")


def _read_by_stages(root: Path) -> set[str]:
    """Return dvc.yaml and what its stages name as dependencies."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    deps = [dep for stage in stages for dep in stage.get("do", stage).get("deps", [])]
    return {"dvc.yaml", *(str(next(iter(dep))) if isinstance(dep, dict) else dep for dep in deps)}


def _is_below(name: str, places: set[str]) -> bool:
    return any(str(part) in places for part in (Path(name), *Path(name).parents))


def _files(root: Path) -> dict[str, str]:
    """Return the texts that say which params and data count here."""
    names = [root / "params.yaml", *sorted(root.glob("data/raw/*.dvc"))]
    texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in names}
    return {**texts, "dvc.lock": _whole_lock(root / "dvc.lock")}


def _whole_lock(path: Path) -> str:
    """Read dvc.lock, which DVC does not write atomically, until it is whole."""
    for _ in range(_LOCK_READS):
        there = path.is_file()
        text = path.read_text(encoding="utf-8", errors="replace") if there else "schema: '2.0'\n"
        if is_whole_lock(text):
            return text
        time.sleep(0.1)
    raise UserError(f"{path}: is torn; `affectgap doctor` mends it")


class _Watch:
    """Tells which workers of a pool answer: those whose heartbeat moves on.

    Prefect's own word for it comes from a service that not every server runs, and the time of a
    heartbeat is of the server's clock: so the change of that time counts, by the clock here.
    """

    def __init__(self, client: SyncPrefectClient, pool: str) -> None:
        self._client, self._pool = client, pool
        self._last: dict[str, tuple[object, float]] = {}

    def answering(self) -> set[str]:
        """Return the names of the workers that answered within three heartbeats."""
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
    """Wait for a run to end; one whose worker is gone is closed as crashed."""
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
