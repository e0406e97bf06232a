"""Descriptions of the supported data sets, and download of the open ones.

The London Set (L. DeBruine, B. Jones 2017) is on figshare under CC BY 4.0. Its subjects signed
consent for the use of their images in studies and to illustrate research.
"""

import os
import shutil
from pathlib import Path

from filelock import FileLock

from flows.datasets.catalog import DATASETS, Dataset
from flows.intake.archives import Limits, unpack
from tasks.core.download import cache_dir, fetch_file, figshare_files
from tasks.core.errors import DownloadError, UserError
from tasks.core.labels import DRAWN_DATASET
from tasks.ingest.adapters import WITHOUT_EMOTIONS

_ARCHIVE = ".zip"
_LIMITS = Limits(files=20_000, file_bytes=8 << 30, all_bytes=8 << 30, ratio=100.0)


def list_datasets() -> list[Dataset]:
    """Return the supported data sets, sorted by name."""
    return [DATASETS[name] for name in sorted(DATASETS)]


def describe_dataset(name: str) -> str:
    """Return a data set's description, one line per property; UserError for an unknown name."""
    if name not in DATASETS:
        raise UserError(f"no data set '{name}'; use one of {', '.join(sorted(DATASETS))}")
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
    return "\n".join(f"{name + ':':<9} {value}" for name, value in lines if value)


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
    """Download an open data set and unpack it; return the folder for `affectgap intake`.

    Files that are in the cache already are not downloaded again. `cache` defaults to
    `fetch.cache_dir()`.

    Raises
    ------
    UserError
        If the data set cannot be fetched; the message says how to obtain it.
    DownloadError
        If the download fails; the message says which files to put where by hand.
    DataError
        If an archive cannot be unpacked.
    """
    dataset = DATASETS.get(name)
    if dataset is None or dataset.doi is None:
        open_sets = ", ".join(entry.name for entry in list_datasets() if entry.doi)
        advice = dataset.obtain if dataset else f"these can be fetched: {open_sets}"
        raise UserError(f"data set '{name}' cannot be fetched; {advice}")
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
            raise DownloadError(f"https://doi.org/{dataset.doi}: no longer has the file {file}")
        address, digest = published[file]
        fetch_file(address, digest, file, downloads)


def _unpack(dataset: Dataset, downloads: Path, unpacked: Path) -> None:
    """Unpack into a temporary folder and rename it, so that the target is complete or absent."""
    folder = unpacked.with_name(".unpacking")
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed process
    folder.mkdir()
    for file in dataset.files:
        if file.endswith(_ARCHIVE):
            _unpack_archive(downloads / file, folder)
        else:
            shutil.copyfile(downloads / file, folder / file)
    os.rename(folder, unpacked)


def _unpack_archive(archive: Path, folder: Path) -> None:
    """Unpack into a folder named like the archive, whether or not the archive contains it."""
    inner = folder / f".{archive.stem}"
    inner.mkdir()
    unpack(archive, inner, _LIMITS)
    nested = inner / archive.stem
    # Archives made on macOS also contain resource forks, which are not needed.
    os.rename(nested if nested.is_dir() else inner, folder / archive.stem)
    shutil.rmtree(inner, ignore_errors=True)
