"""Unpacking for `call_limited`, whose arguments and results travel as JSON."""

from pathlib import Path

from flows.intake import archives

LIMITS = archives.Limits(files=50_000, file_bytes=1 << 26, all_bytes=1 << 34, ratio=100.0)


def unpack(archive: str, folder: str) -> int:
    """Unpack under the limits that params.yaml has."""
    return archives.unpack(Path(archive), Path(folder), LIMITS).files
