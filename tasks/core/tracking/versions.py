"""Where results come from: the git commit and the versions of the libraries behind the figures."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tasks.core.paths import STUDY_OUTS, STUDY_RUN, Paths

_LIBRARIES = (
    "dlib-bin",
    "dvc",
    "great-expectations",
    "lime",
    "matplotlib",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "prefect",
    "pytorch-optimizer",
    "scikit-image",
    "statsmodels",
    "timm",
    "torch",
    "torchvision",
)
_DATA_FOLDERS = ("data", "models", "reports", "study")  # the rest of a stage's deps is code
_PIPELINES = (".", "study")  # the folders with a dvc.yaml


def git(root: Path, *arguments: str) -> str:
    """Query git about a folder; "" where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def repository_fault(root: Path) -> str:
    """Return why git does not work in a folder, and what to do about it; "" where it works."""
    command = ["git", "-C", str(root), "rev-parse", "--git-dir"]
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except OSError as error:
        return f"git cannot be run ({error.strerror}); install it"
    if done.returncode == 0:
        return ""
    if "dubious ownership" in done.stderr:
        return (
            f"belongs to another account ({_owner(root)}), so that git refuses to work here "
            "(dubious ownership); work in a clone of your own or as that account, or, if you "
            f"trust it, run `git config --global --add safe.directory {shlex.quote(str(root))}`"
        )
    return "no git repository; run `git init` here first"


def _owner(root: Path) -> str:
    try:
        return root.owner()
    except KeyError:
        return f"user id {root.stat().st_uid}"


def commit_of(root: Path) -> str:
    """Return the commit that a folder stands on; "" where there is none."""
    return git(root, "rev-parse", "HEAD")


def has_changes(root: Path) -> bool:
    """Return whether tracked files differ from the commit."""
    return bool(git(root, "status", "--porcelain", "--untracked-files=no"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape the figures."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def input_digests(paths: Paths, stage: str) -> dict[str, str]:
    """Return the md5 of every data file or folder that a stage reads.

    Parameters
    ----------
    paths
        The project's paths.
    stage
        A stage's name in dvc.yaml, with its item (`evaluate@base`).

    Returns
    -------
    dict
        Path below the root to DVC's digest. A folder that is no output itself stands with what is
        tracked in it: `data/raw` with every data set.
    """
    known = {
        path: md5 for folder in _PIPELINES for path, md5 in _locked_outs(paths.at(folder)).items()
    }
    digests = {}
    for relative in _deps(paths, stage):
        if relative.split("/")[0] not in _DATA_FOLDERS:
            continue
        digest = known.get(relative) or _md5_of_file(paths.at(relative))
        if digest:
            digests[relative] = digest
        else:
            inside = {**known, **_tracked_below(paths, relative)}
            digests |= {
                path: md5 for path, md5 in inside.items() if path.startswith(relative + "/")
            }
    return digests


def _tracked_below(paths: Paths, folder: str) -> dict[str, str]:
    """Return what `.dvc` files in a folder say of the data that was given."""
    outs: dict[str, str] = {}
    for path in sorted(paths.at(folder).glob("*.dvc")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        outs |= {f"{folder}/{out['path']}": out["md5"] for out in content.get("outs", [])}
    return outs


def _deps(paths: Paths, stage: str) -> list[str]:
    """Return what a stage depends on, as its dvc.yaml says."""
    name, _, item = stage.partition("@")
    folder = "study" if name in (STUDY_RUN, *STUDY_OUTS) else "."
    text = paths.at(folder).joinpath("dvc.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text)["stages"][name]
    filled = {"${item.model}": item, "${key}": item}
    if "foreach" in entry:
        values = entry["foreach"].get(item, {})
        filled |= {f"${{item.{key}}}": value for key, value in values.items()}
        entry = entry["do"]
    deps = []
    for dep in entry.get("deps", []):
        for placeholder, value in filled.items():
            dep = dep.replace(placeholder, value)
        deps.append(dep)
    return deps


def _locked_outs(folder: Path) -> dict[str, str]:
    lock = folder / "dvc.lock"
    if not lock.is_file():
        return {}
    content: dict[str, Any] = yaml.safe_load(lock.read_text(encoding="utf-8")) or {}
    stages = content.get("stages", {}).values()
    return {out["path"]: out["md5"] for stage in stages for out in stage.get("outs", [])}


def _md5_of_file(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()
