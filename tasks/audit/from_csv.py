"""The same audit for any system: a CSV of labels and answers in, tables and figures out.

The file needs `emotion` (the label) and `y_pred` (the answer). Used where they are there:
`image_id, subject_id, age_band, age_years, gender, ethnicity, mouth, gaze, pose, dataset, model,
seen_in_training, p_<emotion>`, what else may explain a gap (`face_side_px, sharpness, brightness`),
and any column that is named to be compared. What cannot be told without them is said in `audit.md`.
Words such as "happy" or "F" are translated; an unknown word stops the audit and is named.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.audit.by_group import audit_predictions
from tasks.audit.calibration import why_not_calibrated
from tasks.audit.outputs import write_figures, write_tables
from tasks.audit.settings import NUMBERS, Settings
from tasks.audit.summary import NAMELESS, markdown
from tasks.core.errors import DataError, UserError
from tasks.core.files import sha256_of, write_text
from tasks.core.labels import EMOTION_WORDS, EMOTIONS, GENDER_WORDS, UNKNOWN, age_band

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_TRANSLATED = ("emotion", "y_pred", "gender", "seen_in_training")
_NO_GROUPS = ("emotion", "y_pred", "image_id", "subject_id", "model", "split", "seen_in_training")


@dataclass(frozen=True)
class Written:
    """What an audit wrote, `audit.md` first, and where it put files that were there before."""

    paths: list[Path]
    kept: Path | None


def audit_csv(
    csv_path: Path,
    out_dir: Path,
    settings: Settings,
    pair: tuple[str, str],
    further: Sequence[str],
    age_bands: Mapping[str, tuple[float, float]],
) -> Written:
    """Audit a CSV of predictions.

    Parameters
    ----------
    csv_path
        One row a picture (and model): `emotion, y_pred` and any of the other columns.
    out_dir
        Where tables, figures and `audit.md` go; made where it is missing. Files of the same names
        that say something else are kept in a folder `kept-<number>` in it.
    settings
        How the audit is done. `age_band` and `gender` are compared beside `settings.by`; columns
        that the file lacks are left out and named.
    pair
        Models of the file that are compared picture by picture, if both are in it.
    further
        Columns to compare that the file must have.
    age_bands
        Band name to `[from, to)` in years, by which `age_years` makes bands where the file has no
        `age_band`.

    Raises
    ------
    DataError
        One line, for a file that is missing, no CSV, empty, lacks a column or has unknown labels.
    UserError
        Where a column cannot be compared, or `out_dir` is a file.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file; --out names a folder")
    given = _banded(read_predictions(csv_path), age_bands)
    asked = _askable(further, given, csv_path)
    wanted = list(dict.fromkeys(["age_band", "gender", *settings.by, *asked]))
    compared = [name for name in wanted if name in given.columns]
    frame = _complete(given, csv_path)
    tables = audit_predictions(frame, settings.model_copy(update={"by": compared}), pair)
    absent = _absent(given, wanted, settings)
    unsure = {} if "p_<emotion>" in absent else why_not_calibrated(frame)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}.") as scratch:
        fresh = Path(scratch)
        figures = write_figures(tables, compared, pair, fresh)
        written = write_tables(tables, fresh)
        names = [path.name for path in figures]
        text = markdown(tables, csv_path.name, compared, absent, unsure, names)
        write_text(fresh / "audit.md", text)
        return _moved([fresh / "audit.md", *written, *figures], out_dir)


def _moved(fresh: Sequence[Path], out_dir: Path) -> Written:
    """Move files into place; what they would replace goes to a folder of its own first."""
    out_dir.mkdir(exist_ok=True)
    kept, places = None, []
    for path in fresh:
        place = out_dir / path.name
        if place.exists() and (place.is_dir() or sha256_of(place) != sha256_of(path)):
            kept = kept or _free_folder(out_dir)
            kept.mkdir(exist_ok=True)
            shutil.move(place, kept / place.name)
        os.replace(path, place)
        places.append(place)
    return Written(places, kept)


def _free_folder(out_dir: Path) -> Path:
    number = 1
    while (out_dir / f"kept-{number}").exists():
        number += 1
    return out_dir / f"kept-{number}"


def _askable(further: Sequence[str], given: pd.DataFrame, path: Path) -> list[str]:
    """Check the columns that are asked for; a data set is compared anyway."""
    asked = [str(name).strip().lower() for name in further]
    for name in asked:
        if name not in given.columns:
            has = ", ".join(map(str, given.columns))
            raise UserError(f"--by {name}: {path} has no such column (it has {has})")
        if name in NUMBERS or name in _NO_GROUPS or name.startswith("p_"):
            raise UserError(f"--by {name}: holds no groups; name a column of words, such as gender")
    return [name for name in asked if name != "dataset"]


def _absent(given: pd.DataFrame, wanted: Sequence[str], settings: Settings) -> list[str]:
    """Name the columns that would tell more, in the order of what is lost without them."""
    needed = [*wanted, "subject_id", "seen_in_training", "image_id"]
    absent = [name for name in needed if name not in given.columns]
    if not any(f"p_{name}" in given.columns for name in EMOTIONS):
        absent.append("p_<emotion>")
    explaining = [*settings.factors, *settings.standardise_to]
    return list(dict.fromkeys([*absent, *(n for n in explaining if n not in given.columns)]))


def _banded(given: pd.DataFrame, bands: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Make age bands of ages, where the file has only these."""
    if "age_band" in given.columns or "age_years" not in given.columns:
        return given
    return given.assign(age_band=[age_band(years, bands) for years in given["age_years"]])


def read_predictions(path: Path) -> pd.DataFrame:
    """Read the CSV, with column names and labels brought to the project's words.

    Raises
    ------
    DataError
        See `audit_csv`.
    """
    frame = _read(path)
    frame.columns = [_column(name) for name in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(f"{path}: has two columns that mean '{twice[0]}'")
    absent = [name for name in ("emotion", "y_pred") if name not in frame.columns]
    if absent:
        has = ", ".join(map(str, frame.columns))
        raise DataError(f"{path}: lacks the column(s) {', '.join(absent)} (it has {has})")
    if frame.empty:
        raise DataError(f"{path}: has a header but no rows")
    for name in ("emotion", "y_pred"):
        frame[name] = _translated(frame[name], EMOTION_WORDS, name, path)
    if "gender" in frame.columns:
        frame["gender"] = _translated(frame["gender"], GENDER_WORDS, "gender", path)
    if "seen_in_training" in frame.columns:
        seen = _translated(frame["seen_in_training"], _BOOLEANS, "seen_in_training", path)
        frame["seen_in_training"] = seen.astype(bool)
    for name in frame.columns:
        if name.startswith("p_") or name in NUMBERS:
            frame[name] = _numbers(frame[name], name, path)
        elif name not in _TRANSLATED:
            frame[name] = frame[name].str.strip()
    return frame


def _numbers(column: pd.Series, name: str, path: Path) -> pd.Series:
    """Read numbers; an empty cell is NaN, and a word stops the audit with its line."""
    plain = column.str.strip()
    numbers = pd.to_numeric(plain, errors="coerce")
    wrong = numbers.isna() & ~plain.str.lower().isin(["", "nan", "na", UNKNOWN])
    if wrong.any():
        line = int(wrong.to_numpy().argmax()) + 2
        word = plain[wrong].iloc[0]
        raise DataError(f"{path}: column {name} has no number in line {line}: {word!r}")
    return numbers


def _read(path: Path) -> pd.DataFrame:
    """Read every cell as text; a file that is no CSV gives one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the header
            frame = pd.read_csv(
                path, dtype="str", keep_default_na=False, index_col=False, encoding="utf-8-sig"
            )
        return frame.fillna("")  # lines shorter than the header
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from None
    except (
        OSError,
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        pd.errors.ParserWarning,
    ) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as CSV ({line})") from None


def _column(name: str) -> str:
    """Bring a column's name to the project's: `P_Happy` is `p_happiness`."""
    plain = str(name).strip().lower()
    if plain.startswith("p_"):
        return f"p_{EMOTION_WORDS.get(plain[2:], plain[2:])}"
    return plain


def _translated(column: pd.Series, words: Mapping[str, object], name: str, path: Path) -> pd.Series:
    """Translate labels; unknown ones are named with the line of the first."""
    plain = column.str.strip().str.lower()
    unknown = ~plain.isin(list(words))
    if unknown.any():
        some = sorted(set(column[unknown]))
        listed = ", ".join(repr(word) for word in some[:5]) + (", …" if len(some) > 5 else "")
        line = int(unknown.to_numpy().argmax()) + 2
        raise DataError(
            f"{path}: column {name} has {int(unknown.sum())} unknown label(s): {listed} "
            f"(first in line {line}); known are {', '.join(filter(None, map(str, words)))}"
        )
    return plain.map(dict(words))


def _complete(given: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the columns that the audit needs, with values that claim nothing."""
    frame = given.copy()
    numbers = pd.Series([f"line {index + 2}" for index in range(len(frame))])
    for name, value in {"model": NAMELESS, "dataset": path.stem, "split": UNKNOWN}.items():
        if name not in frame.columns:
            frame[name] = value
    # A picture without a name is one of its own, and so is a subject.
    for name in ("image_id", "subject_id"):
        given_names = frame[name] if name in frame.columns else pd.Series("", index=frame.index)
        frame[name] = given_names.where(given_names != "", numbers)
        if name == "subject_id":
            frame["subject_known"] = given_names != ""
    if "seen_in_training" not in frame.columns:
        frame["seen_in_training"] = True  # not known: no row may count as held out
    return frame.replace("", UNKNOWN)
