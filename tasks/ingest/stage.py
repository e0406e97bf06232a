"""Stage `ingest`: the manifest of the images of all data sets named in params.

Reads `data/raw/<dataset>/`, where a folder with `_READY` is a batch of the inbox. Writes
`data/manifest.parquet` and `data/rejects/ingest.csv`; every file except side files is in exactly
one of them. Every file is decoded, so that no later stage meets an unreadable one. Raises DataError
for a data set without usable images.
"""

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from tasks.core.cache.result_cache import kept_results
from tasks.core.errors import DataError
from tasks.core.labels import ALL
from tasks.core.parallel.execution import process_pool
from tasks.core.parallel.progress import track
from tasks.core.params import Section
from tasks.core.paths import Paths
from tasks.core.stages import StageResult
from tasks.core.tables import (
    MANIFEST_SCHEMA,
    check_conservation,
    rejects_table,
    write_csv,
    write_table,
)
from tasks.core.text import is_missing, lookalikes_note
from tasks.ingest.adapters import ADAPTERS, WITHOUT_EMOTIONS
from tasks.ingest.dataset_reader import Entry, Reject, is_empty, read_source, require_folders
from tasks.ingest.label import DATASET_NAME
from tasks.ingest.manifest import ManifestRow, make_rows, manifest_table, require_rows
from tasks.ingest.scan import notes_on, scan_with_cache

SCAN_CACHE = "work/kept/ingest.sqlite"  # cached scans; see tasks.core.cache.result_cache

AgeBands = dict[str, tuple[float, float]]


def _check_bands(bands: AgeBands) -> AgeBands:
    end = float("-inf")
    for name, (low, high) in sorted(bands.items(), key=lambda item: item[1]):
        if name == ALL or is_missing(name) or not end <= low < high:
            raise ValueError(
                f"band '{name}' [{low}, {high}) is empty, overlaps another or has a reserved name"
            )
        end = high
    return bands


def _check_adapter(name: str) -> str:
    if name in WITHOUT_EMOTIONS:
        raise ValueError(
            "this data set has no emotions and can only be counted: `affectgap datasets count "
            f"FOLDER --adapter {name}`"
        )
    if name not in ADAPTERS:
        raise ValueError(f"is not an adapter; use one of {', '.join(sorted(ADAPTERS))}")
    return name


def _check_dataset(name: str) -> str:
    if is_missing(name):  # tables would read it as missing
        raise ValueError(f"'{name}' stands for a missing value; choose another name")
    return name


class Source(Section):
    """Settings of one data set."""

    adapter: Annotated[str, AfterValidator(_check_adapter)]


class Params(Section):
    """Section `ingest` of params.yaml."""

    datasets: dict[
        Annotated[
            str,
            StringConstraints(pattern=f"^{DATASET_NAME.pattern}$"),
            AfterValidator(_check_dataset),
        ],
        Source,
    ] = Field(min_length=1)
    optional_datasets: list[str]
    age_bands: Annotated[AgeBands, AfterValidator(_check_bands)]
    max_pixels: int = Field(gt=0)
    workers: int = Field(ge=0)


def run(params: Params, paths: Paths) -> StageResult:
    """Write the manifest and the rejects."""
    entries: list[Entry] = []
    rejects: list[Reject] = []
    notes: list[str] = []
    filled = {
        name: source
        for name, source in params.datasets.items()
        if name not in params.optional_datasets or not is_empty(paths.raw / name)
    }
    if not filled:
        raise DataError(
            f"{paths.raw}: no data set holds a picture yet ({', '.join(sorted(params.datasets))}; "
            f"all may be empty); put a batch into {paths.inbox} and run `affectgap intake`"
        )
    require_folders(sorted(filled), paths)
    for dataset, source in sorted(filled.items()):
        contents = read_source(dataset, source.adapter, paths)
        entries += contents.entries
        rejects += contents.refused
        notes += contents.notes
    n_files = len(entries) + len(rejects)
    with process_pool(params.workers) as executor, kept_results(paths.at(SCAN_CACHE)) as cache:
        files = (paths.raw / entry.dataset / entry.path for entry in entries)
        scans = scan_with_cache(files, params.max_pixels, executor, params.workers, cache)
        scans = list(track(scans, len(entries), "ingest"))
        rows, faulty = make_rows(entries, scans, params.age_bands)
    known = [row.subject_id for row in rows if row.subject_known]
    notes += filter(None, [lookalikes_note(known)])
    rejects = sorted(rejects + faulty, key=Reject.order)
    check_conservation("ingest", n_files, len(rows), len(rejects))
    write_csv(rejects_table(rejects), paths.rejects("ingest"))
    require_rows(filled, rows, rejects, paths)
    write_table(manifest_table(rows), paths.manifest, MANIFEST_SCHEMA)
    return _result(n_files, rows, rejects, [*notes, *notes_on(scans)])


def _result(
    n_files: int, rows: list[ManifestRow], rejects: list[Reject], notes: list[str]
) -> StageResult:
    reasons = Counter(reject.reason for reject in rejects)
    subjects = len({row.subject_id for row in rows})
    metrics = {
        "files": n_files,
        "pictures": len(rows),
        "subjects": subjects,
        "rejects": len(rejects),
        **{f"rejects_{reason}": count for reason, count in sorted(reasons.items())},
    }
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    parts = [f"{len(rows)} pictures of {subjects} subjects"]
    parts += [f"left out: {listed}"] if listed else []
    return StageResult(
        metrics={name: float(value) for name, value in metrics.items()},
        summary="; ".join([*parts, *notes]),
    )
