"""How many bits of a 16-bit grey picture are used: cameras store 10, 12 or 14 bits in 16.

Read by the full range, such a picture is almost black.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from tasks.core.png_chunks import is_png, significant_bits

_FULL = 65_535
_TWELVE_BITS = 4_095
_PNG_DEPTH_AT = 24  # byte of a PNG with its bits per sample
_TIFF_BITS_PER_SAMPLE = 258
_TIFF_MAX_SAMPLE_VALUE = 281
_LOST_BITS = 4  # that Pillow would keep of 12 bits per color


class GreyDepth(NamedTuple):
    """The range of a grey picture's values.

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
    """Return the range of a 16-bit grey picture that is opened and not yet loaded; else None."""
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
    """Whether a loaded color picture had 12 bits in 16, of which Pillow keeps the upper 8."""
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
