"""DVC's own files: dvc.lock, the `.dvc` file of each data set, its rwlock; and what a crash tore.

DVC writes them in place, so that a crash of the machine can leave a part of one. Every later
command of DVC would fail on it, or take the part for the whole.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from flows.dvc_graph import run_dvc, what_dvc_said
from tasks.core.errors import AffectGapError, UserError
from tasks.core.files import write_bytes
from tasks.core.paths import Paths

_LOCKS = ("dvc.lock", "study/dvc.lock")
_SET_ASIDE = "work/torn"  # where torn `.dvc` files are kept
_OPEN, _KEPT = ".open", ".torn"  # what they end in there: to be made again, and made again
_CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)  # of a merge in git


def is_whole_lock(text: str) -> bool:
    """Tell whether a dvc.lock is one that DVC wrote to its end.

    A part that ends with a line may be a lock of fewer stages: those that it lacks are then taken
    from DVC's run-cache, as after a lock that is gone.
    """
    # DVC's schema lets pass what is cut within a line, such as `hash: md`, and DVC fails on it.
    return text.endswith("\n") and _read(text, "lock") is not None


def mend_after_a_crash(root: Path) -> Iterator[str]:
    """Mend what a killed DVC left torn and every later command would stumble over.

    A rwlock that is no JSON belongs to nobody. A torn dvc.lock is made again from DVC's run-cache,
    a torn `.dvc` file of a data set from its folder; both are kept.

    Parameters
    ----------
    root
        The project's folder. Nothing else may be at work there: what a living DVC is half through
        looks like a crash.

    Yields
    ------
    str
        A line for each thing, when it is mended.

    Raises
    ------
    UserError
        At the end: a data set's file is torn and its folder is not there; says what to do.
    AffectGapError
        Where DVC could not track a data set; the next call tries it again.
    """
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    if rwlock.is_file() and not _is_json(rwlock):
        rwlock.unlink()
        yield ".dvc/tmp/rwlock was torn and is removed"
    for name in _LOCKS:
        lock = root / name
        if lock.is_file() and not is_whole_lock(_text(lock)):
            kept = lock.with_name("dvc.lock.torn")
            lock.replace(kept)
            yield f"{name} was torn; it is kept as {kept.name} and made again"
    yield from _mend_data_files(Paths(root))


def add_to_dvc(paths: Paths, dataset: str) -> None:
    """Have DVC track a data set as it is; again without a change it does nothing.

    Raises
    ------
    AffectGapError
        Where DVC could not, with what it said.
    """
    (paths.raw / dataset).mkdir(parents=True, exist_ok=True)
    # Not with --quiet: DVC would keep what went wrong to itself.
    *lines, code = run_dvc(paths.root, "--wait-for-lock", "add", f"data/raw/{dataset}")
    if code != "exit 0":
        said = " ".join(what_dvc_said(lines).split())
        raise AffectGapError(f"data/raw/{dataset}: DVC could not track it: {said}")


def torn_data_sets(paths: Paths) -> list[str]:
    """Return the data sets whose `.dvc` file is torn and can be made again from their folder.

    Raises UserError where there is one whose folder holds nothing; each line says what to do.
    """
    files = sorted(path for path in paths.raw.glob("*.dvc") if path.is_file())
    torn = [path.stem for path in files if not _is_whole(path)]
    gone = [dataset for dataset in torn if not _holds_anything(paths.raw / dataset)]
    if gone:
        raise UserError(*(_what_to_do(paths, dataset) for dataset in gone))
    return torn


def _mend_data_files(paths: Paths) -> Iterator[str]:
    """Make torn `.dvc` files again; all are set aside first, for DVC reads every one of them."""
    for dataset in torn_data_sets(paths):
        _set_aside(paths, dataset)
    # Also those that an earlier call set aside and was killed over.
    for aside in sorted(paths.at(_SET_ASIDE).glob(f"*.dvc{_OPEN}")):
        name, kept = aside.name.removesuffix(_OPEN), aside.with_suffix(_KEPT)
        dataset = name.removesuffix(".dvc")
        if (paths.raw / dataset).is_dir():  # else it was removed as a whole since
            add_to_dvc(paths, dataset)
            where = kept.relative_to(paths.root)
            yield f"data/raw/{name} was torn; it is kept as {where} and made again"
        aside.replace(kept)


def _set_aside(paths: Paths, dataset: str) -> None:
    """Put git's version in the place of a torn file, or none: what people wrote in it stays."""
    path = paths.raw / f"{dataset}.dvc"
    write_bytes(paths.at(f"{_SET_ASIDE}/{path.name}{_OPEN}"), path.read_bytes())
    if committed := _committed(paths, dataset):
        path.write_text(committed, encoding="utf-8")
    else:
        path.unlink()


def _what_to_do(paths: Paths, dataset: str) -> str:
    name = f"data/raw/{dataset}.dvc"
    remedy = f"bring back data/raw/{dataset} from a copy, and the next command makes it again"
    if _committed(paths, dataset):
        remedy = f"`git checkout HEAD -- {name} && dvc checkout {name}` brings back both"
    return f"{name}: is torn, and data/raw/{dataset} holds nothing; {remedy}"


def _committed(paths: Paths, dataset: str) -> str:
    """Return a data set's file as the last commit has it; "" where it has none that is whole."""
    name = f"HEAD:./data/raw/{dataset}.dvc"
    done = subprocess.run(
        ["git", "-C", str(paths.root), "show", name], capture_output=True, check=False
    )
    text = done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""
    return text if _names_folder(text, paths.raw / dataset) else ""


def _is_whole(path: Path) -> bool:
    """Tell whether a `.dvc` file names its folder; a conflict of a merge is git's matter."""
    text = _text(path)
    return bool(_CONFLICT.search(text)) or _names_folder(text, path.with_suffix(""))


def _names_folder(text: str, folder: Path) -> bool:
    """Tell whether a `.dvc` file names a folder; its path is the last thing that DVC writes."""
    content = _read(text, "data") or {}
    paths = [str(out.get("path") or "") for out in content.get("outs") or []]
    return bool(paths) and not any(_is_cut(path, folder) for path in paths)


def _is_cut(path: str, folder: Path) -> bool:
    """Tell whether a path is a part of a folder's name, and not that of another folder."""
    if path == folder.name or not folder.name.startswith(path):
        return False
    return not path or folder.is_dir() or not (folder.parent / path).is_dir()


def _read(text: str, kind: Literal["lock", "data"]) -> dict[str, Any] | None:
    """Read a file as DVC does; None for what DVC refuses."""
    from dvc.dvcfile import Lockfile, SingleStageFile  # takes .1 s, and not every command asks
    from dvc.exceptions import DvcException
    from dvc.utils.serialize import parse_yaml
    from dvc.utils.strictyaml import validate

    try:
        content: dict[str, Any] = parse_yaml(text, "")
        validate(content, (Lockfile if kind == "lock" else SingleStageFile).SCHEMA)
    except (DvcException, ValueError):  # the latter for dates that are none
        return None
    return content


def _text(path: Path) -> str:
    """Return a file's text; bytes that are no UTF-8 become what no YAML file may hold."""
    return path.read_bytes().decode("utf-8", "replace").replace("\ufffd", "\0")


def _holds_anything(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True
