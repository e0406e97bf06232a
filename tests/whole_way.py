"""A clone as a user has it, and the command in it: what tests of whole runs share."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from flows.presets import use_preset

REPOSITORY = Path(__file__).parents[1]
RUN = [sys.executable, "-c", "from flows.cli import main; main()"]


def fresh_clone(folder: Path, preset: str) -> Path:
    """A git repository with the working tree's tracked files, as a user's clone would be."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    use_preset(folder, preset)
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    own = ("PREFECT_API_URL", "PREFECT_HOME", "DVC_SITE_CACHE_DIR")  # of another project
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return {**kept, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}


def call(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done
