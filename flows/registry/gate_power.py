"""`affectgap gate-power`: error rates of the promotion gate, computed before training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from rich.table import Table

from flows.registry.gate_inputs import judged_answers, required_groups
from tasks.core.errors import UserError
from tasks.core.gap_sentences import percent, points
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
from tasks.split.stage import Params as SplitParams
from tasks.split.subject_split import assign_splits

DEFAULT_ASSUMPTIONS = Assumed(
    recall=0.8, disagreement=0.1, icc=0.05
)  # before any version has answered
IMAGES_PER_PERSON = 10


@dataclass(frozen=True)
class GatePowerOptions:
    """Options of the command; None: from the data, or the default value."""

    test_subjects: int | None = None
    images_per_person: int | None = None
    recall: float | None = None
    disagreement: float | None = None
    icc: float | None = None


def gate_power(paths: Paths, asked: GatePowerOptions, out: Path | None) -> tuple[Table, list[str]]:
    """Compute the gate's error rates; return the table to print and the lines below it.

    `out` is the CSV to write, if any. Raises UserError if there is no data and no number of test
    subjects is given.
    """
    params = load_section(paths.params, "promote", Params)
    groups = named_groups(params.protected, required_groups(paths))
    test = _test_images(paths)
    people, source = _people(paths, test, groups, asked, params)
    assumed, origin = _assumed(paths, test, asked)
    table = power_table(people, groups, assumed, params)
    lines = [
        f"{len(people.size)} test people, {int(people.size.sum())} pictures ({source}); recall "
        f"{percent(assumed.recall)}, two versions disagree about {percent(assumed.disagreement)} "
        f"of the pictures, correlation of one person's changes {assumed.icc:.2f} ({origin})",
        "equally good: refused (or waiting) at the first look, and at least once in "
        f"{PASSES} passes on the same test people, as if passes were independent",
        "loss: of recall in the group, refused with a chance of 80 %, Monte Carlo error of that "
        "chance 2 points; –: none is; params as they are, but for the margin of groups",
    ]
    if out is not None:
        write_csv(table, out)
        lines.append(f"table: {out}")
    return _printable_table(table), lines


def _test_images(paths: Paths) -> pd.DataFrame | None:
    """Return the test images of the last split, or of the manifest split as params say."""
    if paths.split.is_file():
        split = read_table(paths.split)
        return split[split["split"] == "test"]
    if not paths.manifest.is_file():
        return None
    params = load_section(paths.params, "split", SplitParams)
    manifest = read_table(paths.manifest)
    parts = dict(params.ratios)
    split_of = assign_splits(manifest, params.seed, params.unit == "subject", parts)
    return manifest[split_of == "test"]


def _people(
    paths: Paths,
    test: pd.DataFrame | None,
    groups: Sequence[Named],
    asked: GatePowerOptions,
    params: Params,
) -> tuple[People, str]:
    """Return the test subjects, and their source in words."""
    n_subjects = asked.test_subjects
    n_images = asked.images_per_person
    if test is None or test.empty:
        if n_subjects is None:
            raise UserError(
                f"{paths.split}: holds no test people yet; say how many there would be "
                "(--test-subjects 100), or run `affectgap run split`"
            )
        n_images = n_images or IMAGES_PER_PERSON
        made_up = made_up_people(n_subjects, n_images, groups)
        return made_up, "made up: each group has as many people"
    missing = {name for group in groups for name in group.where} - set(test.columns)
    if missing:
        columns = ", ".join(sorted(missing))
        raise UserError(f"{paths.params}: promote.protected: no column {columns} in the data")
    people, source = people_of(test, groups), "those of the data"
    if n_subjects is not None:
        people = drawn_people(people, n_subjects, params.seed)
        source = "drawn from those of the data"
    if n_images is not None:
        people = replace(people, size=np.full(len(people.size), n_images))
    return people, source


def _assumed(
    paths: Paths, test: pd.DataFrame | None, asked: GatePowerOptions
) -> tuple[Assumed, str]:
    """Return recall, disagreement and correlation as given, as measured, or as usual."""
    assumed, source = DEFAULT_ASSUMPTIONS, "assumed"
    correct = [] if test is None else _correct_answers(paths, test)
    if correct and test is not None:
        assumed = replace(assumed, recall=float(correct[-1].mean()))
        source = "recall as the last version had it, the rest assumed"
        pairs = [_compare_pair(test, *pair) for pair in combinations(correct, 2)]
        measured = [pair for pair in pairs if pair is not None and 0 < pair[0] < 1]
        if measured:
            share, icc = (float(np.mean(figures)) for figures in zip(*measured, strict=True))
            assumed = replace(assumed, disagreement=share, icc=icc)
            source = f"as {len(correct)} versions answered"
    options = {
        name: value
        for name in ("recall", "disagreement", "icc")
        if (value := getattr(asked, name)) is not None
    }
    return replace(assumed, **options), "given" if len(options) == 3 else source


def _correct_answers(paths: Paths, test: pd.DataFrame) -> list[pd.Series]:
    """Return for each judged version, oldest first, which test images it got right."""
    labels = test.set_index("image_id")["emotion"]
    correct = []
    for answers in judged_answers(paths):
        known = labels[labels.index.isin(answers.index)]
        if len(known):
            correct.append(answers.reindex(known.index) == known)
    return correct


def _compare_pair(test: pd.DataFrame, a: pd.Series, b: pd.Series) -> tuple[float, float] | None:
    """Return how often two versions differ, and the correlation of one subject's changes."""
    common = a.index.intersection(b.index)
    if common.empty:
        return None
    change = b[common].astype(float) - a[common].astype(float)
    people = test.set_index("image_id")["subject_id"].reindex(common)
    sums = change.groupby(people).agg(["sum", "size"])
    pairs = float((sums["size"] * (sums["size"] - 1)).sum())
    share = float((change != 0).mean())
    if not pairs or not share:
        return share, 0.0
    correlation = float((sums["sum"] ** 2).sum() - (change**2).sum()) / pairs / share
    return share, min(max(correlation, 0.0), 0.9)


def _printable_table(table: pd.DataFrame) -> Table:
    printed = Table(box=None, pad_edge=False)
    headings = ("margin", "group", "people", "refused", f"in {PASSES} passes", "loss caught")
    for heading in (*headings, f"at look {PASSES}"):
        printed.add_column(heading)
    for row in table.to_dict("records"):
        waiting = f" ({percent(row['waits'])} wait)" if row["waits"] else ""
        losses = [row["loss"], row[f"loss_at_{PASSES}"]]
        printed.add_row(
            points(row["margin"]),
            row["group"],
            str(row["people"]),
            percent(row["refused"]) + waiting,
            percent(row[f"refused_in_{PASSES}"]),
            *("–" if pd.isna(loss) else f"{points(loss)} points" for loss in losses),
        )
    return printed
