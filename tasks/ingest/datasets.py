"""The data sets that adapters read: where they come from, and fetching those that are open.

The London Set (L. DeBruine, B. Jones 2017) is on figshare under CC BY 4.0; its pictures are of
people who signed consent for use in studies and to illustrate research.
"""

import os
import shutil
from pathlib import Path

from filelock import FileLock

from tasks.core.errors import DownloadError, UserError
from tasks.core.fetch import cache_dir, fetch_file, figshare_files
from tasks.core.labels import DRAWN_DATASET
from tasks.ingest.adapters import WITHOUT_EMOTIONS
from tasks.ingest.archives import Limits, unpack
from tasks.ingest.catalogue import DATASETS, Dataset

_ARCHIVE = ".zip"
_LIMITS = Limits(files=20_000, file_bytes=8 << 30, all_bytes=8 << 30, ratio=100.0)


def list_datasets() -> list[Dataset]:
    """Return the data sets that adapters read, by name."""
    return [DATASETS[name] for name in sorted(DATASETS)]


def describe_dataset(name: str) -> str:
    """Return a data set's description, one line a property; UserError for an unknown name."""
    if name not in DATASETS:
        raise UserError(f"data set '{name}' is not known; known are {', '.join(sorted(DATASETS))}")
    dataset = DATASETS[name]
    lines = (
        ("name", dataset.name),
        ("adapter", dataset.adapter),
        ("content", dataset.content),
        ("cite", dataset.citation),
        ("licence", dataset.licence),
        ("obtain", dataset.obtain),
        ("put", dataset.put),
        ("then", _next_step(dataset)),
    )
    return "\n".join(f"{what + ':':<9} {value}" for what, value in lines if value)


def _next_step(dataset: Dataset) -> str:
    if dataset.adapter in WITHOUT_EMOTIONS:
        return f"affectgap datasets count FOLDER --adapter {dataset.adapter}"
    if dataset.name == DRAWN_DATASET:
        return "affectgap use drawn; affectgap run"
    name = "mine" if dataset.name == "folder" else dataset.name
    intake = f"affectgap intake PATH --dataset {name}"
    if dataset.preset:
        return f"{intake}; affectgap use {dataset.preset}; affectgap run"
    return (
        f"{intake}; in params.yaml (from presets/folder.yaml) set "
        f"ingest.datasets to {name}: {{adapter: {dataset.adapter}}}; affectgap run"
    )


def fetch_dataset(name: str, cache: Path | None = None) -> Path:
    """Download an open data set and unpack it.

    Parameters
    ----------
    name
        A data set with a DOI.
    cache
        The cache's folder; None: `fetch.cache_dir()`.

    Returns
    -------
    Path
        A folder that `affectgap intake` takes. Files that lie in the cache already, downloaded
        before or put there by hand, are not downloaded again.

    Raises
    ------
    UserError
        One line for a data set that cannot be fetched, with how to obtain it.
    DownloadError
        One line that names the files and where to put them by hand.
    DataError
        One line for an archive that cannot be unpacked.
    """
    dataset = DATASETS.get(name)
    if dataset is None or dataset.doi is None:
        known = ", ".join(entry.name for entry in list_datasets() if entry.doi)
        how = dataset.obtain if dataset else f"can be fetched: {known}"
        raise UserError(f"data set '{name}' cannot be fetched; {how}")
    unpacked = (cache or cache_dir()) / "datasets" / name / name
    downloads = unpacked.with_name("downloads")
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(unpacked.with_name(".lock")):
        if not unpacked.is_dir():
            _download(dataset, downloads)
            _unpack(dataset, downloads, unpacked)
    return unpacked


def _download(dataset: Dataset, downloads: Path) -> None:
    missing = [file for file in dataset.files if not (downloads / file).is_file()]
    if not missing:
        return
    try:
        published = figshare_files(str(dataset.doi))
    except DownloadError as error:
        raise DownloadError(
            f"{error}; get {', '.join(missing)} from https://doi.org/{dataset.doi} on another "
            f"machine and put them into {downloads}"
        ) from None
    for file in dataset.files:
        if file not in published:
            raise DownloadError(f"https://doi.org/{dataset.doi}: has no file {file} any more")
        address, digest = published[file]
        fetch_file(address, digest, file, downloads)


def _unpack(dataset: Dataset, downloads: Path, unpacked: Path) -> None:
    """Unpack beside the target and move it there at the end, so that it is whole or not there."""
    folder = unpacked.with_name(".unpacking")
    shutil.rmtree(folder, ignore_errors=True)  # what a killed one left
    folder.mkdir()
    for file in dataset.files:
        if file.endswith(_ARCHIVE):
            _unpack_archive(downloads / file, folder)
        else:
            shutil.copyfile(downloads / file, folder / file)
    os.rename(folder, unpacked)


def _unpack_archive(archive: Path, folder: Path) -> None:
    """Unpack so that the pictures lie in a folder named like the archive, however it was made."""
    inner = folder / f".{archive.stem}"
    inner.mkdir()
    unpack(archive, inner, _LIMITS)
    nested = inner / archive.stem
    # Beside the folder of pictures archives made on macOS hold resource forks; they stay behind.
    os.rename(nested if nested.is_dir() else inner, folder / archive.stem)
    shutil.rmtree(inner, ignore_errors=True)
