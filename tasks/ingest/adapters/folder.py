"""Adapters of class folders: `folder` for a user's own images, and `six-emotions`.

Adapter `folder`: one folder per class, and an optional `labels.csv` with further columns.

`happy/a.jpg` and `Happiness/more/b.png` are happiness. A row of `labels.csv` takes precedence over
the folder, so that with a table, files may be anywhere. Cells with a word for a missing value (see
`tasks.core.text`) are empty. A folder's name is always a label, so that images below `none` or
`unknown` are rejected as `unknown_label`. Source and license are those of the user's images.

Adapter `six-emotions`: "6 Emotions for image classification", 1,200 images in class folders.

From Kaggle, under its title; its page states the terms, and the sources of the images are not
documented. Anger 214, disgust 201, fear 163, happy 230, pain 168, sad 224.

Quirks: ages, genders and subjects are unknown. Every image therefore counts as a separate subject,
and images of one person may be on both sides of a split. The class is the name of an image's
folder, at any depth.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS
from tasks.core.text import clean
from tasks.ingest.label import AdapterResult, Fault, Label, printable_path
from tasks.ingest.labels_csv import NAME, Row, find_table, match_rows, read_labels, similar_files

_CLASSES: Mapping[str, str] = {
    word: EMOTION_WORDS[word] for word in ("anger", "disgust", "fear", "happy", "pain", "sad")
}


def read_folders(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from class folders and `labels.csv`.

    Faults are `unknown_label`, `no_label` (neither a class folder nor a row) and `missing_file` (a
    row without a file). Raises DataError for an invalid `labels.csv`, or one without a row whose
    file exists.
    """
    table = find_table(files)
    unread = [printable_path(path) for path in similar_files(files)]
    notes = tuple(f"{path} is not read, though its name is like {NAME}" for path in unread)
    images = [path for path in files if path != table]
    if table is None:
        return AdapterResult({path: _label(path, None) for path in images}, notes=notes)
    labels = read_labels(folder / table)
    rows, missing = match_rows(labels.rows, images)
    if missing and not rows:
        example = f"'{images[0]}'" if images else "no other file"
        raise DataError(
            f"{folder / table}: none of its {len(missing)} rows names a file in the folder (the "
            f"first one '{missing[0].file}', and the folder has {example}); write paths as they "
            "are below the folder, with the same capitals"
        )
    return AdapterResult(
        labels={path: _label(path, rows.get(path)) for path in images},
        side_files=frozenset([table]),
        missing={row.file: Fault("missing_file", f"listed in {table}") for row in missing},
        notes=(*labels.notes, *notes),
    )


def _label(path: str, row: Row | None) -> Label | Fault:
    folder = path.split("/", 1)[0] if "/" in path else None
    cell = row.text("emotion") if row else None
    raw = cell or folder
    if raw is None:
        return Fault("no_label", f"is not in a class folder and has no emotion in {NAME}")
    emotion = EMOTION_WORDS.get(clean(raw).casefold())
    if emotion is None:
        source = f"{NAME} has" if cell else "folder"
        return Fault("unknown_label", f"{source} '{raw}', which is not an emotion")
    return Label(emotion, raw) if row is None else _with_row(emotion, raw, row)


def _with_row(emotion: str, raw: str, row: Row) -> Label:
    age_band = row.text("age_band")
    age_known = row.age_years is not None or age_band is not None
    return Label(
        emotion=emotion,
        emotion_raw=raw,
        subject=row.text("subject_id"),
        age_years=row.age_years,
        age_band=age_band,
        age_source=(row.text("age_source") or "recorded") if age_known else None,
        gender=row.gender,
        ethnicity=row.text("ethnicity"),
        gaze=row.text("gaze"),
        mouth=row.text("mouth"),
        pose=row.text("pose"),
        batch=row.text("batch") or "",
    )


def read_six_emotions(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from folders; faults are `no_label` (not in a folder) and `unknown_label`."""
    return AdapterResult({path: _read_path(PurePosixPath(path)) for path in files})


def _read_path(path: PurePosixPath) -> Label | Fault:
    folder = path.parent.name
    if not folder:
        return Fault("no_label", f"is not in one of the folders {', '.join(_CLASSES)}")
    emotion = _CLASSES.get(folder.strip().casefold())
    if emotion is None:
        return Fault("unknown_label", f"folder '{folder}' is not one of {', '.join(_CLASSES)}")
    return Label(emotion, folder)
