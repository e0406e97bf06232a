"""REASON.md: why a batch was rejected, and how to submit it again.

A sender's file of this name is renamed. The generated file is removed when a batch comes back.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from flows.intake.entries import find_batches
from tasks.core.files import write_text
from tasks.core.text import markdown, markdown_code
from tasks.ingest.dataset_reader import READY
from tasks.ingest.label import printable_path

_REASON = "REASON.md"
_REASON_HEAD = "# Not part of the data: "
_SENDERS_REASON = "REASON.sender.md"
_WRAPPED = ("archive", "link")  # kinds of entries that get a folder in the quarantine


def reason_text(batch: str, facts: Sequence[str], reasons: Sequence[str], place: Path) -> str:
    """Return the text of a REASON.md.

    Parameters
    ----------
    facts, reasons
        One line each.
    place
        The batch's folder in the quarantine, whose contents determine the advice.
    """
    lines = [
        f"{_REASON_HEAD}{batch}",
        "",
        *map(_item, facts),
        "",
        "## Why",
        "",
        *map(_item, reasons),
        "",
        "## What to do",
        "",
        _advice(place),
        "",
    ]
    return "\n".join(lines)


def write_reason(place: Path, text: str) -> None:
    """Write a REASON.md into a batch's folder; can be repeated after a crash."""
    for partial in place.glob(f".{Path(_REASON).stem}.[0-9]*.md"):  # left by a killed process
        partial.unlink()
    if os.path.lexists(place / _REASON) and not _is_generated(place / _REASON):
        os.rename(place / _REASON, _free(place / _SENDERS_REASON))
    write_text(place / _REASON, text)


def remove_reason(folder: Path) -> None:
    """Remove a generated REASON.md from a batch that is submitted again."""
    if _is_generated(folder / _REASON):
        (folder / _REASON).unlink()


def _advice(place: Path) -> str:
    """Return how to submit a batch again, depending on what is in its folder."""
    names = [path.name for path in place.iterdir() if path.name != _REASON]
    if not names:
        return "Nothing of it is left here; whoever has it can submit it again."
    wrapped = [] if READY in names else [one for one in find_batches(place) if one.kind in _WRAPPED]
    if not wrapped:
        return (
            "Fix the problems above and put this folder into data/inbox again (this file may "
            f"stay in it), with `{READY}` written last; or leave it here. Nothing in it was "
            "changed."
        )
    name, mark = (
        markdown_code(printable_path(path.name)) for path in (wrapped[0].path, wrapped[0].mark)
    )
    if wrapped[0].kind == "link":
        return (
            f"Put what {name} leads to into data/inbox itself, with its `{READY}` written last, "
            "and remove this folder; or leave it here. What it leads to was not touched."
        )
    return (
        f"Fix the problems above: unpack {name}, fix its contents, and pack it again. Put that "
        f"into data/inbox, with {mark} beside it written last, and remove this folder; or leave it "
        "here. Nothing in the archive was changed."
    )


def _item(line: str) -> str:
    """Return a list item, escaped except for backticks, which reasons use for code."""
    return "- " + markdown(line).replace("\\`", "`")


def _is_generated(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a pipe would block
            return False
        with path.open(encoding="utf-8", errors="replace") as handle:
            return handle.read(len(_REASON_HEAD)) == _REASON_HEAD
    except OSError:
        return False


def _free(path: Path) -> Path:
    number, free = 2, path
    while os.path.lexists(free):
        number, free = number + 1, path.with_stem(f"{path.stem}.{number}")
    return free
