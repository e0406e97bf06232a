"""Pictures of a few kilobytes that cost seconds or gigabytes to decode, found before they are."""

import re
from typing import Any

_MAX_JPEG_HEAD_BYTES = 1 << 24  # of everything before the pixels: profiles, previews, depth maps
_MAX_JPEG_SEGMENTS = 10_000
_MAX_SCANS = 64  # a progressive JPEG has about ten, and each goes over all pixels
_MAX_RLE_PIXELS = 4_000_000  # of a compressed BMP, which Pillow unpacks in Python
_MAX_TILE_PIXELS = 1 << 22  # of a TIFF; tiles may be larger than a small picture

_SOI, _SOS, _EOI = b"\xff\xd8", 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, no tables
_MAX_COMPONENTS = 255
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xDA)])  # markers that are no segments

_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of a TIFF


def bomb_in_bytes(content: bytes) -> str:
    """Return why a file should not even be opened; "" where nothing is against it."""
    if not content.startswith(_SOI):
        return ""
    segments, position, components = 0, len(_SOI), 0
    while (marker := _MARKER.search(content, position)) is not None:
        if position > _MAX_JPEG_HEAD_BYTES or segments > _MAX_JPEG_SEGMENTS:
            return "a JPEG with more than 16 MB or 10,000 segments before its pixels"
        kind, body = marker[1][0], content[marker.end() + 2 : marker.end() + 8]
        if kind in _FRAMES and len(body) == 6:
            # A baseline JPEG whose first scan has all components has no other one.
            components = body[5] if kind in _BASELINE else _MAX_COMPONENTS
        if kind == _SOS:
            one_scan = body[:1] >= bytes([components])
            return "" if one_scan else _too_many_scans(content, marker.start())
        segments, position = segments + 1, _end_of_segment(content, marker)
    return ""


def bomb_in_header(image: Any, max_pixels: int) -> str:
    """Return why an opened picture should not be decoded; "" where nothing is against it."""
    if image.format == "BMP" and image.info.get("compression") in (1, 2):
        width, height = image.size
        if width * height > _MAX_RLE_PIXELS:
            return f"a compressed BMP of more than {_MAX_RLE_PIXELS} pixels; save it as PNG"
    if image.format == "TIFF":
        width, length = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
        if width * length > max(max_pixels, _MAX_TILE_PIXELS):
            return f"a tile of {width} x {length} px, larger than any picture may be"
    return ""


def _too_many_scans(content: bytes, position: int) -> str:
    if content.count(bytes([0xFF, _SOS]), position) <= _MAX_SCANS:  # nearly every picture
        return ""
    scans = 0
    while (marker := _MARKER.search(content, position)) is not None and marker[1][0] != _EOI:
        scans += marker[1][0] == _SOS
        if scans > _MAX_SCANS:
            return f"a JPEG with more than {_MAX_SCANS} scans; save it again as a baseline JPEG"
        position = _end_of_segment(content, marker)
    return ""


def _end_of_segment(content: bytes, marker: re.Match[bytes]) -> int:
    end = marker.end()
    if marker[1][0] in _NO_LENGTH:
        return end
    return end + max(2, int.from_bytes(content[end : end + 2], "big"))
