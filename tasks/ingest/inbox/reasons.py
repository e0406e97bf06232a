"""REASON.md: why a batch is not part of the data, and how it is given again.

A file of the sender's that has this name is kept under another; ours is taken out where a batch
comes back with it.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from tasks.core.files import write_text
from tasks.core.text import markdown, markdown_code
from tasks.ingest.inbox.found import find_batches
from tasks.ingest.label import shown
from tasks.ingest.sources import READY

_REASON = "REASON.md"
_REASON_HEAD = "# Not part of the data: "
_OF_SENDER = "REASON.sender.md"
_BESIDE = ("archive", "link")  # what lies in a folder that the quarantine made for it


def reason_text(batch: str, facts: Sequence[str], reasons: Sequence[str], place: Path) -> str:
    """Return the text of a REASON.md.

    Parameters
    ----------
    batch
        The batch's name.
    facts
        What was given, a line each.
    reasons
        Why it is here, a line each.
    place
        Its folder in the quarantine: what to do depends on what lies there.
    """
    lines = [
        f"{_REASON_HEAD}{batch}",
        "",
        *(_item(fact) for fact in facts),
        "",
        "## Why",
        "",
    ]
    lines += [_item(reason) for reason in reasons]
    return "\n".join([*lines, "", "## What to do", "", _advice(place), ""])


def write_reason(place: Path, text: str) -> None:
    """Lay the text of a REASON.md beside a batch's own files; may be called again at any step."""
    for torn in place.glob(f".{Path(_REASON).stem}.[0-9]*.md"):  # of one killed while writing
        torn.unlink()
    if os.path.lexists(place / _REASON) and not _is_ours(place / _REASON):
        os.rename(place / _REASON, _free(place / _OF_SENDER))
    write_text(place / _REASON, text)


def remove_reason(folder: Path) -> None:
    """Remove the reasons that we wrote, where a person gives a batch again."""
    if _is_ours(folder / _REASON):
        (folder / _REASON).unlink()


def _advice(place: Path) -> str:
    """Say how to give a batch again, be it a folder, an archive, a link or nothing any more."""
    own = [path.name for path in place.iterdir() if path.name != _REASON]
    packed = [] if READY in own else [one for one in find_batches(place) if one.kind in _BESIDE]
    if not own:
        return "Nothing of it is left here; whoever has it can give it again."
    if not packed:
        return (
            "Mend what is named above and put this folder into data/inbox again (this file may "
            f"stay in it), with `{READY}` written last; or leave it here. Nothing in it was "
            "changed."
        )
    name, mark = (
        markdown_code(shown(packed[0].path.name)),
        markdown_code(shown(packed[0].mark.name)),
    )
    if packed[0].kind == "link":
        return (
            f"Put what {name} leads to into data/inbox itself, with its `{READY}` written last, "
            "and remove this folder; or leave it here. What it leads to was not touched."
        )
    return (
        f"Mend what is named above: unpack {name}, mend it, and pack it again. Put that into "
        f"data/inbox, with {mark} beside it written last, and remove this folder; or leave it "
        "here. Nothing in the archive was changed."
    )


def _item(line: str) -> str:
    """Make an item of a list; marks of code, which our own reasons have, stay what they are."""
    return "- " + markdown(line).replace("\\`", "`")


def _is_ours(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # to open a pipe would never end
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
