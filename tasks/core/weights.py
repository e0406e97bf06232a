"""Weights of models that others trained: which files are known, and where they are looked for.

A file is used only if its sha256 is the one written here.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import DownloadError, ModelError
from tasks.core.fetch import cache_dir, fetch_file, has_digest


@dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    Attributes
    ----------
    name
        The file's name, also in params (`train.weights`).
    sha256
        64 hex digits.
    address
        Where it is downloaded from.
    licence
        Short name of the licence of the weights.
    citation
        Who trained them, and where that is described.
    """

    name: str
    sha256: str
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

WEIGHTS: Mapping[str, WeightsFile] = {file.name: file for file in (_FER2013_MINI_XCEPTION,)}


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
    file = WEIGHTS[name]
    cached = cache_dir() / "weights"
    for folder in (cached, *local_folders(root)):
        path = folder / name
        if path.is_file():
            if not has_digest(path, file.sha256):
                raise DownloadError(
                    f"{path}: is another file than {file.address} (sha256 {file.sha256}); "
                    "remove or replace it"
                )
            return path
    return fetch_file(file.address, file.sha256, name, cached)


def local_folders(root: Path) -> list[Path]:
    """Return the folders beside the cache that may hold weights, existing ones only.

    `weights/` below `AFFECTGAP_ASSETS`, and below a `shared/assets` folder beside the checkout,
    for teams with several checkouts on one machine.
    """
    given = os.environ.get("AFFECTGAP_ASSETS")
    candidates = [Path(given)] if given else []
    candidates.append(root.resolve().parent / "shared" / "assets")
    return [folder / "weights" for folder in candidates if (folder / "weights").is_dir()]
