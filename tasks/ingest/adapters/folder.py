"""Adapter `folder`: a folder a class, and an optional `labels.csv` with whatever else is known.

`happy/a.jpg` and `Happiness/more/b.png` are happiness; a row of `labels.csv` wins over the folder,
and with it files may lie anywhere. A cell of `labels.csv` that says "missing" (see
`tasks.core.text`) is taken as empty; a folder's name is a label in any case, so that pictures below
`none` or `unknown` are rejected as `unknown_label`. Source and licence are those of the pictures
given.
"""

from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import DataError
from tasks.core.labels import EMOTION_WORDS
from tasks.core.text import clean
from tasks.ingest.label import Fault, Label, Reading, shown
from tasks.ingest.labels_csv import (
    NAME,
    Row,
    find_table,
    match_rows,
    read_labels,
    similar_files,
)


def read_folders(folder: Path, files: Sequence[str]) -> Reading:
    """Read labels from class folders and `labels.csv`.

    Parameters
    ----------
    folder
        The data set's folder.
    files
        Paths below the folder.

    Returns
    -------
    Reading
        Labels, or faults with reason `unknown_label` (no emotion of the vocabulary) or `no_label`
        (neither a class folder nor a row); rows without a file are `missing_file`. Files that look
        like labels and are not read are named in the notes.

    Raises
    ------
    DataError
        One line for a `labels.csv` that cannot be used, or none of whose rows names a file.
    """
    table = find_table(files)
    unread = [shown(path) for path in similar_files(files)]
    notes = tuple(f"{path} is not read, though its name is like {NAME}" for path in unread)
    pictures = [path for path in files if path != table]
    if table is None:
        return Reading({path: _label(path, None) for path in pictures}, notes=notes)
    given = read_labels(folder / table)
    rows, missing = match_rows(given.rows, pictures)
    if missing and not rows:
        there = f"'{pictures[0]}'" if pictures else "no other file"
        raise DataError(
            f"{folder / table}: none of its {len(missing)} rows names a file that is there (the "
            f"first one '{missing[0].file}', and the folder has {there}); write paths as they are "
            "below the folder, capitals included"
        )
    return Reading(
        labels={path: _label(path, rows.get(path)) for path in pictures},
        side_files=frozenset([table]),
        missing={
            row.file: Fault("missing_file", f"listed in {table}, not there") for row in missing
        },
        notes=(*given.notes, *notes),
    )


def _label(path: str, row: Row | None) -> Label | Fault:
    folder = path.split("/", 1)[0] if "/" in path else None
    told = row.text("emotion") if row else None
    raw = told or folder
    if raw is None:
        return Fault("no_label", f"lies in no class folder and has no emotion in {NAME}")
    emotion = EMOTION_WORDS.get(clean(raw).casefold())
    if emotion is None:
        source = f"{NAME} says" if told else "folder"
        return Fault("unknown_label", f"{source} '{raw}', which names no emotion")
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
