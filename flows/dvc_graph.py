"""DVC's graph and DVC's processes: the DAG is written once, in dvc.yaml, and read from there.

The stages of a study stand in study/dvc.yaml (flows/study_stages.py); what is asked about the
project's own stages never looks there.

DVC's `Repo` is not thread-safe, so whatever runs or asks DVC does so in a process of its own, which
dies with the one that started it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.core.errors import UserError
from tasks.core.process import STARTER_VARIABLE, die_with_parent

MAIN = "dvc.yaml"
_DVC_ERROR = "ERROR: "
_DVC_HELP = "Having any troubles?"  # what DVC adds to an error; nobody there knows this project


def stage_graph(root: Path, target: str | None) -> dict[str, list[str]]:
    """Read which stages there are and what each one waits for.

    Parameters
    ----------
    root
        The project's folder.
    target
        A stage (`evaluate` stands for every `evaluate@…`), or None for all.

    Returns
    -------
    dict
        Stage to the stages that it depends on directly, in an order that can be run.

    Raises
    ------
    UserError
        For a target that is no stage.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
    except DvcException as error:
        raise UserError(f"{root}: DVC cannot read the project: {error}") from None
    # A .dvc file has no command: data as given.
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
    """Ask DVC what is not up to date; an empty dict means that there is nothing to do.

    A stage is not in it when only what it depends on is, nor are data sets (`.dvc` files): a stage
    that reads a changed one is.

    Parameters
    ----------
    root
        The project's folder.
    target
        A stage of dvc.yaml, with what it depends on; None for every stage of `file`.
    file
        Which dvc.yaml; stages of another one than the main one are named `<file>:<stage>`.
    """
    changed = _ask(root, "status", *(["--with-deps", target] if target else [file]))
    return {name: what for name, what in changed.items() if not name.endswith(".dvc")}


def data_status(root: Path, granular: bool = False) -> dict[str, Any]:
    """Ask DVC how data and results differ from what its files say.

    Parameters
    ----------
    root
        The project's folder.
    granular
        True: file by file; else a folder that differs is named alone.

    Returns
    -------
    dict
        As `dvc data status --json` writes it: `not_in_cache` (paths below the root) and, under
        `uncommitted`, lists of paths that were `added`, `deleted` or `modified`.
    """
    return _ask(root, "data", "status", *(["--granular"] if granular else []))


def run_dvc(
    root: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run DVC and yield its lines as they come; the last item is `exit N`.

    `environment` is added to this process's own. Call it from a thread that lives until the
    iterator ends (see `die_with_parent`).
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


def what_dvc_said(lines: list[str], whole: bool = False) -> str:
    """Return DVC's own errors; without one, or where the `whole` is asked, the last lines."""
    lines = [line for line in lines if not line.startswith(_DVC_HELP)]
    errors = [line.removeprefix(_DVC_ERROR) for line in lines if line.startswith(_DVC_ERROR)]
    return "\n".join(errors if errors and not whole else lines[-20:])


def dvc_command(*arguments: str) -> list[str]:
    """Return the command line of a DVC process that dies with its parent."""
    call = f"main_of_dvc({list(arguments)!r}, {os.getpid()})"
    code = f"from flows.dvc_graph import main_of_dvc; {call}"
    return [sys.executable, "-c", code]


def main_of_dvc(arguments: list[str], parent_pid: int) -> None:
    """Be DVC (called in a process of its own)."""
    die_with_parent(parent_pid)
    os.environ[STARTER_VARIABLE] = str(os.getpid())
    from dvc.cli import main

    sys.exit(main(arguments))


def _ask(root: Path, *arguments: str) -> dict[str, Any]:
    """Return what DVC answers in JSON; raises UserError with its own words where it cannot."""
    command = dvc_command(*arguments, "--json")
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        said = " ".join(what_dvc_said(done.stderr.splitlines()).split()) or "no message"
        raise UserError(f"{root}: DVC cannot read the project: {said}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _with_ancestors(order: Any, target: str) -> set[str]:
    import networkx

    chosen = {name for name in order if name == target or name.split("@")[0] == target}
    if not chosen:
        raise UserError(f"no stage '{target}' in dvc.yaml; there are {', '.join(sorted(order))}")
    return chosen.union(*(networkx.descendants(order, name) for name in chosen))
