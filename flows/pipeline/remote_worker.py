"""One stage on another machine: the flow that a Prefect worker runs in its own clone.

The clone is brought to the sender's commit, params and data (from the DVC remote) and runs the
stage through DVC. The results, with DVC's run-cache, are pushed to the remote for the sender. Local
changes of tracked files in the clone are lost: it is only for a worker.
"""

import os
import subprocess
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.pipeline.dvc_graph import dvc_errors, run_dvc
from flows.pipeline.dvc_repair import repair_after_crash
from flows.process_env import export_command_id, prepare_environment
from tasks.core.errors import AffectGapError, UserError
from tasks.core.files import alone
from tasks.core.parallel.process import die_with_parent
from tasks.core.paths import Paths, find_root
from tasks.core.tracking.mlflow_runs import PARENT_VARIABLE, close_dead_runs

CLONE_VARIABLE = "AFFECTGAP_CLONE"
WORKER_TAG = "worker:"
_DRAW = "draw"  # stages that read data/raw depend on it
_EXIT = "exit "  # start of a failed run's message, before the code and the stage's message


@flow(name="affectgap-stage", persist_result=False, retries=0)
def stage_on_worker(
    stage: str, upstreams: list[str], commit: str, files: dict[str, str], parent: str
) -> State | None:
    """Run one stage in this worker's clone, at the sender's commit and with its files.

    `files` maps the names of params.yaml, dvc.lock and the `.dvc` files to their text. `upstreams`
    are the stages whose outputs are needed. `parent` is the MLflow run under which the stage's run
    is nested, or "".
    """
    die_with_parent()  # if this worker is gone, the stage goes to another one
    export_command_id()
    _tag_with_worker()
    try:
        root = _clone()
        with alone(root / "work/run.lock", f"{root}: a stage is at work here"):
            _check_out(root, commit, files)
            _repair(root)
            _pull(root, upstreams, files)
            environment = {PARENT_VARIABLE: parent} if parent else {}
            _dvc(root, "repro", "--single-item", stage, environment=environment)
            _dvc(root, "push", "--run-cache", stage)
    except AffectGapError as error:
        return Failed(message=f"{_EXIT}{error.exit_code}: {error}")
    return None


def parse_exit(message: str) -> tuple[int, str]:
    """Split a failed run's message into exit code and text."""
    code, _, text = message.removeprefix(_EXIT).partition(": ")
    return (int(code), text) if message.startswith(_EXIT) and code.isdigit() else (1, message)


def _clone() -> Path:
    named = os.environ.get(CLONE_VARIABLE)
    if not named:
        raise UserError(f"set {CLONE_VARIABLE} to the worker's clone before the worker is started")
    root = find_root(Path(named))
    prepare_environment(root)
    return root


def _tag_with_worker() -> None:
    """Tag the run with the worker's name, so that the sender notices when it is gone."""
    worker = os.environ.get("PREFECT__WORKER_NAME", "")
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=[f"{WORKER_TAG}{worker}"])


def _repair(root: Path) -> None:
    """Repair what an earlier stage of this worker left when it was killed."""
    list(repair_after_crash(root))
    if os.environ.get("MLFLOW_TRACKING_URI"):  # otherwise the clone's runs are of no interest
        close_dead_runs(Paths(root))


def _check_out(root: Path, commit: str, files: dict[str, str]) -> None:
    """Check out the sender's commit and write the files that may differ from it."""
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        _git(root, "fetch", "--quiet")
    # Even if the clone is at the commit: files of an earlier sender may differ from this one's.
    done = _git(root, "checkout", "--quiet", "--force", "--detach", commit)
    if done.returncode != 0:
        raise UserError(f"{root}: {done.stderr.strip()}; push the commit where workers fetch")
    for name, text in files.items():
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise UserError(f"{name}: is no file of the project")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _pull(root: Path, upstreams: list[str], files: dict[str, str]) -> None:
    """Pull the stage's inputs: upstream outputs, and imported data if it reads any."""
    given = [name for name in files if name.endswith(".dvc")]
    targets = [*upstreams, *(given if _DRAW in upstreams else [])]
    if targets:
        _dvc(root, "pull", "--force", *targets)


def _dvc(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
    *lines, code = run_dvc(root, "--wait-for-lock", *arguments, environment=environment)
    if code == "exit 0":
        return
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors and any("exited with 2" in line for line in lines):
        raise UserError(*errors)
    if errors:
        raise AffectGapError(*errors)
    output = dvc_errors(lines, full=arguments[0] == "repro").splitlines()
    raise AffectGapError(f"dvc {arguments[0]} failed:", *output)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
