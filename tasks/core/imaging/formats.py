"""Image formats: supported ones, decompression bombs, PNG chunks, and the depth of gray images.

Chunks: PNG specification (third edition), sections 5 and 11. Depth: cameras store 10, 12 or 14 bits
in 16; scaled by the full range, such an image is almost black.
"""

import re
import struct
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

# The formats of face data sets; others are rejected by name.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_HEIF_PACKAGE = "pillow-heif"
_HEIF_MODULE = "pillow_heif"
_HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_MAX_JPEG_HEAD_BYTES = 1 << 24  # before the pixels: profiles, previews, depth maps
_MAX_JPEG_SEGMENTS = 10_000
_MAX_SCANS = 64  # a progressive JPEG has about ten, and each covers all pixels
_MAX_RLE_PIXELS = 4_000_000  # Pillow decodes compressed BMPs in Python
_MAX_TILE_PIXELS = 1 << 22  # a tile of a TIFF may be larger than a small image
_SOI, _SOS, _EOI = b"\xff\xd8", 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, no tables
_MAX_COMPONENTS = 255
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xDA)])  # markers without a segment
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of a TIFF
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PROFILE_AND_TEXT = frozenset([b"iCCP", b"tEXt", b"zTXt", b"iTXt"])

# Texts in which some programs store the EXIF orientation.
_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_FRAME_BYTES = 12  # length, kind and checksum of a chunk
_FULL_RANGE = 65_535
_TWELVE_BITS = 4_095
_PNG_DEPTH_AT = 24  # byte of a PNG with its bits per sample
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_MAX_SAMPLE_VALUE = 281
_KEPT_BITS = 4  # that Pillow keeps of 12 bits per color


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that this installation can read, with AVIF and HEIC if available."""
    formats = FORMATS
    if features.check("avif"):
        formats = (*formats, "AVIF")
    try:
        import_module(_HEIF_MODULE).register_heif_opener()
    except ImportError:
        return formats
    return (*formats, "HEIF")


def optional_readers() -> str:
    """Return the optional decoders and their versions, for keys of cached results."""
    try:
        heif = version(_HEIF_PACKAGE)
    except PackageNotFoundError:
        heif = "none"
    return f"{_HEIF_PACKAGE} {heif}, avif {features.check('avif')}"


def looks_like_a_image(content: bytes) -> bool:
    """Return whether a file starts like one of a readable format."""
    return content.startswith(_SIGNATURES) or _iso_format(content) in readable_formats()


def unreadable_kind(content: bytes) -> str:
    """Return the format of an AVIF or HEIC image, with advice; "" for any other file."""
    kind = _iso_format(content)
    if kind == "AVIF":
        return "an AVIF picture, whatever its suffix; convert it to JPEG or PNG"
    if kind == "HEIF":
        return (
            "a HEIC picture, whatever its suffix; convert it to JPEG (`heif-convert a.heic a.jpg`; "
            "iPhone: Settings, Camera, Formats, Most Compatible), or install affectgap[heic]"
        )
    return ""


def _iso_format(content: bytes) -> str:
    """Return Pillow's name of a format by the brands in the box `ftyp`; "" if unknown."""
    if content[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(content[:4], "big"), 256)
    listed = content[16:end]
    brands = {content[8:12], *(listed[at : at + 4] for at in range(0, len(listed), 4))}
    return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIC_BRANDS else ""


def bomb_in_bytes(content: bytes) -> str:
    """Return why a file should not be opened; "" if it can be."""
    if not content.startswith(_SOI):
        return ""
    segments, position, components = 0, len(_SOI), 0
    while (marker := _MARKER.search(content, position)) is not None:
        if position > _MAX_JPEG_HEAD_BYTES or segments > _MAX_JPEG_SEGMENTS:
            return "a JPEG with more than 16 MB or 10,000 segments before its pixels"
        kind, body = marker[1][0], content[marker.end() + 2 : marker.end() + 8]
        if kind in _FRAMES and len(body) == 6:
            # A baseline JPEG whose first scan has all components has no other scan.
            components = body[5] if kind in _BASELINE else _MAX_COMPONENTS
        if kind == _SOS:
            one_scan = body[:1] >= bytes([components])
            return "" if one_scan else _too_many_scans(content, marker.start())
        segments, position = segments + 1, _end_of_segment(content, marker)
    return ""


def bomb_in_header(image: Any, max_pixels: int) -> str:
    """Return why an opened image should not be decoded; "" if it can be."""
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
    if content.count(bytes([0xFF, _SOS]), position) <= _MAX_SCANS:  # nearly every image
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


class _Chunk(NamedTuple):
    kind: bytes
    start: int
    end: int


def is_png(content: bytes) -> bool:
    """Return whether a file starts with the PNG signature."""
    return content.startswith(_SIGNATURE)


def significant_bits(content: bytes) -> int | None:
    """Return the number of significant bits in the chunk sBIT of a gray PNG; None without one."""
    for chunk in _chunks(content):
        if chunk.kind == b"sBIT" and chunk.end - chunk.start == _FRAME_BYTES + 1:
            bits = content[chunk.start + 8]
            return bits if 8 < bits <= 16 else None
        if chunk.kind == b"IDAT":
            break
    return None


def without_profile_and_text(content: bytes, keep_orientation: bool) -> bytes:
    """Return a PNG without its color profile and texts, up to the first damaged chunk.

    `keep_orientation` keeps texts that may contain the EXIF orientation.
    """
    parts, copied_to = [], 0
    for chunk in _chunks(content):
        if chunk.kind not in _PROFILE_AND_TEXT:
            continue
        if keep_orientation and content.startswith(_WITH_ORIENTATION, chunk.start + 8):
            continue
        parts.append(content[copied_to : chunk.start])
        copied_to = chunk.end
    return b"".join([*parts, content[copied_to:]])


def _chunks(content: bytes) -> Iterator[_Chunk]:
    start = len(_SIGNATURE)
    while start + _FRAME_BYTES <= len(content):
        length, kind = struct.unpack_from(">L4s", content, start)
        end = start + _FRAME_BYTES + length
        if end > len(content):
            return
        yield _Chunk(kind, start, end)
        start = end


class GrayDepth(NamedTuple):
    """The range of a gray image's values."""

    declared: int | None  # largest value according to the file's metadata
    is_exact: bool = False  # values use the full 16 bits

    def to_8_bits(self, gray: np.ndarray) -> tuple[np.ndarray, str]:
        """Scale values to uint8; returns also a note if the range is not the full 16 bits."""
        gray = gray.clip(0, _FULL_RANGE)  # times 255 it still fits into 32 bits
        white = self._white(int(gray.max(initial=0)))
        scaled = (gray * 255 // white).astype(np.uint8)
        bits = white.bit_length()
        return scaled, "" if white == _FULL_RANGE else f"{bits} bits in 16, scaled by {white}"

    def _white(self, largest: int) -> int:
        if self.is_exact:
            return _FULL_RANGE
        limit = _TWELVE_BITS if self.declared is None else self.declared
        return limit if largest <= limit else _FULL_RANGE


def gray_depth(image: Image.Image, content: bytes) -> GrayDepth | None:
    """Return the range of a 16-bit gray image, opened but not loaded; None for other images."""
    if not image.mode.startswith("I"):
        return None
    if image.format == "PNG":
        bits = significant_bits(content)
        return GrayDepth(None if bits is None else (1 << bits) - 1)
    if image.format == "TIFF":
        return GrayDepth(_declared_by_tiff(image))
    # Pillow scales the values of a PPM whose largest value is below 65,535.
    tiles = getattr(image, "tile", [])
    return GrayDepth(None, is_exact=bool(tiles) and tiles[0].codec_name != "raw")


def has_lost_bits(image: Image.Image, content: bytes) -> bool:
    """Return whether a loaded color image had 12 bits in 16, of which Pillow kept the upper 8."""
    if image.mode.startswith("I") or not _has_16_bits(image, content):
        return False
    colors = image.getextrema()
    bands = colors if isinstance(colors[0], tuple) else (colors,)
    names = image.getbands()
    return all(
        high < 1 << _KEPT_BITS for name, (_, high) in zip(names, bands, strict=True) if name != "A"
    )


def _has_16_bits(image: Image.Image, content: bytes) -> bool:
    if is_png(content):
        return content[_PNG_DEPTH_AT] == 16
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        return 16 in tuple(tags.get(_TIFF_BITS_PER_SAMPLE, ()))
    return False


def _declared_by_tiff(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", {})
    largest = _first(tags.get(_TIFF_MAX_SAMPLE_VALUE))
    if largest is not None and 0 < largest < _FULL_RANGE:
        return largest
    bits = _first(tags.get(_TIFF_BITS_PER_SAMPLE))
    return (1 << bits) - 1 if bits is not None and 8 < bits < 16 else None


def _first(value: object) -> int | None:
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else None
