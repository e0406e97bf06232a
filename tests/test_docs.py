"""What the documentation names is there."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
DOCS = TESTS.parent / "docs"
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)::(\w+)`")


def named_tests() -> list[tuple[str, str]]:
    text = (DOCS / "threats.md").read_text(encoding="utf-8")
    return sorted(set(NAMED.findall(text)))


@pytest.mark.parametrize(("file", "name"), named_tests(), ids=lambda value: value)
def test_every_test_that_the_threats_name_is_there(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_line_of_the_threats_names_a_test() -> None:
    lines = (DOCS / "threats.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    bare = [row for row in rows if not NAMED.search(row) and not row.startswith("| can reach ")]
    assert not bare and len(rows) > 30


def command_rows(readme: str) -> list[str]:
    text = (DOCS.parent / readme).read_text(encoding="utf-8")
    return [row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| `")]


def test_both_readmes_list_the_same_commands() -> None:
    assert command_rows("README.md") == command_rows("README.ko.md")
    assert len(command_rows("README.md")) > 15


def test_the_readme_lists_every_command() -> None:
    from flows.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands}
    listed = set(re.findall(r"`affectgap ([a-z-]+)", "\n".join(command_rows("README.md"))))
    assert {name.replace("_", "-") for name in commands} <= listed


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*DOCS.parent.glob("*.md"), *DOCS.glob("**/*.md")]
    broken = [
        f"{page.name}: {target}"
        for page in pages
        for target in re.findall(r"\]\((?!https?://)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken


def test_the_map_of_contributing_names_files_that_exist() -> None:
    text = (DOCS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tasks|flows|tests|presets|docs|benchmarks)/[\w./-]*)`", text))
    assert len(named) > 40
    assert not sorted(path for path in named if not (DOCS.parent / path).exists())
