"""`affectgap doctor`: what a crash left, mended where a machine can, else said with what to do.

Nothing here is needed for the next pass to go on: a pass mends what it meets. The doctor looks
everywhere, changes nothing that is in use, and takes the locks of a pass and of a run meanwhile.
"""

from collections.abc import Callable, Iterator

from flows.doctor_files import (
    dead_writers,
    disk,
    git_locks,
    missing_in_cache,
    old_progress,
    torn_dvc_files,
)
from flows.doctor_pictures import ledger_against_disk
from flows.doctor_private import open_folders, readable_inbox, site_caches_elsewhere
from flows.doctor_state import (
    dead_passes,
    dead_runs,
    half_taken_in,
    model_in_use,
    orphans,
    serving_note,
    unfinished_promotion,
)
from flows.finding import Finding
from flows.stores import in_one_line
from tasks.core.errors import AffectGapError
from tasks.core.locks import alone
from tasks.core.paths import Paths

_BUSY = "another affectgap command is at work here; run `affectgap doctor` when it is done"
# In this order: what others stumble over first.
_CHECKS: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
    disk,
    open_folders,
    readable_inbox,
    site_caches_elsewhere,
    orphans,
    torn_dvc_files,
    git_locks,
    dead_writers,
    old_progress,
    serving_note,
    dead_runs,
    dead_passes,
    half_taken_in,
    ledger_against_disk,
    unfinished_promotion,
    model_in_use,
    missing_in_cache,
)


def examine(paths: Paths) -> list[Finding]:
    """Look for what a crash left, and mend it.

    Parameters
    ----------
    paths
        The project's paths.

    Returns
    -------
    list of Finding
        What was found, mended or not; empty where all is well.

    Raises
    ------
    UserError
        Where another command is at work here.
    """
    busy = f"{paths.root}: {_BUSY}"
    found: list[Finding] = []
    with alone(paths.at("work/retrain.lock"), busy), alone(paths.at("work/run.lock"), busy):
        for check in _CHECKS:
            try:
                with in_one_line():
                    found.extend(check(paths))
            except (AffectGapError, OSError) as error:  # the other checks are made all the same
                lines = str(error).splitlines() or [type(error).__name__]
                told = [_finding(line, paths) for line in lines]
                found.extend(finding for finding in told if finding not in found)
    return found


def _finding(line: str, paths: Paths) -> Finding:
    """Take an error's line apart: `where: what; what to do`, the last as far as it says so."""
    where, colon, rest = line.partition(": ")
    what, _, remedy = (rest if colon else line).partition("; ")
    advice = remedy or "mend it, then run `affectgap doctor` again"
    return Finding(what, where if colon else str(paths.root), advice, mended=False)
