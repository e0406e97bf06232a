"""Stage `ingest`: every picture of the data sets that params name becomes a row, or a reject.

Reads `data/raw/<dataset>/`, where a folder with `_READY` is a batch that came through the inbox;
writes `data/manifest.parquet` and `data/rejects/ingest.csv`. Files seen = rows + rejects. Raises
DataError with one line for a data set without usable pictures.
Files are decoded whole, once, so that no later stage meets one that cannot be opened.
"""

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from tasks.core.errors import DataError
from tasks.core.execution import process_pool
from tasks.core.kept import kept_results
from tasks.core.labels import ALL
from tasks.core.lookalikes import lookalikes_note
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.progress import track
from tasks.core.result import StageResult
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    rejects_table,
    write_csv,
    write_table,
)
from tasks.core.text import is_missing
from tasks.ingest.adapters import ADAPTERS, WITHOUT_EMOTIONS
from tasks.ingest.decode import notes_on, scan_new_files
from tasks.ingest.label import DATASET_NAME
from tasks.ingest.manifest import ManifestRow, manifest_table
from tasks.ingest.pictures import make_rows, require_rows
from tasks.ingest.sources import Entry, Reject, read_source, require_folders

KEPT = "work/kept/ingest.sqlite"  # what decoding showed; see tasks.core.kept

AgeBands = dict[str, tuple[float, float]]


def _check_bands(bands: AgeBands) -> AgeBands:
    end = float("-inf")
    for name, (low, high) in sorted(bands.items(), key=lambda item: item[1]):
        if name == ALL or is_missing(name) or not end <= low < high:
            raise ValueError(f"band '{name}' [{low}, {high}) is empty, overlaps or has such a name")
        end = high
    return bands


def _check_adapter(name: str) -> str:
    if name in WITHOUT_EMOTIONS:
        raise ValueError(
            "this data set has no emotions and can only be counted: `affectgap datasets count "
            f"FOLDER --adapter {name}`"
        )
    if name not in ADAPTERS:
        raise ValueError(f"is no adapter; there are {', '.join(sorted(ADAPTERS))}")
    return name


def _check_dataset(name: str) -> str:
    if is_missing(name):  # in our own tables it would read as no data set
        raise ValueError(f"'{name}' stands for a missing value; choose another name")
    return name


class Source(Section):
    """How the files of one data set are read."""

    adapter: Annotated[str, AfterValidator(_check_adapter)]


class Params(Section):
    """The section `ingest` of params.yaml."""

    datasets: dict[
        Annotated[
            str,
            StringConstraints(pattern=f"^{DATASET_NAME.pattern}$"),
            AfterValidator(_check_dataset),
        ],
        Source,
    ] = Field(min_length=1)
    may_be_empty: list[str]
    age_bands: Annotated[AgeBands, AfterValidator(_check_bands)]
    max_pixels: int = Field(gt=0)
    workers: int = Field(ge=0)


def run(params: Params, paths: Paths) -> StageResult:
    """Make the manifest; see the module's text."""
    entries: list[Entry] = []
    rejects: list[Reject] = []
    notes: list[str] = []
    filled = {
        name: source for name, source in params.datasets.items() if _is_read(name, params, paths)
    }
    if not filled:
        raise DataError(_nothing_yet(params, paths))
    require_folders(sorted(filled), paths)
    for dataset, source in sorted(filled.items()):
        found = read_source(dataset, source.adapter, paths)
        entries += found.entries
        rejects += found.refused
        notes += found.notes
    seen = len(entries) + len(rejects)
    kept = kept_results(paths.at(KEPT))
    with process_pool(params.workers) as executor, kept as earlier:
        files = (paths.raw / entry.dataset / entry.path for entry in entries)
        scans = scan_new_files(files, params.max_pixels, executor, params.workers, earlier)
        scans = list(track(scans, len(entries), "ingest"))
        rows, faulty = make_rows(entries, scans, params.age_bands)
    known = [row.subject_id for row in rows if row.subject_known]
    notes += filter(None, [lookalikes_note(known)])
    rejects = sorted(rejects + faulty, key=Reject.order)
    check_conservation("ingest", seen, len(rows), len(rejects))
    write_csv(rejects_table(rejects), paths.rejects("ingest"))
    require_rows(filled, rows, rejects, paths)
    write_table(manifest_table(rows), paths.manifest, MANIFEST_SCHEMA)
    return _result(seen, rows, rejects, [*notes, *notes_on(scans)])


def _is_read(dataset: str, params: Params, paths: Paths) -> bool:
    """Whether a data set takes part: one that may be empty does once it holds something."""
    folder = paths.raw / dataset
    return dataset not in params.may_be_empty or (folder.is_dir() and any(folder.iterdir()))


def _nothing_yet(params: Params, paths: Paths) -> str:
    return (
        f"{paths.raw}: no data set holds a picture yet ({', '.join(sorted(params.datasets))}; all "
        f"may be empty); put a batch into {paths.inbox} and run `affectgap intake`"
    )


def _result(
    seen: int, rows: list[ManifestRow], rejects: list[Reject], notes: list[str]
) -> StageResult:
    reasons = Counter(reject.reason for reject in rejects)
    subjects = len({row.subject_id for row in rows})
    metrics = {"files": seen, "pictures": len(rows), "subjects": subjects, "rejects": len(rejects)}
    metrics |= {f"rejects_{reason}": count for reason, count in sorted(reasons.items())}
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    summary = f"{len(rows)} pictures of {subjects} subjects" + (
        f"; left out: {listed}" * bool(listed)
    )
    summary = "; ".join([summary, *notes])
    return StageResult(
        metrics={name: float(value) for name, value in metrics.items()}, summary=summary
    )
