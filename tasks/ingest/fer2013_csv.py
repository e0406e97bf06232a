"""FER2013's table of pixels becomes pictures, row by row, so that memory does not grow with it.

The table (`fer2013.csv`, `icml_face_data.csv`) has the columns `emotion`, `pixels` (2,304 grey
values, rows of 48 from the top) and `Usage`, in any order. Row 12, counted from 0, becomes
`fer0000012.png`, as FER+ names it; emotion and usage go into `fer2013_labels.csv`.
"""

import csv
import re
from pathlib import Path

import numpy as np
from PIL import Image

from tasks.core.errors import DataError
from tasks.core.progress import track
from tasks.core.text import csv_cell
from tasks.ingest.sheet import Record, each, read_records

TABLE_NAMES: tuple[str, ...] = ("fer2013.csv", "icml_face_data.csv")
LABELS_NAME = "fer2013_labels.csv"
SIDE_PX = 48
_CHUNK_BYTES = 1 << 16
_COLUMNS = {name: re.compile(name) for name in ("emotion", "pixels", "usage")}
_NEEDED = each(["emotion", "pixels"])


def picture_name(row: int) -> str:
    """Return the name that FER+ gives to the picture of a row, counted from 0."""
    return f"fer{row:07}.png"


def write_pictures(table: Path, folder: Path) -> int:
    """Write every row's picture, and the labels beside them.

    Parameters
    ----------
    table
        The table of pixels.
    folder
        An existing folder without such pictures.

    Returns
    -------
    int
        Number of pictures.

    Raises
    ------
    DataError
        One line that names the row whose pixels are not 2,304 values from 0 to 255; what was
        written until then is the caller's to remove.
    """
    number = -1
    with (folder / LABELS_NAME).open("x", encoding="utf-8", newline="") as handle:
        labels = csv.writer(handle, lineterminator="\n")
        labels.writerow(["file", "emotion", "usage"])
        records = track(read_records(table, _COLUMNS, _NEEDED), _count_lines(table), "intake")
        for number, record in enumerate(records):
            name = picture_name(number)
            Image.fromarray(_grey(record, table)).save(folder / name, "PNG")
            labels.writerow([name, *(csv_cell(record.cells[key]) for key in ("emotion", "usage"))])
    if number < 0:
        raise DataError(f"{table}: has no rows")
    return number + 1


def _grey(record: Record, table: Path) -> np.ndarray:
    """Return a row's picture, `(48, 48)` uint8."""
    try:
        values = bytes(map(int, record.cells["pixels"].split()))  # ValueError outside 0 to 255
    except ValueError:
        values = b""
    if len(values) != SIDE_PX * SIDE_PX:
        raise DataError(
            f"{table}: row {record.number}: pixels are not {SIDE_PX * SIDE_PX} values from 0 to "
            "255; get the table again"
        )
    return np.frombuffer(values, dtype=np.uint8).reshape(SIDE_PX, SIDE_PX)


def _count_lines(table: Path) -> int:
    with table.open("rb") as handle:
        chunks = iter(lambda: handle.read(_CHUNK_BYTES), b"")
        return sum(chunk.count(b"\n") for chunk in chunks)
