"""What a section of the page is made of: sentences, tables, and what is missing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Cell:
    """A figure with its interval; `tone` is gain, loss, bad or ""."""

    text: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the page.

    Attributes
    ----------
    caption
        What its figures are, and of which pictures.
    head
        The columns' titles.
    rows
        A row is one cell a column.
    words
        Titles of the columns that hold words: they are set to the left. The first one always is.
    wide
        Titles of the columns whose words may take several lines.
    how
        How the figures were made, in the words of the audit; behind a line that opens it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[str] = ()
    wide: Sequence[str] = ()
    how: Sequence[str] = ()

    def kind(self, place: int) -> str:
        """Return the style of a column."""
        title = self.head[place]
        return "text wrap" if title in self.wide else "text" if title in self.words else ""


@dataclass(frozen=True)
class Block:
    """A section's content.

    Attributes
    ----------
    said
        Sentences, each with its count and interval.
    tables
        Tables that are open.
    more
        Tables behind a line that opens them: the line and the table.
    missing
        Why there is nothing to show; "" where there is.
    """

    said: Sequence[str] = ()
    tables: Sequence[Table] = ()
    more: Sequence[tuple[str, Table]] = field(default_factory=tuple)
    missing: str = ""


def words_of(*texts: str) -> list[Cell]:
    """Return plain cells."""
    return [Cell(text) for text in texts]
