"""Reads another system's predictions from any form of table, row by row.

Every row of the file is audited or rejected with its line and reason. Faults that would make the
figures wrong for all rows, such as an unknown emotion or probabilities of unknown scale, stop the
audit.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tasks.audit.settings import NUMBERS
from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS, EMOTIONS, GENDER_WORDS, UNKNOWN
from tasks.core.spreadsheets.cells import decimal_point, why_spoiled
from tasks.core.spreadsheets.text_table import Misfit, NamedTable, read_named_table
from tasks.core.tables import check_conservation
from tasks.core.text import MISSING_WORDS, clean, csv_text, one_line, printable

PROBABILITIES = tuple(f"p_{name}" for name in EMOTIONS)
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "y", "t", "wahr", "vrai", "예", "참"), True),
    **dict.fromkeys(
        ("false", "0", "0.0", "no", "n", "f", "falsch", "faux", "아니오", "거짓"), False
    ),
}
_NEEDED = frozenset(["emotion", "y_pred"])
_TRANSLATED = ("emotion", "y_pred", "seen_in_training")
_SPOILED_BY_EXCEL = ("age_band", "age_years", "subject_id", "image_id")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_TOLERANCE = 0.02  # of the sum of an image's probabilities, relative: room for rounded ones
_LISTED = 5
_QUOTED = 60  # characters of a cell


@dataclass(frozen=True)
class Predictions:
    """The contents of a file of predictions.

    The index of `frame`, the audited rows, is their line in the file. `rejects` has `line, reason,
    detail` of the other rows. `notes` are sentences on how the file was read. With any `separator`
    but a comma, numbers may have decimal commas.
    """

    frame: pd.DataFrame
    rejects: pd.DataFrame
    notes: tuple[str, ...]
    separator: str


def read_predictions(path: Path) -> Predictions:
    """Read a table of predictions.

    Where their cells are empty or hold a word for missing, `seen_in_training` is missing, `y_pred`
    "unknown", and other words are "". Rows without an `emotion` are rejected.

    Raises
    ------
    DataError
        One line: no table, columns that are missing or contradict each other, unknown labels, a
        word where a number belongs, probabilities of unknown scale, or not one row to audit.
    """
    table = read_named_table(path, _column, _NEEDED.issubset)
    _check_header(table, path)
    frame, notes = _cells(table), [*table.notes]
    check_spoiled(frame, _SPOILED_BY_EXCEL, path)
    rejects = _rejects(table, frame)
    rows_in = len(frame) + len(table.misfits)
    frame = frame[frame["emotion"] != ""]
    check_conservation("audit", rows_in, len(frame), len(rejects))
    if frame.empty:
        first = rejects.iloc[0]
        raise DataError(
            f"{path}: none of its {rows_in} rows can be audited (line {first['line']} "
            f"{first['detail']})"
        )
    if table.short:
        lines = f"line {table.short[0]}" + " and others" * (len(table.short) > 1)
        notes.append(f"rows with fewer cells than the header were filled with nothing ({lines})")
    frame = _in_our_words(frame, path)
    frame, more = _with_numbers(frame, table.separator, path)
    notes += [*more, *_similar_ids(frame)]
    return Predictions(frame, rejects, tuple(notes), table.separator)


def numbers_of(column: pd.Series, name: str, separator: str, path: Path) -> pd.Series:
    """Read numbers; an empty cell is NaN, and a word stops the audit with its line."""
    if pd.api.types.is_numeric_dtype(column):
        return column
    texts = {text: decimal_point(text, separator) for text in set(column.tolist())}
    changed = [text for text, plain in texts.items() if text != plain]
    if changed and any("." in text for text in texts):
        dotted = next(text for text in texts if "." in text)
        raise DataError(
            f"{path}: column {name} has decimal commas and points ({printable(changed[0])!r}, "
            f"{printable(dotted)!r}); write one of them"
        )
    numbers = pd.to_numeric(column.map(texts), errors="coerce").astype(float)
    wrong = (numbers.isna() & (column != "")) | np.isinf(numbers)
    if wrong.any():
        word = printable(str(column[wrong].iloc[0]))
        line = column.index[wrong.to_numpy()][0]
        raise DataError(f"{path}: column {name} has no number in line {line}: {word!r}")
    return numbers


def _column(cell: str) -> str:
    """Bring a column's name to the project's: `P_Happy` is `p_happiness`; `p_id` stays `p_id`."""
    plain = clean(_CONTROL.sub(" ", cell)).lower()
    emotion = EMOTION_WORDS.get(plain.removeprefix("p_")) if plain.startswith("p_") else None
    return plain if emotion is None else f"p_{emotion}"


def _check_header(table: NamedTable, path: Path) -> None:
    if not table.columns:
        raise DataError(f"{path}: is empty; it cannot be read as CSV")
    if absent := sorted(_NEEDED - {*table.columns}):
        has = printable(", ".join(table.columns))
        raise DataError(f"{path}: lacks the column(s) {', '.join(absent)} (it has {has})")
    if not (table.rows or table.misfits):
        raise DataError(f"{path}: has a header but no rows")


def _cells(table: NamedTable) -> pd.DataFrame:
    """Return the cells, cleaned, with "" for what is missing; the index is the line."""
    lines = pd.Index([row.line for row in table.rows], name="line")
    columns = zip(*(row.cells for row in table.rows), strict=True)
    found: dict[str, pd.Series] = {}
    for name, cells in zip(table.columns, columns, strict=False):
        numbers = _plain_numbers(cells) if name in (*PROBABILITIES, *NUMBERS) else None
        if numbers is None:
            plain = {text: _cell(text) for text in set(cells)}
            found[name] = pd.Series([plain[cell] for cell in cells], lines, dtype="str")
        else:
            found[name] = pd.Series(numbers, lines)
    return pd.DataFrame(found, lines, columns=list(table.columns))


def _cell(text: str) -> str:
    plain = csv_text(clean(text))
    if not plain.isprintable():  # line breaks within a cell, and what would forge a name of ours
        plain = clean(_CONTROL.sub(" ", plain))
    return "" if plain.casefold() in MISSING_WORDS else plain


def _plain_numbers(cells: Sequence[str]) -> np.ndarray | None:
    """Return a column of numbers without any cell that is something else; None for others."""
    if any("_" in cell for cell in cells):  # Python reads 1_000
        return None
    try:
        numbers = np.array(list(map(float, cells)))
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def check_spoiled(frame: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    """Reject columns in which a spreadsheet changed cells, since their contents are lost.

    `frame` is that of `Predictions`. Full dates are allowed outside ages and age bands.
    """
    for name in names:
        if name not in frame.columns or pd.api.types.is_numeric_dtype(frame[name]):
            continue
        cells = frame[name].tolist()
        dated = not name.startswith("age_")
        why = {text: why_spoiled(text, in_ids=dated) for text in set(cells)}
        places = [at for at, text in enumerate(cells) if why[text]]
        if places:
            count = "1 cell" if len(places) == 1 else f"{len(places)} cells"
            raise DataError(
                f"{path}: column {name} has {count} that a spreadsheet changed (first in line "
                f"{frame.index[places[0]]}): {printable(why[cells[places[0]]] or '')}"
            )


def _rejects(table: NamedTable, frame: pd.DataFrame) -> pd.DataFrame:
    detail = "has no label in the column emotion"
    rows = [*table.misfits, *(Misfit(at, "no_label", detail) for at in _without_label(frame))]
    return pd.DataFrame(sorted(rows), columns=["line", "reason", "detail"])


def _without_label(frame: pd.DataFrame) -> list[int]:
    return list(frame.index[(frame["emotion"] == "").to_numpy()])


def _in_our_words(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Translate emotions, answers, genders and what was seen in training."""
    frame = frame.copy()
    frame["emotion"] = _translated(frame["emotion"], EMOTION_WORDS, path)
    answers = {**EMOTION_WORDS, "": UNKNOWN}  # an image without an answer is counted
    frame["y_pred"] = _translated(frame["y_pred"], answers, path)
    if "seen_in_training" in frame.columns:
        seen = _translated(frame["seen_in_training"], {**_BOOLEANS, "": None}, path)
        frame["seen_in_training"] = seen.astype("boolean")
    if "gender" in frame.columns:  # categories of another system's own stay as they are
        words = frame["gender"].str.lower().map(dict(GENDER_WORDS))
        frame["gender"] = words.where(words.notna(), frame["gender"])
    return frame


def _translated(column: pd.Series, words: Mapping[str, object], path: Path) -> pd.Series:
    """Translate labels; unknown ones are named with the line of the first."""
    plain = column.str.lower()
    unknown = ~plain.isin(list(words))
    if unknown.any():
        some = sorted(set(column[unknown]))
        listed = ", ".join(repr(one_line(word, _QUOTED)) for word in some[:_LISTED])
        listed += ", …" if len(some) > _LISTED else ""
        raise DataError(
            f"{path}: column {column.name} has {int(unknown.sum())} unknown label(s): {listed} "
            f"(first in line {column.index[unknown.to_numpy()][0]}); known are "
            f"{', '.join(filter(None, map(str, words)))}"
        )
    return plain.map(dict(words))


def _with_numbers(
    frame: pd.DataFrame, separator: str, path: Path
) -> tuple[pd.DataFrame, list[str]]:
    """Read the columns of numbers; percentages become shares, with a note."""
    notes = []
    columns = [name for name in PROBABILITIES if name in frame.columns]
    if columns and _have_percent_signs(frame[columns], path):
        frame[columns] = frame[columns].apply(
            lambda column: column.str.removesuffix("%").str.strip()
        )
        signs = True
    else:
        signs = False
    for name in (*columns, *(name for name in NUMBERS if name in frame.columns)):
        frame[name] = numbers_of(frame[name], name, separator, path)
    if columns and (signs or _are_percentages(frame[columns], path)):
        frame[columns] = frame[columns] / 100
        notes.append("the columns p_<emotion> hold percentages and were divided by 100")
    if columns:
        notes += _odd_sums(frame[columns])
    return frame, notes


def _have_percent_signs(cells: pd.DataFrame, path: Path) -> bool:
    """Return whether the probabilities have a percent sign; DataError where only some have."""
    texts = cells.select_dtypes(exclude="number")
    signs = pd.DataFrame(False, cells.index, cells.columns)
    for name in texts:
        signs[name] = texts[name].str.endswith("%").astype(bool)
    filled = cells != ""
    if not signs.to_numpy().any():
        return False
    without = (filled & ~signs).to_numpy().any(axis=1)
    if without.any():
        raise DataError(
            f"{path}: some probabilities have a % sign and some have none (line "
            f"{cells.index[without][0]}); write all as 0.88 or all as 88 %"
        )
    return True


def _are_percentages(numbers: pd.DataFrame, path: Path) -> bool:
    """Return whether every row adds up to 100; raises DataError for numbers of no clear scale."""
    values = numbers.to_numpy(dtype=float)
    with np.errstate(invalid="ignore"):
        large = (values > 1 + _TOLERANCE).any(axis=1)
    if not large.any():
        return False
    known = ~np.isnan(values).all(axis=1)
    total = np.nansum(values, axis=1)
    odd = known & ((abs(total / 100 - 1) > _TOLERANCE) | (values < 0).any(axis=1))
    if not odd.any():
        return True
    line = numbers.index[large][0]
    raise DataError(
        f"{path}: the columns p_<emotion> hold numbers above 1 (line {line}: "
        f"{np.nanmax(values[large][0]):g}), but are no percentages either: the row in line "
        f"{numbers.index[odd][0]} adds up to {total[odd][0]:.4g}, not to 100; write probabilities "
        "from 0 to 1"
    )


def _odd_sums(numbers: pd.DataFrame) -> list[str]:
    """Return a note on rows whose probabilities do not add up to 1."""
    values = numbers.to_numpy(dtype=float)
    total = np.nansum(values, axis=1)
    odd = ~np.isnan(values).all(axis=1) & (abs(total - 1) > _TOLERANCE)
    if not odd.any():
        return []
    rows = "1 row" if odd.sum() == 1 else f"{int(odd.sum())} rows"
    return [
        f"the probabilities of {rows} do not add up to 1 (line {numbers.index[odd][0]}: "
        f"{total[odd][0]:.3g}), so calibration cannot be estimated"
    ]


def _similar_ids(frame: pd.DataFrame) -> list[str]:
    """Return a note on subject ids that differ only by case, leading zeros or `.0`."""
    if "subject_id" not in frame.columns:
        return []
    seen: dict[str, str] = {}
    for name in frame["subject_id"].unique():
        plain = re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold().removesuffix(".0"))
        other = seen.setdefault(plain, name)
        if name and other != name:
            return [
                f"subject_id {printable(other)!r} and {printable(name)!r} count as two people; if "
                "they are one, write the id the same way"
            ]
    return []
