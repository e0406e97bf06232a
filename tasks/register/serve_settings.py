"""Limits of a server of the model, from environment variables; known defects of serving code.

A registered version is deployed without the project's params.yaml, and its operator knows the
machine and the clients. So the limits are environment variables, read when the model is loaded.

Each version has the code of its registration. Its tag `serving_code` is the revision of that code;
versions without the tag have revision 1.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.core.errors import ModelError

SERVED_FOLDER = "AFFECTGAP_SERVE_FOLDER"
HOSTS = "AFFECTGAP_SERVE_HOSTS"
MAX_BODY_MB = "AFFECTGAP_SERVE_MAX_BODY_MB"
MAX_MEGAPIXELS = "AFFECTGAP_SERVE_MAX_MEGAPIXELS"
MAX_ROWS = "AFFECTGAP_SERVE_MAX_ROWS"
_MEGABYTE = 1 << 20
TAG = "serving_code"
REVISION = 2  # raise it, with a line in DEFECTS, if serving code turns out to be wrong
DEFECTS = {  # of the code up to a revision
    1: "answers wrongly, or ends, when several clients ask at once; reads any file by its path",
}
_FIRST = "1"


@dataclass(frozen=True)
class ServeSettings:
    """Limits of a server.

    Attributes
    ----------
    folder
        Images may be given as paths below this folder; None rejects paths.
    hosts
        Host names that are accepted beside `localhost` and IP addresses; `*`: any.
    max_body_bytes
        Larger requests are rejected before they are read.
    max_pixels
        Larger images are rejected before they are decoded; the limit at registration also holds.
    max_rows
        Images per request.
    """

    folder: Path | None = None
    hosts: frozenset[str] = frozenset()
    max_body_bytes: int = 32 * _MEGABYTE
    max_pixels: int = 25_000_000
    max_rows: int = 256


def serve_settings() -> ServeSettings:
    """Read the environment; raises ModelError for an invalid variable."""
    default = ServeSettings()
    return ServeSettings(
        folder=_folder(os.environ.get(SERVED_FOLDER, "")),
        hosts=frozenset(os.environ.get(HOSTS, "").replace(",", " ").lower().split()),
        max_body_bytes=_number(MAX_BODY_MB, _MEGABYTE, default.max_body_bytes),
        max_pixels=_number(MAX_MEGAPIXELS, 1_000_000, default.max_pixels),
        max_rows=_number(MAX_ROWS, 1, default.max_rows),
    )


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _folder(given: str) -> Path | None:
    if not given:
        return None
    folder = Path(given)
    if not folder.is_absolute() or not folder.is_dir():
        raise ModelError(
            f"{SERVED_FOLDER}={given}: must be the absolute path of a folder that exists"
        )
    return folder.resolve()


def _number(name: str, unit: int, default: int) -> int:
    given = os.environ.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 9 and int(given) > 0):
        raise ModelError(f"{name}={given}: must be a whole number above 0")
    return int(given) * unit


def defects(tags: Mapping[str, str]) -> list[str]:
    """Return the known defects of a version's serving code."""
    revision = int(tags.get(TAG, _FIRST))
    return [text for last, text in DEFECTS.items() if revision <= last]
