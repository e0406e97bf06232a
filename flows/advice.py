"""Advice on the batches that wait for a training: how each differs from the training data.

The same for `affectgap intake` and for a pass, whichever comes first: a report that is there for
the model in use is not made again. Advice stops nothing. What keeps it from being given is said in
one line, which stands in the report's place, and the next pass tries again.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flows.policy import untrained_pictures
from flows.stores import told_as_away
from flows.unfinished import has_store
from tasks.core.errors import AffectGapError
from tasks.core.files import write_text
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths
from tasks.drift.words import not_compared_page

_WIDTH = 300  # characters of what went wrong


def advise_on_waiting(paths: Paths, say: Callable[[str], None], at_intake: bool = False) -> None:
    """Say how each batch differs that no training has had, unless a report tells it already.

    Parameters
    ----------
    paths
        The project's paths.
    say
        Told one line a batch.
    at_intake
        True: compare what no report tells of with the model in use, or not at all. False: also
        what was compared with another model, and before the first one with the training split.
    """
    ledger = Ledger(paths.ledger)
    try:
        waiting, advised = _waiting(paths, ledger), ledger.advised()
        if at_intake:  # which model is in use is not asked for nothing: that takes seconds
            waiting = [one for one in waiting if not _is_there(paths, one, one in advised)]
    except Exception as error:  # noqa: BLE001 - see the module
        say(f"drift: not compared ({_in_words(error)})")
        return
    try:
        model = model_in_use(paths) if waiting else ""
    except Exception as error:  # noqa: BLE001
        for batch in waiting:
            if not _is_there(paths, batch, batch in advised):
                _give_none(paths, batch, error, say)
        return
    missing = [one for one in waiting if not _is_there(paths, one, advised.get(one) == model)]
    if missing and at_intake and not model:
        say("drift: not compared, no model is in use yet")
        return
    for batch in missing:
        _advise_on(paths, ledger, batch, model, say)


def model_in_use(paths: Paths) -> str:
    """Return what the model in use is called in a report; "" where there is none."""
    if not has_store(paths):
        return ""
    from flows.drift import name_of
    from tasks.register.registry import champion

    version = champion(paths)
    return "" if version is None else name_of(version)


def _waiting(paths: Paths, ledger: Ledger) -> list[str]:
    """Return the batches that no training has had; a whole data set is not compared."""
    untrained = untrained_pictures(paths, ledger)
    whole = ledger.whole()
    return [str(batch) for batch in untrained["batch"].unique() if batch not in whole]


def _is_there(paths: Paths, batch: str, told: bool) -> bool:
    """Tell whether a report is there; `told`: the ledger has it, of the batch as it came last.

    The files alone may be of an earlier delivery under that name.
    """
    return told and all(file.is_file() for file in _files(paths, batch))


def _files(paths: Paths, batch: str) -> tuple[Path, Path]:
    return paths.at(f"reports/drift/{batch}.md"), paths.at(f"reports/drift/{batch}.csv")


def _advise_on(
    paths: Paths, ledger: Ledger, batch: str, model: str, say: Callable[[str], None]
) -> None:
    from flows.drift import advise

    try:
        effect = advise(paths, batch)
        ledger.set_drift(batch, effect, model)
    except Exception as error:  # noqa: BLE001
        _give_none(paths, batch, error, say)
        return
    told = "not compared" if effect is None else f"largest effect {effect:.2f}"
    say(f"drift of {batch}: {told}; {_files(paths, batch)[0]}")


def _give_none(paths: Paths, batch: str, error: Exception, say: Callable[[str], None]) -> None:
    """Say why there is no advice, also where it would have been."""
    told = _in_words(error)
    say(f"drift of {batch}: not compared ({told})")
    page, table = _files(paths, batch)
    with suppress(OSError):  # a full disk may be why
        table.unlink(missing_ok=True)  # of an earlier delivery, or of another model
        write_text(page, "\n".join(not_compared_page(batch, told)) + "\n")


def _in_words(error: Exception) -> str:
    """Say in one line what went wrong, in characters that a file can hold."""
    told = " ".join(str(error).split())
    if not isinstance(error, AffectGapError):
        told = told_as_away(error) or f"{type(error).__name__}: {told}".removesuffix(": ")
    return told.encode("utf-8", "backslashreplace").decode()[:_WIDTH]
