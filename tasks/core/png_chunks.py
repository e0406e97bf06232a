"""The chunks of a PNG: those that say how its values are meant, and those that pixels do not need.

PNG specification (third edition), sections 5 and 11.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PROFILE_AND_TEXT = frozenset([b"iCCP", b"tEXt", b"zTXt", b"iTXt"])
# Texts in which some programs write the EXIF flag.
_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_FRAME_BYTES = 12  # length, kind and checksum of a chunk


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    end: int


def is_png(content: bytes) -> bool:
    """Whether a file begins as every PNG does."""
    return content.startswith(_SIGNATURE)


def significant_bits(content: bytes) -> int | None:
    """Return how many bits of a grey PNG its chunk sBIT says are significant; None without one."""
    for chunk in _chunks(content):
        if chunk.kind == b"sBIT" and chunk.end - chunk.start == _FRAME_BYTES + 1:
            bits = content[chunk.start + 8]
            return bits if 8 < bits <= 16 else None
        if chunk.kind == b"IDAT":
            break
    return None


def without_profile_and_text(content: bytes, keep_orientation: bool) -> bytes:
    """Return a PNG without its color profile and texts.

    Parameters
    ----------
    content
        A PNG's bytes; what follows a damaged chunk is left as it is.
    keep_orientation
        Keep the texts that may hold the EXIF flag.
    """
    parts, kept_to = [], 0
    for chunk in _chunks(content):
        if chunk.kind not in _PROFILE_AND_TEXT:
            continue
        if keep_orientation and content.startswith(_WITH_ORIENTATION, chunk.start + 8):
            continue
        parts.append(content[kept_to : chunk.start])
        kept_to = chunk.end
    return b"".join([*parts, content[kept_to:]])


def _chunks(content: bytes) -> Iterator[_Chunk]:
    start = len(_SIGNATURE)
    while start + _FRAME_BYTES <= len(content):
        length, kind = struct.unpack_from(">L4s", content, start)
        end = start + _FRAME_BYTES + length
        if end > len(content):
            return
        yield _Chunk(kind, start, end)
        start = end
