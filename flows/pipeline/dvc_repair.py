"""Repairs DVC's own files after a crash: dvc.lock, its rwlock and the `.dvc` file of each data set.

DVC writes them in place, so a crash can leave a truncated file. Every later DVC command would fail
on it, or accept the part as complete.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from flows.pipeline.dvc_graph import dvc_errors, run_dvc
from tasks.core.errors import AffectGapError, UserError
from tasks.core.files import alone, write_bytes
from tasks.core.paths import Paths

_LOCKS = ("dvc.lock", "study/dvc.lock")
_SET_ASIDE = "work/torn"  # torn `.dvc` files are saved here
_OPEN, _DONE = ".open", ".torn"  # their suffixes there: still to be rebuilt, and rebuilt
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)  # markers of a git merge conflict


def is_complete_lock(text: str) -> bool:
    """Return whether a dvc.lock was written to its end.

    A truncated file that ends with a line may be valid but list fewer stages; those are then
    restored from DVC's run-cache, as if the lock were gone.
    """
    # DVC's schema accepts a line that is cut short, such as `hash: md`, on which DVC then fails.
    return text.endswith("\n") and _read(text, "lock") is not None


def repair_after_crash(root: Path) -> Iterator[str]:
    """Repair files that a killed DVC left torn, and yield one line per repair.

    A rwlock that is not JSON is removed. A torn dvc.lock is rebuilt from DVC's run-cache, a torn
    `.dvc` file from its data set's folder; the torn file is saved in both cases. No other command
    may run in the project: what a running DVC has half written looks like a crash.

    Raises UserError at the end if a data set's file is torn and its folder is empty or missing, and
    AffectGapError if DVC could not track a data set; the next call tries that again.
    """
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    if rwlock.is_file() and not _is_json(rwlock):
        rwlock.unlink()
        yield ".dvc/tmp/rwlock was torn and is removed"
    for name in _LOCKS:
        lock = root / name
        if lock.is_file() and not is_complete_lock(_text(lock)):
            saved = lock.with_name("dvc.lock.torn")
            lock.replace(saved)
            yield f"{name} was torn; it is saved as {saved.name} and rebuilt"
    yield from _repair_data_files(Paths(root))


def add_to_dvc(paths: Paths, dataset: str) -> None:
    """Have DVC track a data set as it is now; without a change this does nothing.

    Raises AffectGapError with DVC's message if DVC fails.
    """
    (paths.raw / dataset).mkdir(parents=True, exist_ok=True)
    # Without --quiet, which would hide DVC's error.
    *lines, code = run_dvc(paths.root, "--wait-for-lock", "add", f"data/raw/{dataset}")
    if code != "exit 0":
        message = " ".join(dvc_errors(lines).split())
        raise AffectGapError(f"data/raw/{dataset}: DVC could not track it: {message}")


def torn_data_sets(paths: Paths) -> list[str]:
    """Return the data sets whose `.dvc` file is torn and can be rebuilt from their folder.

    Raises UserError, one line per data set with the remedy, if the folder of one holds nothing.
    """
    files = sorted(path for path in paths.raw.glob("*.dvc") if path.is_file())
    torn = [path.stem for path in files if not _is_complete(path)]
    gone = [dataset for dataset in torn if not _holds_anything(paths.raw / dataset)]
    if gone:
        raise UserError(*(_remedy(paths, dataset) for dataset in gone))
    return torn


def _repair_data_files(paths: Paths) -> Iterator[str]:
    """Rebuild torn `.dvc` files; all are set aside first, since DVC reads every one of them."""
    for dataset in torn_data_sets(paths):
        _set_aside(paths, dataset)
    # Includes files that an earlier, killed call set aside.
    for aside in sorted(paths.at(_SET_ASIDE).glob(f"*.dvc{_OPEN}")):
        name, saved = aside.name.removesuffix(_OPEN), aside.with_suffix(_DONE)
        dataset = name.removesuffix(".dvc")
        if (paths.raw / dataset).is_dir():  # else the whole data set was removed since
            add_to_dvc(paths, dataset)
            place = saved.relative_to(paths.root)
            yield f"data/raw/{name} was torn; it is saved as {place} and rebuilt"
        aside.replace(saved)


def _set_aside(paths: Paths, dataset: str) -> None:
    """Save a torn file and put git's version in its place, or none, to keep hand-written fields."""
    path = paths.raw / f"{dataset}.dvc"
    write_bytes(paths.at(f"{_SET_ASIDE}/{path.name}{_OPEN}"), path.read_bytes())
    if committed := _committed(paths, dataset):
        path.write_text(committed, encoding="utf-8")
    else:
        path.unlink()


def _remedy(paths: Paths, dataset: str) -> str:
    name = f"data/raw/{dataset}.dvc"
    remedy = f"restore data/raw/{dataset} from a backup, and the next command rebuilds it"
    if _committed(paths, dataset):
        remedy = f"`git checkout HEAD -- {name} && dvc checkout {name}` restores both"
    return f"{name}: is torn, and data/raw/{dataset} holds nothing; {remedy}"


def _committed(paths: Paths, dataset: str) -> str:
    """Return a data set's file in the last commit; "" if there is no complete one."""
    name = f"HEAD:./data/raw/{dataset}.dvc"
    done = subprocess.run(
        ["git", "-C", str(paths.root), "show", name], capture_output=True, check=False
    )
    text = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return text if _names_folder(text, paths.raw / dataset) else ""


def _is_complete(path: Path) -> bool:
    """Return whether a `.dvc` file names its folder; merge conflicts are left to git."""
    text = _text(path)
    return bool(_CONFLICT.search(text)) or _names_folder(text, path.with_suffix(""))


def _names_folder(text: str, folder: Path) -> bool:
    """Return whether a `.dvc` file names a folder; DVC writes its path last."""
    content = _read(text, "data") or {}
    paths = [str(out.get("path") or "") for out in content.get("outs") or []]
    return bool(paths) and not any(_is_truncated(path, folder) for path in paths)


def _is_truncated(path: str, folder: Path) -> bool:
    """Return whether a path is a truncated folder name, not the name of another folder."""
    if path == folder.name or not folder.name.startswith(path):
        return False
    return not path or folder.is_dir() or not (folder.parent / path).is_dir()


def _read(text: str, kind: Literal["lock", "data"]) -> dict[str, Any] | None:
    """Parse a file as DVC does; None for what DVC rejects."""
    from dvc.dvcfile import Lockfile, SingleStageFile  # takes 0.1 s, and not every command needs it
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml
    from dvc.utils.strictyaml import validate

    try:
        content: dict[str, Any] = parse_yaml(text, "")
        validate(content, (Lockfile if kind == "lock" else SingleStageFile).SCHEMA)
    except (DvcException, ValueError):  # ValueError: invalid dates
        return None
    return content


def _text(path: Path) -> str:
    """Return a file's text; bytes that are not UTF-8 become a character that YAML forbids."""
    return path.read_bytes().decode("utf-8", "replace").replace("\ufffd", "\0")


def _holds_anything(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


@contextmanager
def try_lock(paths: Paths) -> Iterator[bool]:
    """Hold the lock of a run during a block; yield False if another command holds it.

    DVC writes dvc.lock in place, so the half-written file of a running DVC looks like a crash.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(paths.at("work/run.lock"), ""))
        except UserError:
            free = False
        else:
            free = True
        yield free


def repair(paths: Paths) -> Iterator[str]:
    """Repair what a killed DVC left, one line each; does nothing while another command runs.

    Raises as `repair_after_crash` does.
    """
    with try_lock(paths) as free:
        if free:
            yield from repair_after_crash(paths.root)
