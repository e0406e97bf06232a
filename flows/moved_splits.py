"""Finds pictures whose split changes because a person's id is read in today's spelling.

Earlier versions took the spellings of one id (composed and decomposed Unicode, invisible
characters) for several people, and everyone called `NA` for one. A subject's split is drawn from
its id, so that it may change once, in the run that first reads such data anew.
"""

from tasks.core.errors import DataError
from tasks.core.labels import SPLITS
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import current_subjects, read_table_as_written
from tasks.split.by_hash import assign_splits
from tasks.split.stage import Params

_COLUMNS = ("image_id", "subject_id", "subject_known", "split")


def moved_splits_note(paths: Paths) -> str:
    """Return a line on the pictures of the last split that move, "" where its ids are current."""
    try:
        before = read_table_as_written(paths.split, _COLUMNS)
    except (DataError, OSError):  # no run before this one, or a torn table that DVC makes again
        return ""
    now = current_subjects(before)
    renamed = now["subject_id"] != before["subject_id"]
    if not renamed.any():
        return ""
    params = load_section(paths.params, "split", Params)
    parts = {name: getattr(params.parts, name) for name in SPLITS}
    split = assign_splits(now, params.seed, params.by == "subject", parts)
    moved = renamed & (split != before["split"])
    trained = moved & (before["split"] == "test") & (split == "train")
    people = before.loc[renamed, "subject_id"].nunique()
    return (
        f"{people} ids are now read in one spelling per person (composed Unicode, no invisible "
        "characters; a word for missing is no id): of their pictures "
        f"{int(moved.sum())} change the split, {int(trained.sum())} of them from test to training. "
        "The gate leaves people who are no longer test people out of the frozen test"
    )
