"""Adapter `affectnet`: AffectNet, about 440,000 labeled images from the web.

A. Mollahosseini, B. Hasani, M. H. Mahoor (2019), IEEE Trans. Affective Computing 10(1):18-31,
https://doi.org/10.1109/TAFFC.2017.2740923. For research, on request:
http://mohammadmahoor.com/affectnet/.

First form: tables (`training.csv`, `validation.csv`) with the columns `subDirectory_filePath`
(`689/7d1c.jpg`) and `expression`, the first and the seventh column in a table without a header.
Second form, which is distributed now: `images/0.jpg` with `annotations/0_exp.npy`.
0 neutral, 1 happy, 2 sad, 3 surprise, 4 fear, 5 disgust, 6 anger, 7 contempt.

Quirks: the expressions 8 (none), 9 (uncertain) and 10 (no face) are not emotions and are left out
with that reason. Subjects, ages and genders are unknown. A table of which no image exists is
ignored with a note, because some of the set's tables describe images that are distributed
separately.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np

from tasks.core.errors import DataError
from tasks.core.text import clean
from tasks.ingest.label import AdapterResult, Fault, Label
from tasks.ingest.spreadsheet import Row, open_rows

_EMOTIONS: Mapping[str, str] = {
    "0": "neutral",
    "1": "happiness",
    "2": "sadness",
    "3": "surprise",
    "4": "fear",
    "5": "disgust",
    "6": "anger",
    "7": "contempt",
}
_NO_EMOTIONS: Mapping[str, str] = {"8": "none", "9": "uncertain", "10": "no face"}
_PATH_HEADER, _EXPRESSION_HEADER = "subdirectory_filepath", "expression"
_PATH_CELL = re.compile(r"\d+/[^/]+\.\w+")
_EXPRESSION_INDEX = 6  # in a table without a header
_ARRAY = "_exp.npy"


def read_affectnet(folder: Path, files: Sequence[str]) -> AdapterResult:
    """Read labels from the tables or arrays; DataError without either.

    Faults are `no_emotion` (expressions 8 to 10), `unknown_label`, `conflicting_labels` (two
    tables), `no_label` and `missing_file` (listed in a table).
    """
    tables = [path for path in files if path.lower().endswith(".csv")]
    arrays = [path for path in files if path.endswith(".npy")]
    if not (tables or arrays):
        raise DataError(f"{folder}: no training.csv or validation.csv (nor annotations/*_exp.npy)")
    side_files = frozenset([*tables, *arrays])
    images = [path for path in files if path not in side_files]
    codes: dict[str, tuple[str, ...]] = dict.fromkeys(images, ())
    missing: dict[str, Fault] = {}
    notes: list[str] = []
    for table in tables:
        absent = _read_table(folder / table, _by_end(images), codes)
        if absent is None:
            notes.append(f"{table}: none of its pictures is there")
        else:
            missing |= {name: Fault("missing_file", f"listed in {table}") for name in absent}
    for path, code in _read_arrays(folder, arrays, images):
        _add(codes, path, code)
    labels = {path: _label(expressions) for path, expressions in codes.items()}
    return AdapterResult(labels, side_files, missing, tuple(notes))


def _add(codes: dict[str, tuple[str, ...]], path: str, code: str) -> None:
    if code not in codes[path]:
        codes[path] = (*codes[path], code)


@cache  # half a million images share a few labels
def _label(codes: tuple[str, ...]) -> Label | Fault:
    if not codes:
        return Fault("no_label", "is in no table of labels")
    if len(codes) > 1:
        return Fault("conflicting_labels", f"expressions {' and '.join(sorted(codes))}")
    code = codes[0]
    if code in _NO_EMOTIONS:
        return Fault("no_emotion", f"expression {code}: {_NO_EMOTIONS[code]}")
    if code not in _EMOTIONS:
        return Fault("unknown_label", f"expression '{code}'; labels are 0 to 10")
    return Label(_EMOTIONS[code], code)


def _by_end(images: Sequence[str]) -> dict[str, str]:
    """Return the images by the last two parts of their paths, as in the tables."""
    return {clean("/".join(path.split("/")[-2:])): path for path in images}


def _read_table(
    path: Path, by_end: Mapping[str, str], codes: dict[str, tuple[str, ...]]
) -> list[str] | None:
    """Add a table's codes; return the missing images, or None if all are missing."""
    absent: list[str] = []
    n_present = 0
    with open_rows(path) as rows:
        for name, code in _cells(rows, path):
            name = clean(name)
            if name in by_end:
                _add(codes, by_end[name], code)
                n_present += 1
            else:
                absent.append(name)
    return absent if n_present else None


def _cells(rows: Iterator[Row], path: Path) -> Iterator[tuple[str, str]]:
    """Yield (image, expression) of every row of a table."""
    first = next(rows, ())
    header = [cell.lower() for cell in first]
    if _PATH_HEADER in header and _EXPRESSION_HEADER in header:
        path_index, code_index = header.index(_PATH_HEADER), header.index(_EXPRESSION_HEADER)
    elif len(first) > _EXPRESSION_INDEX and _PATH_CELL.fullmatch(first[0]):
        path_index, code_index = 0, _EXPRESSION_INDEX
        yield first[path_index], first[code_index]
    else:
        raise DataError(
            f"{path}: needs the columns subDirectory_filePath and expression (the first row is "
            f"{', '.join(first)[:80] or 'empty'})"
        )
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        if len(row) <= max(path_index, code_index):
            raise DataError(f"{path}: row {number} has only {len(row)} cells")
        yield row[path_index], row[code_index]


def _read_arrays(
    folder: Path, arrays: Sequence[str], images: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Yield (image, expression) of every `annotations/N_exp.npy` with an `images/N.*`."""
    by_number = {
        (str(PurePosixPath(path).parent.parent), PurePosixPath(path).stem): path for path in images
    }
    for array in (path for path in arrays if path.endswith(_ARRAY)):
        stem = PurePosixPath(array).name.removesuffix(_ARRAY)
        image = by_number.get((str(PurePosixPath(array).parent.parent), stem))
        if image is None:
            continue
        try:
            value = np.load(folder / array, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder / array}: is no NumPy array ({error})") from None
        yield image, str(value).strip()
