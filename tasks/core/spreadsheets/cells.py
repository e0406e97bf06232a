"""Cells that a spreadsheet changed: dates that it made of ranges, numbers that it shortened.

Excel reads `3-9` as the 3rd of September and stores that. Whoever saves the table as CSV writes
`3-Sep` where an age band or an id stood, and the original text is gone.
"""

import re

_MONTH = (
    r"(?:jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|"
    r"january|february|march|april|june|july|august|september|october|november|december)"
)
# What no one types as an id: a day and a month, or a date with the time 00:00:00.
_SHORT_DATE = re.compile(
    rf"\d{{1,2}}\.?[- ]{_MONTH}\.?(?:[- ]\d{{2,4}})?|{_MONTH}\.?[- ]\d{{1,4}}"
    r"|\d{1,2}월 ?\d{1,2}일|\d{4}-\d{2}-\d{2}[ T]00:00:00",
    re.IGNORECASE,
)
_FULL_DATE = re.compile(
    r"\d{4}[-/.] ?\d{1,2}[-/.] ?\d{1,2}\.?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{1,2}/\d{1,2}"
)
_SUSPECT = re.compile("[-./ +월]")  # one of these is in every cell that a spreadsheet spoils
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2}")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?%?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


def spreadsheet_date(text: str, in_ids: bool) -> bool:
    """Whether a cell is a date that a spreadsheet made of something else.

    Parameters
    ----------
    text
        The cell.
    in_ids
        True: the column holds ids, in which a full date such as `2024-09-03` may be meant. False:
        it holds ages or age bands, in which no date is.
    """
    if _SHORT_DATE.fullmatch(text):
        return True
    return not in_ids and _FULL_DATE.fullmatch(text) is not None


def shortened_number(text: str) -> bool:
    """Whether a cell is a long number without its last digits, such as `1.23457E+11`."""
    return _SHORTENED.fullmatch(text) is not None


def why_spoiled(text: str, in_ids: bool) -> str | None:
    """Return what a spreadsheet did to a cell, and the remedy; None where it did nothing."""
    if not _SUSPECT.search(text):
        return None
    if spreadsheet_date(text, in_ids):
        return (
            f"'{text}' is a date, which a spreadsheet makes of a cell such as 3-9; format the "
            "column as text and enter it again"
        )
    if in_ids and shortened_number(text):
        return (
            f"'{text}' is a number whose last digits a spreadsheet left out; format the column as "
            "text and enter it again"
        )
    return None


def decimal_point(text: str, separator: str) -> str:
    """Return a number with a decimal point where it has a decimal comma; other text as it is.

    In a table that commas separate, `1,234` may be a thousand and stays as it is.
    """
    if "," not in text or not _DECIMAL_COMMA.fullmatch(text):
        return text
    if separator in ("", ",") and _THOUSANDS.fullmatch(text):
        return text
    return text.replace(",", ".")
