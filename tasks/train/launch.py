"""A training stage that starts itself under `torchrun`, one process a device.

So `AFFECTGAP_TORCHRUN="--nproc-per-node 2" affectgap run` (or `dvc repro`) trains on two devices;
what torchrun prints of its own when a process fails is left out, since the process has said why.
"""

import logging
import os
import shlex
import signal
from collections.abc import Sequence

from tasks.core.errors import UserError
from tasks.core.execution import cpu_count
from tasks.core.ranks import TORCHRUN_VARIABLE


def launch(options: str, stage: Sequence[str]) -> int:
    """Run `python -m tasks STAGE [ITEM]` under torchrun and return its exit code.

    Parameters
    ----------
    options
        torchrun's own, as on its command line, such as "--nproc-per-node 2".
    stage
        The stage and its item.

    Raises
    ------
    UserError
        For options that torchrun does not know.
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
    logging.disable(logging.CRITICAL)  # this process only waits; the others speak for themselves
    try:
        torchrun.run(arguments)
    except ChildFailedError as error:
        return _as_shell_code(error.get_first_failure()[1].exitcode)
    except SignalException as error:
        return _as_shell_code(-int(error.sigval))
    return 0


def _as_shell_code(code: int) -> int:
    """Spell death by a signal as a shell does."""
    return code if code >= 0 else 128 + int(signal.Signals(-code))
