"""What the last pass failed of, so that a schedule does not do the same again at every look."""

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tasks.core.errors import AffectGapError
from tasks.core.files import write_text
from tasks.core.paths import Paths

_TRIES = 3  # at one look after another, of what failed by no mistake of the user's
_THEN_EVERY = timedelta(days=1)


class Failures:
    """The last failure, kept in work/retrain/failed.json until a pass succeeds.

    Parameters
    ----------
    paths
        The project's paths.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._file = paths.at("work/retrain/failed.json")

    def remember(self, error: Exception, told: str, now: datetime) -> None:
        """Keep what a pass failed of.

        Parameters
        ----------
        error
            What it raised.
        told
            The line that says so.
        now
            The time, with its zone.
        """
        state, tries = state_of(self._paths), 1
        if (before := self._known()) and before["state"] == state:
            tries += int(before["tries"])
        mistake = isinstance(error, AffectGapError) and error.exit_code == 2
        record = {"state": state, "tries": tries, "mistake": mistake, "told": told}
        write_text(self._file, json.dumps(record | {"at": now.isoformat()}, indent=2) + "\n")

    def forget(self) -> None:
        """Start anew, after a pass that succeeded."""
        self._file.unlink(missing_ok=True)

    def held_back(self, now: datetime) -> str:
        """Say why a schedule does not try once more what failed; "" where it does.

        Anything may pass by itself: a mistake of the user's is tried again once a day (what looks
        like one may be a store that was away), anything else after some tries. A change of data,
        params or code is tried at once.
        """
        before = self._known()
        if not before or before["state"] != state_of(self._paths):
            return ""
        passed = now - datetime.fromisoformat(before["at"])
        # A clock that was set back does not put it off.
        if not timedelta(0) <= passed < _THEN_EVERY:
            return ""
        if not before["mistake"] and before["tries"] < _TRIES:
            return ""
        return (
            f"the last pass failed: {before['told']}; it is tried again once a day, when data, "
            "params or code change, or by `affectgap retrain`"
        )

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
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
