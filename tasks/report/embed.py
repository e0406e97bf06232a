"""Pictures inside the page: PNG as base64, made small enough that the page stays light."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

# Bytes of a figure: together, in base64, they stay below 8 MB. Pictures of faces get the most.
BUDGET_BYTES = 220_000
BUDGETS_BYTES = {
    "augmentation": 500_000,
    "crops": 800_000,
    "lime_base": 1_150_000,
    "lime_finetuned": 1_150_000,
    "test_pictures": 800_000,
}
_WIDEST_PX, _NARROWEST_PX = 1800, 320
_COLOURS = 256


@dataclass(frozen=True)
class Embedded:
    """A picture as a data URI, with its size in the page's pixels."""

    uri: str
    width_px: int
    height_px: int


def embed(path: Path, budget_bytes: int = BUDGET_BYTES) -> Embedded:
    """Return a picture as a PNG data URI of at most about `budget_bytes`.

    A picture that is too large is given a palette of 256 colours, and then narrowed until it fits
    (or is 320 px wide).
    """
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    width = min(picture.width, _WIDEST_PX)
    while True:
        sized = _narrowed(picture, width)
        content = _png(sized)
        if len(content) > budget_bytes:
            content = _png(sized.quantize(_COLOURS, dither=Image.Dither.NONE))
        if len(content) <= budget_bytes or width <= _NARROWEST_PX:
            break
        # Bytes grow with the area, so this is near the widest that fits.
        width = max(_NARROWEST_PX, int(0.95 * width * (budget_bytes / len(content)) ** 0.5))
    text = base64.b64encode(content).decode("ascii")
    return Embedded(f"data:image/png;base64,{text}", *sized.size)


def _narrowed(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
