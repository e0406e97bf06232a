"""Digests of a stage's inputs, as DVC knows them; so that a run says what it was made from."""

import hashlib
from pathlib import Path
from typing import Any

import yaml

from tasks.core.paths import STUDY_OUTS, STUDY_RUN, Paths

_DATA_FOLDERS = ("data", "models", "reports", "study")  # the rest of a stage's deps is code
_PIPELINES = (".", "study")  # the folders with a dvc.yaml


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
