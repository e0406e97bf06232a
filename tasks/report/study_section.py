"""The tables as the published study prints them, its own figures beside ours, and the pre-training.

The study judges on every picture, those of the fine-tuning included (protocol `all`), and gives
counts without intervals. Here each count has an interval, and the held-out figures follow.
"""

from collections.abc import Iterator
from itertools import product

import pandas as pd

from tasks.core.headline import percent
from tasks.core.labels import ALL, UNKNOWN, in_order
from tasks.core.paths import MODELS
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.cells import pick
from tasks.report.inputs import Inputs
from tasks.report.strategies_section import chosen_strategy
from tasks.report.words import (
    count,
    group_word,
    listed,
    methods,
    model_word,
    span,
)

_PROTOCOLS = {
    ALL: "every picture, those that a model was trained on included (the published protocol)",
    "held_out": "held-out pictures alone",
}
_MOST_ROWS = 60  # of the table of counts; more groups are in reports/tables/counts.csv


def study_section(inputs: Inputs) -> Block:
    """Return counts, correct counts by group and emotion, and the printed figures."""
    counted = _counts(inputs)
    tables = [counted] if counted.rows else []
    more = []
    for dimension in inputs.by[:2]:
        word = dimension.replace("_", " ")
        tables += _correct(inputs, dimension, ALL)
        held_out = _correct(inputs, dimension, "held_out")
        more += [(f"The same by {word}, on held-out pictures", table) for table in held_out]
    published = inputs.further["published"]
    said = []
    if len(published):
        tables.insert(0, _printed(published))
        doubtful = published[published["note"].str.contains("add up")]
        places = doubtful.drop_duplicates(["table", "page", "model", "dataset", "emotion"])
        said.append(
            f"Of the printed figures, {len(places)} do not add up; the column “note” says how."
            if len(places)
            else "Nothing was found in the printed figures at hand that does not add up."
        )
    else:
        said.append(
            "No published figures are named for these data (audit.published in params.yaml)."
        )
    return Block(said=said, tables=tables, more=more)


def pretraining_section(inputs: Inputs) -> Block:
    """Return who the base model was first trained on, as far as that is known."""
    table = inputs.further["pretraining"]
    if table.empty:
        return Block(
            missing="Who the base model was first trained on is not known here: name a published "
            "table or a CSV of counts in audit.pretraining of params.yaml."
        )
    own = table[table["model"] == MODELS[0]]
    rows = [
        [
            *words_of(str(row["training_set"]), str(row["attribute"]).replace("_", " ")),
            *words_of(str(row["group"]) or "–", _count(row["n"]), _share(row["share"])),
            *words_of(str(row["source"]), str(row["note"])),
        ]
        for _, row in own.iterrows()
    ]
    return Block(
        tables=[
            Table(
                "A group that is rare here is one that the model had little to learn from. Shares "
                "from a source are as printed there.",
                ["training set", "attribute", "group", "pictures", "share", "source", "note"],
                rows,
                words=["attribute", "group", "source", "note"],
                wide=["source", "note"],
            )
        ]
    )


def _counts(inputs: Inputs) -> Table:
    """Count pictures by data set, the first two dimensions and emotion (Tables 1 and 2)."""
    counts = inputs.counts[inputs.counts["model"] == inputs.counts["model"].iloc[0]]
    counts = counts[counts["split"] == ALL]
    emotions = in_order(name for name in counts["emotion"] if name != ALL)
    rows = []
    for dataset, where in _crossed(counts, inputs.by[:2]):
        cells = pick(counts, inputs.by, where, dataset=dataset).set_index("emotion")["pictures"]
        if cells.empty:
            continue
        values = [where.get(name, ALL) for name in inputs.by[:2]]
        numbers = [count(cells.get(emotion, 0)) for emotion in (*emotions, ALL)]
        rows.append(words_of("all" if dataset == ALL else dataset, *values, *numbers))
    names = [name.replace("_", " ") for name in inputs.by[:2]]
    more = f" The first {_MOST_ROWS} of {len(rows)} rows." if len(rows) > _MOST_ROWS else ""
    return Table(
        f"Pictures by {listed(['data set', *names, 'emotion'])} (as in the study's Tables 1 and 2)."
        f"{more}",
        ["data set", *names, *emotions, "sum"],
        rows[:_MOST_ROWS],
        words=names,
    )


def _crossed(counts: pd.DataFrame, by: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """List data sets with their groups: all, each of the first dimension, and crossed ones."""
    several = [name for name in dict.fromkeys(counts["dataset"]) if name != ALL]
    values = {name: [v for v in dict.fromkeys(counts[name]) if v != ALL] for name in by}
    for dataset in several if len(several) == 1 else [ALL, *several]:
        yield dataset, {}
        for first in values[by[0]] if by else []:
            yield dataset, {by[0]: first}
            for second in values[by[1]] if len(by) > 1 else []:
                yield dataset, {by[0]: first, by[1]: second}


def _correct(inputs: Inputs, dimension: str, protocol: str) -> list[Table]:
    """Set emotions against groups: correct of n, and recall, for both models (Tables 3 and 4)."""
    groups = inputs.groups[inputs.groups["protocol"] == protocol]
    values = [v for v in dict.fromkeys(groups[dimension]) if v not in (ALL, UNKNOWN)]
    emotions = in_order(name for name in set(groups["emotion"]) if name != ALL)
    rows = []
    for emotion, model in product((*emotions, ALL), MODELS):
        cells = [
            _correct_cell(pick(groups, inputs.by, {dimension: value}, emotion=emotion, model=model))
            for value in values
        ]
        named = words_of("all" if emotion == ALL else emotion, model_word(model))
        rows.append([*named, *cells])
    if not values:
        return []
    word = dimension.replace("_", " ")
    return [
        Table(
            f"Correct of n and recall in per cent with its interval, by emotion and {word}, on "
            f"{_PROTOCOLS[protocol]}. The study's Tables 3 and 4 and Figures 3, 5 and 6 show such "
            f"counts.{_which_model(inputs)}",
            ["emotion", "model", *(group_word({dimension: value}) for value in values)],
            rows,
            words=["model"],
            how=methods(groups),
        )
    ]


def _which_model(inputs: Inputs) -> str:
    """Say which strategy is behind the fine-tuned model: the study's own is naive."""
    chosen = chosen_strategy(inputs)
    if chosen in ("", "naive"):
        return ""
    return f" The fine-tuned model is the one that this run chose ({chosen}); the study's is naive."


def _correct_cell(rows: pd.DataFrame) -> Cell:
    if rows.empty:
        return Cell("–")
    row = rows.iloc[0]
    limits = f"{percent(row['recall'])}, {span(row['ci_low'], row['ci_high'])}"
    return Cell(f"{count(row['correct'])} of {count(row['n'])}", limits)


def _printed(published: pd.DataFrame) -> Table:
    """Put each printed figure beside ours under both protocols."""
    keys = ["table", "page", "model", "dataset", "age_band", "gender", "emotion"]
    rows: list[list[Cell]] = []
    for _, part in published.groupby(keys, sort=False, dropna=False):
        first = part.iloc[0]
        ours = {row["protocol"]: row for _, row in part.iterrows()}
        names = [first[name] for name in ("age_band", "gender", "emotion") if first[name] != ALL]
        where = [first["table"], first["page"] and f"p. {first['page']}", first["note"]]
        rows.append(
            [
                *words_of(", ".join([first["dataset"], *names]), _plain_model(first["model"])),
                _as_printed(first),
                Cell(_plain_model(first["our_model"])),
                *(_ours(ours.get(protocol)) for protocol in (ALL, "held_out")),
                Cell("; ".join(filter(None, where))),
            ]
        )
    sources = listed(list(dict.fromkeys(published["source"])))
    return Table(
        f"Printed in {sources}, which gives no intervals and calls recall accuracy, beside ours. "
        "Beside its fine-tuned model stands our naive strategy, which is fine-tuned the published "
        "way, and not the strategy that this run chose. The study judged on the pictures that its "
        "model was trained on; ours was trained on the training split alone (the note says of how "
        "many people). “Every picture” has these people among them, so that such a figure does "
        "not say how new people are read.",
        ["group", "its model", "printed", "our model", "every picture", "held out", "place, note"],
        rows,
        words=["its model", "our model", "place, note"],
        wide=["group", "place, note"],
    )


def _ours(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("–")
    if row["recall"] != row["recall"]:
        return Cell(f"{count(row['n'])} pictures" if row["n"] == row["n"] else "–")
    limits = f"{percent(row['recall'])}, {span(row['ci_low'], row['ci_high'])}"
    return Cell(f"{count(row['correct'])} of {count(row['n'])}", limits)


def _plain_model(name: str) -> str:
    """Name a model in a narrow column; a strategy by its own name."""
    return {"": "–", "finetuned": "fine-tuned"}.get(name, name)


def _as_printed(row: pd.Series) -> Cell:
    """Write a printed figure with as many digits as are printed."""
    n, correct, rate = (row[f"published_{name}"] for name in ("n", "correct", "rate"))
    pictures = "" if n != n else count(n)
    if correct == correct:
        counted = f"{count(correct)} of {pictures or '?'}"
        return Cell(counted, _digits(rate)) if rate == rate else Cell(counted)
    if rate == rate:
        return Cell(_digits(rate), f"of {pictures}" if pictures else "")
    return Cell(f"{pictures} pictures" if pictures else "–")


def _digits(share: float) -> str:
    return f"{100 * share:.6g}\u202f%"


def _count(value: float) -> str:
    return "–" if value != value else count(value)


def _share(value: float) -> str:
    if value != value:
        return "–"
    return f"{100 * value:.2f}\u202f%" if value < 0.001 else percent(value)
