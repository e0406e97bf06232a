"""`affectgap gate-power`: how often the gate would err, before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from flows.gate import answers_of_judged, needed_groups
from tasks.core.errors import UserError
from tasks.core.headline import percent, points
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table, write_csv
from tasks.gate.compare import Named, named_groups
from tasks.gate.power import (
    PASSES,
    Assumed,
    People,
    drawn_people,
    made_up_people,
    people_of,
    power_table,
)
from tasks.gate.settings import Params
from tasks.split.by_hash import assign_splits
from tasks.split.stage import Params as SplitParams

USUAL = Assumed(recall=0.8, disagreement=0.1, icc=0.05)  # where no version has answered yet
PICTURES_PER_PERSON = 10


@dataclass(frozen=True)
class Asked:
    """Options of the command; None: from the data, or the usual value."""

    test_subjects: int | None = None
    pictures_per_person: int | None = None
    recall: float | None = None
    disagreement: float | None = None
    icc: float | None = None


def gate_power(paths: Paths, asked: Asked, out: Path | None) -> tuple[Table, list[str]]:
    """Work out the gate's error rates; returns a table to show and the lines below it.

    Parameters
    ----------
    paths
        The project's paths: params.yaml, and data/split.parquet or data/manifest.parquet.
    asked
        The options.
    out
        Where the table goes as CSV; None: nowhere.

    Raises
    ------
    UserError
        One line, where there is no data and no number of test people is given.
    """
    params = load_section(paths.params, "promote", Params)
    named = named_groups(params.protected, needed_groups(paths))
    test = _test_pictures(paths)
    people, whence = _people(paths, test, named, asked, params)
    assumed, known = _assumed(paths, test, asked)
    table = power_table(people, named, assumed, params)
    lines = [
        f"{len(people.size)} test people, {int(people.size.sum())} pictures ({whence}); recall "
        f"{percent(assumed.recall)}, two versions disagree about {percent(assumed.disagreement)} "
        f"of the pictures, correlation of one person's changes {assumed.icc:.2f} ({known})",
        "equally good: refused (or waiting) at the first look, and at least once in "
        f"{PASSES} passes on the same test people, as if passes were independent",
        "loss: of recall in the group, refused with a chance of 80 %, Monte Carlo error of that "
        "chance 2 points; –: none is; params as they are, but for the margin of groups",
    ]
    if out is not None:
        write_csv(table, out)
        lines.append(f"table: {out}")
    return _shown(table), lines


def _test_pictures(paths: Paths) -> pd.DataFrame | None:
    """Return the test pictures of the last split, or of the manifest split as params say."""
    if paths.split.is_file():
        split = read_table(paths.split)
        return split[split["split"] == "test"]
    if not paths.manifest.is_file():
        return None
    params = load_section(paths.params, "split", SplitParams)
    manifest = read_table(paths.manifest)
    parts = dict(params.parts)
    where = assign_splits(manifest, params.seed, params.by == "subject", parts)
    return manifest[where == "test"]


def _people(
    paths: Paths,
    test: pd.DataFrame | None,
    named: Sequence[Named],
    asked: Asked,
    params: Params,
) -> tuple[People, str]:
    """Return the test people, and where they are from."""
    number = asked.test_subjects
    each = asked.pictures_per_person
    if test is None or test.empty:
        if number is None:
            raise UserError(
                f"{paths.split}: holds no test people yet; say how many there would be "
                "(--test-subjects 100), or run `affectgap run split`"
            )
        each = each or PICTURES_PER_PERSON
        return made_up_people(number, each, named), "made up: each group has as many people"
    missing = {name for one in named for name in one.where} - set(test.columns)
    if missing:
        columns = ", ".join(sorted(missing))
        raise UserError(f"{paths.params}: promote.protected: no column {columns} in the data")
    people, whence = people_of(test, named), "those of the data"
    if number is not None:
        people = drawn_people(people, number, params.seed)
        whence = "drawn from those of the data"
    if each is not None:
        people = replace(people, size=np.full(len(people.size), each))
    return people, whence


def _assumed(paths: Paths, test: pd.DataFrame | None, asked: Asked) -> tuple[Assumed, str]:
    """Return recall, disagreement and correlation: asked for, as measured, or the usual ones."""
    found, whence = USUAL, "assumed"
    right = [] if test is None else _right(paths, test)
    if right and test is not None:
        found = replace(found, recall=float(right[-1].mean()))
        whence = "recall as the last version had it, the rest assumed"
        pairs = [_pair(test, *pair) for pair in combinations(right, 2)]
        changed = [one for one in pairs if one is not None and 0 < one[0] < 1]
        if changed:
            share, icc = (float(np.mean(figures)) for figures in zip(*changed, strict=True))
            found = replace(found, disagreement=share, icc=icc)
            whence = f"as {len(right)} versions answered"
    given = {
        name: value
        for name in ("recall", "disagreement", "icc")
        if (value := getattr(asked, name)) is not None
    }
    return replace(found, **given), "given" if len(given) == 3 else whence


def _right(paths: Paths, test: pd.DataFrame) -> list[pd.Series]:
    """Return which test pictures each judged version read right, oldest first."""
    labels = test.set_index("image_id")["emotion"]
    found = []
    for answers in answers_of_judged(paths):
        own = labels[labels.index.isin(answers.index)]
        if len(own):
            found.append(answers.reindex(own.index) == own)
    return found


def _pair(test: pd.DataFrame, a: pd.Series, b: pd.Series) -> tuple[float, float] | None:
    """Return how often two versions differ, and how alike the changes of one person are."""
    both = a.index.intersection(b.index)
    if both.empty:
        return None
    change = b[both].astype(float) - a[both].astype(float)
    people = test.set_index("image_id")["subject_id"].reindex(both)
    sums = change.groupby(people).agg(["sum", "size"])
    pairs = float((sums["size"] * (sums["size"] - 1)).sum())
    share = float((change != 0).mean())
    if not pairs or not share:
        return share, 0.0
    alike = float((sums["sum"] ** 2).sum() - (change**2).sum()) / pairs / share
    return share, min(max(alike, 0.0), 0.9)


def _shown(table: pd.DataFrame) -> Table:
    shown = Table(box=None, pad_edge=False)
    headings = ("margin", "group", "people", "refused", f"in {PASSES} passes", "loss caught")
    for heading in (*headings, f"at look {PASSES}"):
        shown.add_column(heading)
    for row in table.to_dict("records"):
        held = f" ({percent(row['waits'])} wait)" if row["waits"] else ""
        losses = [row["loss"], row[f"loss_at_{PASSES}"]]
        shown.add_row(
            points(row["margin"]),
            row["group"],
            str(row["people"]),
            percent(row["refused"]) + held,
            percent(row[f"refused_in_{PASSES}"]),
            *("–" if pd.isna(loss) else f"{points(loss)} points" for loss in losses),
        )
    return shown
