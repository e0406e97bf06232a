"""The files that are stored with every version, with verified downloads.

`files.json` lists each file with its sha256; the sha256 of that list is a tag of the version, so
that a change in the store or the local copy is detected.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_text
from tasks.core.labels import SPLITS
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv

ARTEFACT = "model"  # of the run: MLflow's folder of a model
STORED = f"{ARTEFACT}/artifacts/model"  # in it: the model's folder
LIST = "files.json"
FILES = "files"  # tag of a version: sha256 of the list
TEST, GROUPS = "test.csv", "groups.csv"
TEST_COLUMNS: tuple[str, ...] = (
    "image_id",
    "subject_id",
    "batch",
    "subject_known",
    "emotion",
    "age_band",
    "gender",
)


def keep_files(paths: Paths, model: Path, folder: Path) -> str:
    """Copy a model's folder, the test split and groups.csv (if it exists) into a new folder.

    Returns the sha256 of the list of files, for the tag `FILES`.

    Raises
    ------
    DataError
        If the split table is missing.
    """
    shutil.copytree(model, folder)
    write_csv(_test_split(paths), folder / TEST)
    if (paths.tables / GROUPS).is_file():
        shutil.copyfile(paths.tables / GROUPS, folder / GROUPS)
    return list_files(folder)


def list_files(folder: Path) -> str:
    """Write `files.json` for everything in a folder; return its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != LIST)
    digests = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
    write_text(folder / LIST, json.dumps(digests, indent=2) + "\n")
    return sha256_of(folder / LIST)


def fetch_files(
    paths: Paths, client: MlflowClient, number: int, run_id: str, tags: Mapping[str, str]
) -> Path:
    """Return a version's folder, from work/registry or else from the store; see `fetch`."""
    folder = paths.work("registry", str(number))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not _fault(folder, tags):
            return folder
        temporary = folder.with_name(f".{number}.download")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            downloaded = _download(client, run_id, temporary, number)
            if fault := _fault(downloaded, tags):
                raise ModelError(
                    f"version {number} is damaged in the store: {fault}; register the model again "
                    "from the commit that made it, or promote another version"
                )
            shutil.rmtree(folder, ignore_errors=True)
            downloaded.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _download(client: MlflowClient, run_id: str, folder: Path, number: int) -> Path:
    try:
        return Path(client.download_artifacts(run_id, STORED, str(folder)))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"version {number}: its files cannot be read ({reason})") from None


def _fault(folder: Path, tags: Mapping[str, str]) -> str:
    """Return the fault of a folder of stored files; "" if it is complete and unchanged."""
    listed = folder / LIST
    if not listed.is_file() or sha256_of(listed) != tags.get(FILES):
        return f"{LIST} is missing or another one"
    for name, digest in json.loads(listed.read_text(encoding="utf-8")).items():
        if not (folder / name).is_file() or sha256_of(folder / name) != digest:
            return f"{name} is missing or another one"
    return ""


def _test_split(paths: Paths) -> pd.DataFrame:
    split = read_table(paths.split, [*TEST_COLUMNS, "split"])
    return split.loc[split["split"] == SPLITS[-1], list(TEST_COLUMNS)].reset_index(drop=True)
