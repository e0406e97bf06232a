"""A toy project: the flow and DVC for real, with stages that only write a line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.files import SITE_CACHE, prepare_site_cache

REPOSITORY = Path(__file__).parents[2]

TOY_DVC = """
stages:
  a:
    cmd: exec {python} stage.py a
    params: [a]
    outs: [a.txt]
  b:
    matrix:
      model: [x, y]
    cmd: exec {python} stage.py b ${{item.model}}
    deps: [a.txt]
    params: [b]
    outs: ['b-${{item.model}}.txt']
  c:
    cmd: exec {python} stage.py c
    deps: [b-x.txt, b-y.txt]
    params: [c]
    outs: [c.txt]
"""

TOY_STAGE = """
import os, pathlib, sys, time, yaml
from tasks.core.parallel.process import die_with_parent
die_with_parent()
name = "-".join(sys.argv[1:])
params = yaml.safe_load(open("params.yaml"))[sys.argv[1]]
with open("log.txt", "a") as log:
    print("start", name, time.time(), os.getpid(), file=log)
time.sleep(params.get("seconds", 0))
if "fault" in params:
    print("error:", params["fault"], file=sys.stderr)
    sys.exit(2)
inputs = [p.read_text() for p in sorted(pathlib.Path(".").glob("[ab]*.txt"))] if name == "c" else []
pathlib.Path(f"{name}.txt").write_text(name + str(params.get("value", "")) + "".join(inputs))
with open("log.txt", "a") as log:
    print("end", name, time.time(), os.getpid(), file=log)
print(f"{'@'.join(sys.argv[1:])}: wrote a line (0 s)")
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A project folder with git, DVC and four toy stages."""
    root = tmp_path / "toy"
    (root / "tasks").mkdir(parents=True)
    (root / "dvc.yaml").write_text(TOY_DVC.format(python=sys.executable))
    (root / "stage.py").write_text(TOY_STAGE)
    (root / "params.yaml").write_text("a: {value: 1}\nb: {value: 2}\nc: {value: 3}\n")
    site_cache = {"DVC_SITE_CACHE_DIR": str(root / SITE_CACHE)}  # else a place that all share
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", **site_cache}
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q"], cwd=root, check=True, env=environment, umask=0o077)
    prepare_site_cache(root)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


@pytest.fixture
def affectgap():
    """Run the command in a folder; returns the finished process."""

    def call(root: Path, *arguments: str, **more) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **more.pop("env", {})}
        return subprocess.run(
            command, cwd=root, capture_output=True, text=True, env=environment, check=False, **more
        )

    return call
