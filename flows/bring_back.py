"""How pictures that were lost come back: what DVC has of them, and the command that is safe.

`dvc checkout` of a folder of which DVC's cache lacks a single file removes the whole folder before
it fails. So DVC is asked first, and the smallest part is named that does it.
"""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from flows.dvc_graph import data_status
from tasks.core.errors import AffectGapError
from tasks.core.paths import Paths

INTO_THE_INBOX = "into a folder of data/inbox with `labels.csv` and, last, `_READY`"

_NAMED = 3  # files that a command names one by one
_KINDS = ("deleted", "modified", "added")  # how DVC says that files differ from what it tracks


class BringBack:
    """What to do about lost pictures; DVC is asked once, and only where some are lost.

    Parameters
    ----------
    paths
        The project's paths.
    """

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._differs: dict[
            str, set[str]
        ] = {}  # files by kind, as paths below the project's folder
        self._lacking: set[str] = set()  # what DVC's cache lacks; folders end with a slash

    def how(self, batch: str, dataset: str, place: Path, lost: Sequence[str]) -> str:
        """Say how lost pictures of a batch come back.

        Parameters
        ----------
        batch, dataset
            As the ledger names them.
        place
            The batch's folder.
        lost
            What is missing or has other bytes, as paths below `place`; none: the folder itself.
        """
        try:
            self._ask()
        except AffectGapError:
            return "bring them back from a copy; DVC, which may have them, cannot be asked now"
        folder, file = place.relative_to(self._paths.root).as_posix(), f"data/raw/{dataset}.dvc"
        names = [f"{folder}/{name}" for name in lost]
        if self._is_lacking(names, f"data/raw/{dataset}/"):
            told = f"DVC's cache lacks files: `dvc fetch {file}`, or bring them back from a copy"
            return f"{told}; no `dvc checkout` before, which would remove what is there"
        tracked = self._differs["deleted"] | self._differs["modified"]
        if not (tracked.issuperset(names) if names else _below(folder, tracked)):
            told = f"{file} as it is now does not have them: bring back an earlier one from git, or"
            given_up = f"`affectgap withdraw {batch} --why …` where they are gone for good"
            return f"{told} the pictures from a copy; {given_up}"
        return self._checkout(names, folder)

    def _ask(self) -> None:
        if not self._differs:
            status = data_status(self._paths.root, granular=True)
            found = status.get("uncommitted", {})
            self._differs = {kind: set(found.get(kind, [])) for kind in _KINDS}
            self._lacking = set(status.get("not_in_cache", []))

    def _is_lacking(self, names: Sequence[str], data_set: str) -> bool:
        """Tell whether a checkout of these files, or of a part of the data set, would fail."""
        if _are_few(names) and data_set not in self._lacking:
            return not self._lacking.isdisjoint(names)
        return any(name.startswith(data_set) for name in self._lacking)

    def _checkout(self, names: Sequence[str], folder: str) -> str:
        """Say the checkout of the files, where they are few, or of their folder."""
        changed, added = self._differs["modified"], self._differs["added"]
        if _are_few(names):
            replaced, also = not changed.isdisjoint(names), ""
        else:
            names, replaced = [folder], _below(folder, changed | added)
            also = ", and removes what else was changed or added: copy away what is to stay"
        if not replaced:
            return f"`dvc checkout {shlex.join(names)}` brings them back"
        told = f"`dvc checkout --force {shlex.join(names)}` puts back what was accepted"
        return f"{told}{also}"


def _are_few(names: Sequence[str]) -> bool:
    return 0 < len(names) <= _NAMED


def _below(folder: str, names: Iterable[str]) -> bool:
    """Tell whether files of a folder are named, and not only the folder itself."""
    return any(name.startswith(f"{folder}/") and not name.endswith("/") for name in names)
