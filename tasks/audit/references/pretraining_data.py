"""Composition of the base model's pretraining data: published shares, or this run's images.

`pretraining/<name>.csv` holds what is published about the people in common training sets. A CSV
that `affectgap datasets count` wrote does the same for a local data set. For a model that was
trained here, its training images are counted. Sets without published figures are listed as such.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from tasks.audit.measures.group_cube import values_in_order
from tasks.audit.references.published_results import COUNTS, adds_up, read_printed
from tasks.audit.settings import Settings
from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import UNKNOWN
from tasks.core.paths import MODELS
from tasks.core.text import is_missing

FOLDER = Path(__file__).parent / "pretraining"
COLUMNS = ["model", "training_set", "attribute", "group", "share", "n", "source", "note"]
COUNTED = ["attribute", "group", *COUNTS]  # the columns of a CSV of counts
_PUBLISHED = ["training_set", *COUNTED, "complete", "source", "note"]
BASE = MODELS[0]


def pretraining_table(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Describe who the base model was trained on.

    `frame` has one row per model and image. `settings.pretraining` is a published table's name, the
    path of a CSV of counts, or None.

    The table has one row per group of an attribute of a training set: `share` from 0 to 1, the
    number `n` of images where it is known, `source`, and in `note` what does not add up. A set
    without known figures has one row with a note. Images of this run that the base model was
    trained on follow, by the columns of `settings.by`. Raises ParamsError where `pretraining` is
    neither a known name nor a file, and DataError where the file lacks a column or a share is not
    valid.
    """
    rows = [] if settings.pretraining is None else _known(settings.pretraining)
    rows += _seen_here(frame, settings.by)
    return pd.DataFrame(rows, columns=COLUMNS)


def _known(name: str) -> list[dict[str, Any]]:
    """Read a published table by name, or a CSV of counts by path."""
    known = sorted(path.stem for path in FOLDER.glob("*.csv"))
    if name in known:
        table = read_printed(FOLDER / f"{name}.csv", _PUBLISHED)
    elif Path(name).is_file():
        table = read_printed(Path(name), COUNTED)
        table["group"] = table["group"].mask(table["group"].map(is_missing), UNKNOWN)
        table = table.assign(training_set=Path(name).stem, complete="yes", source=name, note="")
    else:
        raise ParamsError(
            f"audit.pretraining: {name!r} is no published table ({', '.join(known)}) and no file"
        )
    parts = table.groupby(["training_set", "attribute"], sort=False)
    return [row for _, part in parts for row in _rows(part, name)]


def _rows(part: pd.DataFrame, name: str) -> Iterator[dict[str, Any]]:
    """Yield one attribute's groups, with a note where the shares do not add up to 100 %."""
    shares = [share for share in part["share"] if share]
    try:
        total = sum(float(share) for share in shares)
        complete = (part["complete"] == "yes").all() and len(shares) == len(part)
        wrong = total > 1 or complete
        doubt = wrong and bool(shares) and not adds_up(shares, 1.0)
        for _, row in part.iterrows():
            warning = f"the shares add up to {100 * total:.1f} %; shown as printed" if doubt else ""
            yield {
                "model": BASE,
                **{key: row[key] for key in ("training_set", "attribute", "group", "source")},
                "share": float(row["share"]) if row["share"] else float("nan"),
                "n": float(row["n"]) if row["n"] else float("nan"),
                "note": "; ".join(filter(None, [row["note"], warning])),
            }
    except ValueError as error:
        raise DataError(f"audit.pretraining: {name}: {error}") from None


def _seen_here(frame: pd.DataFrame, by: list[str]) -> list[dict[str, Any]]:
    """Count the base model's training images among the predictions, where some are held out."""
    base = frame[frame["model"] == BASE]
    seen = base[base["seen_in_training"].astype(bool)]
    if seen.empty or len(seen) == len(base):  # nothing trained here, or unknown
        return []
    datasets = ", ".join(sorted(seen["dataset"].astype("str").unique()))
    people = seen["subject_id"].nunique()
    return [
        {
            "model": BASE,
            "training_set": f"this run's pictures ({datasets})",
            "attribute": attribute,
            "group": group,
            "share": n / len(seen),
            "n": float(n),
            "source": "the predictions (seen_in_training)",
            "note": f"pictures of the {people} people who had a part in its weights or in "
            "choosing them",
        }
        for attribute in by
        for group, n in _counted(seen, base, attribute)
    ]


def _counted(seen: pd.DataFrame, base: pd.DataFrame, attribute: str) -> Iterator[tuple[str, int]]:
    """Count images by group; a group of the audit that the training lacks is a zero."""
    values = base.assign(
        **{attribute: base[attribute].astype("str").where(base[attribute].notna(), UNKNOWN)}
    )
    tallied = values.loc[seen.index, attribute].value_counts()
    for group in values_in_order(values, attribute):
        if group != UNKNOWN or group in tallied.index:
            yield group, int(tallied.get(group, 0))
