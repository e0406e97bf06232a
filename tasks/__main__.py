"""Run one stage: `python -m tasks STAGE [ITEM]`, as dvc.yaml does.

Loads the stage's params, opens its MLflow run, calls it and logs what it returns; so the same
stage logs the same whether DVC or Prefect started it. Leaves with 0, with 2 after a user's mistake
(one line, no traceback) and with 1 after a failure.
"""

import importlib
import os
import sys
import time
from pathlib import Path

from tasks.core import tracking
from tasks.core.digests import input_digests
from tasks.core.errors import AffectGapError, UserError
from tasks.core.locks import alone
from tasks.core.params import load_section
from tasks.core.paths import STAGE_OUTS, Paths, find_root
from tasks.core.process import die_with_parent, starter_pid

# The module of each stage; most live in the room of the same name.
MODULES = {name: f"tasks.{name}.stage" for name in {full.split("@")[0] for full in STAGE_OUTS}}
MODULES |= {name: f"tasks.train.{name}" for name in ("finetune", "interpolate", "choose")}


def main(argv: list[str]) -> int:
    """Run the stage named on the command line and return the exit code."""
    die_with_parent(starter_pid())
    # Threads that wait by spinning slow down the stage beside this one many times; read by OpenMP
    # when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    name, items = (argv[0], argv[1:]) if argv else ("", [])
    stage = "@".join([name, *items])
    try:
        if stage not in STAGE_OUTS:
            raise UserError(f"no stage '{stage}'; there are {', '.join(STAGE_OUTS)}")
        _run(name, items, stage, Paths(find_root(Path.cwd())))
    except AffectGapError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return error.exit_code
    except tracking.KilledError:
        return 143
    return 0


def _run(name: str, items: list[str], stage: str, paths: Paths) -> None:
    module = importlib.import_module(MODULES[name])
    params = load_section(paths.params, name, module.Params)
    lock, busy = (
        paths.at("work/locks") / stage,
        f"stage {stage} is already running here; wait for it",
    )
    with alone(lock, busy), tracking.open_run(paths, stage, params.model_dump(), "stage") as run:
        inputs = input_digests(paths, stage)
        run.log_tags({f"input.{path}": digest for path, digest in inputs.items()})
        started = time.monotonic()
        result = module.run(params, paths, *items)
        run.log_result(result)
        tracking.write_run_record(paths, stage, run)
    if result.summary:
        print(f"{stage}: {result.summary} ({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
