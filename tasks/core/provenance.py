"""Where results come from: the git commit and the versions of the libraries behind the figures."""

import importlib.metadata
import os
import platform
import shlex
import subprocess
from pathlib import Path

_LIBRARIES = (
    "dlib-bin",
    "dvc",
    "great-expectations",
    "lime",
    "matplotlib",
    "mlflow",
    "numpy",
    "optuna",
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


def git(root: Path, *arguments: str) -> str:
    """Ask git about a folder; "" where there is no git, no repository or no commit."""
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
    """Tell whether tracked files differ from the commit."""
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
