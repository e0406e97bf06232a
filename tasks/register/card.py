"""Model cards: data, performance by group, intended use and limits of a version.

After M. Mitchell et al. (2019), Model cards for model reporting, FAT* 2019. Every figure comes from
the tables of the run that made the model. The card is written as Markdown and as self-contained
HTML, into registry/cards/ and beside the model's files in the store.
"""

import html
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient

from tasks.core.files import write_text
from tasks.core.models.checkpoint import load_spec
from tasks.core.paths import Paths
from tasks.core.plotting.html import render
from tasks.core.text import markdown
from tasks.register.card_content import Card
from tasks.register.card_tables import Table
from tasks.register.version_artifacts import ARTEFACT

FOLDER = "cards"  # below registry/
_TEMPLATES = Path(__file__).with_name("templates")


def write_cards(
    paths: Paths,
    client: MlflowClient,
    model: Path,
    number: int,
    run_id: str,
    tags: Mapping[str, str],
) -> list[Path]:
    """Write a version's card, unless it exists, and return its files (Markdown, HTML).

    The tables below `paths` must be those of the run that made the model. A card with the same
    number and other weights, of a version in a deleted store, is replaced.
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
        client.log_text(run_id, text, f"{ARTEFACT}/card{file.suffix}")
        write_text(file, text)
    return files


def as_markdown(card: Card) -> str:
    """Return a card as Markdown."""
    parts = [f"# {_plain(card.title)}"]
    if card.notice:
        parts.append(f"> **{_plain(card.notice)}**")
    for section in card.sections:
        parts.append(f"## {_plain(section.title)}")
        parts += [_plain(sentence) for sentence in section.sentences]
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
    """Escape Markdown in text that contains names from the data."""
    return markdown(html.unescape(text))
