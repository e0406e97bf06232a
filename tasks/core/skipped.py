"""Models that a run did not make: `skipped.json` in the folder where the model would be, and why.

A stage has the same outputs in every run, so that what was left out is said and not missing.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ModelError
from tasks.core.files import write_text

SKIPPED = "skipped.json"


@dataclass(frozen=True)
class Skipped:
    """Why there is no model, and the labels that it would have had."""

    reason: str
    labels: tuple[str, ...]


def write_skipped(folder: Path, skipped: Skipped) -> None:
    """Write `skipped.json` as the only file of a folder; the folder is made where it is missing."""
    content = {"reason": skipped.reason, "labels": list(skipped.labels)}
    for stale in folder.iterdir() if folder.is_dir() else ():
        stale.unlink()
    write_text(folder / SKIPPED, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_skipped(folder: Path) -> Skipped | None:
    """Read why a model was not made; None where it was (or where nothing is there at all).

    Raises
    ------
    ModelError
        Where the file is damaged.
    """
    path = folder / SKIPPED
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Skipped(str(content["reason"]), tuple(content["labels"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelError(f"{path}: is damaged; remove the folder and run again") from None
