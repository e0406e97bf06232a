"""Pictures inside the page: PNG as base64, made small enough that the page stays light."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

BUDGET_BYTES = 560_000  # a figure; ten of them, in base64, stay below 8 MB
_WIDTHS_PX = (1800, 1600, 1400, 1200, 1000, 800, 640)
_COLOURS = 256


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in the page's pixels."""

    uri: str
    width_px: int
    height_px: int


def embed(path: Path, budget_bytes: int = BUDGET_BYTES) -> Embedded:
    """Return a picture as a PNG data URI of at most about `budget_bytes`.

    A picture that is too large is first given a palette of 256 colours, then narrowed step by
    step; the narrowest step is taken whatever it weighs.
    """
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    content = b""
    widest = min(picture.width, _WIDTHS_PX[0])
    for width in (widest, *(width for width in _WIDTHS_PX if width < widest)):
        sized = _narrowed(picture, width)
        content = _png(sized)
        if len(content) <= budget_bytes:
            break
        content = _png(sized.quantize(_COLOURS, dither=Image.Dither.NONE))
        if len(content) <= budget_bytes:
            break
    text = base64.b64encode(content).decode("ascii")
    return Embedded(f"data:image/png;base64,{text}", *sized.size)


def _narrowed(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
