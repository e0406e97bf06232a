"""The content of a report section: sentences and tables, or why there are none."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

TEMPLATES = Path(__file__).parents[1] / "templates"

# Bytes per figure. All of them stay below 8 MB in base64; figures with faces get the most.
BUDGET_BYTES = 220_000
BUDGETS_BYTES = {
    "augmentation": 500_000,
    "crops": 800_000,
    "lime_base": 1_150_000,
    "lime_finetuned": 1_150_000,
    "example_images": 800_000,
}
_WIDEST_PX, _NARROWEST_PX = 1800, 320
_COLORS = 256


@dataclass(frozen=True)
class Cell:
    """A number with its interval; `tone` is gain, loss, bad or ""."""

    text: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page."""

    caption: str
    head: Sequence[str]  # titles of the columns
    rows: Sequence[Sequence[Cell]]
    text_columns: Sequence[str] = ()  # titles of left-aligned columns, besides the first
    wrapped_columns: Sequence[str] = ()  # titles of text columns that may take several lines
    methods: Sequence[str] = ()  # how the numbers were computed; collapsed below the table
    row_styles: Sequence[str] = ()  # "first" (everyone), "cross" (two dimensions) or ""

    def style(self, column: int) -> str:
        """Return the CSS classes of a column."""
        title = self.head[column]
        if title in self.wrapped_columns:
            return "text wrap"
        return "text" if title in self.text_columns else ""


@dataclass(frozen=True)
class Block:
    """A section's content."""

    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    collapsed: Sequence[tuple[str, Table]] = ()  # each with the line that opens it
    missing: str = ""  # why there is nothing to show


def plain(*texts: str) -> list[Cell]:
    """Return cells without intervals."""
    return [Cell(text) for text in texts]


def group_row_style(group: Mapping[str, str]) -> str:
    """Return the row style of a group, given as dimension to value."""
    return {0: "first", 2: "cross"}.get(len(group), "")


@dataclass(frozen=True)
class Embedded:
    """An image as a data URI, with its size in pixels."""

    uri: str
    width_px: int
    height_px: int


def embed(path: Path, budget_bytes: int = BUDGET_BYTES) -> Embedded:
    """Return an image as a PNG data URI of about `budget_bytes` at most.

    An image that is too large gets a palette of 256 colors and is then narrowed until it fits, but
    not below 320 px.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    width = min(image.width, _WIDEST_PX)
    while True:
        resized = _resized(image, width)
        content = _png(resized)
        if len(content) > budget_bytes:
            content = _png(resized.quantize(_COLORS, dither=Image.Dither.NONE))
        if len(content) <= budget_bytes or width <= _NARROWEST_PX:
            break
        # Bytes grow with the area, so this is close to the widest that fits.
        width = max(_NARROWEST_PX, int(0.95 * width * (budget_bytes / len(content)) ** 0.5))
    text = base64.b64encode(content).decode("ascii")
    return Embedded(f"data:image/png;base64,{text}", *resized.size)


def _resized(image: Image.Image, width: int) -> Image.Image:
    if image.width <= width:
        return image
    height = max(1, round(image.height * width / image.width))
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
