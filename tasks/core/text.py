"""Text that comes from outside: cleaned at the door, recognized as missing, made safe to print.

Cleaning decides identity: an id, a label or a group is compared only after `clean`, so that the
spellings which look alike are one value. Printing decides nothing: `printable` and `csv_cell`
change what a terminal or a spreadsheet would act upon, never what is stored. So does `markdown`.

Ids that are easily confused (`S01` and `s01`, `007` and `7`) stay different subjects and are
listed, since only a person can decide whether they are one.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import lru_cache

# Characters that nobody sees: zero-width ones, marks of writing direction, soft hyphens.
_INVISIBLE = re.compile("[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")

# Spaces that only look like one: non-breaking, figure and ideographic spaces.
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")

# What a terminal, a log or a Markdown table would act upon, and halves of surrogate pairs.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)

# A spreadsheet takes a cell for a formula by its first character.
_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")

# What Markdown, and HTML within it, would act upon.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&$~]")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?%?")

# Words for a value that is not there, in lower case, in any column of any table. All that pandas
# takes for NaN are among them, so that no text of ours is lost where pandas reads a table.
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

# Zeros before a number; those behind a decimal point are part of it.
_LEADING_ZEROS = re.compile(r"(?<![0-9.])0+(?=[0-9])")

# What a spreadsheet adds to a whole number that it took for a measurement.
_DECIMAL_ZEROS = re.compile(r"(?<=[0-9])\.0+$")
_SHOWN = 5


def clean(text: str) -> str:
    """Return the one spelling under which a text is compared and stored.

    Unicode NFC, without invisible characters, every kind of space as a plain one, trimmed. Case is
    kept: `S01` and `s01` may be two people.
    """
    if text.isascii():
        return text.strip()
    composed = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return _SPACES.sub(" ", composed).strip()


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: empty, or one of `MISSING_WORDS` in any case."""
    return clean(text).casefold() in MISSING_WORDS


def clean_or_none(text: str | None) -> str | None:
    """Return the cleaned text, or None where it is missing (see `is_missing`)."""
    cleaned = "" if text is None else clean(text)
    return None if cleaned.casefold() in MISSING_WORDS else cleaned


def printable(text: str) -> str:
    r"""Return one line without control characters: a newline becomes `\n`, an escape `\x1b`."""
    return UNPRINTABLE.sub(_escape, text)


def markdown(text: object) -> str:
    """Return one line that Markdown shows as it is, also in a cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(str(text)))


def one_line(value: object, max_length: int = 160) -> str:
    """Return an error's text (or another value's) as part of a message: one printable line."""
    line = printable(" ".join(str(value).split()))
    return line if len(line) <= max_length else f"{line[: max_length - 1]}…"


def markdown_code(name: str) -> str:
    """Return a name as code in Markdown; as plain text where it would end that or a cell."""
    plain = printable(name)
    return markdown(plain) if "`" in plain or "|" in plain else f"`{plain}`"


def csv_cell(text: str) -> str:
    """Return a text cell that no spreadsheet takes for a formula; see `csv_text`.

    An apostrophe goes before a text that begins with `= + - @`, a tab or a line break, unless it
    is a plain number; a text that would be mistaken for such a cell gets one more.
    """
    return f"'{text}" if _FORMULA.match(text) and not _PLAIN_NUMBER.fullmatch(text) else text


def csv_text(cell: str) -> str:
    """Return the text that `csv_cell` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")


def find_lookalikes(subject_ids: Iterable[str]) -> dict[str, list[str]]:
    """Find ids that differ only in case, leading zeros, `.0` or the width of their characters.

    Parameters
    ----------
    subject_ids
        "<dataset>/<subject>"; people of two data sets are never compared.

    Returns
    -------
    dict
        Each such id, in order, to the other ids like it.
    """
    alike: dict[str, set[str]] = defaultdict(set)
    for name in subject_ids:
        alike[_key(name)].add(name)
    groups = [group for group in alike.values() if len(group) > 1]
    return {
        name: sorted(group - {name}) for group in sorted(groups, key=min) for name in sorted(group)
    }


def lookalikes_note(subject_ids: Iterable[str], of: Collection[str] | None = None) -> str:
    """Return one line that lists people whose ids are easily confused, "" where there are none.

    Parameters
    ----------
    subject_ids
        As for `find_lookalikes`.
    of
        Groups without one of these ids are left out; None: all groups count.
    """
    found = find_lookalikes(subject_ids)
    groups = {tuple(sorted([name, *others])) for name, others in found.items()}
    listed = sorted(group for group in groups if of is None or not set(of).isdisjoint(group))
    if not listed:
        return ""
    some = "; ".join(" and ".join(group) for group in listed[:_SHOWN])
    more = f"; and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return (
        "these ids differ only in case, leading zeros or `.0` and count as different people, so "
        f"correct them if they are one: {some}{more}"
    )


@lru_cache(maxsize=1 << 18)  # the inbox compares each batch with everyone there
def _key(subject_id: str) -> str:
    dataset, _, subject = subject_id.partition("/")
    plain = unicodedata.normalize("NFKC", subject).casefold()
    return f"{dataset}/{_LEADING_ZEROS.sub('', _DECIMAL_ZEROS.sub('', plain))}"
