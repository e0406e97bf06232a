"""Run a training stage under `torchrun`, one process per device.

`AFFECTGAP_TORCHRUN="--nproc-per-node 2" affectgap run` (or `dvc repro`) trains on two devices.
torchrun's own output about failed processes is suppressed, since each process reports its error.
"""

import logging
import os
import shlex
import signal
from collections.abc import Sequence

from tasks.core.errors import UserError
from tasks.core.parallel.execution import cpu_count
from tasks.core.parallel.process import TORCHRUN_VARIABLE


def run_torchrun(options: str, stage: Sequence[str]) -> int:
    """Run `python -m tasks STAGE [ITEM]` under torchrun and return its exit code.

    `options` are torchrun's command-line options, such as "--nproc-per-node 2". Raises UserError if
    torchrun does not accept them.
    """
    from torch.distributed import run as torchrun
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    try:
        arguments = torchrun.parse_args([*shlex.split(options), "-m", "tasks", *stage])
        n_processes = torchrun.determine_local_world_size(arguments.nproc_per_node)
    except (SystemExit, ValueError):
        raise UserError(f"{TORCHRUN_VARIABLE}: torchrun cannot read '{options}'") from None
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // n_processes)))
    logging.disable(logging.CRITICAL)  # this process only waits; the workers log
    try:
        torchrun.run(arguments)
    except ChildFailedError as error:
        return _as_shell_code(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return _as_shell_code(-int(error.sigval))
    return 0


def _as_shell_code(code: int) -> int:
    """Return the exit code as a shell reports it, with 128 + n for signal n."""
    return code if code >= 0 else 128 + int(signal.Signals(-code))
