"""Names that strangers may give a group, a person, a data set, a file or a model."""

import re
from html.parser import HTMLParser

NASTY = (
    "$x$",
    "a$$b",
    r"$\frac{$",
    "a|b",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[/red]",
    "[bold]x",
    ":smile:",
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-a",
    "@SUM(A1)",
    "'=quoted",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\x9b31m",
    "two\nlines",
    "two\r\nlines",
    "\tindented",
    "error: x\nerror: false",
    "\u202eabc",
    "`ticks`",
    "``",
    "**bold**",
    "[link](javascript:alert(1))",
    "{{x}}",
    "{% raw %}",
    "%s%n",
    "--help",
    "../../up",
    "\\",
    "\udcff",
    "한국",
    "L" * 10_000,
)
_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
# Those that a table or a database can hold.
IN_TABLES = tuple(name for name in NASTY if "\udcff" not in name)


def short(name: object) -> str:
    """Name a test by what it is given."""
    return ascii(name)[:24]


def has_controls(text: str) -> bool:
    """Whether a terminal would act upon a text, line breaks apart."""
    return _CONTROLS.search(text) is not None


class Tags(HTMLParser):
    """The elements of a page with their attributes' names, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def cells(row: str) -> int:
    """Count the cells of a row of a Markdown table: by bars that no backslash escapes."""
    bars, escaped = 0, False
    for letter in row:
        bars += letter == "|" and not escaped
        escaped = letter == "\\" and not escaped
    return bars - 1
