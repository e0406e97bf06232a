"""The model card of a version: what it was made from, how it reads whom, and what it is not for.

After M. Mitchell et al. (2019), Model cards for model reporting, FAT* 2019. Every figure comes from
the tables of the run that made the model. The same content is written as Markdown and as HTML that
opens offline, into registry/cards/ and beside the model's files in the store.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlflow import MlflowClient

from tasks.core.files import write_text
from tasks.core.models.checkpoint import load_spec
from tasks.core.paths import Paths
from tasks.core.render import render
from tasks.core.text import markdown
from tasks.register.kept_files import ARTEFACT

FOLDER = "cards"  # below registry/
_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Table:
    """A table of a card: its rows are text, numbers to the right from column `texts` on."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    texts: int = 1


@dataclass(frozen=True)
class Section:
    """A part of a card: sentences, then points, then tables."""

    title: str
    said: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """A card, before it is Markdown or HTML; `notice` stands above everything and all tables."""

    title: str
    notice: str
    sections: list[Section]


def write_cards(
    paths: Paths,
    client: MlflowClient,
    model: Path,
    number: int,
    run_id: str,
    tags: Mapping[str, str],
) -> list[Path]:
    """Write a version's card, unless it is there; return its files (Markdown, HTML).

    A card of that number with other weights is of a version in a store that is gone: it is
    replaced.

    Parameters
    ----------
    paths
        The project's paths; the tables are those of the run that made the model.
    client, run_id
        The store's client, and the run that holds the version's files.
    model
        The model's folder.
    number, tags
        The version.
    """
    from tasks.register.card_content import build_card

    folder = paths.registry / FOLDER
    files = [folder / f"{number}.md", folder / f"{number}.html"]
    named = f"({load_spec(model).version})"  # in the title
    if all(file.is_file() and named in file.read_text(encoding="utf-8") for file in files):
        return files
    card = build_card(paths, model, number, tags)
    texts = (as_markdown(card), render(_TEMPLATES, "card.html.j2", {"card": card}))
    for file, text in zip(files, texts, strict=True):
        kept = f"{ARTEFACT}/card{file.suffix}"
        client.log_text(run_id, text, kept)
        write_text(file, text)
    return files


def as_markdown(card: Card) -> str:
    """Write a card as Markdown."""
    parts = [f"# {_plain(card.title)}"]
    if card.notice:
        parts.append(f"> **{_plain(card.notice)}**")
    for section in card.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_plain(sentence) for sentence in section.said]
        if section.tables and card.notice:
            parts.append(f"*{_plain(card.notice)}*")
        if section.points:
            parts.append("\n".join(f"- {_plain(point)}" for point in section.points))
        for table in section.tables:
            parts += [_plain(table.caption), _table(table)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    rule = ["---" if number < table.texts else "---:" for number in range(len(table.head))]
    rows = [table.head, rule, *table.rows]
    cells = ([cell if row is rule else _plain(cell) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _plain(text: str) -> str:
    """Write names that others chose so that Markdown takes them as they are."""
    return markdown(html.unescape(text))
