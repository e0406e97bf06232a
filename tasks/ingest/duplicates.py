"""The same picture twice: kept once under one label, left out under two.

One content under two emotions cannot be right twice and would also leak between the splits; which
of the labels is right only a person can say, so that all of them are left out.
"""

from collections import defaultdict
from collections.abc import Sequence

from tasks.ingest.label import Fault
from tasks.ingest.manifest import ManifestRow


def find_duplicates(rows: Sequence[ManifestRow]) -> dict[int, Fault]:
    """Find the rows to leave out because another row holds the same bytes.

    Parameters
    ----------
    rows
        Rows in the manifest's order.

    Returns
    -------
    dict
        Position to fault: `duplicate` for all but one of a content under one emotion (the first
        that came in no batch, else the first), `conflicting_labels` for every row of a content
        under several.
    """
    same_content: dict[str, list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        same_content[row.sha256].append(position)
    faults: dict[int, Fault] = {}
    for positions in same_content.values():
        if len(positions) == 1:
            continue
        if len({rows[position].emotion for position in positions}) > 1:
            faults |= {position: _conflict(rows, position, positions) for position in positions}
        else:
            kept = min(positions, key=lambda position: (rows[position].batch != "", position))
            faults |= {
                position: _repeat(rows[kept], rows[position])
                for position in positions
                if position != kept
            }
    return faults


def _conflict(rows: Sequence[ManifestRow], position: int, positions: Sequence[int]) -> Fault:
    others = [rows[other] for other in positions if other != position]
    named = ", ".join(f"{other.path} ({other.emotion})" for other in others)
    return Fault("conflicting_labels", f"{rows[position].emotion} here; same content: {named}")


def _repeat(first: ManifestRow, row: ManifestRow) -> Fault:
    subjects = "" if first.subject_id == row.subject_id else f" as {first.subject_id}"
    return Fault("duplicate", f"same content as {first.path}, which is kept{subjects}")
