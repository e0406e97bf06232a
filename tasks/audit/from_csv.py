"""The same audit for any system: a CSV of labels and answers in, tables and figures out.

The file needs `emotion` (the label) and `y_pred` (the answer). Used where they are there:
`image_id, subject_id, age_band, age_years, gender, ethnicity, mouth, gaze, pose, dataset, model,
seen_in_training, p_<emotion>`, what else may explain a gap (`face_side_px, sharpness, brightness`),
and any column that is named to be compared. What cannot be told without them is said in `audit.md`.
Words such as "happy" or "F" are translated; an unknown emotion stops the audit and is named, other
words stay as they are. A picture without an answer, as where no face was found, is counted as left
out.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.audit.by_group import audit_predictions, unanswered, uncalibrated
from tasks.audit.outputs import Unshown, write_figures, write_tables
from tasks.audit.paired import why_not_paired
from tasks.audit.settings import NUMBERS, Settings
from tasks.audit.summary import NAMELESS, Untold, markdown
from tasks.core.errors import DataError, UserError
from tasks.core.files import sha256_of, write_text
from tasks.core.labels import (
    ALL,
    EMOTION_WORDS,
    EMOTIONS,
    GENDER_WORDS,
    HELD_OUT,
    UNKNOWN,
    age_band,
)
from tasks.core.paths import MODELS

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_PROBABILITIES = tuple(f"p_{name}" for name in EMOTIONS)
_TRANSLATED = ("emotion", "y_pred", "seen_in_training")
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
    pair: tuple[str, str] | None,
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
        Models of the file that are compared picture by picture. None: `base` and `finetuned` where
        the file has both, else its models if these are two, in the order in which they appear. It
        is done on pictures held out from both, or on every picture where the file does not tell.
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
        Where a column or a model cannot be compared, or `out_dir` is a file.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file; --out names a folder")
    given = _banded(read_predictions(csv_path), age_bands)
    asked = _askable(further, given, csv_path)
    wanted = list(dict.fromkeys(["age_band", "gender", *settings.by, *asked]))
    compared = [name for name in wanted if name in given.columns]
    frame = _complete(given, csv_path)
    pair = _pair(pair, list(dict.fromkeys(frame["model"])), csv_path)
    told = "seen_in_training" in given.columns and given["seen_in_training"].notna().any()
    protocol = HELD_OUT if told else ALL
    tables = audit_predictions(frame, settings.model_copy(update={"by": compared}), pair, protocol)
    untold = _untold(given, frame, wanted, settings)
    why = Unshown(why_not_paired(frame, pair, protocol), uncalibrated(frame))
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}.") as scratch:
        fresh = Path(scratch)
        figures = write_figures(tables, compared, pair, why, fresh)
        written = write_tables(tables, fresh)
        names = [path.name for path in figures]
        text = markdown(tables, csv_path.name, compared, pair, why, untold, names)
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
        if name in NUMBERS or name in _NO_GROUPS or name in _PROBABILITIES:
            raise UserError(f"--by {name}: holds no groups; name a column of words, such as gender")
    return [name for name in asked if name != "dataset"]


def _pair(
    asked: tuple[str, str] | None, models: Sequence[str], path: Path
) -> tuple[str, str] | None:
    """Choose the two models that are compared; None where it is not clear which."""
    if asked is not None:
        for name in asked:
            if name not in models:
                raise UserError(
                    f"--pair {' '.join(asked)}: {path} has no model {name} (it has "
                    f"{', '.join(models)})"
                )
        if asked[0] == asked[1]:
            raise UserError(f"--pair {' '.join(asked)}: names one model twice")
        return asked
    if set(MODELS) <= set(models):
        return MODELS[0], MODELS[1]
    return (models[0], models[1]) if len(models) == 2 else None


def _untold(
    given: pd.DataFrame, frame: pd.DataFrame, wanted: Sequence[str], settings: Settings
) -> Untold:
    """Gather what the file does not tell; `frame` is what `_complete` made of `given`."""
    seen = given.get("seen_in_training", pd.Series(False, index=given.index))
    lacking = frame[unanswered(frame)].groupby("model", sort=False).size()
    return Untold(
        absent=_absent(given, wanted, settings),
        unanswered={str(model): int(count) for model, count in lacking.items()},
        unknown_training=int(seen.isna().sum()),
        unused=_unused(given, wanted, settings),
    )


def _unused(given: pd.DataFrame, wanted: Sequence[str], settings: Settings) -> list[str]:
    """Name the columns that nothing is made of: perhaps they have another name than they need."""
    used = {*wanted, *_NO_GROUPS, *_PROBABILITIES, *NUMBERS, "dataset"}
    used |= {*settings.factors, *settings.standardise_to}
    return [str(name) for name in given.columns if name not in used]


def _absent(given: pd.DataFrame, wanted: Sequence[str], settings: Settings) -> list[str]:
    """Name the columns that would tell more, in the order of what is lost without them."""
    needed = [*wanted, "subject_id", "seen_in_training", "image_id"]
    absent = [name for name in needed if name not in given.columns]
    if not any(name in given.columns for name in _PROBABILITIES):
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

    Where their cells are empty, `seen_in_training` is missing and `y_pred` "unknown".

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
    frame["emotion"] = _translated(frame["emotion"], EMOTION_WORDS, "emotion", path)
    answers = {**EMOTION_WORDS, "": UNKNOWN}  # a picture without an answer is counted
    frame["y_pred"] = _translated(frame["y_pred"], answers, "y_pred", path)
    if "seen_in_training" in frame.columns:
        told = {**_BOOLEANS, "": None}
        seen = _translated(frame["seen_in_training"], told, "seen_in_training", path)
        frame["seen_in_training"] = seen.astype("boolean")
    for name in frame.columns:
        if name in _PROBABILITIES or name in NUMBERS:
            frame[name] = _numbers(frame[name], name, path)
        elif name not in _TRANSLATED:
            frame[name] = frame[name].str.strip()
    if "gender" in frame.columns:  # categories of another system's own stay as they are
        words = frame["gender"].str.lower().map(dict(GENDER_WORDS))
        frame["gender"] = words.where(words.notna(), frame["gender"])
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
                path,
                sep=_separator(path),
                dtype="str",
                keep_default_na=False,
                index_col=False,
                encoding="utf-8-sig",
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


def _separator(path: Path) -> str:
    """Tell what separates the cells: spreadsheets of some countries write semicolons."""
    with path.open(encoding="utf-8-sig") as handle:
        header = handle.readline()
    return ";" if ";" in header and "," not in header else ","


def _column(name: str) -> str:
    """Bring a column's name to the project's: `P_Happy` is `p_happiness`; `p_id` stays `p_id`."""
    plain = str(name).strip().lower()
    emotion = EMOTION_WORDS.get(plain.removeprefix("p_")) if plain.startswith("p_") else None
    return plain if emotion is None else f"p_{emotion}"


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
    if {"dataset", "subject_id"} <= set(frame.columns):
        # Two data sets may use the same names for different people.
        named = frame["dataset"] + "/" + frame["subject_id"]
        frame["subject_id"] = named.where(frame["subject_id"] != "", "")
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
        frame["seen_in_training"] = True
    # What is not known may not count as held out.
    frame["seen_in_training"] = frame["seen_in_training"].fillna(True).astype(bool)
    return frame.replace("", UNKNOWN)
