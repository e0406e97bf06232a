"""From entries and what decoding showed to the manifest's rows and the rejects."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.ingest.decode import Scan
from tasks.ingest.duplicates import find_duplicates
from tasks.ingest.label import Fault
from tasks.ingest.manifest import Bands, ManifestRow, image_id, make_row
from tasks.ingest.sources import Entry, Reject, reject


def make_rows(
    entries: Sequence[Entry], scans: Iterable[Scan], bands: Bands
) -> tuple[list[ManifestRow], list[Reject]]:
    """Make a row or a reject of every entry.

    Parameters
    ----------
    entries
        The files, in any order.
    scans
        What decoding showed, in the order of `entries`.
    bands
        Age bands: name to `[from, to)` in years.

    Returns
    -------
    tuple of two lists
        Rows sorted by data set and path, each content once; and the rejects, unsorted.
    """
    rows: list[ManifestRow] = []
    rejects: list[Reject] = []
    for entry, scan in zip(entries, scans, strict=True):
        row = make_row(entry.dataset, entry.path, entry.label, scan, bands)
        if isinstance(row, Fault):
            rejects.append(reject(entry.dataset, entry.path, row, image_id(scan.sha256)))
        else:
            rows.append(row)
    rows.sort(key=lambda row: (row.dataset, row.path))
    repeated = find_duplicates(rows)
    for position, fault in repeated.items():
        row = rows[position]
        rejects.append(Reject(row.image_id, row.path, fault.reason, fault.detail))
    return [row for position, row in enumerate(rows) if position not in repeated], rejects


def require_rows(
    datasets: Iterable[str], rows: Sequence[ManifestRow], rejects: Sequence[Reject], paths: Paths
) -> None:
    """Raise DataError with one line where a data set has no row; a run without it would mislead."""
    counts = Counter(row.dataset for row in rows)
    for dataset in datasets:
        if counts[dataset]:
            continue
        mine = [reject for reject in rejects if reject.path.startswith(f"{dataset}/")]
        reasons = Counter(reject.reason for reject in mine).most_common()
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons)
        example = next(reject for reject in mine if reject.reason == reasons[0][0])
        raise DataError(
            f"{paths.raw / dataset}: none of its {len(mine)} files can be used ({listed}); "
            f"{example.path}: {example.detail}; all are in {paths.rejects('ingest')}"
        )
