"""Drift reports on the batches that wait for training, compared with the training data.

`affectgap intake` and a retraining pass write the same report; one that exists for the model in use
is not written again. A failure here never stops an intake or a pass: one line takes the report's
place, and the next pass tries again.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flows.ledger.ledger import Ledger
from flows.outages import outage_message
from flows.registry.recovery import has_store
from flows.retraining.trigger_policy import untrained_images
from tasks.core.errors import AffectGapError
from tasks.core.files import write_text
from tasks.core.paths import Paths
from tasks.drift.drift_report import not_compared_page

_WIDTH = 300  # characters of an error message


def report_drift_of_waiting(
    paths: Paths, say: Callable[[str], None], at_intake: bool = False
) -> None:
    """Write a drift report for each batch that no model was trained with, unless one exists.

    `say` receives one line per batch. At intake only batches without a report are compared, and
    only if a model is in use. A pass also compares batches again for another model, and before the
    first model with the training split.
    """
    ledger = Ledger(paths.ledger)
    try:
        waiting, advised = _waiting(paths, ledger), ledger.advised()
        if at_intake:  # asking the registry for the model takes seconds
            waiting = [name for name in waiting if not _has_report(paths, name, name in advised)]
    except Exception as error:  # noqa: BLE001 - a report must not stop an intake
        say(f"drift: not compared ({_one_line(error)})")
        return
    try:
        model = model_in_use(paths) if waiting else ""
    except Exception as error:  # noqa: BLE001
        for batch in waiting:
            if not _has_report(paths, batch, batch in advised):
                _report_failure(paths, batch, error, say)
        return
    missing = [name for name in waiting if not _has_report(paths, name, advised.get(name) == model)]
    if missing and at_intake and not model:
        say("drift: not compared, no model is in use yet")
        return
    for batch in missing:
        _compare(paths, ledger, batch, model, say)


def model_in_use(paths: Paths) -> str:
    """Return the name of the model in use as reports print it, or "" if there is none."""
    if not has_store(paths):
        return ""
    from flows.drift.batch_drift import version_title
    from tasks.register.registry import champion

    version = champion(paths)
    return "" if version is None else version_title(version)


def _waiting(paths: Paths, ledger: Ledger) -> list[str]:
    """Return the batches without a training; data sets imported as a unit are not compared."""
    untrained = untrained_images(paths, ledger)
    complete = ledger.whole()
    return [str(batch) for batch in untrained["batch"].unique() if batch not in complete]


def _has_report(paths: Paths, batch: str, recorded: bool) -> bool:
    """Return whether a batch has a report; `recorded` says that the ledger lists one.

    Files without a record may belong to an earlier delivery under the same name.
    """
    return recorded and all(file.is_file() for file in _report_files(paths, batch))


def _report_files(paths: Paths, batch: str) -> tuple[Path, Path]:
    return paths.at(f"reports/drift/{batch}.md"), paths.at(f"reports/drift/{batch}.csv")


def _compare(
    paths: Paths, ledger: Ledger, batch: str, model: str, say: Callable[[str], None]
) -> None:
    from flows.drift.batch_drift import write_drift_report

    try:
        effect = write_drift_report(paths, batch)
        ledger.set_drift(batch, effect, model)
    except Exception as error:  # noqa: BLE001
        _report_failure(paths, batch, error, say)
        return
    outcome = "not compared" if effect is None else f"largest effect {effect:.2f}"
    say(f"drift of {batch}: {outcome}; {_report_files(paths, batch)[0]}")


def _report_failure(paths: Paths, batch: str, error: Exception, say: Callable[[str], None]) -> None:
    """Report why there is no comparison, also in the report's place."""
    reason = _one_line(error)
    say(f"drift of {batch}: not compared ({reason})")
    page, table = _report_files(paths, batch)
    with suppress(OSError):  # the disk may be full
        table.unlink(missing_ok=True)  # from an earlier delivery or another model
        write_text(page, "\n".join(not_compared_page(batch, reason)) + "\n")


def _one_line(error: Exception) -> str:
    """Return an error as one line of characters that any file can hold."""
    message = " ".join(str(error).split())
    if not isinstance(error, AffectGapError):
        message = outage_message(error) or f"{type(error).__name__}: {message}".removesuffix(": ")
    return message.encode("utf-8", "backslashreplace").decode()[:_WIDTH]
