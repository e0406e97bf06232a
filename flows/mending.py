"""What a command mends before it begins, and only while no other one is at work here."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flows.dvc_files import mend_after_a_crash
from tasks.core.errors import UserError
from tasks.core.locks import alone
from tasks.core.paths import Paths


@contextmanager
def if_alone(paths: Paths) -> Iterator[bool]:
    """Hold the lock of a run for the length of a block; False where another command does.

    DVC writes dvc.lock in place: what a living one is half through looks like a crash.
    """
    with ExitStack() as held:
        try:
            held.enter_context(alone(paths.at("work/run.lock"), ""))
        except UserError:
            free = False
        else:
            free = True
        yield free


def mend(paths: Paths) -> Iterator[str]:
    """Mend what a killed DVC left, a line each; a command at work here mends for itself.

    Raises as `mend_after_a_crash`.
    """
    with if_alone(paths) as free:
        if free:
            yield from mend_after_a_crash(paths.root)
