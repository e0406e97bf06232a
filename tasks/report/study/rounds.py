"""The section on a round of a study, and the table of all runs."""

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    confidence_text,
    count,
    join_names,
    optional,
    percent_interval,
)
from tasks.report.study.figures import displayed_arms, millions
from tasks.report.study.inputs import StudyInputs

_HEAD = ("arm", "epochs", "seeds", "score", "SE", "SE of people", "SE of seeds", "parameters")
_HEAD += ("seconds per epoch", "status")


def round_block(inputs: StudyInputs, name: str) -> Block:
    """Return the notes on a round beyond its choice, and the table of its arms."""
    arms = inputs.tables["arms"]
    rows = arms[arms["round"] == name]
    return Block(
        sentences=[*_within(inputs, name), *_failed(rows), *_edge_rates(rows)],
        collapsed=(
            (f"All arms of this round, every rung ({len(rows)} rows)", _table(inputs, rows)),
        ),
    )


def runs_table(inputs: StudyInputs) -> Table:
    """Return the table of runs, one row per run."""
    rows = [
        plain(
            str(run.key),
            f"{run.optimizer}@{run.learning_rate:g}",
            str(run.loss),
            count(run.until),
            count(run.new_epochs),
            optional(run.train_seconds, "{:.1f}".format, ""),
            optional(run.images_per_second, count, ""),
            millions(run.parameters),
            optional(run.valid_recall_score, percent, ""),
            optional(run.valid_accuracy_score, percent, ""),
            str(run.device),
            str(run.failed),
        )
        for run in inputs.tables["runs"].itertuples()
    ]
    head = ("run", "optimizer", "loss", "until epoch", "new epochs", "seconds", "pictures/s")
    head += ("parameters", "mean recall", "accuracy", "device", "failure")
    return Table(
        "Every run. A run that continues an earlier one trains only the new epochs; its seconds "
        "are those of all epochs. Validation figures are of the saved epoch.",
        head,
        rows,
        text_columns=("optimizer", "loss", "device", "failure"),
        wrapped_columns=("failure",),
    )


def _within(inputs: StudyInputs, name: str) -> list[str]:
    row = inputs.choices.set_index("round").loc[name]
    if inputs.published:
        return _indistinguishable(inputs, name)
    others = [arm for arm in str(row["within"]).split(" ") if arm != row["chosen"]]
    if not others:
        return ["No other arm that was trained to the end lies within one standard error."]
    return [
        "Within one standard error of the best, so indistinguishable from it: "
        f"{join_names(others)}."
    ]


def _indistinguishable(inputs: StudyInputs, name: str) -> list[str]:
    """Describe arms of a published protocol that are too close to the best to rank."""
    rows = displayed_arms(inputs, name)
    top = rows.iloc[0]
    near = list(rows["arm"][1:][rows["ci_high"][1:] >= top["mean"]])
    sentences = []
    if near:
        sentences.append(
            f"The winner's figure lies within the interval of {join_names(near)}: with one seed "
            "and "
            "these pictures the choice between them may be luck."
        )
    threshold = inputs.choices["threshold"]
    index = list(inputs.choices["round"]).index(name)
    if index and threshold[index] < threshold[index - 1]:
        sentences.append(
            f"The previous round reached {percent(threshold[index - 1])}, which is more; the "
            "protocol still takes the best of this round."
        )
    return sentences


def _failed(rows: pd.DataFrame) -> list[str]:
    failed = rows[rows["failed"] != ""]
    return [
        f"{row.arm} could not be trained to the end: {row.failed}." for row in failed.itertuples()
    ]


def _edge_rates(rows: pd.DataFrame) -> list[str]:
    """Name the optimizers that were best at the lowest or highest rate that was tried."""
    names = []
    for optimizer, arms in rows[rows["round"] == "optimizers"].groupby("optimizer", sort=False):
        tried = sorted(set(arms["learning_rate"]))
        best = arms["learning_rate"][arms["best_rate"]]
        if len(tried) < 2 or best.empty:
            continue
        edge = {tried[0]: "lowest", tried[-1]: "highest"}.get(best.iloc[0])
        if edge:
            names.append(f"{optimizer} ({edge}, {best.iloc[0]:g})")
    if not names:
        return []
    return [
        "Best at the lowest or highest rate that was tried, so that a rate outside may be better: "
        f"{join_names(names)}."
    ]


def _table(inputs: StudyInputs, rows: pd.DataFrame) -> Table:
    confidence = confidence_text(inputs.settings["confidence"])
    return Table(
        f"Scores with {confidence} intervals; SE is the standard error with its parts from people "
        "and from seeds, in points. A row of fewer epochs is a rung of halving.",
        _HEAD,
        [_cells(row) for _, row in rows.iterrows()],
        text_columns=("status",),
        methods=[f"{text}." for text in dict.fromkeys(rows["method"]) if text],
    )


def _cells(row: pd.Series) -> list[Cell]:
    if row["mean"] != row["mean"]:
        return plain(str(row["arm"]), *[""] * 8, "could not be trained")
    return [
        *plain(str(row["arm"]), count(row["until"]), count(row["seeds"])),
        Cell(percent(row["mean"]), percent_interval(row["ci_low"], row["ci_high"])),
        *plain(*(optional(row[name], points, "") for name in ("se", "people_se", "seeds_se"))),
        *plain(millions(row["parameters"]), f"{row['seconds_an_epoch']:.2g}", _status(row)),
    ]


def _status(row: pd.Series) -> str:
    """Return what became of an arm after a rung."""
    if not row["whole"]:
        return "continues" if row["goes_on"] else "stopped"
    words = [
        word
        for word, holds in (
            ("chosen", row["chosen"]),
            ("highest", row["best"]),
            ("incumbent", row["before"]),
            ("within one SE", row["within"] and not row["best"]),
        )
        if holds
    ]
    return ", ".join(words)
