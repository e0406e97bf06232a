"""Provenance: the git commit, the library versions, and the digests of a stage's inputs."""

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
from contextlib import suppress
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
_DATA_FOLDERS = ("data", "models", "reports", "study")  # other deps of a stage are code
_PIPELINES = (".", "study")  # the folders with a dvc.yaml


def git(root: Path, *arguments: str) -> str:
    """Return the output of a git command in a folder; "" if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def repository_fault(root: Path) -> str:
    """Return why git does not work in a folder, with advice; "" if it works."""
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
    """Return the checked-out commit of a folder; "" if there is none."""
    return git(root, "rev-parse", "HEAD")


def has_changes(root: Path) -> bool:
    """Return whether tracked files differ from the commit."""
    return bool(git(root, "status", "--porcelain", "--untracked-files=no"))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect results."""
    installed = {"python": platform.python_version()}
    for name in _LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = importlib.metadata.version(name)
    return installed


def input_digests(paths: Paths, stage: str) -> dict[str, str]:
    """Return the md5 digests of the data files and folders that a stage (`evaluate@base`) reads.

    A folder that is not itself an output, like `data/raw`, is replaced by the tracked data in it.
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
    """Return the digests in the `.dvc` files of a folder."""
    outs: dict[str, str] = {}
    for path in sorted(paths.at(folder).glob("*.dvc")):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        outs |= {f"{folder}/{out['path']}": out["md5"] for out in content.get("outs", [])}
    return outs


def _deps(paths: Paths, stage: str) -> list[str]:
    """Return the dependencies of a stage in dvc.yaml."""
    name, _, item = stage.partition("@")
    folder = "study" if name in (STUDY_RUN, *STUDY_OUTS) else "."
    text = paths.at(folder).joinpath("dvc.yaml").read_text(encoding="utf-8")
    entry = yaml.safe_load(text)["stages"][name]
    placeholders = {"${item.model}": item, "${key}": item}
    if "foreach" in entry:
        values = entry["foreach"].get(item, {})
        placeholders |= {f"${{item.{key}}}": value for key, value in values.items()}
        entry = entry["do"]
    deps = []
    for dep in entry.get("deps", []):
        for placeholder, value in placeholders.items():
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
