"""Downloads into a cache: checked by their digest, resumed where they broke off, never silent.

Pooch keeps the cache, checks digests and knows figshare's DOIs (https://www.fatiando.org/pooch);
the downloader here adds what it lacks: resuming (HTTP Range, RFC 9110 §14) and this project's
progress. Without a network the error says which file to put where by hand.
"""

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch
import requests
from filelock import FileLock
from pooch.downloaders import FigshareRepository

from tasks.core.errors import DownloadError
from tasks.core.parallel.progress import track

_CHUNK_BYTES = 1 << 16  # what a cut connection loses at most
_TIMEOUT_S = (10, 60)  # to connect, between two pieces
_TRIES_WITHOUT_A_BYTE = 2
_HEADERS = {"User-Agent": "affectgap", "Accept-Encoding": "identity"}  # ranges of the file itself


def cache_dir() -> Path:
    """Return the folder of downloads: `AFFECTGAP_CACHE`, else the platform's cache folder."""
    given = os.environ.get("AFFECTGAP_CACHE")
    return Path(given).expanduser().absolute() if given else Path(pooch.os_cache("affectgap"))


def has_digest(path: Path, digest: str) -> bool:
    """Return whether a file has a digest such as `sha256:ab…` (a bare one is sha256)."""
    algorithm, _, _ = digest.rpartition(":")
    actual = pooch.file_hash(str(path), alg=algorithm or "sha256")
    return bool(actual.lower() == digest.rpartition(":")[2].lower())


def fetch_file(address: str, digest: str | None, name: str, folder: Path) -> Path:
    """Return a file of the cache, downloaded first where it is not there.

    Parameters
    ----------
    address
        Where it comes from, http(s).
    digest
        sha256 as 64 hex digits, or `md5:` and 32; None where it is not known, so that whatever the
        address gives is taken.
    name
        Its name in the cache.
    folder
        The cache's folder; it is made.

    Returns
    -------
    Path
        The file, with that digest. A broken-off download stays as `<name>.<digest>.part` (without
        a digest as `<name>.unknown.part`) and is resumed by the next call.

    Raises
    ------
    DownloadError
        One line that names the file, its address, its digest and where to put it by hand.
    """
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # two stages may want the same weights
        if target.is_file():
            return target if digest is None else _require_digest(target, digest, address)
        tag = "unknown" if digest is None else digest.rpartition(":")[2][:12]
        downloader = _Downloader(folder / f"{name}.{tag}.part", resume_alike=digest is None)
        try:
            _retrieve(address, digest, target, downloader)
        except (OSError, ValueError) as error:  # the network or the disk; another digest (pooch)
            raise DownloadError(_by_hand(address, digest, target, error)) from None
    return target


def figshare_files(doi: str) -> dict[str, tuple[str, str]]:
    """Query figshare for the files of a data set.

    Parameters
    ----------
    doi
        The DOI with its version, such as `10.6084/m9.figshare.5047666.v5`.

    Returns
    -------
    dict
        File name to (address, `md5:` and its digest as figshare publishes it).

    Raises
    ------
    DownloadError
        One line where figshare cannot be asked or answers something else.
    """
    # Not through doi.org: that leads to figshare's web pages, which refuse programs.
    repository = FigshareRepository(
        doi, f"https://doi.org/{doi}", timeout=_TIMEOUT_S, headers=_HEADERS
    )
    registry = pooch.create(path=cache_dir(), base_url="")
    try:
        repository.populate_registry(registry)
        return {
            name: (repository.download_url(name), digest)
            for name, digest in registry.registry.items()
        }
    except (requests.RequestException, ValueError, LookupError, TypeError) as error:
        raise DownloadError(
            f"https://doi.org/{doi}: figshare cannot be asked for its files ({_line(error)})"
        ) from None


class _Downloader:
    """What pooch calls with the address and where it wants the file.

    `resume_alike` goes on only with the version of the file that was begun (RFC 9110 §13.1.5): with
    no digest to compare, nothing else would tell that two halves do not belong together.
    """

    def __init__(self, part: Path, resume_alike: bool) -> None:
        self.part = part
        self.version = part.with_suffix(".version") if resume_alike else None

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        tries = 0
        while True:
            before = self._size()
            try:
                self._continue(url)
                break
            except requests.RequestException as error:
                tries = 0 if self._size() > before else tries + 1
                refused = error.response is not None and error.response.status_code < 500
                if tries >= _TRIES_WITHOUT_A_BYTE or refused:
                    raise
        os.replace(self.part, output_file)
        if self.version is not None:
            self.version.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url: str) -> None:
        headers = {**_HEADERS, **self._rest()}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # it is whole already, or not of this file: from the start
                return self._continue(url)
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            if self.version is not None and not resumed:
                self.version.write_text(_version(response), encoding="utf-8")
            with self.part.open("ab" if resumed else "wb") as handle:
                for chunk in self._chunks(response):
                    handle.write(chunk)
        return None

    def _rest(self) -> dict[str, str]:
        """Return the headers that ask for what is not here yet."""
        have = self._size()
        if not have:
            return {}
        if self.version is None:
            return {"Range": f"bytes={have}-"}
        begun = self.version.read_text(encoding="utf-8") if self.version.exists() else ""
        return {"Range": f"bytes={have}-", "If-Range": begun} if begun else {}

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        size_bytes = int(response.headers.get("Content-Length", 0))
        chunks = response.iter_content(_CHUNK_BYTES)
        what = f"download {self.part.name.rsplit('.', 2)[0]}"
        return track(chunks, max(1, math.ceil(size_bytes / _CHUNK_BYTES)), what)


def _version(response: requests.Response) -> str:
    """Return what names this version of the file; "" where the server says nothing exact."""
    tag = str(response.headers.get("ETag", ""))
    return "" if tag.startswith("W/") else tag


def _retrieve(address: str, digest: str | None, target: Path, downloader: _Downloader) -> None:
    pooch.get_logger().setLevel(logging.WARNING)  # it announces every download on stderr
    resumed = downloader.part.exists()
    try:
        pooch.retrieve(address, digest, target.name, target.parent, downloader=downloader)
    except ValueError:
        if not resumed:
            raise
        # The part came from a file that has changed since: once more, from the start.
        pooch.retrieve(address, digest, target.name, target.parent, downloader=downloader)


def _require_digest(path: Path, digest: str, address: str) -> Path:
    if not has_digest(path, digest):
        raise DownloadError(
            f"{path}: is another file than the one expected ({digest}); remove it, or put the one "
            f"from {address} there"
        )
    return path


def _by_hand(address: str, digest: str | None, target: Path, error: Exception) -> str:
    which = address if digest is None else f"{address} (digest {digest})"
    return (
        f"{target.name}: cannot be downloaded ({_line(error)}); get {which} "
        f"on another machine and put it at {target}"
    )


def _line(error: Exception) -> str:
    if isinstance(error, requests.ConnectionError) and error.request is not None:
        return f"no connection to {urlsplit(str(error.request.url)).netloc}"
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
