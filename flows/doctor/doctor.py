"""`affectgap doctor`: repairs what a crash left behind, or reports what a person has to do.

The next pass would repair what it needs by itself. The doctor checks everything, changes nothing
that is in use, and holds the locks of a pass and of a run meanwhile.
"""

from collections.abc import Callable, Iterator

from flows.doctor.file_checks import (
    dead_writers,
    disk,
    git_locks,
    missing_in_cache,
    old_progress,
    open_folders,
    readable_inbox,
    repair_dvc_files,
    site_caches_elsewhere,
)
from flows.doctor.image_checks import ledger_against_disk
from flows.doctor.state_checks import (
    Finding,
    dead_passes,
    dead_runs,
    interrupted_intakes,
    model_in_use,
    orphans,
    serving_note,
    unfinished_promotion,
)
from flows.outages import translate_outages
from tasks.core.errors import AffectGapError
from tasks.core.files import alone
from tasks.core.paths import Paths

_BUSY = "another affectgap command is at work here; run `affectgap doctor` when it is done"
# In this order: later checks depend on earlier ones.
_CHECKS: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
    disk,
    open_folders,
    readable_inbox,
    site_caches_elsewhere,
    orphans,
    repair_dvc_files,
    git_locks,
    dead_writers,
    old_progress,
    serving_note,
    dead_runs,
    dead_passes,
    interrupted_intakes,
    ledger_against_disk,
    unfinished_promotion,
    model_in_use,
    missing_in_cache,
)


def examine(paths: Paths) -> list[Finding]:
    """Check the project for what a crash left, repair it, and return the findings.

    Raises UserError while another command is running here.
    """
    busy = f"{paths.root}: {_BUSY}"
    findings: list[Finding] = []
    with alone(paths.at("work/retrain.lock"), busy), alone(paths.at("work/run.lock"), busy):
        for check in _CHECKS:
            try:
                with translate_outages():
                    findings.extend(check(paths))
            except (AffectGapError, OSError) as error:  # go on with the other checks
                lines = str(error).splitlines() or [type(error).__name__]
                failed = [_finding(line, paths) for line in lines]
                findings.extend(finding for finding in failed if finding not in findings)
    return findings


def _finding(line: str, paths: Paths) -> Finding:
    """Split an error line of the form `where: what; what to do` into a finding."""
    where, colon, rest = line.partition(": ")
    what, _, remedy = (rest if colon else line).partition("; ")
    advice = remedy or "mend it, then run `affectgap doctor` again"
    return Finding(what, where if colon else str(paths.root), advice, mended=False)
