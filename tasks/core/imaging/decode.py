"""Decoding of untrusted images: completely decoded, upright, RGB, or rejected with a reason.

Pillow's `verify()` accepts truncated JPEGs, so images are decoded completely. The size in the
header is checked first, so that an image of 20,000 × 20,000 px costs nothing.
"""

import io
import os
import stat
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from tasks.core.imaging.formats import (
    GrayDepth,
    bomb_in_bytes,
    bomb_in_header,
    gray_depth,
    has_lost_bits,
    is_png,
    looks_like_a_image,
    readable_formats,
    unreadable_kind,
    without_profile_and_text,
)

# Wider than any camera's sensor (2026: 14,204 px); larger images are attacks on the memory.
MAX_SIDE_PX = 16_384

# Uncompressed 16-bit RGBA; a longer file contains more than its pixels.
_BYTES_PER_PIXEL = 8
_BYTES_OF_METADATA = 1 << 24

_ORIENTATION_TAG = 0x0112
# EXIF 2.32, tag Orientation: the transformation that makes the stored image upright.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Modes whose white is known; 32-bit integers, floats and LAB are not among them.
_MODES = frozenset(
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
)
# Formats whose other frames are previews and depth maps.
_WITH_PREVIEWS = frozenset(["MPO", "HEIF"])
_ALPHA_MODES = frozenset(["LA", "La", "PA", "RGBA", "RGBa"])


class BadImageError(Exception):
    """A file that cannot be used as an image: `reason` is a fixed word, `detail` explains it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image: `rgb` is `(H, W, 3)` uint8, upright according to its EXIF orientation.

    `exif_orientation` is the orientation that was applied, from 1 (upright) to 8. `note` describes
    how the values were scaled, or is "".
    """

    rgb: np.ndarray
    exif_orientation: int
    note: str = ""

    @property
    def exif_turned(self) -> bool:
        """Return whether the image was rotated or mirrored."""
        return self.exif_orientation != 1


class DecodedImage(NamedTuple):
    """A decoded Pillow image; see `Picture`."""

    image: Image.Image
    exif_orientation: int
    note: str


def decode(content: bytes, max_pixels: int) -> LoadedImage:
    """Decode an image completely into an array; see `decode_image`."""
    image, orientation, note = decode_image(content, max_pixels)
    return LoadedImage(np.asarray(image), orientation, note)


def decode_image(content: bytes, max_pixels: int) -> DecodedImage:
    """Decode an image completely to an upright Pillow image in mode RGB.

    Gray, palette and CMYK images are converted. 16-bit gray is scaled by the range that it uses
    (see `tasks.core.imaging.formats`). Transparent parts become white. Of a multi-image file of a
    camera (MPO, HEIC) the main image is used. Images with more than `max_pixels` pixels or a side
    above `MAX_SIDE_PX` are rejected before decoding.

    Raises
    ------
    BadImageError
        With reason `empty`, `not_an_image`, `too_large`, `animated`, `unsupported` or `damaged`.
    """
    if not content:
        raise BadImageError("empty", "the file has 0 bytes")
    if bomb := bomb_in_bytes(content):
        raise BadImageError("too_large", bomb)
    with _no_warnings:  # such as Pillow's bomb warning; the size is checked below
        try:
            return _decode(content, max_pixels)
        except BadImageError as error:
            if error.reason != "damaged" or not is_png(content):
                raise
            return _decode_stripped(content, max_pixels, error)


def _decode_stripped(content: bytes, max_pixels: int, error: BadImageError) -> DecodedImage:
    """Decode a PNG again without its color profile and texts, which Pillow limits to 1 MB."""
    for keep_orientation in (True, False):
        stripped = without_profile_and_text(content, keep_orientation)
        if len(stripped) < len(content):
            try:
                return _decode(stripped, max_pixels)
            except BadImageError:
                continue
    raise error


def _decode(content: bytes, max_pixels: int) -> DecodedImage:
    image = _open(content)
    try:
        _check_header(image, max_pixels)
        depth = gray_depth(image, content)
        image.load()
        if has_lost_bits(image, content):
            raise BadImageError(
                "unsupported",
                "16 bits per color, of which the lower ones hold the picture; convert to 8 bits",
            )
        orientation = _orientation(image)
        transpose = _TRANSPOSES.get(orientation)
        upright = image if transpose is None else image.transpose(transpose)
        rgb, note = _to_rgb(upright, depth)
    except BadImageError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything on malicious bytes
        raise BadImageError("damaged", _line(error)) from None
    return DecodedImage(rgb, 1 if transpose is None else orientation, note)


def read_content(path: Path, max_pixels: int) -> bytes:
    """Read an image file, unless it has more bytes than `max_pixels` pixels can need.

    Raises
    ------
    BadImageError
        With reason `unreadable` or `too_large`.
    """
    try:
        # Without O_NONBLOCK opening a pipe would block forever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        return read_descriptor(descriptor, max_pixels)
    except OSError as error:
        raise BadImageError("unreadable", error.strerror or str(error)) from None


def read_descriptor(descriptor: int, max_pixels: int) -> bytes:
    """Read an open file like `read_content`, and close it; may raise OSError."""
    limit = max_pixels * _BYTES_PER_PIXEL + _BYTES_OF_METADATA
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)  # `open` would fail for a folder and leave it open
        raise BadImageError("unreadable", "is no regular file")
    with open(descriptor, "rb") as handle:
        if status.st_size > limit:
            raise BadImageError("too_large", f"{status.st_size} bytes, more than {limit}")
        return handle.read(status.st_size)  # Python allocates as much as it is asked for


def read_image(path: Path, max_pixels: int) -> LoadedImage:
    """Read and decode a file; see `read_content` and `decode`."""
    return decode(read_content(path, max_pixels), max_pixels)


class _IgnoreWarnings:
    """Thread-safe context manager that ignores warnings while any thread decodes.

    With `warnings.catch_warnings` a thread could save the filters that another one had set, and
    leave warnings off permanently.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._filters.__exit__(None, None, None)


_no_warnings = _IgnoreWarnings()


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=readable_formats())
    except Image.DecompressionBombError as error:
        raise BadImageError("too_large", _line(error)) from None
    except UnidentifiedImageError:
        if looks_like_a_image(content):
            raise BadImageError("damaged", "the header is broken") from None
        if kind := unreadable_kind(content):
            raise BadImageError("unsupported", kind) from None
        raise BadImageError("not_an_image", "no picture format that is read here") from None
    except Exception as error:  # noqa: BLE001 - decoders raise anything on malicious bytes
        raise BadImageError("damaged", _line(error)) from None


def _check_header(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImageError("too_large", f"{width} x {height} px, more than {max_pixels} pixels")
    if max(width, height) > MAX_SIDE_PX:
        raise BadImageError("too_large", f"{width} x {height} px, a side above {MAX_SIDE_PX} px")
    if bomb := bomb_in_header(image, max_pixels):
        raise BadImageError("too_large", bomb)
    # `n_frames` would walk through all frames of a TIFF in quadratic time.
    if getattr(image, "is_animated", False) and image.format not in _WITH_PREVIEWS:
        raise BadImageError("animated", "several frames; give single pictures")
    # 16-bit PPM has mode "I" with the full range 0–65535; in a TIFF "I" is 32 bits.
    gray_16 = image.mode.startswith("I;16") or (
        image.mode == "I" and image.format in ("PPM", "PNG")
    )
    if image.mode not in _MODES and not gray_16:
        raise BadImageError("unsupported", f"pixels of kind {image.mode}; convert to 8-bit RGB")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data does not matter if the pixels are fine
        return 1


def _to_rgb(image: Image.Image, depth: GrayDepth | None) -> tuple[Image.Image, str]:
    if depth is not None:
        gray, note = depth.to_8_bits(np.asarray(image.convert("I"), dtype=np.int32))
        return Image.fromarray(gray).convert("RGB"), note
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB"), ""


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
