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
