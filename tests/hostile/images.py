"""Hostile images: every format that is read, damaged in general and where its own format hurts."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from hostile.campaign import mutate, require_line
from PIL import Image, PngImagePlugin

from tasks.core.imaging.decode import BadImageError, decode

MAX_PIXELS = 4_000_000
REASONS = frozenset(
    ["empty", "not_an_image", "too_large", "animated", "unsupported", "damaged", "unreadable"]
)
_SIDE_PX = 40
_ORIENTATION = 0x0112
_LARGE = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def check_image(random: Random, _folder: Path) -> str:
    """Decode a hostile image: a complete picture, or a rejection with a reason and one line."""
    return decoded(hostile_image(random))


def decoded(content: bytes) -> str:
    """Decode bytes, check what comes back and return the reason, or "accepted"."""
    try:
        image = decode(content, MAX_PIXELS)
    except BadImageError as error:
        assert error.reason in REASONS or error.reason.islower(), error.reason
        require_line(error.detail, 400)
        return f"{error.reason}: MemoryError" * ("MemoryError" in error.detail) or error.reason
    height, width, channels = image.rgb.shape
    assert channels == 3 and image.rgb.dtype == np.uint8
    assert 0 < height * width <= MAX_PIXELS
    assert 1 <= image.exif_orientation <= 8
    return "accepted"


def hostile_image(random: Random) -> bytes:
    """Build one: a sound image of some format, damaged by its format's rules or in general."""
    name, content = random.choice(sorted(corpus().items()))
    special = _SPECIAL.get(name.split("-")[0])
    if special and random.random() < 0.6:
        content = special(content, random)
        return mutate(content, random, 1) if random.random() < 0.2 else content
    return mutate(content, random)


@cache
def corpus() -> dict[str, bytes]:
    """Return small sound images by format and variant."""
    noise = np.random.default_rng(1).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    rgb = Image.fromarray(noise)
    gray, alpha = rgb.convert("L"), rgb.convert("RGBA")
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    turned = Image.Exif()
    turned[_ORIENTATION] = 6
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 200, zip=True)
    frames = {"save_all": True, "append_images": [gray.convert("RGB"), rgb]}
    found = {
        "jpeg-plain": _encoded(rgb, "JPEG"),
        "jpeg-exif": _encoded(rgb, "JPEG", exif=turned.tobytes(), progressive=True),
        "jpeg-gray": _encoded(gray, "JPEG"),
        "jpeg-cmyk": _encoded(rgb.convert("CMYK"), "JPEG"),
        "jpeg-mpo": _encoded(rgb, "MPO", save_all=True, append_images=[rgb]),
        "png-rgb": _encoded(rgb, "PNG", pnginfo=text),
        "png-alpha": _encoded(alpha, "PNG", exif=turned.tobytes()),
        "png-palette": _encoded(rgb.convert("P"), "PNG", transparency=0),
        "png-16": _encoded(deep, "PNG"),
        "png-bits": _encoded(rgb.convert("1"), "PNG", icc_profile=b"\0" * 500),
        "png-animated": _encoded(rgb, "PNG", **frames),
        "gif-plain": _encoded(rgb, "GIF"),
        "gif-animated": _encoded(rgb, "GIF", **frames),
        "webp-lossy": _encoded(rgb, "WEBP", exif=turned.tobytes()),
        "webp-lossless": _encoded(alpha, "WEBP", lossless=True),
        "webp-animated": _encoded(rgb, "WEBP", **frames),
        "bmp-rgb": _encoded(rgb, "BMP"),
        "bmp-palette": _encoded(rgb.convert("P"), "BMP"),
        "ppm-rgb": _encoded(rgb, "PPM"),
        "ppm-gray": _encoded(gray, "PPM"),
        "ppm-ascii": b"P3\n# text\n2 2\n255\n" + b" 9" * 12,
        "tiff-float": _encoded(gray.convert("F"), "TIFF"),
        "tiff-16": _encoded(deep, "TIFF"),
        "tiff-pages": _encoded(rgb, "TIFF", **frames),
        "other-heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + noise.tobytes()[:200],
        "other-text": b"<html>502 Bad Gateway</html>\n",
        "other-nothing": b"",
    }
    for packed in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"tiff-{packed}"] = _encoded(rgb, "TIFF", compression=packed)
    return found


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(content: bytes, random: Random) -> bytes:
    """Change chunks and mend their checksums, so that a decoder goes on to what they hold."""
    chunks = _png_chunks(content)
    at = random.randrange(len(chunks))
    name, data = chunks[at]
    what = random.randrange(7)
    if what == 0:
        chunks[at] = name, mutate(data, random)
    elif what == 1:
        chunks.insert(at, chunks[random.randrange(len(chunks))])
    elif what == 2:
        del chunks[at]
    elif what == 3:
        random.shuffle(chunks)
    elif what == 4:  # other dimensions, depth and kind of pixels
        head = bytearray(chunks[0][1])
        field = random.choice((0, 4, 8, 9, 12))
        raw = _number(random)[: 4 if field < 8 else 1]
        head[field : field + len(raw)] = raw
        chunks[0] = chunks[0][0], bytes(head)
    elif what == 5:  # a chunk that unpacks to megabytes
        bomb = zlib.compress(b"\0" * random.choice((1 << 16, 1 << 21, 1 << 24)))
        kind = random.choice(((b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"IDAT", b"")))
        chunks.insert(1, (kind[0], kind[1] + bomb))
    else:  # a length that is a lie
        raw = _png_of(chunks)
        place = random.choice([i for i in range(len(raw)) if raw[i : i + 4] == name] or [12])
        return raw[: place - 4] + _number(random) + raw[place:]
    return _png_of(chunks)


def _png_chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += length + 12
    return chunks


def _png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"\x89PNG\r\n\x1a\n"]
    for name, data in chunks:
        parts += [struct.pack(">I", len(data)), name, data]
        parts.append(struct.pack(">I", zlib.crc32(name + data)))
    return b"".join(parts)


def _jpeg(content: bytes, random: Random) -> bytes:
    """Change a segment: its length, its content (dimensions, tables, EXIF), or how often it is."""
    segments, at = [], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        segments.append((at, end))
        at = end
    start, end = random.choice(segments)
    segment = content[start:end]
    what = random.randrange(5)
    if what == 0:
        segment = segment[:2] + _number(random)[:2] + segment[4:]
    elif what == 1:
        segment = segment[:4] + mutate(segment[4:], random)
    elif what == 2:
        segment *= random.choice((0, 2, 50))
    elif what == 3:  # dimensions
        frame = next(s for s in segments if content[s[0] + 1] in (0xC0, 0xC2))
        place = frame[0] + random.choice((5, 7))
        return content[:place] + _number(random)[:2] + content[place + 2 :]
    else:
        segment = _exif_loop(random) + segment
    return content[:start] + segment + content[end:]


def _exif_loop(random: Random) -> bytes:
    """Return an APP1 segment whose EXIF directories lead to themselves."""
    loop = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 3)
    for tag in (_ORIENTATION, 0x8769, 0x8825):
        loop += struct.pack("<HHII", tag, random.choice((3, 4, 13, 0)), 1, random.choice((6, 8)))
    body = b"Exif\0\0" + loop + struct.pack("<I", 8)
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _tiff(content: bytes, random: Random) -> bytes:
    """Change a directory: its link, how many entries it has, and each entry's four fields."""
    changed = bytearray(content)
    order = "<" if content[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", changed, 4)
    (count,) = struct.unpack_from(order + "H", changed, at)
    after = at + 2 + 12 * count
    what = random.randrange(6)
    if what == 0:  # a directory that follows itself, or begins inside itself
        struct.pack_into(order + "I", changed, after, random.choice((at, at + 2, 0, 4, after)))
    elif what == 1:
        struct.pack_into(order + "H", changed, at, random.choice((0, 1, count + 1, 0xFFFF)))
    elif what == 2:  # a chain of directories
        return _with_chain(changed, at, after, order, random.choice((2, 50, 3000, 40_000)))
    else:
        entry = at + 2 + 12 * random.randrange(count)
        field, form = random.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I")))
        most = 0xFFFF if form == "H" else 0xFFFFFFFF
        number = min(most, random.choice((*_LARGE, random.randint(0, 400))))
        struct.pack_into(order + form, changed, entry + field, number)
    return bytes(changed)


def _with_chain(content: bytearray, at: int, link: int, order: str, length: int) -> bytes:
    """Append copies of a directory, each of which leads to the next."""
    directory, start = bytes(content[at:link]), len(content)
    struct.pack_into(order + "I", content, link, start)
    parts = [bytes(content)]
    for number in range(1, length + 1):
        following = start + number * (len(directory) + 4) if number < length else 0
        parts += [directory, struct.pack(order + "I", following)]
    return b"".join(parts)


def _fields(*places: tuple[int, int]) -> Callable[[bytes, Random], bytes]:
    """Make a mutation that writes a number into one of these places (offset, bytes)."""

    def change(content: bytes, random: Random) -> bytes:
        at, size = random.choice(places)
        raw = _number(random)[:size]
        return content[:at] + raw + content[at + len(raw) :]

    return change


def _ppm(content: bytes, random: Random) -> bytes:
    """Change a number of the header, which is text."""
    parts = content.split(maxsplit=4)
    at = random.randrange(min(4, len(parts)))
    numbers = (b"0", b"-1", b"65536", b"99999999", b"9" * 5000, b"1e9", b"\xd9\xa3", b"P7")
    parts[at] = random.choice(numbers)
    return random.choice((b" ", b"\n", b"\n# c\n")).join(parts)


def _number(random: Random) -> bytes:
    return struct.pack(random.choice(("<I", ">I")), random.choice((*_LARGE, random.randrange(999))))


_SPECIAL: dict[str, Callable[[bytes, Random], bytes]] = {
    "png": _png,
    "jpeg": _jpeg,
    "tiff": _tiff,
    "ppm": _ppm,
    "gif": _fields((6, 2), (8, 2), (10, 1), (11, 1)),
    "webp": _fields((4, 4), (16, 4), (20, 4), (24, 3), (27, 3), (30, 4)),
    "bmp": _fields((2, 4), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2), (30, 4), (46, 4)),
}
