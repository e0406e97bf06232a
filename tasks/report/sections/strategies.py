"""Fine-tuning strategies: the change for the target group, and for the others."""

from typing import Any

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.core.labels import ALL, UNKNOWN
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    capital,
    change_phrase,
    count,
    group_name,
    interval_words,
    join_names,
    methods,
    p_value_text,
    people_phrase,
    percent_interval,
    points_interval,
    rounded,
    tone_of,
)
from tasks.report.inputs import Inputs
from tasks.report.sections.cube_rows import Group, GroupRow

BASE, NAIVE = "base", "naive"
_DESCRIPTIONS = {
    "naive": "every layer, only on the group's pictures (as published)",
    "head": "only the last layer; the backbone stays as it is",
    "replay": "pictures of other groups are mixed in",
    "distill": "replayed pictures must keep the base model's answers",
    "interpolate": "weights between those of the base and a fine-tuned model",
}
_BY_WORST_GROUP = ("replay", "distill")  # they see other groups too


def strategies_section(inputs: Inputs) -> Block:
    """Return the comparison of strategies: sentences, one open and one collapsed table."""
    table = inputs.further["strategies"]
    choice = inputs.further["choice"]
    sentences = [*_chosen_words(choice), *_skipped_words(choice)]
    if table.empty:
        return Block(
            sentences=sentences, missing="No strategies were compared on held-out pictures."
        )
    target, others = target_and_others(table)
    return Block(
        sentences=[*sentences, *outcome_sentences(inputs), _descriptions_of(table)],
        tables=[_matrix(table, choice, target, others)],
        collapsed=[
            ("Every strategy and group, with people, both recalls and p", _all_rows_table(table))
        ],
    )


def chosen_strategy(inputs: Inputs) -> str:
    """Return the chosen strategy; `base` if none was better, "" if none is recorded."""
    for table in (inputs.further["choice"], inputs.further["strategies"]):
        if not table.empty and table["chosen"].astype(bool).any():
            return str(table["strategy"][table["chosen"].astype(bool)].iloc[0])
    return ""


def worst_group_models(inputs: Inputs) -> list[str]:
    """Return the models whose `history.csv` has the recall of the worst group."""
    return ["finetuned"] if chosen_strategy(inputs) in _BY_WORST_GROUP else []


def checkpoint_rules(inputs: Inputs) -> dict[str, str]:
    """Return, per model, which epoch's weights were saved: the param `keep`."""
    sections = {"base": "train", "finetuned": "finetune"}
    return {
        name: str((inputs.params.get(section) or {}).get("checkpoint", "best"))
        for name, section in sections.items()
    }


def target_and_others(table: pd.DataFrame) -> tuple[list[Group], list[Group]]:
    """Return the groups that fine-tuning was on, and the others that are compared.

    The first list is empty if fine-tuning was on no single one of the groups.
    """
    rows = table[(table["group"] != ALL) & (table["group"] != UNKNOWN)]
    rows = rows.drop_duplicates(["dimension", "group"])
    tuned = rows["is_target_group"].eq(True)
    groups = [
        [{str(row["dimension"]): str(row["group"])} for _, row in part.iterrows()]
        for part in (rows[tuned], rows[~tuned])
    ]
    return groups[0], groups[1]


def group_row(table: pd.DataFrame, strategy: str, group: Group) -> pd.Series | None:
    """Return the row of a strategy and group, or None."""
    ((dimension, value),) = group.items()
    rows = table[
        (table["strategy"] == strategy)
        & (table["dimension"] == dimension)
        & (table["group"] == value)
    ]
    return None if rows.empty else rows.iloc[0]


def worst_group(table: pd.DataFrame, strategy: str, groups: list[Group]) -> GroupRow | None:
    """Return the group, of those given, for which a strategy does worst."""
    return min(_rows_of_groups(table, strategy, groups), key=_pair_change, default=None)


def _rows_of_groups(table: pd.DataFrame, strategy: str, groups: list[Group]) -> list[GroupRow]:
    pairs = [(group, group_row(table, strategy, group)) for group in groups]
    return [(group, row) for group, row in pairs if row is not None]


def _pair_change(pair: GroupRow) -> float:
    return float(pair[1]["change"])


def outcome_sentences(inputs: Inputs) -> list[str]:
    """Describe the effect of the chosen strategy and of the naive one."""
    table, chosen = inputs.further["strategies"], chosen_strategy(inputs)
    if table.empty or not chosen:
        return []
    target, others = target_and_others(table)
    if not target:
        return [_no_target_words(table), *_best_and_worst(table, chosen, others)]
    sentences = []
    for group in target:
        row = group_row(table, chosen, group)
        if row is not None:
            beside = _beside_naive(row) if chosen != NAIVE else ""
            gains = f"{people_phrase(group)} {change_phrase(row)}{beside}"
            sentences.append(f"Fine-tuning by {chosen}, the strategy that was chosen: {gains}.")
    for strategy in dict.fromkeys((chosen, NAIVE)):
        worst = worst_group(table, strategy, others)
        if worst is not None:
            group, row = worst
            sentences.append(
                f"Of the other groups, {strategy} does least well for {people_phrase(group)}: "
                f"{change_phrase(row)}."
            )
    return sentences


def figure_caption(inputs: Inputs) -> str:
    """Return the figure's caption; it has marks only if there are a target and other groups."""
    table = inputs.further["strategies"]
    if table.empty or not all(target_and_others(table)):
        return "There are marks only if fine-tuning was for one group and others can lose."
    return (
        "To the right: more gained by the group that fine-tuning is for. Upwards: less lost by the "
        "other group that loses most. Bars are intervals."
    )


def _no_target_words(table: pd.DataFrame) -> str:
    """State that no group is marked as the target of fine-tuning."""
    notes = [note for note in dict.fromkeys(table["note"]) if note] if "note" in table else []
    reason = f": {'; '.join(notes)}" if notes else ""
    return f"No group is marked as the one that fine-tuning was for{reason}."


def _best_and_worst(table: pd.DataFrame, chosen: str, groups: list[Group]) -> list[str]:
    """Name the groups for which the chosen and the naive strategy do most and least."""
    sentences = []
    for strategy in dict.fromkeys((chosen, NAIVE)):
        pairs = sorted(_rows_of_groups(table, strategy, groups), key=_pair_change, reverse=True)
        note = ", the strategy that was chosen," if strategy == chosen else ""
        phrases = [f"{people_phrase(group)}: {change_phrase(row)}" for group, row in pairs]
        if len(phrases) > 1:
            least = f", and least for {phrases[-1]}"
            sentences.append(f"{capital(strategy)}{note} does most for {phrases[0]}{least}.")
        elif phrases:
            sentences.append(f"{capital(strategy)}{note} changes recall for {phrases[0]}.")
    return sentences


def strategy_card(inputs: Inputs) -> list[dict[str, str]]:
    """Return the key numbers of the choice: the target group's gain and the largest loss elsewhere.

    Without a single target group, the card says so and shows the largest loss of all groups.
    """
    table, chosen = inputs.further["strategies"], chosen_strategy(inputs)
    if table.empty or chosen in ("", BASE):
        return []
    target, others = target_and_others(table)
    pairs: list[tuple[Group, pd.Series | None]] = [
        (group, group_row(table, chosen, group)) for group in target[:1]
    ]
    pairs.append(worst_group(table, chosen, others) or ({}, None))
    details = [f"{people_phrase(group)} {change_phrase(r)}" for group, r in pairs if r is not None]
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
    """Return the choice, and each strategy's gain and worst loss, for metrics.json.

    `target_groups` lists the target groups. If it is empty, so is `change_for`, and
    `worst_other_change` is the worst of all groups.
    """
    table = inputs.further["strategies"]
    if table.empty:
        return None
    target, others = target_and_others(table)
    return {
        "chosen": chosen_strategy(inputs),
        "chosen_on": "validation pictures, by the worst group",
        "target_groups": target,
        "by_strategy": {
            name: {
                "change_for": [_figures(group, group_row(table, name, group)) for group in target],
                "worst_other_change": _figures(*(worst_group(table, name, others) or ({}, None))),
            }
            for name in dict.fromkeys(table["strategy"])
        },
    }


def _figures(group: Group, row: pd.Series | None) -> dict[str, Any] | None:
    if row is None:
        return None
    numbers = {name: rounded(row[name]) for name in ("change", "ci_low", "ci_high")}
    return {"group": dict(group), **numbers, "n": int(row["n"])}


def _chosen_words(choice: pd.DataFrame) -> list[str]:
    """Describe which strategy was chosen, and on which number."""
    if choice.empty or not choice["chosen"].astype(bool).any():
        return []
    rows = choice[choice["chosen"].astype(bool)]
    name = str(rows["strategy"].iloc[0])
    # Without a choice the column `worst` is empty.
    worst = rows[rows["worst"].eq(True)] if "worst" in rows else rows.iloc[:0]
    if worst.empty:
        return [f"Kept: {name}. {capital(str(rows['note'].iloc[0]))}."]
    row = worst.iloc[0]
    candidates = list(dict.fromkeys(choice["strategy"][choice["recall"].notna()]))
    decision = (
        "No strategy is better than the base model by more than its error, so that it was kept"
        if name == BASE
        else (f"Chosen: {name}, out of {join_names(candidates)}")
    )
    return [
        f"{decision}, by the worst group on validation pictures: for {name} that is "
        f"{people_phrase(_group(row))}, with a mean recall over emotions of "
        f"{percent(row['recall_score'])} ({count(row['correct'])} of {count(row['n'])} pictures "
        f"read correctly, {interval_words(row, percent_interval)}). {_selection_words(choice, row)}"
        "The pictures on which the strategies are compared below took no part in the choice."
    ]


def _selection_words(choice: pd.DataFrame, row: pd.Series) -> str:
    """Describe the margin that was needed, and the optimism of a selected number."""
    rows = choice[choice["threshold"].notna()] if "threshold" in choice else choice.iloc[:0]
    if rows.empty:
        return ""
    if row["strategy"] == BASE:
        nearest = rows.loc[(rows["advantage"] - rows["threshold"]).idxmax()]
        return (
            f"The closest, {nearest['strategy']}, differs by "
            f"{points(nearest['advantage'], signed=True)} points; more than "
            f"{points(nearest['threshold'])} were needed. "
        )
    return (
        f"That is {points(row['advantage'], signed=True)} points compared with the base model's "
        f"worst group (standard error {points(row['advantage_se'])}); more than "
        f"{points(row['threshold'])} were needed to replace it. A figure that guided the choice is "
        f"too high, here by about {points(row['optimism'])} points: corrected it is "
        f"{percent(row['recall_score_corrected'])}. "
    )


def _skipped_words(choice: pd.DataFrame) -> list[str]:
    if choice.empty or "note" not in choice:
        return []
    skipped = choice[(choice["note"] != "") & ~choice["chosen"].astype(bool)]
    return [f"Not carried out: {row.strategy} ({row.note})." for row in skipped.itertuples()]


def _group(row: pd.Series) -> Group:
    dimension, group = str(row["dimension"]), str(row["group"])
    return {} if dimension == ALL or group == ALL else {dimension: group}


def _beside_naive(row: pd.Series) -> str:
    if row["against_naive"] != row["against_naive"]:
        return ""
    limits = points_interval(row["against_naive_ci_low"], row["against_naive_ci_high"])
    return (
        f"; that is {points(row['against_naive'], signed=True)} points compared with naive "
        f"(interval {limits})"
    )


def _matrix(
    table: pd.DataFrame, choice: pd.DataFrame, target: list[Group], others: list[Group]
) -> Table:
    groups = [*target, *others]
    head = ["strategy", "worst group on validation, mean recall"]
    for group in groups:
        first = group_row(table, str(table["strategy"].iloc[0]), group)
        n = "" if first is None else f" (n\u00a0=\u00a0{count(first['n'])})"
        head.append(f"change for {people_phrase(group)}{n}")
    rows = []
    for name in dict.fromkeys(table["strategy"]):
        part = table[table["strategy"] == name]
        mark = " (chosen)" if part["chosen"].astype(bool).any() else ""
        cells = [Cell(f"{name}{mark}"), _validation_cell(part.iloc[0])]
        rows.append(
            [*cells, *(_change_cell(group_row(table, str(name), group)) for group in groups)]
        )
    validation = [f"On validation: {text}" for text in methods(choice)]
    return Table(
        caption="Change in recall against the base model, in percentage points with its interval, "
        "on pictures that no model was trained on and that took no part in the choice. In "
        "color: changes that could be shown. The figures on validation are of the pictures that "
        "chose the strategy, and so too high.",
        head=head,
        rows=rows,
        methods=[*methods(table), *validation],
    )


def _descriptions_of(table: pd.DataFrame) -> str:
    names = [str(name) for name in dict.fromkeys(table["strategy"])]
    parts = [f"{name}: {_DESCRIPTIONS[name]}" for name in names if name in _DESCRIPTIONS]
    return f"What they do. {'; '.join(parts)}."


def _validation_cell(row: pd.Series) -> Cell:
    value = row["validation_worst_recall"]
    if value != value:
        return Cell("–")
    return Cell(f"{row['validation_worst_group']} {percent(value)}")


def _change_cell(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("–")
    limits = points_interval(row["ci_low"], row["ci_high"])
    return Cell(points(row["change"], signed=True), limits, tone_of(row))


def _all_rows_table(table: pd.DataFrame) -> Table:
    head = ["strategy", "group", "n", "people", "base model", "strategy's", "change", "p"]
    head.append("against naive")
    rows = [
        [
            *plain(str(row["strategy"]), group_name({row["dimension"]: row["group"]})),
            *plain(count(row["n"]), count(row["subjects"])),
            *plain(percent(row["recall_base"]), percent(row["recall_strategy"])),
            Cell(
                points(row["change"], signed=True),
                points_interval(row["ci_low"], row["ci_high"]),
                tone_of(row),
            ),
            Cell(p_value_text(row["p_adjusted"])),
            _naive_cell(row),
        ]
        for _, row in table.iterrows()
    ]
    return Table(
        "Recall before and after, change in points; the last column is the difference from naive, "
        "in points.",
        head,
        rows,
        text_columns=["group"],
    )


def _naive_cell(row: pd.Series) -> Cell:
    if row["against_naive"] != row["against_naive"]:
        return Cell("–")
    limits = points_interval(row["against_naive_ci_low"], row["against_naive_ci_high"])
    return Cell(points(row["against_naive"], signed=True), limits)
