"""Hostile tables: labels.csv for ingest and predictions for the audit, as people break them.

A table is built row by row, so that how many rows it has is known, then written in some dialect and
encoding; about a third are damaged as bytes on top, and then only the general properties hold.
"""

import csv
import io
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from hostile.campaign import mutate, rejected, require_line
from PIL import Image

from tasks.audit.csv_audit import audit_csv
from tasks.audit.csv_audit.read_predictions import read_predictions
from tasks.audit.settings import Settings
from tasks.core.errors import UserError
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.core.text import clean, printable
from tasks.ingest import stage
from tasks.ingest.dataset_reader import read_source
from tasks.ingest.stage import Params, Source

_EMOTIONS = ("anger", "Happy", "sadness", "neutral", "surprise", "fear")
_CELLS = (
    *("", " ", "NA", "nan", "n/a", "-", "없음", "미상", "unknown", "None", "?"),
    *("=1+1", "+5", "-3", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "'", "''=1", "'=1"),
    *("$a_b$", "$\\frac{1}{", "|", "a|b", "[/red]", "<b>x</b>", "`x`", "# x", "two\nlines", "a\rb"),
    *("\x1b[31mred", "\x1b]0;title\x07", "a\0b", "\u202eabc", "\u200bS01", "S\u00a001", "e\u0301"),
    *("x" * 3000, "9" * 400, "1e999", "-1", "3,5", "3.5", "٣", "12 years", "1 000", "３", "0x10"),
    *("3-9", "9-Mar", "2026-03-09 00:00:00", "TRUE", "false", "True ", "inf", "-nan", '"', '""'),
    *("method", "n", "recall", "confidence", "../x.png", "C:\\a.png", "/etc/passwd", "a0.png"),
)
_COLUMNS = (
    "method",
    "n",
    "recall",
    "confidence",
    "named",
    "protocol",
    "",
    " ",
    "Unnamed: 3",
    "$x$",
)
_ENCODINGS = ("utf-8",) * 6 + ("utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "cp949", "latin-1")
_BANDS = {"child": (0.0, 10.0), "adolescent": (10.0, 18.0), "adult": (18.0, 130.0)}
_SETTINGS = {
    "by": ["age_band", "gender"],
    "confidence": 0.95,
    "min_n": 2,
    "min_subjects": 1,
    "correction": "holm",
    "power": 0.8,
    "resamples": 10,
    "seed": 1,
    "factors": ["age_band", "gender"],
    "standardize_to": ["emotion"],
    "calibration_bins": 5,
    "equivalence_margin": 0.05,
    "depth": 2,
    "independent_images": False,
    "pretraining": None,
    "published": None,
}
_AGES = ("child", "adult")
Rows = list[list[str]]


def check_labels(random: Random, folder: Path) -> str:
    """Read pictures beside a hostile labels.csv: each is an entry or refused, or one line."""
    paths, known = _labelled(random, folder)
    try:
        source = read_source("many", "folder", paths)
    except UserError as error:
        return rejected(error)
    for note in source.notes:
        require_line(note)
    _require_images(
        [entry.path for entry in source.entries],
        [refused.path.removeprefix("many/") for refused in source.refused],
        known,
    )
    return "accepted"


def check_ingest(random: Random, folder: Path) -> str:
    """Run the whole stage on the same: each picture is a row or a reject, or one line."""
    paths, known = _labelled(random, folder)
    params = Params(
        datasets={"many": Source(adapter="folder")},
        optional_datasets=[],
        age_bands=_BANDS,
        max_pixels=1_000_000,
        workers=1,
    )
    try:
        stage.run(params, paths)
    except UserError as error:
        return rejected(error)
    found = [path.removeprefix("many/") for path in read_table(paths.manifest)["path"]]
    rejects = [row["path"].removeprefix("many/") for row in _records(paths.rejects("ingest"))]
    _require_images(found, rejects, known)
    return "accepted"


def _labelled(random: Random, folder: Path) -> tuple[Paths, Rows | None]:
    """Make a data set of pictures and a hostile labels.csv; see `hostile_table`."""
    paths = Paths(folder)
    images = paths.raw / "many"
    images.mkdir(parents=True)
    for name, content in _images().items():
        (images / name).write_bytes(content)
    header = ["path", "emotion", "subject_id", "age_years", "gender"]
    rows = [
        [name, random.choice(_EMOTIONS), f"s{index % 3}", str(5 + index), random.choice("mf")]
        for index, name in enumerate(_images())
    ]
    content, known = hostile_table(random, header, rows)
    (images / "labels.csv").write_bytes(content)
    return paths, known


def _require_images(found: list[str], refused: list[str], known: Rows | None) -> None:
    """Check that every picture is found or refused, once, and that every row led to a file."""
    both = [*found, *refused]
    assert {*_images()} <= {*both}, "a picture is neither found nor refused"
    assert len(found) == len(set(found)), "a picture is there twice"
    assert not {*found} & {*refused}, "a picture is found and refused"
    if known is not None and "path" in known[0]:
        at = known[0].index("path")
        named = {clean(row[at]) for row in known[1:] if len(row) > at}
        lost = (named & {*_images()}) - {clean(path) for path in both}
        assert not lost, lost


def check_predictions(random: Random, folder: Path) -> str:
    """Read hostile predictions: rows in are rows read and rejected, or one line."""
    path, known, _ = _predictions(random, folder)
    try:
        found = read_predictions(path)
    except UserError as error:
        return rejected(error)
    for note in found.notes:
        require_line(note)
    assert len(found.frame), "nothing to audit, and no error"
    _require_rows(len(found.frame) + len(found.rejects), known)
    return "accepted"


def check_audit(random: Random, folder: Path) -> str:
    """Audit the same: what is written accounts for every row and can be read, or one line."""
    path, known, further = _predictions(random, folder)
    settings = Settings.model_construct(**_SETTINGS)
    audit_csv.write_figures = lambda *_: []  # 2 s each; their texts have tests of their own
    try:
        written = audit_csv.audit_csv(path, folder / "out", settings, None, further, _BANDS)
    except UserError as error:
        return rejected(error)
    account = next(note for note in written.notes if "audited" in note)
    counts = re.findall(r"(\d+) (?:rows|audited|rejected|without an answer)", account)
    total, audited, refused, *silent = map(int, counts)
    assert total == audited + refused + sum(silent) and refused == len(
        _records(folder / "out/rejects.csv")
    )
    _require_rows(total, known)
    _check_outputs(written.paths)
    return "accepted"


def _require_rows(total: int, known: Rows | None) -> None:
    if known is not None:
        expected = sum(any(clean(cell) for cell in row) for row in known[1:])
        # Python's writer does not quote a carriage return, which then ends the row for any reader.
        split = sum(cell.count("\r") for row in known[1:] for cell in row)
        assert expected <= total <= expected + split, (
            f"{expected} rows were written, {total} are accounted for"
        )


def _predictions(random: Random, folder: Path) -> tuple[Path, Rows | None, list[str]]:
    """Write hostile predictions; return their file, its rows, and columns to compare."""
    header = ["image_id", "subject_id", "emotion", "y_pred", "age_band", "gender", "note"]
    rows = [
        [f"i{n}", f"s{n % 7}", *random.choices(_EMOTIONS, k=2), random.choice(_AGES), "f", "x"]
        for n in range(24)
    ]
    if random.random() < 0.3:
        header.append("p_anger")
        rows = [[*row, f"{random.random():.3f}"] for row in rows]
    content, known = hostile_table(random, header, rows)
    path = folder / "predictions.csv"
    path.write_bytes(content)
    return path, known, ["note"] if random.random() < 0.3 else []


def hostile_table(random: Random, header: list[str], rows: Rows) -> tuple[bytes, Rows | None]:
    """Return a table's bytes, and its rows (header first) where these are still known."""
    table = [header, *rows]
    for _ in range(random.choice((0, 1, 1, 2, 4))):
        random.choice((_cell, _cell, _cell, _shape, _head))(table, random)
    content = _written(random, table)
    if random.random() < 0.35:
        return mutate(content, random, 2), None
    return content, table


def _cell(table: Rows, random: Random) -> None:
    row = random.choice(table[1:] or table)
    if row:
        row[random.randrange(len(row))] = random.choice(_CELLS)


def _shape(table: Rows, random: Random) -> None:
    """Change which rows and how many cells there are."""
    at = random.randrange(1, len(table)) if len(table) > 1 else 0
    what = random.randrange(8)
    if what == 0:
        table.insert(at, list(table[random.randrange(len(table))]))  # doubled, or the header again
    elif what == 1:
        table[at] = table[at][: random.randrange(len(table[at]) + 1)]
    elif what == 2:
        table[at] = [*table[at], *[random.choice(("", "x", "1"))] * random.choice((1, 3, 300))]
    elif what == 3:
        table.insert(at, [])
    elif what == 4:
        table.append(["Total", str(len(table))])
    elif what == 5:
        del table[at:]
    elif what == 6:
        for row in table:
            row += ["", ""]
    else:
        table[at] = [""] * len(table[at])


def _head(table: Rows, random: Random) -> None:
    """Change the header."""
    header = table[0]
    at = random.randrange(len(header)) if header else 0
    what = random.randrange(6)
    if not header:
        return
    if what == 0:
        header[at] = random.choice(header)
    elif what == 1:
        header[at] = random.choice((*_COLUMNS, *_CELLS))
    elif what == 2:
        header[at] = random.choice(("{}", " {} ", "{}\u200b", "\ufeff{}", "{}\n")).format(
            header[at]
        )
    elif what == 3:
        header[at] = header[at].upper()
    elif what == 4:
        order = random.sample(range(len(header)), len(header))
        table[:] = [[row[i] for i in order] if len(row) == len(order) else row for row in table]
    else:
        del table[0][at]


def _written(random: Random, table: Rows) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        delimiter=random.choice(",,,;\t"),
        quoting=random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        lineterminator=random.choice(("\n", "\r\n")),
    )
    writer.writerows(table)
    text = buffer.getvalue()
    encoding = random.choice(_ENCODINGS)
    return text.encode(encoding, errors="replace")


@cache
def _images() -> dict[str, bytes]:
    """Return a few distinct pictures by name, one of them in Hangul."""
    found = {}
    for index, name in enumerate(("a0.png", "b 1.png", "c2.png", "한글.png")):
        buffer = io.BytesIO()
        Image.fromarray(np.full((9, 9, 3), 40 * index, np.uint8)).save(buffer, "PNG")
        found[name] = buffer.getvalue()
    return found


def _records(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, strict=True))


def _check_outputs(paths: Sequence[Path]) -> None:
    """Check that what was written can be read and holds nothing that a terminal would act upon."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for line in text.splitlines():
            assert printable(line) == line, f"{path.name} holds control characters: {line[:200]!r}"
        if path.suffix == ".csv":
            rows = list(csv.reader(io.StringIO(text), strict=True))
            assert len({len(row) for row in rows}) == 1, f"{path.name}: rows of several lengths"
