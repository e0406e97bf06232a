"""Run one stage: `python -m tasks STAGE [ITEM]`, as dvc.yaml does.

Loads the stage's params, opens its MLflow run, calls it and logs its result, so that the log is the
same whether DVC or Prefect started the stage. Exit codes: 0, 2 for a mistake of the user (one line,
no traceback), 1 for a failure. Under `torchrun` rank 0 does all that; the other ranks only train.
"""

import importlib
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from tasks.core.errors import FULL, AffectGapError, UserError, is_full
from tasks.core.files import alone, close_folders, restrict_umask
from tasks.core.parallel import process
from tasks.core.parallel.process import die_with_parent, name_account, starter_pid
from tasks.core.params import Section, load_section
from tasks.core.paths import STAGE_OUTS, STUDY_OUTS, STUDY_RUN, Paths, find_root
from tasks.core.stages import MODULES, TRAINING, is_stage, section_of
from tasks.core.terminal import prepare_output, print_error
from tasks.core.text import printable
from tasks.core.tracking.versions import input_digests

# Time for rank 0 to report an error that all ranks meet: torchrun ends the others when it exits.
_RANK_ZERO_FIRST_S = 60


def main(argv: list[str]) -> int:
    """Run the stage named on the command line and return the exit code."""
    prepare_output()
    die_with_parent(None if process.under_torchrun() else starter_pid())
    restrict_umask()
    name_account(Path.cwd())
    from tasks.core.tracking import mlflow_runs

    # Threads that spin while they wait slow down other stages many times. OpenMP reads the variable
    # when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    name, items = (argv[0], argv[1:]) if argv else ("", [])
    stage = "@".join([name, *items])
    try:
        if not is_stage(name, items):
            known = ", ".join([*STAGE_OUTS, f"{STUDY_RUN} KEY", *STUDY_OUTS])
            raise UserError(f"no stage '{stage}'; there are {known}")
        return _launch_or_run(name, items, stage)
    except AffectGapError as error:
        if process.rank() > 0:
            time.sleep(_RANK_ZERO_FIRST_S)
        print_error(error)
        return error.exit_code
    except mlflow_runs.KilledError:
        return 143
    except PermissionError as error:  # such as in a project of another account
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except Exception as error:
        if not is_full(error):
            raise
        print_error(FULL)
        return 1
    except KeyboardInterrupt:
        return 130


def _launch_or_run(name: str, items: list[str], stage: str) -> int:
    """Launch torchrun, or run as rank 0 or as a worker rank."""
    options = os.environ.get(process.TORCHRUN_VARIABLE, "").strip()
    if options and name in TRAINING and not process.under_torchrun():
        from tasks.core.training.torchrun import run_torchrun

        return run_torchrun(options, [name, *items])
    paths = Paths(find_root(Path.cwd()))
    if process.rank() == 0:
        close_folders(paths.root)  # DVC, which runs before and after this stage, has its own umask
        _run(name, items, stage, paths)
        return 0
    with suppress(process.PartDone):
        _run_worker(name, items, paths)
    return 0


def _run(name: str, items: list[str], stage: str, paths: Paths) -> None:
    from tasks.core.tracking import mlflow_runs

    module = importlib.import_module(MODULES[name])
    params = _params(name, items, module, paths)
    lock = paths.at("work/locks") / stage
    busy = f"stage {stage} is already running here; wait for it"
    with alone(lock, busy), mlflow_runs.open_run(paths, stage, params.model_dump(), "stage") as run:
        inputs = input_digests(paths, stage)
        run.log_tags({f"input.{path}": digest for path, digest in inputs.items()})
        started = time.monotonic()
        result = module.run(params, paths, *items)
        run.log_result(result)
        mlflow_runs.write_run_record(paths, stage, run)
    if result.summary:
        seconds = time.monotonic() - started
        print(f"{stage}: {printable(result.summary)} ({seconds:.0f} s)", flush=True)


def _run_worker(name: str, items: list[str], paths: Paths) -> None:
    """Train with rank 0, which is the only one to lock, track and write."""
    os.environ["AFFECTGAP_PROGRESS"] = "off"
    module = importlib.import_module(MODULES[name])
    module.run(_params(name, items, module, paths), paths, *items)


def _params(name: str, items: list[str], module: ModuleType, paths: Paths) -> Section:
    """Load the stage's section of params.yaml; a run of a study has its own file."""
    params: Section
    if name == STUDY_RUN:
        params = module.load_run(paths, *items)
    else:
        params = load_section(paths.params, section_of(name), module.Params)
    return params


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
