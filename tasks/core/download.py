"""Downloads into a cache: verified by digest, resumable, with progress.

Pooch manages the cache, checks digests and resolves figshare's DOIs
(https://www.fatiando.org/pooch). The downloader here adds resumption (HTTP Range, RFC 9110 §14) and
progress. Without a network the error names the file and where to put it by hand.
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

_CHUNK_BYTES = 1 << 16  # an interrupted connection loses at most this
_TIMEOUT_S = (10, 60)  # to connect, between two chunks
_TRIES_WITHOUT_PROGRESS = 2
_HEADERS = {"User-Agent": "affectgap", "Accept-Encoding": "identity"}  # ranges of raw bytes


def cache_dir() -> Path:
    """Return the folder of downloads: `AFFECTGAP_CACHE`, or the platform's cache folder."""
    folder = os.environ.get("AFFECTGAP_CACHE")
    return Path(folder).expanduser().absolute() if folder else Path(pooch.os_cache("affectgap"))


def has_digest(path: Path, digest: str) -> bool:
    """Return whether a file has a digest such as `sha256:ab…` (a bare one is sha256)."""
    algorithm, _, _ = digest.rpartition(":")
    actual = pooch.file_hash(str(path), alg=algorithm or "sha256")
    return bool(actual.lower() == digest.rpartition(":")[2].lower())


def fetch_file(address: str, digest: str | None, name: str, folder: Path) -> Path:
    """Return the file `name` of the cache in `folder`, downloading it if it is missing.

    `digest` is sha256 as 64 hex digits, or `md5:` and 32; None: any content is accepted. An
    interrupted download stays as `<name>.<digest>.part` (without a digest `<name>.unknown.part`),
    and the next call resumes it.

    Raises
    ------
    DownloadError
        One line with the file, its address, its digest and where to put it by hand.
    """
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # two stages may need the same weights
        if target.is_file():
            return target if digest is None else _require_digest(target, digest, address)
        tag = "unknown" if digest is None else digest.rpartition(":")[2][:12]
        downloader = _Downloader(folder / f"{name}.{tag}.part", same_version=digest is None)
        try:
            _retrieve(address, digest, target, downloader)
        except (OSError, ValueError) as error:  # ValueError: pooch's error for a wrong digest
            raise DownloadError(_by_hand(address, digest, target, error)) from None
    return target


def figshare_files(doi: str) -> dict[str, tuple[str, str]]:
    """Return the files of a data set on figshare: name to (address, `md5:` digest).

    The DOI includes the version, such as `10.6084/m9.figshare.5047666.v5`. Raises DownloadError if
    figshare cannot be reached or returns an unexpected answer.
    """
    # doi.org would redirect to figshare's web pages, which reject programs.
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
    """A resuming downloader for pooch.

    With `same_version` it resumes only the same version of the file (RFC 9110 §13.1.5): without a
    digest nothing else would detect that the halves come from different versions.
    """

    def __init__(self, part: Path, same_version: bool) -> None:
        self.part = part
        self.version = part.with_suffix(".version") if same_version else None

    def __call__(self, url: str, output_file: Any, pooch: Any) -> None:
        tries = 0
        while True:
            before = self._size()
            try:
                self._continue(url)
                break
            except requests.RequestException as error:
                tries = 0 if self._size() > before else tries + 1
                rejected = error.response is not None and error.response.status_code < 500
                if tries >= _TRIES_WITHOUT_PROGRESS or rejected:
                    raise
        os.replace(self.part, output_file)
        if self.version is not None:
            self.version.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _continue(self, url: str) -> None:
        headers = {**_HEADERS, **self._range_headers()}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # already complete, or of another file: restart
                return self._continue(url)
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            if self.version is not None and not resumed:
                self.version.write_text(_version(response), encoding="utf-8")
            with self.part.open("ab" if resumed else "wb") as handle:
                for chunk in self._chunks(response):
                    handle.write(chunk)
        return None

    def _range_headers(self) -> dict[str, str]:
        """Return the headers that request the missing bytes."""
        size = self._size()
        if not size:
            return {}
        if self.version is None:
            return {"Range": f"bytes={size}-"}
        tag = self.version.read_text(encoding="utf-8") if self.version.exists() else ""
        return {"Range": f"bytes={size}-", "If-Range": tag} if tag else {}

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        size_bytes = int(response.headers.get("Content-Length", 0))
        chunks = response.iter_content(_CHUNK_BYTES)
        what = f"download {self.part.name.rsplit('.', 2)[0]}"
        return track(chunks, max(1, math.ceil(size_bytes / _CHUNK_BYTES)), what)


def _version(response: requests.Response) -> str:
    """Return the strong ETag of a response, or ""."""
    tag = str(response.headers.get("ETag", ""))
    return "" if tag.startswith("W/") else tag


def _retrieve(address: str, digest: str | None, target: Path, downloader: _Downloader) -> None:
    pooch.get_logger().setLevel(logging.WARNING)  # it logs every download to stderr
    resumed = downloader.part.exists()
    try:
        pooch.retrieve(address, digest, target.name, target.parent, downloader=downloader)
    except ValueError:
        if not resumed:
            raise
        # The file has changed since the partial download: start again.
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
