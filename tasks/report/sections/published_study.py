"""The published study's tables, its printed numbers beside ours, and the pre-training.

The study evaluates on every image, including those of the fine-tuning (protocol `all`), and gives
counts without intervals. Here each count has an interval, and the held-out results follow.
"""

from collections.abc import Iterator
from itertools import product

import pandas as pd

from tasks.core.gap_sentences import percent
from tasks.core.labels import ALL, UNKNOWN, in_order
from tasks.core.paths import MODELS
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    count,
    group_name,
    join_names,
    methods,
    model_name,
    optional,
    percent_interval,
)
from tasks.report.inputs import Inputs
from tasks.report.sections.cube_rows import pick
from tasks.report.sections.data import counts_of_first_model
from tasks.report.sections.strategies import chosen_strategy

_PROTOCOLS = {
    ALL: "every picture, those that a model was trained on included (the published protocol)",
    "held_out": "held-out pictures alone",
}
_MAX_ROWS = 60  # of the table of counts; all groups are in reports/tables/counts.csv


def study_section(inputs: Inputs) -> Block:
    """Return counts, correct counts by group and emotion, and the printed numbers."""
    counts = _counts_table(inputs)
    tables = [counts] if counts.rows else []
    collapsed = []
    for dimension in inputs.by[:2]:
        word = dimension.replace("_", " ")
        tables += _correct_tables(inputs, dimension, ALL)
        held_out = _correct_tables(inputs, dimension, "held_out")
        collapsed += [(f"The same by {word}, on held-out pictures", table) for table in held_out]
    published = inputs.further["published"]
    sentences = []
    if len(published):
        tables.insert(0, _printed_table(published))
        doubtful = published[published["note"].str.contains("add up")]
        cells = doubtful.drop_duplicates(["table", "page", "model", "dataset", "emotion"])
        sentences.append(
            f"Of the printed figures, {len(cells)} do not add up; the column “note” says why."
            if len(cells)
            else "All printed figures at hand add up."
        )
    else:
        sentences.append(
            "No published figures are named for these data (audit.published in params.yaml)."
        )
    return Block(sentences=sentences, tables=tables, collapsed=collapsed)


def pretraining_section(inputs: Inputs) -> Block:
    """Return who the base model was first trained on, as far as that is known."""
    table = inputs.further["pretraining"]
    if table.empty:
        return Block(
            missing="Who the base model was first trained on is not known here: name a published "
            "table or a CSV of counts in audit.pretraining of params.yaml."
        )
    base_rows = table[table["model"] == MODELS[0]]
    rows = [
        [
            *plain(str(row["training_set"]), str(row["attribute"]).replace("_", " ")),
            *plain(
                str(row["group"]) or "–",
                optional(row["n"], count),
                optional(row["share"], _small_percent),
            ),
            *plain(str(row["source"]), str(row["note"])),
        ]
        for _, row in base_rows.iterrows()
    ]
    return Block(
        tables=[
            Table(
                "A group that is rare here is one that the model had little to learn from. Shares "
                "from a source are as printed there.",
                ["training set", "attribute", "group", "pictures", "share", "source", "note"],
                rows,
                text_columns=["attribute", "group", "source", "note"],
                wrapped_columns=["source", "note"],
            )
        ]
    )


def _counts_table(inputs: Inputs) -> Table:
    """Return images by data set, the first two dimensions and emotion (Tables 1 and 2)."""
    counts = counts_of_first_model(inputs)
    counts = counts[counts["split"] == ALL]
    emotions = in_order(name for name in counts["emotion"] if name != ALL)
    rows = []
    for dataset, group in _crossed_groups(counts, inputs.by[:2]):
        cells = pick(counts, inputs.by, group, dataset=dataset).set_index("emotion")["images"]
        if cells.empty:
            continue
        values = [group.get(name, ALL) for name in inputs.by[:2]]
        numbers = [count(cells.get(emotion, 0)) for emotion in (*emotions, ALL)]
        rows.append(plain("all" if dataset == ALL else dataset, *values, *numbers))
    names = [name.replace("_", " ") for name in inputs.by[:2]]
    note = f" The first {_MAX_ROWS} of {len(rows)} rows." if len(rows) > _MAX_ROWS else ""
    return Table(
        f"Pictures by {join_names(['data set', *names, 'emotion'])} (as in the study's Tables 1 "
        "and 2)."
        f"{note}",
        ["data set", *names, *emotions, "sum"],
        rows[:_MAX_ROWS],
        text_columns=names,
    )


def _crossed_groups(counts: pd.DataFrame, by: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield data sets with their groups: all, each of the first dimension, and crossed ones."""
    datasets = [name for name in dict.fromkeys(counts["dataset"]) if name != ALL]
    values = {name: [v for v in dict.fromkeys(counts[name]) if v != ALL] for name in by}
    for dataset in datasets if len(datasets) == 1 else [ALL, *datasets]:
        yield dataset, {}
        for first in values[by[0]] if by else []:
            yield dataset, {by[0]: first}
            for second in values[by[1]] if len(by) > 1 else []:
                yield dataset, {by[0]: first, by[1]: second}


def _correct_tables(inputs: Inputs, dimension: str, protocol: str) -> list[Table]:
    """Return correct of n and recall by emotion and group for both models (Tables 3 and 4)."""
    groups = inputs.groups[inputs.groups["protocol"] == protocol]
    values = [v for v in dict.fromkeys(groups[dimension]) if v not in (ALL, UNKNOWN)]
    emotions = in_order(name for name in set(groups["emotion"]) if name != ALL)
    rows = []
    for emotion, model in product((*emotions, ALL), MODELS):
        cells = [
            _correct_cell(pick(groups, inputs.by, {dimension: value}, emotion=emotion, model=model))
            for value in values
        ]
        names = plain("all" if emotion == ALL else emotion, model_name(model))
        rows.append([*names, *cells])
    if not values:
        return []
    word = dimension.replace("_", " ")
    return [
        Table(
            f"Correct of n and recall in per cent with its interval, by emotion and {word}, on "
            f"{_PROTOCOLS[protocol]}. The study's Tables 3 and 4 and Figures 3, 5 and 6 show such "
            f"counts.{_which_model(inputs)}",
            ["emotion", "model", *(group_name({dimension: value}) for value in values)],
            rows,
            text_columns=["model"],
            methods=methods(groups),
        )
    ]


def _which_model(inputs: Inputs) -> str:
    """State which strategy the fine-tuned model is from: the study's own is naive."""
    chosen = chosen_strategy(inputs)
    if chosen in ("", "naive"):
        return ""
    return f" The fine-tuned model is the one that this run chose ({chosen}); the study's is naive."


def _correct_cell(rows: pd.DataFrame) -> Cell:
    if rows.empty:
        return Cell("–")
    row = rows.iloc[0]
    limits = f"{percent(row['recall'])}, {percent_interval(row['ci_low'], row['ci_high'])}"
    return Cell(f"{count(row['correct'])} of {count(row['n'])}", limits)


def _printed_table(published: pd.DataFrame) -> Table:
    """Return each printed number beside ours under both protocols."""
    keys = ["table", "page", "model", "dataset", "age_band", "gender", "emotion"]
    rows: list[list[Cell]] = []
    for _, part in published.groupby(keys, sort=False, dropna=False):
        first = part.iloc[0]
        ours = {row["protocol"]: row for _, row in part.iterrows()}
        names = [first[name] for name in ("age_band", "gender", "emotion") if first[name] != ALL]
        location = [first["table"], first["page"] and f"p. {first['page']}", first["note"]]
        rows.append(
            [
                *plain(", ".join([first["dataset"], *names]), _plain_model(first["model"])),
                _as_printed(first),
                Cell(_plain_model(first["compared_model"])),
                *(_ours(ours.get(protocol)) for protocol in (ALL, "held_out")),
                Cell("; ".join(filter(None, location))),
            ]
        )
    sources = join_names(list(dict.fromkeys(published["source"])))
    return Table(
        f"Printed in {sources}, which gives no intervals and calls recall accuracy, beside ours. "
        "Its fine-tuned model is set beside our naive strategy, which is fine-tuned as published, "
        "not beside the strategy that this run chose. The study evaluated on the pictures that its "
        "model was trained on; ours was trained on the training split alone (the note says of how "
        "many people). “Every picture” has these people among them, so that such a figure does "
        "not say how new people are read.",
        ["group", "its model", "printed", "our model", "every picture", "held out", "place, note"],
        rows,
        text_columns=["its model", "our model", "place, note"],
        wrapped_columns=["group", "place, note"],
    )


def _ours(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("–")
    if row["recall"] != row["recall"]:
        return Cell(f"{count(row['n'])} pictures" if row["n"] == row["n"] else "–")
    limits = f"{percent(row['recall'])}, {percent_interval(row['ci_low'], row['ci_high'])}"
    return Cell(f"{count(row['correct'])} of {count(row['n'])}", limits)


def _plain_model(name: str) -> str:
    """Name a model in a narrow column."""
    return {"": "–", "finetuned": "fine-tuned"}.get(name, name)


def _as_printed(row: pd.Series) -> Cell:
    """Return a printed number with its printed digits."""
    n, correct, rate = (row[f"published_{name}"] for name in ("n", "correct", "rate"))
    images = "" if n != n else count(n)
    if correct == correct:
        counts = f"{count(correct)} of {images or '?'}"
        return Cell(counts, _digits(rate)) if rate == rate else Cell(counts)
    if rate == rate:
        return Cell(_digits(rate), f"of {images}" if images else "")
    return Cell(f"{images} pictures" if images else "–")


def _digits(share: float) -> str:
    return f"{100 * share:.6g}\u202f%"


def _small_percent(share: float) -> str:
    return f"{100 * share:.2f}\u202f%" if share < 0.001 else percent(share)
