"""One stage on another machine: what a Prefect worker runs in a clone that belongs to it.

The clone is brought to the asker's commit, params and data (from the DVC remote), runs the stage
through DVC, and puts what came out, with DVC's run-cache, into the remote, where the asker finds
it. The clone's own changes of tracked files are lost: it is for a worker alone.
"""

import os
import subprocess
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.dvc_files import mend_after_a_crash
from flows.dvc_graph import run_dvc, what_dvc_said
from flows.environment import prepare_environment
from flows.starter import mark_as_command
from tasks.core.errors import AffectGapError, UserError
from tasks.core.locks import alone
from tasks.core.paths import Paths, find_root
from tasks.core.process import die_with_parent
from tasks.core.tracking import PARENT_VARIABLE, close_dead_runs

CLONE_VARIABLE = "AFFECTGAP_CLONE"
WORKER_TAG = "worker:"
_DRAW = "draw"  # what reads data/raw waits for it
_EXIT = "exit "  # of a failed run's message: the code, then what the stage said


@flow(name="affectgap-stage", persist_result=False, retries=0)
def stage_on_worker(
    stage: str, upstreams: list[str], commit: str, files: dict[str, str], parent: str
) -> State | None:
    """Run one stage in this worker's clone.

    Parameters
    ----------
    stage
        As DVC calls it.
    upstreams
        The stages whose outputs it needs.
    commit
        The asker's git commit.
    files
        The asker's params.yaml, dvc.lock and `.dvc` files: name to text.
    parent
        The run in MLflow under which the stage's run is nested, or "".
    """
    die_with_parent()  # the stage is given to another worker when this one is gone
    mark_as_command()
    _say_who_works()
    try:
        root = _clone()
        with alone(root / "work/run.lock", f"{root}: a stage is at work here"):
            _bring_to(root, commit, files)
            _mend(root)
            _pull(root, upstreams, files)
            environment = {PARENT_VARIABLE: parent} if parent else {}
            _dvc(root, "repro", "--single-item", stage, environment=environment)
            _dvc(root, "push", "--run-cache", stage)
    except AffectGapError as error:
        return Failed(message=f"{_EXIT}{error.exit_code}: {error}")
    return None


def exit_of(message: str) -> tuple[int, str]:
    """Take a failed run's message apart into exit code and text."""
    code, _, text = message.removeprefix(_EXIT).partition(": ")
    return (int(code), text) if message.startswith(_EXIT) and code.isdigit() else (1, message)


def _clone() -> Path:
    named = os.environ.get(CLONE_VARIABLE)
    if not named:
        raise UserError(f"set {CLONE_VARIABLE} to the worker's clone before the worker is started")
    root = find_root(Path(named))
    prepare_environment(root)
    return root


def _say_who_works() -> None:
    """Tag the run with the worker's name, so that the asker sees when that worker is gone."""
    worker = os.environ.get("PREFECT__WORKER_NAME", "")
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, tags=[f"{WORKER_TAG}{worker}"])


def _mend(root: Path) -> None:
    """Put right what an earlier stage of this worker left when it was killed."""
    list(mend_after_a_crash(root))
    if os.environ.get("MLFLOW_TRACKING_URI"):  # elsewhere the clone's runs are nobody's
        close_dead_runs(Paths(root))


def _bring_to(root: Path, commit: str, files: dict[str, str]) -> None:
    """Check the asker's commit out and write the files that may differ from it."""
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode != 0:
        _git(root, "fetch", "--quiet")
    # Also where it stands at the commit: an earlier asker's files may differ from this one's.
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
    """Bring what the stage reads: its upstreams' outputs, and given data where it reads any."""
    given = [name for name in files if name.endswith(".dvc")]
    targets = [*upstreams, *(given if _DRAW in upstreams else [])]
    if targets:
        _dvc(root, "pull", "--force", *targets)


def _dvc(root: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
    *lines, code = run_dvc(root, "--wait-for-lock", *arguments, environment=environment)
    if code == "exit 0":
        return
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    faults = told or what_dvc_said(lines, whole=arguments[0] == "repro").splitlines()
    if told and any("exited with 2" in line for line in lines):
        raise UserError(*faults)
    raise AffectGapError(*([] if told else [f"dvc {arguments[0]} failed:"]), *faults)


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
