"""Back-off state of the scheduler: the last failure of a pass.

Steps before training (inbox, DVC, drift) and the training itself have separate states: a successful
import tells nothing about a training that failed.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from flows.intake.entries import find_batches, stamp_of
from flows.outages import is_temporary
from tasks.core.errors import AffectGapError
from tasks.core.files import write_text
from tasks.core.paths import Paths

_TRIES = 3  # at consecutive polls, for failures that are not a user error
_THEN_EVERY = timedelta(days=1)
_AGAIN = "retried once a day, when data, params or code change, or by `affectgap retrain`"


@dataclass(frozen=True)
class Failure:
    """A recorded failure: the last time, the number in a row, and its message."""

    at: datetime
    tries: int
    message: str


class Failures:
    """The last failure, stored in work/retrain/ until a pass gets past that point.

    `before_training` selects the state of the steps before training, for which the inbox counts as
    data too.
    """

    def __init__(self, paths: Paths, before_training: bool = False) -> None:
        self._paths = paths
        self._before_training = before_training
        name = "failed_before_training.json" if before_training else "failed.json"
        self._file = paths.at(f"work/retrain/{name}")

    def remember(self, error: Exception, message: str, now: datetime) -> bool:
        """Record a failure; return False if the previous pass failed in the same state and words.

        `now` needs a time zone.
        """
        state, tries = self._state(), 1
        previous = self._known()
        if previous and previous["state"] == state:
            tries += int(previous["tries"])
        user_error = isinstance(error, AffectGapError) and error.exit_code == 2
        record = {"state": state, "tries": tries, "mistake": user_error, "told": message}
        record |= {"passing": is_temporary(error), "at": now.isoformat()}
        write_text(self._file, json.dumps(record, indent=2) + "\n")
        return not previous or tries == 1 or previous["told"] != message

    def forget(self) -> None:
        """Delete the record after a pass that succeeded."""
        self._file.unlink(missing_ok=True)

    def held_back(self, now: datetime) -> str:
        """Return why a scheduled pass is skipped after a failure; "" if it is not.

        A user error is retried once a day, since an outage can look like one; any other failure is
        retried three times before that. A change of data, params or code allows a retry at once.
        Before training, an outage is retried at every poll, which costs little.
        """
        last = self._known()
        if not last or last["state"] != self._state():
            return ""
        if self._before_training and last.get("passing"):
            return ""
        elapsed = now - datetime.fromisoformat(last["at"])
        # A clock that was set back must not delay the retry.
        if not timedelta(0) <= elapsed < _THEN_EVERY:
            return ""
        if not last["mistake"] and last["tries"] < _TRIES:
            return ""
        return f"the last pass failed: {last['told']}; it is {_AGAIN}"

    def last(self) -> Failure | None:
        """Return the recorded failure; None if there is none."""
        if (known := self._known()) is None:
            return None
        return Failure(datetime.fromisoformat(known["at"]), int(known["tries"]), known["told"])

    def when_again(self, now: datetime) -> str:
        """Describe when the schedule retries."""
        return _AGAIN if self.held_back(now) else "retried at the next poll"

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
    """Return a file's digest, or the error of an unreadable file, which its reader will report."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return str(error.strerror).encode()


def _inbox_of(paths: Paths) -> str:
    try:
        found = find_batches(paths.inbox)
        stamps = [(batch.path.name, batch.not_ready, stamp_of(batch)) for batch in found]
    except OSError as error:
        return str(error.strerror)
    return hashlib.sha256(repr(stamps).encode()).hexdigest()
