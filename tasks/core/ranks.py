"""Which of several training processes this is: `torchrun` starts one a device and numbers them.

Knows no torch, so that a command can ask before anything slow is imported.
"""

import os

# Arguments of torchrun, such as "--nproc-per-node 2", with which the training stages start
# themselves; so `affectgap run` and `dvc repro` use several devices too.
TORCHRUN_VARIABLE = "AFFECTGAP_TORCHRUN"


class PartDone(BaseException):
    """A process has done its part; the first one alone goes on and writes what came out."""


def under_torchrun() -> bool:
    """Tell whether torchrun (or what speaks its language) started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def rank() -> int:
    """Return this process's number among all, from 0; 0 where there is one alone."""
    return int(os.environ["RANK"]) if under_torchrun() else 0


def local_rank() -> int:
    """Return this process's number among those of this machine, from 0."""
    return int(os.environ["LOCAL_RANK"]) if under_torchrun() else 0


def size() -> int:
    """Return how many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else 1


def first_alone() -> None:
    """End every process but the first; called before anything is written.

    Raises
    ------
    PartDone
        In every process but the first.
    """
    if rank() > 0:
        raise PartDone
