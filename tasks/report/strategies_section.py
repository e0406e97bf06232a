"""Ways to fine-tune, compared: what each gives the group that it is for, and takes from others."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tasks.core.headline import percent, points
from tasks.core.labels import ALL, UNKNOWN
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.inputs import Inputs
from tasks.report.words import (
    capital,
    change_words,
    count,
    group_word,
    interval_words,
    listed,
    methods,
    p_word,
    people_word,
    rounded,
    span,
    span_points,
    tone_of,
)

BASE, NAIVE = "base", "naive"
_WHY = {
    "naive": "every layer, on the group's pictures alone (the published way)",
    "head": "only the last layer; the backbone stays as it is",
    "replay": "pictures of other groups are mixed in",
    "distill": "replayed pictures must be answered as the base model does",
    "interpolate": "weights between those of the base and a fine-tuned model",
}
_BY_WORST_GROUP = ("replay", "distill")  # they see other groups too


def strategies_section(inputs: Inputs) -> Block:
    """Return how the strategies compare: sentences, one table open, one behind a line."""
    table = inputs.further["strategies"]
    choice = inputs.further["choice"]
    said = [*_chosen_words(choice), *_skipped_words(choice)]
    if table.empty:
        return Block(said=said, missing="No strategies were compared on held-out pictures.")
    target, others = sides(table)
    return Block(
        said=[*said, *outcome_words(inputs), _what_they_do(table)],
        tables=[_matrix(table, choice, target, others)],
        more=[("Every strategy and group, with people, both recalls and p", _rows(table))],
    )


def chosen_strategy(inputs: Inputs) -> str:
    """Return the strategy that was chosen, `base` where none was better; "" where none is told."""
    for table in (inputs.further["choice"], inputs.further["strategies"]):
        if not table.empty and table["chosen"].astype(bool).any():
            return str(table["strategy"][table["chosen"].astype(bool)].iloc[0])
    return ""


def worst_group_models(inputs: Inputs) -> list[str]:
    """Name the models whose training was judged by the worst group, as `history.csv` has it."""
    return ["finetuned"] if chosen_strategy(inputs) in _BY_WORST_GROUP else []


def kept_epochs(inputs: Inputs) -> dict[str, str]:
    """Say of each model which epoch of its training was kept: params' `keep`."""
    sections = {"base": "train", "finetuned": "finetune"}
    return {
        name: str((inputs.params.get(section) or {}).get("keep", "best"))
        for name, section in sections.items()
    }


def sides(table: pd.DataFrame) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return the groups that fine-tuning was on, and the others that are compared.

    The first list is empty where fine-tuning was on no single one of the groups.
    """
    rows = table[(table["group"] != ALL) & (table["group"] != UNKNOWN)]
    rows = rows.drop_duplicates(["dimension", "group"])
    on = rows["fine_tuned_on"].eq(True)
    found = [
        [{str(row["dimension"]): str(row["group"])} for _, row in part.iterrows()]
        for part in (rows[on], rows[~on])
    ]
    return found[0], found[1]


def of(table: pd.DataFrame, strategy: str, where: Mapping[str, str]) -> pd.Series | None:
    """Return the row of a strategy and group, or None."""
    ((dimension, group),) = where.items()
    rows = table[
        (table["strategy"] == strategy)
        & (table["dimension"] == dimension)
        & (table["group"] == group)
    ]
    return None if rows.empty else rows.iloc[0]


def extreme(
    table: pd.DataFrame, strategy: str, groups: list[dict[str, str]]
) -> tuple[dict[str, str], pd.Series] | None:
    """Return the group, of those named, for which a strategy does worst."""
    return min(_there(table, strategy, groups), key=_change, default=None)


def _there(
    table: pd.DataFrame, strategy: str, groups: list[dict[str, str]]
) -> list[tuple[dict[str, str], pd.Series]]:
    found = [(where, of(table, strategy, where)) for where in groups]
    return [(where, row) for where, row in found if row is not None]


def _change(pair: tuple[dict[str, str], pd.Series]) -> float:
    return float(pair[1]["change"])


def outcome_words(inputs: Inputs) -> list[str]:
    """Say what the chosen strategy gives and takes, and what the plain one does."""
    table, chosen = inputs.further["strategies"], chosen_strategy(inputs)
    if table.empty or not chosen:
        return []
    target, others = sides(table)
    if not target:
        return [_no_target(table), *_best_and_worst(table, chosen, others)]
    said = []
    for where in target:
        row = of(table, chosen, where)
        if row is not None:
            against = _against(row) if chosen != NAIVE else ""
            gains = f"{people_word(where)} {change_words(row)}{against}"
            said.append(f"Fine-tuning by {chosen}, the strategy that was chosen: {gains}.")
    for strategy in dict.fromkeys((chosen, NAIVE)):
        worst = extreme(table, strategy, others)
        if worst is not None:
            where, row = worst
            said.append(
                f"Of the other groups, {strategy} does least well for {people_word(where)}: "
                f"{change_words(row)}."
            )
    return said


def figure_caption(inputs: Inputs) -> str:
    """Say how the figure is read; it has marks only where one group gains and others can lose."""
    table = inputs.further["strategies"]
    if table.empty or not all(sides(table)):
        return "A mark needs a group that fine-tuning was for, and another that can lose."
    return (
        "To the right: more gained by the group that fine-tuning is for. Upwards: less lost by the "
        "other group that loses most. Bars are intervals."
    )


def _no_target(table: pd.DataFrame) -> str:
    """Say that no group is marked as the one that fine-tuning was for."""
    notes = [note for note in dict.fromkeys(table["note"]) if note] if "note" in table else []
    why = f": {'; '.join(notes)}" if notes else ""
    return f"No group is marked as the one that fine-tuning was for{why}."


def _best_and_worst(table: pd.DataFrame, chosen: str, groups: list[dict[str, str]]) -> list[str]:
    """Say for which group the chosen and the plain strategy do most, and for which least."""
    said = []
    for strategy in dict.fromkeys((chosen, NAIVE)):
        there = sorted(_there(table, strategy, groups), key=_change, reverse=True)
        mark = ", the strategy that was chosen," if strategy == chosen else ""
        words = [f"{people_word(where)}: {change_words(row)}" for where, row in there]
        if len(words) > 1:
            least = f", and least for {words[-1]}"
            said.append(f"{capital(strategy)}{mark} does most for {words[0]}{least}.")
        elif words:
            said.append(f"{capital(strategy)}{mark} changes recall for {words[0]}.")
    return said


def strategy_card(inputs: Inputs) -> list[dict[str, str]]:
    """Return the key figure of the choice: gain of the group it is for, largest loss elsewhere.

    Where it is for no single group, that is said and the largest loss of all groups stands alone.
    """
    table, chosen = inputs.further["strategies"], chosen_strategy(inputs)
    if table.empty or chosen in ("", BASE):
        return []
    target, others = sides(table)
    pairs: list[tuple[dict[str, str], pd.Series | None]] = [
        (where, of(table, chosen, where)) for where in target[:1]
    ]
    pairs.append(extreme(table, chosen, others) or ({}, None))
    details = [f"{people_word(where)} {change_words(r)}" for where, r in pairs if r is not None]
    if not target:
        details = [*(f"least for {text}" for text in details), "not for one group alone"]
    return [
        {
            "value": chosen,
            "label": "strategy of fine-tuning, better on validation pictures in the worst group",
            "detail": "; ".join(details),
            "tone": "plain",
        }
    ]


def strategy_metrics(inputs: Inputs) -> dict[str, Any] | None:
    """Return the figures of metrics.json: the choice, and each strategy's gain and worst loss.

    `fine_tuned_on` lists the groups that fine-tuning was for: where it is empty, `change_for` is,
    and `worst_other_change` is the worst of all groups.
    """
    table = inputs.further["strategies"]
    if table.empty:
        return None
    target, others = sides(table)
    return {
        "chosen": chosen_strategy(inputs),
        "chosen_on": "validation pictures, by the worst group",
        "fine_tuned_on": target,
        "by_strategy": {
            name: {
                "change_for": [_figures(where, of(table, name, where)) for where in target],
                "worst_other_change": _figures(*(extreme(table, name, others) or ({}, None))),
            }
            for name in dict.fromkeys(table["strategy"])
        },
    }


def _figures(where: Mapping[str, str], row: pd.Series | None) -> dict[str, Any] | None:
    if row is None:
        return None
    numbers = {name: rounded(row[name]) for name in ("change", "ci_low", "ci_high")}
    return {"group": dict(where), **numbers, "n": int(row["n"])}


def _chosen_words(choice: pd.DataFrame) -> list[str]:
    """Say which strategy was chosen and on which figure."""
    if choice.empty or not choice["chosen"].astype(bool).any():
        return []
    rows = choice[choice["chosen"].astype(bool)]
    name = str(rows["strategy"].iloc[0])
    # Without a choice no row says which group is the worst: the cells are empty.
    worst = rows[rows["worst"].eq(True)] if "worst" in rows else rows.iloc[:0]
    if worst.empty:
        return [f"Kept: {name}. {capital(str(rows['note'].iloc[0]))}."]
    row = worst.iloc[0]
    tried = list(dict.fromkeys(choice["strategy"][choice["recall"].notna()]))
    kept = (
        "No strategy is better than the base model by more than its error, so that it was kept"
        if name == BASE
        else (f"Chosen: {name}, out of {listed(tried)}")
    )
    return [
        f"{kept}, by the worst group on validation pictures: for {name} that is "
        f"{people_word(_where(row))}, with a mean recall over emotions of "
        f"{percent(row['recall_score'])} ({count(row['correct'])} of {count(row['n'])} pictures "
        f"read correctly, {interval_words(row, span)}). {_selection_words(choice, row)}"
        "The pictures on which the strategies are compared below took no part in the choice."
    ]


def _selection_words(choice: pd.DataFrame, row: pd.Series) -> str:
    """Say by how much the chosen strategy had to be better, and what being chosen adds."""
    rows = choice[choice["threshold"].notna()] if "threshold" in choice else choice.iloc[:0]
    if rows.empty:
        return ""
    if row["strategy"] == BASE:
        nearest = rows.loc[(rows["advantage"] - rows["threshold"]).idxmax()]
        return (
            f"The nearest, {nearest['strategy']}, lies {points(nearest['advantage'], signed=True)} "
            f"points beside it; more than {points(nearest['threshold'])} were needed. "
        )
    return (
        f"That is {points(row['advantage'], signed=True)} points beside the base model's worst "
        f"group (standard error {points(row['advantage_se'])}); more than "
        f"{points(row['threshold'])} were needed to replace it. A figure by which something was "
        f"chosen is too high, here by about {points(row['optimism'])} points: corrected it is "
        f"{percent(row['recall_score_corrected'])}. "
    )


def _skipped_words(choice: pd.DataFrame) -> list[str]:
    if choice.empty or "note" not in choice:
        return []
    skipped = choice[(choice["note"] != "") & ~choice["chosen"].astype(bool)]
    return [f"Not carried out: {row.strategy} ({row.note})." for row in skipped.itertuples()]


def _where(row: pd.Series) -> dict[str, str]:
    dimension, group = str(row["dimension"]), str(row["group"])
    return {} if dimension == ALL or group == ALL else {dimension: group}


def _against(row: pd.Series) -> str:
    if row["against_naive"] != row["against_naive"]:
        return ""
    limits = span_points(row["against_naive_ci_low"], row["against_naive_ci_high"])
    return (
        f"; that is {points(row['against_naive'], signed=True)} points beside naive "
        f"(interval {limits})"
    )


def _matrix(
    table: pd.DataFrame,
    choice: pd.DataFrame,
    target: list[dict[str, str]],
    others: list[dict[str, str]],
) -> Table:
    """Set strategies against groups: the change by each, for the group it is for and elsewhere."""
    groups = [*target, *others]
    head = ["strategy", "worst group on validation, mean recall"]
    for where in groups:
        first = of(table, str(table["strategy"].iloc[0]), where)
        n = "" if first is None else f" (n\u00a0=\u00a0{count(first['n'])})"
        head.append(f"change for {people_word(where)}{n}")
    rows = []
    for name in dict.fromkeys(table["strategy"]):
        part = table[table["strategy"] == name]
        mark = " (chosen)" if part["chosen"].astype(bool).any() else ""
        cells = [Cell(f"{name}{mark}"), _validation_cell(part.iloc[0])]
        rows.append([*cells, *(_change_cell(of(table, str(name), where)) for where in groups)])
    validation = [f"On validation: {text}" for text in methods(choice)]
    return Table(
        caption="Change in recall against the base model, in percentage points with its interval, "
        "on pictures that no model was trained on and that took no part in the choice. In "
        "colour: changes that could be shown. The figures on validation are of the pictures that "
        "chose the strategy, and so too high.",
        head=head,
        rows=rows,
        how=[*methods(table), *validation],
    )


def _what_they_do(table: pd.DataFrame) -> str:
    names = [str(name) for name in dict.fromkeys(table["strategy"])]
    return f"What they do. {'; '.join(f'{name}: {_WHY[name]}' for name in names if name in _WHY)}."


def _validation_cell(row: pd.Series) -> Cell:
    value = row["validation_worst_recall"]
    if value != value:
        return Cell("–")
    return Cell(f"{row['validation_worst_group']} {percent(value)}")


def _change_cell(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("–")
    limits = span_points(row["ci_low"], row["ci_high"])
    return Cell(points(row["change"], signed=True), limits, tone_of(row))


def _rows(table: pd.DataFrame) -> Table:
    head = ["strategy", "group", "n", "people", "base model", "strategy's", "change", "p"]
    head.append("beside naive")
    rows = [
        [
            *words_of(str(row["strategy"]), group_word({row["dimension"]: row["group"]})),
            *words_of(count(row["n"]), count(row["subjects"])),
            *words_of(percent(row["recall_base"]), percent(row["recall_strategy"])),
            Cell(
                points(row["change"], signed=True),
                span_points(row["ci_low"], row["ci_high"]),
                tone_of(row),
            ),
            Cell(p_word(row["p_adjusted"])),
            _naive_cell(row),
        ]
        for _, row in table.iterrows()
    ]
    return Table(
        "Recall before and after, change in points; the last column is the difference to naive, in "
        "points.",
        head,
        rows,
        words=["group"],
    )


def _naive_cell(row: pd.Series) -> Cell:
    if row["against_naive"] != row["against_naive"]:
        return Cell("–")
    limits = span_points(row["against_naive_ci_low"], row["against_naive_ci_high"])
    return Cell(points(row["against_naive"], signed=True), limits)
