"""Weights of models that others trained: which files are known, and where they are looked for.

A file is used only if its sha256 is the one written here. Of a file whose sha256 is not written
here it is recorded on first use, in the cache as `<name>.sha256`, and compared from then on.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tasks.core.download import cache_dir, fetch_file, has_digest
from tasks.core.errors import DownloadError, ModelError
from tasks.core.files import sha256_of, write_text


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    Attributes
    ----------
    name
        The file's name, also in params (`train.weights`).
    sha256
        64 hex digits; None where it is recorded on first use.
    address
        Where it is downloaded from.
    licence
        Short name of the license of the weights.
    citation
        Who trained them, and where that is described.
    """

    name: str
    sha256: str | None
    address: str
    licence: str
    citation: str


_FER2013_MINI_XCEPTION = WeightsFile(
    name="fer2013_mini_XCEPTION.102-0.66.hdf5",
    sha256="59534287fdfb125e30a94400296c25ea9f5d706fca93dd8adbbbed916799ea0e",
    address=(
        "https://github.com/oarriaga/face_classification/raw/master/"
        "trained_models/emotion_models/fer2013_mini_XCEPTION.102-0.66.hdf5"
    ),
    licence="MIT",
    citation="O. Arriaga, M. Valdenegro-Toro, P. Plöger (2017), arXiv 1710.07557",
)

_HSEMOTION_MOBILENET_7 = WeightsFile(
    name="mobilenet_7.h5",
    sha256=None,
    address=(
        "https://github.com/av-savchenko/face-emotion-recognition/raw/main/"
        "models/affectnet_emotions/mobilenet_7.h5"
    ),
    licence="Apache-2.0",
    citation="A. Savchenko (2021), arXiv 2103.17107",
)

WEIGHTS: Mapping[str, WeightsFile] = {
    file.name: file for file in (_FER2013_MINI_XCEPTION, _HSEMOTION_MOBILENET_7)
}


def weights_file(name: str, root: Path) -> Path:
    """Find a file of weights on this machine, else download it into the cache.

    Parameters
    ----------
    name
        A key of `WEIGHTS`.
    root
        The project's folder; see `local_folders`.

    Returns
    -------
    Path
        A file whose sha256 is the known one: of the cache, of a local folder, or downloaded.

    Raises
    ------
    ModelError
        One line for a name that is not known.
    DownloadError
        One line: a file of that name is another one, or it cannot be downloaded; says where to
        put it by hand.
    """
    if name not in WEIGHTS:
        raise ModelError(f"weights '{name}': not known; known are {', '.join(sorted(WEIGHTS))}")
    return find_weights(WEIGHTS[name], root)


def find_weights(file: WeightsFile, root: Path) -> Path:
    """Find a file of weights that need not be in `WEIGHTS`; see `weights_file`."""
    cached = cache_dir() / "weights"
    candidates = [folder / file.name for folder in (cached, *local_folders(root))]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        path = fetch_file(file.address, file.sha256, file.name, cached)
    if file.sha256 is None:
        _compare_with_record(path, cached / f"{file.name}.sha256")
    elif not has_digest(path, file.sha256):
        raise DownloadError(
            f"{path}: is another file than {file.address} (sha256 {file.sha256}); "
            "remove or replace it"
        )
    return path


def _compare_with_record(path: Path, record: Path) -> None:
    """Record a file's sha256 where none is recorded; raise DownloadError where it is another."""
    actual = sha256_of(path)
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{record}.lock"):
        if not record.is_file():
            write_text(record, actual + "\n")
        recorded = record.read_text(encoding="utf-8").strip()
    if recorded != actual:
        raise DownloadError(
            f"{path}: is another file (sha256 {actual}) than the one first used on this machine "
            f"(sha256 {recorded}, recorded in {record}); put that one back, or remove {record} to "
            "use this one"
        )


def local_folders(root: Path) -> list[Path]:
    """Return the folders beside the cache that may hold weights, existing ones only.

    The project's `given/`, then `weights/` below `AFFECTGAP_ASSETS`, and below a `shared/assets`
    folder beside the checkout, for teams with several checkouts on one machine.
    """
    named = os.environ.get("AFFECTGAP_ASSETS")
    assets = [Path(named)] if named else []
    assets.append(root.resolve().parent / "shared" / "assets")
    candidates = [root / "given", *(folder / "weights" for folder in assets)]
    return [folder for folder in candidates if folder.is_dir()]
