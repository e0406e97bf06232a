"""Image formats: which are read, what a PNG's chunks say, and how many bits a gray image uses.

Chunks: PNG specification (third edition), sections 5 and 11.

Cameras store 10, 12 or 14 bits in 16; read by the full range, such an image is almost black.
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

# The formats that face data sets come in; anything else is refused by name.
FORMATS: tuple[str, ...] = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
_HEIF_PACKAGE = "pillow-heif"
_HEIF_MODULE = "pillow_heif"
_HEIC_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_MAX_JPEG_HEAD_BYTES = 1 << 24  # of everything before the pixels: profiles, previews, depth maps
_MAX_JPEG_SEGMENTS = 10_000
_MAX_SCANS = 64  # a progressive JPEG has about ten, and each goes over all pixels
_MAX_RLE_PIXELS = 4_000_000  # of a compressed BMP, which Pillow unpacks in Python
_MAX_TILE_PIXELS = 1 << 22  # of a TIFF; tiles may be larger than a small image
_SOI, _SOS, _EOI = b"\xff\xd8", 0xDA, 0xD9
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_BASELINE = (0xC0, 0xC1)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, no tables
_MAX_COMPONENTS = 255
_NO_LENGTH = frozenset([0x01, *range(0xD0, 0xDA)])  # markers that are no segments
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of a TIFF
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PROFILE_AND_TEXT = frozenset([b"iCCP", b"tEXt", b"zTXt", b"iTXt"])

# Texts in which some programs write the EXIF flag.
_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_FRAME_BYTES = 12  # length, kind and checksum of a chunk
_FULL = 65_535
_TWELVE_BITS = 4_095
_PNG_DEPTH_AT = 24  # byte of a PNG with its bits per sample
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_MAX_SAMPLE_VALUE = 281
_LOST_BITS = 4  # that Pillow would keep of 12 bits per color


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the formats that are read here: AVIF where Pillow has it, HEIC with its package."""
    formats = FORMATS
    if features.check("avif"):
        formats = (*formats, "AVIF")
    try:
        import_module(_HEIF_MODULE).register_heif_opener()
    except ImportError:
        return formats
    return (*formats, "HEIF")


def optional_readers() -> str:
    """Name what decides which formats are read, for keys of cached results."""
    try:
        heif = version(_HEIF_PACKAGE)
    except PackageNotFoundError:
        heif = "none"
    return f"{_HEIF_PACKAGE} {heif}, avif {features.check('avif')}"


def looks_like_a_picture(content: bytes) -> bool:
    """Whether a file begins as those of the formats that are read here do."""
    return content.startswith(_SIGNATURES) or _iso_format(content) in readable_formats()


def unreadable_kind(content: bytes) -> str:
    """Return what an image is that cannot be read here, and what to do; "" for any other file."""
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
    """Return Pillow's name of a format by its brands, which the box `ftyp` lists; "" for others."""
    if content[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(content[:4], "big"), 256)
    listed = content[16:end]
    brands = {content[8:12], *(listed[at : at + 4] for at in range(0, len(listed), 4))}
    return "AVIF" if brands & _AVIF_BRANDS else "HEIF" if brands & _HEIC_BRANDS else ""


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
    """Return why an opened image should not be decoded; "" where nothing is against it."""
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
    """Whether a file begins as every PNG does."""
    return content.startswith(_SIGNATURE)


def significant_bits(content: bytes) -> int | None:
    """Return how many bits of a gray PNG its chunk sBIT says are significant; None without one."""
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


class GreyDepth(NamedTuple):
    """The range of a gray image's values.

    Attributes
    ----------
    declared
        The largest value by the file's own word, or None where it has none.
    is_exact
        Whether values were scaled to 16 bits already.
    """

    declared: int | None
    is_exact: bool = False

    def to_8_bits(self, grey: np.ndarray) -> tuple[np.ndarray, str]:
        """Scale values to 0–255.

        Returns
        -------
        tuple
            The values as uint8, and a note where they were not scaled by the full 16 bits.
        """
        grey = grey.clip(0, _FULL)  # times 255 it still fits into 32 bits
        white = self._white(int(grey.max(initial=0)))
        scaled = (grey * 255 // white).astype(np.uint8)
        bits = white.bit_length()
        return scaled, "" if white == _FULL else f"{bits} bits in 16, scaled by {white}"

    def _white(self, largest: int) -> int:
        if self.is_exact:
            return _FULL
        if self.declared is not None:
            return self.declared if largest <= self.declared else _FULL
        return _TWELVE_BITS if largest <= _TWELVE_BITS else _FULL


def grey_depth(image: Image.Image, content: bytes) -> GreyDepth | None:
    """Return the range of a 16-bit gray image that is opened and not yet loaded; else None."""
    if not image.mode.startswith("I"):
        return None
    if image.format == "PNG":
        bits = significant_bits(content)
        return GreyDepth(None if bits is None else (1 << bits) - 1)
    if image.format == "TIFF":
        return GreyDepth(_declared_by_tiff(image))
    # Of a PPM whose largest value is below 65,535 Pillow scales the values itself.
    tiles = getattr(image, "tile", [])
    return GreyDepth(None, is_exact=bool(tiles) and tiles[0].codec_name != "raw")


def has_lost_bits(image: Image.Image, content: bytes) -> bool:
    """Whether a loaded color image had 12 bits in 16, of which Pillow keeps the upper 8."""
    if image.mode.startswith("I") or not _has_16_bits(image, content):
        return False
    colors = image.getextrema()
    bands = colors if isinstance(colors[0], tuple) else (colors,)
    names = image.getbands()
    return all(
        high < 1 << _LOST_BITS for name, (_, high) in zip(names, bands, strict=True) if name != "A"
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
    if largest is not None and 0 < largest < _FULL:
        return largest
    bits = _first(tags.get(_TIFF_BITS_PER_SAMPLE))
    return (1 << bits) - 1 if bits is not None and 8 < bits < 16 else None


def _first(value: object) -> int | None:
    one = value[0] if isinstance(value, tuple) and value else value
    return one if isinstance(one, int) else None
