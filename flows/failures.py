"""What the last pass failed of, so that a schedule does not do the same again at every look.

What a pass does before it trains (the inbox, DVC, drift) and the training fail apart: a look that
goes well says nothing about the training that failed.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flows.stores import is_passing
from tasks.core.errors import AffectGapError
from tasks.core.files import write_text
from tasks.core.paths import Paths
from tasks.ingest.inbox.found import find_batches, stamp_of

_TRIES = 3  # at one look after another, of what failed by no mistake of the user's
_THEN_EVERY = timedelta(days=1)
_AGAIN = "tried again once a day, when data, params or code change, or by `affectgap retrain`"


@dataclass(frozen=True)
class Failure:
    """What was kept of a failure: when it was last met, how often in a row, and its line."""

    at: datetime
    tries: int
    told: str


class Failures:
    """The last failure, kept in work/retrain/ until a pass gets past that point.

    Parameters
    ----------
    paths
        The project's paths.
    before_training
        True: of what a pass does before it trains; what lies in the inbox counts as data then.
    """

    def __init__(self, paths: Paths, before_training: bool = False) -> None:
        self._paths = paths
        self._before_training = before_training
        name = "failed_before_training.json" if before_training else "failed.json"
        self._file = paths.at(f"work/retrain/{name}")

    def remember(self, error: Exception, told: str, now: datetime) -> bool:
        """Keep what a pass failed of.

        Parameters
        ----------
        error
            What it raised.
        told
            The line that says so.
        now
            The time, with its zone.

        Returns
        -------
        bool
            False where the pass before failed of the same, told in the same words.
        """
        state, tries = self._state(), 1
        before = self._known()
        if before and before["state"] == state:
            tries += int(before["tries"])
        mistake = isinstance(error, AffectGapError) and error.exit_code == 2
        record = {"state": state, "tries": tries, "mistake": mistake, "told": told}
        record |= {"passing": is_passing(error), "at": now.isoformat()}
        write_text(self._file, json.dumps(record, indent=2) + "\n")
        return not before or tries == 1 or before["told"] != told

    def forget(self) -> None:
        """Start anew, after a pass that succeeded."""
        self._file.unlink(missing_ok=True)

    def held_back(self, now: datetime) -> str:
        """Say why a schedule does not try once more what failed; "" where it does.

        Anything may pass by itself: a mistake of the user's is tried again once a day (what looks
        like one may be a store that was away), anything else after some tries. A change of data,
        params or code is tried at once. Before a training a store that was away is asked again at
        every look, which costs little.
        """
        before = self._known()
        if not before or before["state"] != self._state():
            return ""
        if self._before_training and before.get("passing"):
            return ""
        passed = now - datetime.fromisoformat(before["at"])
        # A clock that was set back does not put it off.
        if not timedelta(0) <= passed < _THEN_EVERY:
            return ""
        if not before["mistake"] and before["tries"] < _TRIES:
            return ""
        return f"the last pass failed: {before['told']}; it is {_AGAIN}"

    def last(self) -> Failure | None:
        """Return the failure that is kept; None where there is none."""
        if (known := self._known()) is None:
            return None
        return Failure(datetime.fromisoformat(known["at"]), int(known["tries"]), known["told"])

    def when_again(self, now: datetime) -> str:
        """Say when a schedule tries again what failed."""
        return _AGAIN if self.held_back(now) else "tried again at the next look"

    def _state(self) -> str:
        state = state_of(self._paths)
        return f"{state} {_inbox_of(self._paths)}" if self._before_training else state

    def _known(self) -> dict[str, Any] | None:
        try:
            known: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8"))
            datetime.fromisoformat(known["at"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return known


def state_of(paths: Paths) -> str:
    """Return a digest of what a pass depends on: data, params, stages and code."""
    files: list[Path] = [paths.params, paths.at("dvc.yaml"), *paths.raw.glob("*.dvc")]
    for folder in ("tasks", "flows"):
        files += paths.root.glob(f"{folder}/**/*.py")
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(paths.root)}\0".encode())
        digest.update(_content_of(path))
    return digest.hexdigest()


def _content_of(path: Path) -> bytes:
    """Return a file's digest; of one that cannot be read, why: to be told by what reads it."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.strerror).encode()


def _inbox_of(paths: Paths) -> str:
    """Return a digest of what lies ready in the inbox."""
    try:
        found = [(one.path.name, one.not_ready, stamp_of(one)) for one in find_batches(paths.inbox)]
    except OSError as error:
        return str(error.strerror)
    return hashlib.sha256(repr(found).encode()).hexdigest()
