"""Cells that a spreadsheet has corrupted: ranges turned into dates, numbers shortened.

Excel interprets `3-9` as the 3rd of September. Saved as CSV, the cell becomes `3-Sep`, and the age
band or id is lost.
"""

import re

_MONTH = (
    r"(?:jan|feb|mar|mär|mrz|apr|may|mai|jun|jul|aug|sep|sept|oct|okt|nov|dec|dez|"
    r"january|february|march|april|june|july|august|september|october|november|december)"
)
# Never meant as an id: a day and a month, or a date with the time 00:00:00.
_SHORT_DATE = re.compile(
    rf"\d{{1,2}}\.?[- ]{_MONTH}\.?(?:[- ]\d{{2,4}})?|{_MONTH}\.?[- ]\d{{1,4}}"
    r"|\d{1,2}월 ?\d{1,2}일|\d{4}-\d{2}-\d{2}[ T]00:00:00",
    re.IGNORECASE,
)
_FULL_DATE = re.compile(
    r"\d{4}[-/.] ?\d{1,2}[-/.] ?\d{1,2}\.?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{1,2}/\d{1,2}"
)
_SUSPECT = re.compile("[-./ +월]")  # every corrupted cell contains one of these
_SHORTENED = re.compile(r"\d(?:[.,]\d+)?E\+\d{2}")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?%?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+")


def spreadsheet_date(text: str, in_ids: bool) -> bool:
    """Return whether a cell is a date that a spreadsheet made from another text.

    In a column of ids (`in_ids`) a full date such as `2024-09-03` is accepted; in a column of ages
    or age bands no date is.
    """
    if _SHORT_DATE.fullmatch(text):
        return True
    return not in_ids and _FULL_DATE.fullmatch(text) is not None


def shortened_number(text: str) -> bool:
    """Return whether a cell is a long number without its last digits, such as `1.23457E+11`."""
    return _SHORTENED.fullmatch(text) is not None


def why_spoiled(text: str, in_ids: bool) -> str | None:
    """Return how a spreadsheet corrupted a cell, with the remedy; None if it did not."""
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
    """Replace the decimal comma of a number by a point; other text is returned unchanged.

    In a comma-separated table `1,234` may have a thousands separator and stays unchanged.
    """
    if "," not in text or not _DECIMAL_COMMA.fullmatch(text):
        return text
    if separator in ("", ",") and _THOUSANDS.fullmatch(text):
        return text
    return text.replace(",", ".")
