"""Audits the predictions of any system: reads a table of labels and answers, writes the audit.

The file needs `emotion` (the label) and `y_pred` (the answer). Optional columns: `image_id,
subject_id, age_band, age_years, gender, ethnicity, mouth, gaze, pose, dataset, model,
seen_in_training, p_<emotion>`, what else may explain a gap (`face_side_px, sharpness, brightness`),
and any column that is named to be compared. `audit.md` lists what is missing without them.
`predictions_table` reads the file; rows that cannot be audited go to `rejects.csv`. An image
without an answer, such as where no face was found, is counted as left out.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.audit.audit import audit_predictions, unanswered, uncalibrated
from tasks.audit.csv_audit.read_predictions import (
    PROBABILITIES,
    Predictions,
    check_spoiled,
    numbers_of,
    read_predictions,
)
from tasks.audit.csv_audit.summary_markdown import NAMELESS, MissingColumns, summary_page
from tasks.audit.measures.group_columns import (
    Limits,
    binned,
    check_group_counts,
    hidden,
    shown_names,
    with_shown_names,
)
from tasks.audit.measures.model_comparison import why_not_paired
from tasks.audit.settings import NUMBERS, Settings
from tasks.audit.write_outputs import MissingReasons, write_figures, write_tables
from tasks.core.errors import DataError, UserError
from tasks.core.files import sha256_of, write_text
from tasks.core.labels import ALL, HELD_OUT, UNKNOWN, age_band
from tasks.core.paths import MODELS
from tasks.core.tables import GROUP_COLUMNS, write_csv
from tasks.core.text import clean, printable

_NO_GROUPS = ("emotion", "y_pred", "image_id", "subject_id", "model", "split", "seen_in_training")
# Columns with a fixed meaning; any other is a user's, whatever its name (`own_columns`).
_DOCUMENTED = frozenset([*_NO_GROUPS, *PROBABILITIES, *NUMBERS, *GROUP_COLUMNS, "dataset"])
_PART = "\x1f"  # parts a data set from a name in it; no header or cell may forge an id with it


@dataclass(frozen=True)
class AuditOutput:
    """The files of an audit.

    `audit.md` is the first of `paths`. `kept` is the folder with earlier files, or None. `notes`
    are sentences on how many rows were audited and rejected, and on how the file was read.
    """

    paths: list[Path]
    kept: Path | None
    notes: tuple[str, ...] = ()


def audit_csv(
    csv_path: Path,
    out_dir: Path,
    settings: Settings,
    pair: tuple[str, str] | None,
    further: Sequence[str],
    age_bands: Mapping[str, tuple[float, float]],
    bins: Limits | None = None,
) -> AuditOutput:
    """Audit a table of predictions.

    `csv_path` has one row per image (and model): `emotion, y_pred` and any of the other columns.
    Tables, figures, `rejects.csv` and `audit.md` go to `out_dir`; older files of the same names
    with other contents are moved to a folder `kept-<number>` in it. `age_band` and `gender` are
    compared beside `settings.by`; columns that the file lacks are left out and named. `further` are
    columns to compare that the file must have. `age_bands` maps a band to `[from, to)` in years,
    for files with `age_years` but no `age_band`. `bins` maps columns of numbers to the limits
    between their bins.

    `pair` names the models that are compared image by image. None stands for `base` and `finetuned`
    where the file has both, else for its two models in the order in which they appear. They are
    compared on images held out from both, or on every image where the file does not say.

    Raises DataError for a file that cannot be read or an image that a model has twice, and
    UserError where a column or a model cannot be compared or `out_dir` is a file.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise UserError(f"{out_dir}: is a file; --out names a folder")
    bins = bins or {}
    predictions = read_predictions(csv_path)
    given = _banded(predictions.frame, age_bands)
    asked = _askable(further, given, bins, csv_path)
    wanted = list(dict.fromkeys(["age_band", "gender", *settings.by, *asked, *bins]))
    compared = [name for name in wanted if name in given.columns]
    check_spoiled(given, compared, csv_path)
    inner = {name: _inner(name, bins) for name in compared}
    own_columns = _own(compared, given, settings, bins)
    frame = _complete(given, csv_path)
    for name in own_columns:
        frame[_inner(name, bins)] = _grouped(given[name], bins.get(name), predictions, csv_path)
    frame = frame.replace("", UNKNOWN)
    _check_once(frame, csv_path)
    sized = {column: name for name, column in inner.items()} | {"dataset": "dataset"}
    check_group_counts(frame, sized, settings.min_n)
    pair = _pair(pair, list(dict.fromkeys(frame["model"])), csv_path)
    training_known = "seen_in_training" in given.columns and given["seen_in_training"].notna().any()
    protocol = HELD_OUT if training_known else ALL
    how = _inner_settings(settings, list(inner.values()))
    tables = audit_predictions(frame.reset_index(drop=True), how, pair, protocol)
    names = shown_names(tables, own_columns)
    tables = with_shown_names(tables, names)
    by = [names.get(name, name) if inner[name] != name else name for name in compared]
    notes = _notes(predictions, names)
    untold = _untold(given, frame, wanted, settings)
    notes += _on_independence(frame, settings)
    why = MissingReasons(why_not_paired(frame, pair, protocol), uncalibrated(frame))
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_dir.parent, prefix=f".{out_dir.name}.") as scratch:
        fresh = Path(scratch)
        figures = write_figures(tables, by, pair, why, fresh)
        written = write_tables(tables, fresh)
        summary, rejects = fresh / "audit.md", fresh / "rejects.csv"
        write_csv(predictions.rejects, rejects)
        files = [path.name for path in figures]
        text = summary_page(tables, csv_path.name, by, pair, why, untold, notes, files)
        write_text(summary, text)
        return _moved([summary, *written, rejects, *figures], out_dir, notes)


def _inner(name: str, bins: Limits) -> str:
    """Return the name under which a column takes part: a user's own cannot meet one of ours."""
    return hidden(name) if name in bins or name not in _DOCUMENTED else name


def _own(
    compared: Sequence[str], given: pd.DataFrame, settings: Settings, bins: Limits
) -> list[str]:
    """Return the user's columns that the audit needs, each once."""
    used = dict.fromkeys([*compared, *settings.factors, *settings.standardize_to])
    return [
        name for name in used if name in given.columns and (name in bins or name not in _DOCUMENTED)
    ]


def _grouped(
    column: pd.Series, limits: Sequence[float] | None, predictions: Predictions, path: Path
) -> pd.Series:
    if limits is None:
        return column
    numbers = numbers_of(column, str(column.name), predictions.separator, path)
    return binned(numbers, limits)


def _inner_settings(settings: Settings, by: list[str]) -> Settings:
    changed = {
        key: [_inner(name, {}) for name in getattr(settings, key)]
        for key in ("factors", "standardize_to")
    }
    return settings.model_copy(update={"by": by, **changed})


def _check_once(frame: pd.DataFrame, path: Path) -> None:
    """Reject an image that a model has twice, with its lines."""
    keys = ["model", "image_id"]
    twice = frame.duplicated(keys).to_numpy()
    if twice.any():
        model, image_id = frame[keys][twice].iloc[0]
        same = frame.index[((frame["model"] == model) & (frame["image_id"] == image_id)).to_numpy()]
        words = f" of the model {printable(model)}" if model != NAMELESS else ""
        raise DataError(
            f"{path}: lines {same[0]} and {same[1]} hold picture "
            f"{printable(image_id.split(_PART)[-1])} twice{words}; keep one of them, or add a "
            "column model or dataset that tells them apart"
        )


def _notes(predictions: Predictions, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what became of the rows, and how the file was read."""
    read, rejected = len(predictions.frame), len(predictions.rejects)
    silent = int(unanswered(predictions.frame).sum())
    account = f"{read + rejected} rows: {read - silent} audited, {rejected} rejected"
    if rejected:
        reasons = predictions.rejects["reason"].value_counts()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        account += f" ({listed}; rejects.csv has their lines)"
    if silent:
        account += f", {silent} without an answer of the model (counted as left out)"
    renamed = [
        f"column {printable(name)} is called {printable(other)} in the tables, where "
        f"{printable(name)} means something else"
        for name, other in names.items()
        if name != other
    ]
    return (account, *predictions.notes, *renamed)


def _on_independence(frame: pd.DataFrame, settings: Settings) -> tuple[str, ...]:
    """Return a sentence on how images without a subject id were treated, if there are any."""
    nameless, images = int((~frame["subject_known"]).sum()), len(frame)
    if settings.independent_images and not nameless:
        return ("every row has a subject_id, so nothing was taken as independent",)
    if settings.independent_images:
        return (
            f"{nameless} of {images} rows have no subject_id; each was taken as another person, "
            "independent of all others, at the user's word (--independent-images)",
        )
    if nameless:
        return (
            f"{nameless} of {images} rows have no subject_id: no verdict rests on them (if every "
            "image shows another person, say --independent-images)",
        )
    return ()


def _moved(fresh: Sequence[Path], out_dir: Path, notes: tuple[str, ...]) -> AuditOutput:
    """Move files into place, after a backup of what they would replace."""
    out_dir.mkdir(exist_ok=True)
    backup, places = None, []
    for path in fresh:
        place = out_dir / path.name
        if place.exists() and (place.is_dir() or sha256_of(place) != sha256_of(path)):
            backup = backup or _free_folder(out_dir)
            backup.mkdir(exist_ok=True)
            shutil.move(place, backup / place.name)
        os.replace(path, place)
        places.append(place)
    return AuditOutput(places, backup, notes)


def _free_folder(out_dir: Path) -> Path:
    number = 1
    while (out_dir / f"kept-{number}").exists():
        number += 1
    return out_dir / f"kept-{number}"


def _askable(further: Sequence[str], given: pd.DataFrame, bins: Limits, path: Path) -> list[str]:
    """Check the columns that are asked for; a data set is compared anyway."""
    asked = [clean(str(name)).lower() for name in further]
    for option, names in (("--by", asked), ("--bins", list(bins))):
        for name in names:
            if name not in given.columns:
                has = printable(", ".join(map(str, given.columns)))
                raise UserError(f"{option} {name}: {path} has no such column (it has {has})")
            if name in NUMBERS and name not in bins:
                example = f"--bins {name}=LIMIT,LIMIT"
                raise UserError(f"--by {name}: holds no groups but numbers; cut them: {example}")
            if name in _NO_GROUPS or name in PROBABILITIES:
                raise UserError(
                    f"{option} {name}: holds no groups; name a column of words, such as gender"
                )
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
) -> MissingColumns:
    """Gather what the file does not tell; `frame` is what `_complete` made of `given`."""
    seen = given.get("seen_in_training", pd.Series(False, index=given.index))
    lacking = frame[unanswered(frame)].groupby("model", sort=False).size()
    return MissingColumns(
        absent=_absent(given, wanted, settings),
        unanswered={str(model): int(count) for model, count in lacking.items()},
        unknown_training=int(seen.isna().sum()),
        unused=_unused(given, wanted, settings),
        nameless=_nameless(frame),
        independent=settings.independent_images,
    )


def _nameless(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return, by model, how many images have no subject id, of how many."""
    counts = (~frame["subject_known"]).groupby(frame["model"], sort=False).agg(["sum", "size"])
    return {
        str(model): (int(row["sum"]), int(row["size"]))
        for model, row in counts.iterrows()
        if row["sum"]
    }


def _unused(given: pd.DataFrame, wanted: Sequence[str], settings: Settings) -> list[str]:
    """List the unused columns, whose names may be misspelled."""
    used = {*wanted, *_NO_GROUPS, *PROBABILITIES, *NUMBERS, "dataset"}
    used |= {*settings.factors, *settings.standardize_to}
    return [str(name) for name in given.columns if name not in used]


def _absent(given: pd.DataFrame, wanted: Sequence[str], settings: Settings) -> list[str]:
    """List the missing columns, the most important first."""
    needed = [*wanted, "subject_id", "seen_in_training", "image_id"]
    absent = [name for name in needed if name not in given.columns]
    if not any(name in given.columns for name in PROBABILITIES):
        absent.append("p_<emotion>")
    explaining = [*settings.factors, *settings.standardize_to]
    return list(dict.fromkeys([*absent, *(n for n in explaining if n not in given.columns)]))


def _banded(given: pd.DataFrame, bands: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Make age bands of ages, where the file has only these."""
    if "age_band" in given.columns or "age_years" not in given.columns:
        return given
    return given.assign(age_band=[age_band(years, bands) for years in given["age_years"]])


def _complete(given: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the columns that the audit needs, with values that claim nothing where it lacks them.

    Two data sets may use the same names for different people and images: these get the data set's
    name before theirs.
    """
    frame = given[[name for name in given.columns if name in _DOCUMENTED]].copy()
    lines = pd.Series([f"{_PART}line {line}" for line in frame.index], frame.index, dtype="str")
    for name, value in {
        "model": NAMELESS,
        "dataset": printable(path.stem),
        "split": UNKNOWN,
    }.items():
        if name not in frame.columns:
            frame[name] = value
    # Images and subjects without an id are distinct.
    for name in ("image_id", "subject_id"):
        names = frame[name] if name in frame.columns else pd.Series("", index=frame.index)
        known = names != ""
        named = frame["dataset"] + _PART + names if "dataset" in given.columns else names
        frame[name] = named.where(known, lines)
        if name == "subject_id":
            frame["subject_known"] = known
    frame["split"] = frame["split"].replace(ALL, f"{ALL} (recorded)")  # `all` means pooled
    if "seen_in_training" not in frame.columns:
        frame["seen_in_training"] = True
    # What is not known may not count as held out.
    frame["seen_in_training"] = frame["seen_in_training"].fillna(True).astype(bool)
    return frame
