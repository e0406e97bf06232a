"""DVC's graph and DVC's processes: dvc.yaml is the only description of the pipeline.

The stages of a study are in study/dvc.yaml (flows/study/dvc_stages.py); questions about the
project's own stages never read it. DVC's `Repo` is not thread-safe, so every DVC call runs in its
own process, which dies with its parent.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import AffectGapError, UserError
from tasks.core.parallel.process import STARTER_VARIABLE, die_with_parent

MAIN = "dvc.yaml"
_DVC_ERROR = "ERROR: "
_DVC_HELP = "Having any troubles?"  # hint at DVC's support, which does not know this project


class StageFailedError(AffectGapError):
    """A stage exited with an error; the text is its message."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(*text.splitlines())
        self.exit_code = exit_code


def stage_graph(root: Path, target: str | None) -> dict[str, list[str]]:
    """Return each stage with the stages that it directly depends on, in an order that can be run.

    `target` selects a stage and its dependencies (`evaluate` stands for every `evaluate@…`); None
    selects all. Raises UserError if it is no stage.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
    except DvcException as error:
        raise UserError(f"{root}: DVC cannot read the project: {error}") from None
    # The node of a .dvc file has no command.
    runnable = [stage for stage in graph if stage.cmd and stage.path_in_repo == MAIN]
    order = networkx.DiGraph()
    order.add_nodes_from(stage.name for stage in runnable)
    order.add_edges_from(
        (stage.name, upstream.name)
        for stage in runnable
        for upstream in graph.successors(stage)
        if upstream in runnable
    )
    wanted = set(order) if target is None else _with_ancestors(order, target)
    in_order = list(networkx.lexicographical_topological_sort(order.reverse()))
    return {name: sorted(order.successors(name)) for name in in_order if name in wanted}


def changed_stages(root: Path, target: str | None, file: str = MAIN) -> dict[str, Any]:
    """Return what is not up to date by `dvc status`; empty if there is nothing to do.

    A stage is missing here if only its upstream stages changed. Data sets (`.dvc` files) are left
    out: a stage that reads a changed one is listed. `target` is a stage of dvc.yaml, checked with
    its dependencies; None checks every stage of `file`. Stages of a file other than the main one
    are named `<file>:<stage>`.
    """
    changed = _ask(root, "status", *(["--with-deps", target] if target else [file]))
    return {name: what for name, what in changed.items() if not name.endswith(".dvc")}


def data_status(root: Path, granular: bool = False) -> dict[str, Any]:
    """Return the answer of `dvc data status --json`, with a folder as one entry unless `granular`.

    Its keys are `not_in_cache` (paths below the root) and `uncommitted`, with lists of paths that
    were `added`, `deleted` or `modified`.
    """
    return _ask(root, "data", "status", *(["--granular"] if granular else []))


def run_dvc(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run DVC and yield its lines as they come; the last item is `exit N`.

    `environment` is added to this process's. The calling thread must live until the iterator ends
    (see `die_with_parent`).
    """
    process = subprocess.Popen(
        dvc_command(*arguments),
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
    )
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            yield line.rstrip("\n")
    yield f"exit {process.wait()}"


def dvc_errors(lines: list[str], full: bool = False) -> str:
    """Return DVC's error lines; without one, or if `full` is true, the last 20 lines."""
    lines = [line for line in lines if not line.startswith(_DVC_HELP)]
    errors = [line.removeprefix(_DVC_ERROR) for line in lines if line.startswith(_DVC_ERROR)]
    return "\n".join(errors if errors and not full else lines[-20:])


def dvc_command(*arguments: str) -> list[str]:
    """Return the command line of a DVC process that dies with its parent."""
    call = f"run_dvc_cli({list(arguments)!r}, {os.getpid()})"
    code = f"from flows.pipeline.dvc_graph import run_dvc_cli; {call}"
    return [sys.executable, "-c", code]


def run_dvc_cli(arguments: list[str], parent_pid: int) -> None:
    """Run DVC's command line (called in a process of its own)."""
    die_with_parent(parent_pid)
    os.environ[STARTER_VARIABLE] = str(os.getpid())
    from dvc.cli import main

    sys.exit(main(arguments))


def _ask(root: Path, *arguments: str) -> dict[str, Any]:
    """Return DVC's JSON answer; raises UserError with DVC's message if it fails."""
    command = dvc_command(*arguments, "--json")
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        message = " ".join(dvc_errors(done.stderr.splitlines()).split()) or "no message"
        raise UserError(f"{root}: DVC cannot read the project: {message}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _with_ancestors(order: Any, target: str) -> set[str]:
    import networkx

    chosen = {name for name in order if name == target or name.split("@")[0] == target}
    if not chosen:
        raise UserError(f"no stage '{target}' in dvc.yaml; there are {', '.join(sorted(order))}")
    return chosen.union(*(networkx.descendants(order, name) for name in chosen))
