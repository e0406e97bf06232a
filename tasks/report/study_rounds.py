"""A round of a study in sentences and tables, and the table of its runs."""

from typing import Any

import pandas as pd

from tasks.core.headline import percent, points
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.study_figures import millions, shown_arms
from tasks.report.study_inputs import StudyInputs
from tasks.report.words import count, level, listed, span

_HEAD = ("arm", "epochs", "seeds", "score", "SE", "SE of people", "SE of seeds", "parameters")
_HEAD += ("seconds an epoch", "stands")


def round_block(inputs: StudyInputs, name: str) -> Block:
    """Say what a round found beyond its choice, with the table of its arms."""
    arms = inputs.tables["arms"]
    rows = arms[arms["round"] == name]
    return Block(
        said=[*_within(inputs, name), *_failed(rows), *_at_the_edge(rows)],
        tables=(),
        more=((f"All arms of this round, every rung ({len(rows)} rows)", _table(inputs, rows)),),
    )


def runs_table(inputs: StudyInputs) -> Table:
    """Return one row a run."""
    rows = [
        words_of(
            str(run.key),
            f"{run.optimiser}@{run.learning_rate:g}",
            str(run.loss),
            count(run.until),
            count(run.new_epochs),
            _seconds(run.train_seconds),
            _whole(run.pictures_per_second),
            millions(run.parameters),
            _share(run.valid_recall_score),
            _share(run.valid_accuracy_score),
            str(run.device),
            str(run.failed),
        )
        for run in inputs.tables["runs"].itertuples()
    ]
    head = ("run", "optimiser", "loss", "until epoch", "new epochs", "seconds", "pictures/s")
    head += ("parameters", "mean recall", "accuracy", "device", "could not go on")
    return Table(
        "Every run: a run that goes on from an earlier one trains only the epochs that are new; "
        "seconds are of all its epochs. Validation figures are of the epoch that is kept.",
        head,
        rows,
        words=("optimiser", "loss", "device", "could not go on"),
        wide=("could not go on",),
    )


def _within(inputs: StudyInputs, name: str) -> list[str]:
    row = inputs.choices.set_index("round").loc[name]
    if inputs.published:
        return _near(inputs, name)
    others = [arm for arm in str(row["within"]).split(" ") if arm != row["chosen"]]
    if not others:
        return ["No other arm that was trained to the end lies within one standard error."]
    return [f"Within one standard error of the best, and so not told apart: {listed(others)}."]


def _near(inputs: StudyInputs, name: str) -> list[str]:
    """Say which arms of a published protocol lie so close that it may be luck."""
    rows = shown_arms(inputs, name)
    top = rows.iloc[0]
    near = list(rows["arm"][1:][rows["ci_high"][1:] >= top["mean"]])
    said = []
    if near:
        said.append(
            f"The winner's figure lies within the interval of {listed(near)}: with one seed and "
            "these pictures the choice between them may be luck."
        )
    threshold = inputs.choices["threshold"]
    place = list(inputs.choices["round"]).index(name)
    if place and threshold[place] < threshold[place - 1]:
        said.append(
            f"The round before had {percent(threshold[place - 1])}, which is more: the protocol "
            "takes the best of this round all the same."
        )
    return said


def _failed(rows: pd.DataFrame) -> list[str]:
    failed = rows[rows["failed"] != ""]
    return [
        f"{row.arm} could not be trained to the end: {row.failed}." for row in failed.itertuples()
    ]


def _at_the_edge(rows: pd.DataFrame) -> list[str]:
    """Say which optimisers were best at the lowest or highest rate that was tried."""
    said = []
    for optimiser, own in rows[rows["round"] == "optimisers"].groupby("optimiser", sort=False):
        tried = sorted(set(own["learning_rate"]))
        best = own["learning_rate"][own["best_rate"]]
        if len(tried) < 2 or best.empty:
            continue
        edge = {tried[0]: "lowest", tried[-1]: "highest"}.get(best.iloc[0])
        if edge:
            said.append(f"{optimiser} ({edge}, {best.iloc[0]:g})")
    if not said:
        return []
    return [
        "Best at the lowest or highest rate that was tried, so that a rate outside may be better: "
        f"{listed(said)}."
    ]


def _table(inputs: StudyInputs, rows: pd.DataFrame) -> Table:
    confidence = level(inputs.settings["confidence"])
    return Table(
        f"Scores with {confidence} intervals; SE is the standard error with its parts from people "
        "and from seeds, in points. A row of fewer epochs is a rung of halving.",
        _HEAD,
        [_cells(row) for _, row in rows.iterrows()],
        words=("stands",),
        how=[f"{text}." for text in dict.fromkeys(rows["method"]) if text],
    )


def _cells(row: pd.Series) -> list[Cell]:
    if row["mean"] != row["mean"]:
        return words_of(str(row["arm"]), *[""] * 8, "could not be trained")
    return [
        *words_of(str(row["arm"]), count(row["until"]), count(row["seeds"])),
        Cell(percent(row["mean"]), span(row["ci_low"], row["ci_high"])),
        *words_of(*(_points(row[name]) for name in ("se", "people_se", "seeds_se"))),
        *words_of(millions(row["parameters"]), f"{row['seconds_an_epoch']:.2g}", _stands(row)),
    ]


def _stands(row: pd.Series) -> str:
    """Say what became of an arm after a rung."""
    if not row["whole"]:
        return "goes on" if row["goes_on"] else "stopped"
    words = [
        word
        for word, holds in (
            ("chosen", row["chosen"]),
            ("highest", row["best"]),
            ("used before", row["before"]),
            ("within one SE", row["within"] and not row["best"]),
        )
        if holds
    ]
    return ", ".join(words)


def _points(share: float) -> str:
    return "" if share != share else points(share)


def _share(share: float) -> str:
    return "" if share != share else percent(share)


def _seconds(seconds: Any) -> str:
    return "" if seconds != seconds else f"{seconds:.1f}"


def _whole(number: Any) -> str:
    return "" if number != number else count(number)
