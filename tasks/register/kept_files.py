"""The folder of files that is kept with every version, and getting it back whole.

`files.json` lists each file with its sha256; the sha256 of that list is a tag of the version, so
that neither the store nor the local copy can change a file unseen.
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
KEPT = f"{ARTEFACT}/artifacts/model"  # in it: the model's folder
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
    """Copy a model's folder and the tables of its run into a new folder, and list them.

    Parameters
    ----------
    paths
        The project's paths; data/split.parquet and, where it is there, reports/tables/groups.csv.
    model
        The model's folder.
    folder
        The new one.

    Returns
    -------
    str
        The sha256 of the list, for the tag `FILES`.

    Raises
    ------
    DataError
        One line where the split table is missing.
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
        fresh = folder.with_name(f".{number}.download")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            found = _download(client, run_id, fresh, number)
            if fault := _fault(found, tags):
                raise ModelError(
                    f"version {number} is damaged in the store: {fault}; register the model again "
                    "from the commit that made it, or promote another version"
                )
            shutil.rmtree(folder, ignore_errors=True)
            found.replace(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _download(client: MlflowClient, run_id: str, folder: Path, number: int) -> Path:
    try:
        return Path(client.download_artifacts(run_id, KEPT, str(folder)))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ModelError(f"version {number}: its files cannot be read ({reason})") from None


def _fault(folder: Path, tags: Mapping[str, str]) -> str:
    """Say what is wrong with a folder of kept files; "" where it is whole."""
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
