"""Decoding for `call_limited`, whose arguments and results travel as JSON."""

from pathlib import Path

from tasks.core.imaging import decode as decode_module


def decode(path: str) -> str:
    """Decode a file; return its size, or why it is refused."""
    try:
        return str(decode_module.read_image(Path(path), 60_000_000).rgb.shape)
    except decode_module.BadImageError as error:
        return f"{error.reason}: {error.detail}"
