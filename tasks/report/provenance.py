"""How the report was made: commit, params, digests of the inputs, library versions, runs."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.digests import input_digests
from tasks.core.paths import MODELS, Paths
from tasks.report.inputs import Inputs
from tasks.report.words import model_word

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
    "scikit-image",
    "statsmodels",
    "torch",
)


def provenance(inputs: Inputs, paths: Paths) -> dict[str, Any]:
    """Return where the report comes from.

    Keys: `commit` ("" in a folder without commits), `changed` (files differ from it), `versions`,
    `digests` (of what the report read, as DVC knows them), `runs` (tracking runs by stage),
    `params` (the file as it is), `models`.
    """
    return {
        "commit": git(paths.root, "rev-parse", "HEAD"),
        "changed": bool(git(paths.root, "status", "--porcelain", "--untracked-files=no")),
        "versions": versions(),
        "digests": input_digests(paths, "report") if paths.at("dvc.yaml").is_file() else {},
        "runs": dict(inputs.runs),
        "params": inputs.params_text,
        "models": [model_facts(name, inputs.specs[name]) for name in MODELS],
    }


def model_facts(name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """Say what a model is: architecture, input, labels, source and version."""
    if not spec:
        return {"name": model_word(name), "text": "no description (model.json) was found"}
    side = spec.get("input_size_px", "?")
    return {
        "name": model_word(name),
        "text": f"{spec.get('architecture', '?')}, {side} × {side} px {spec.get('colour', '')}, "
        f"labels {', '.join(spec.get('labels', ()))}; {spec.get('source', 'source not told')}; "
        f"version {spec.get('version', '?')}",
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that shape the figures."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git(root: Path, *arguments: str) -> str:
    """Ask git about a folder; "" where there is no git, no repository or no commit."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
