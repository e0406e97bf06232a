"""Untrusted text: cleaned on input, recognized as missing, and escaped for output.

Cleaning defines identity: ids, labels and groups are compared only after `clean`, so that spellings
that look the same are one value. `printable`, `csv_cell` and `markdown` escape what a terminal, a
spreadsheet or Markdown would interpret; stored values do not change.

Ids that are easily confused (`S01` and `s01`, `007` and `7`) stay different subjects and are
listed, since only a person can decide whether they are the same.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import lru_cache

# Invisible characters: zero-width ones, marks of writing direction, soft hyphens.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")

# Characters that look like a space: non-breaking, figure and ideographic spaces.
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")

# Characters that terminals, logs or Markdown tables interpret, and unpaired surrogates.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# The first character makes a cell a formula in a spreadsheet.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")

# Characters with a meaning in Markdown, and in HTML within it.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&$~]")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")

# Words for a missing value, in lower case, in any column of any table. They include all that pandas
# reads as NaN, so that pandas does not drop a text that is stored.
MISSING_WORDS: frozenset[str] = frozenset(
    [
        *("", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "#nv", "nan", "-nan", "nat", "none"),
        *("#n/a n/a", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("null", "nil", "unknown", "unk", "missing", "not available", "not applicable"),
        *("not recorded", "-", "--", "---", "–", "—", "?", "??", "."),
        *("없음", "미상", "모름", "불명", "불상", "무응답", "해당없음", "해당 없음", "알수없음"),
        *("알 수 없음", "결측"),
    ]
)

_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")  # not those after a decimal point
_DECIMAL_ZEROS = re.compile(r"(?<=[0-9])\.0+$")  # appended by spreadsheets
_MAX_LISTED = 5


def clean(text: str) -> str:
    """Return the canonical spelling under which a text is compared and stored.

    It is in Unicode NFC, trimmed, without invisible characters, and with plain spaces. Case is
    significant: `S01` and `s01` may be two people.
    """
    if text.isascii():
        return text.strip()
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return _SPACES.sub(" ", composed).strip()


def is_missing(text: str) -> bool:
    """Return whether a cell is empty or one of `MISSING_WORDS` in any case."""
    return clean(text).casefold() in MISSING_WORDS


def clean_or_none(text: str | None) -> str | None:
    """Return the cleaned text, or None if it is missing (see `is_missing`)."""
    cleaned = "" if text is None else clean(text)
    return None if cleaned.casefold() in MISSING_WORDS else cleaned


def printable(text: str) -> str:
    r"""Escape control characters: a newline becomes `\n`, an escape `\x1b`."""
    return UNPRINTABLE.sub(_escape, text)


def markdown(text: object) -> str:
    """Escape a text as one line of Markdown, also for a cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(str(text)))


def one_line(value: object, max_length: int = 160) -> str:
    """Return an error's text (or another value's) as part of a message: one printable line."""
    line = printable(" ".join(str(value).split()))
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def markdown_code(name: str) -> str:
    """Format a name as code in Markdown, or as text if it would end the code or a cell."""
    plain = printable(name)
    return markdown(plain) if "`" in plain or "|" in plain else f"`{plain}`"


def csv_cell(text: str) -> str:
    """Escape a text that a spreadsheet would interpret as a formula; `csv_text` reverses it.

    A text that starts with `= + - @`, a tab or a line break gets an apostrophe in front, unless it
    is a plain number. So does a text that looks escaped already.
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """Return the original text of a cell made by `csv_cell`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def find_lookalikes(subject_ids: Iterable[str]) -> dict[str, list[str]]:
    """Find ids that differ only in case, leading zeros, `.0` or the width of their characters.

    Ids are "<dataset>/<subject>" and compared within a data set. Returns each such id, in order,
    with the others like it.
    """
    by_key: dict[str, set[str]] = defaultdict(set)
    for name in subject_ids:
        by_key[_key(name)].add(name)
    groups = [group for group in by_key.values() if len(group) > 1]
    return {
        name: sorted(group - {name}) for group in sorted(groups, key=min) for name in sorted(group)
    }


def lookalikes_note(subject_ids: Iterable[str], of: Collection[str] | None = None) -> str:
    """Return one line about subjects whose ids are easily confused, or "" if there are none.

    With `of`, only groups that contain one of these ids are listed.
    """
    lookalikes = find_lookalikes(subject_ids)
    groups = {tuple(sorted([name, *others])) for name, others in lookalikes.items()}
    groups = {group for group in groups if of is None or not set(of).isdisjoint(group)}
    if not groups:
        return ""
    listed = "; ".join(" and ".join(group) for group in sorted(groups)[:_MAX_LISTED])
    rest = f"; and {len(groups) - _MAX_LISTED} more" if len(groups) > _MAX_LISTED else ""
    return (
        "these ids differ only in case, leading zeros or `.0` and count as different people, so "
        f"correct them if they are one: {listed}{rest}"
    )


@lru_cache(maxsize=1 << 18)  # every batch in the inbox is compared with all known subjects
def _key(subject_id: str) -> str:
    dataset, _, subject = subject_id.partition("/")
    plain = unicodedata.normalize("NFKC", subject).casefold()
    return f"{dataset}/{_LEADING_ZEROS.sub('', _DECIMAL_ZEROS.sub('', plain))}"
