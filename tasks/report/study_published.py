"""Whether a published order was more than noise, and whether ours is the same, in words."""

import pandas as pd

from tasks.core.headline import percent, points
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.study_figures import ROUNDS, shown_lower
from tasks.report.study_inputs import StudyInputs
from tasks.report.words import count, level, listed, p_word, span_points

_NONE = (
    "No published study is named (params study.published), so that there is no order to compare "
    "with."
)
_SECOND_HAND = (
    "The published figures are second-hand: taken from a description of the study, not from its "
    "own tables."
)


def order_block(inputs: StudyInputs) -> Block:
    """Return sentences and the table of all pairs; says so where no study is named."""
    if "published_rates" not in inputs.tables:
        return Block(missing=_NONE)
    rates, pairs = inputs.tables["published_rates"], inputs.tables["published_pairs"]
    n = count(rates["validation_n"].iloc[0])
    said = [
        f"{_SECOND_HAND} How many pictures stand behind them is not printed; with 1,200 pictures "
        f"split 6:2:2 it is {n} for validation, which is our reckoning.",
        *(_noise(rates, pairs, name) for name in ROUNDS if (rates["round"] == name).any()),
        *_between_rounds(rates),
        "Each figure is the best of 30 epochs of one seed. Both add noise that these tests do not "
        "see, so that even a difference that is shown here is shown for that one training only.",
        *(_agrees(inputs, row) for _, row in inputs.tables["agreement"].iterrows()),
    ]
    table = _pairs_table(pairs)
    return Block(said=said, more=((f"All {len(pairs)} pairs of published figures", table),))


def _noise(rates: pd.DataFrame, pairs: pd.DataFrame, name: str) -> str:
    """Say of a round which of its order could be shown."""
    rows = rates[rates["round"] == name].sort_values("accuracy", ascending=False)
    own = pairs[pairs["round"] == name]
    shown = int((own["p_adjusted"] < 0.05).sum())
    top = rows.iloc[0]
    lower = shown_lower(pairs, name, str(top["name"]))
    like = [str(other) for other in rows["name"][1:] if other not in lower]
    first = (
        f"{name.capitalize()}: {shown} of {len(own)} differences could be shown "
        f"(tests of two shares, corrected by Holm). "
    )
    if not like:
        return (
            f"{first}The highest, {top['name']} ({percent(top['accuracy'])}), is shown to be best."
        )
    rest = f" Shown to be lower: {listed(sorted(lower))}." if lower else ""
    return (
        f"{first}The highest, {top['name']} ({percent(top['accuracy'])}), cannot be told from "
        f"{listed(like)}: among these the published order may be noise.{rest}"
    )


def _between_rounds(rates: pd.DataFrame) -> list[str]:
    """Point out where a later round ends below what the one before had."""
    best = rates.groupby("round")["accuracy"].max()
    if not {"losses", "optimisers"} <= set(best.index) or best["optimisers"] >= best["losses"]:
        return []
    return [
        f"The published last round ends at {percent(best['optimisers'])}, below the "
        f"{percent(best['losses'])} with which the round before ended: its optimisers were all "
        "compared at one rate, which suits some better than others."
    ]


def _agrees(inputs: StudyInputs, row: pd.Series) -> str:
    """Say whether our order of a round is the published one."""
    shared = int(row["shared"])
    head = f"Ours against theirs, {row['round']}: "
    if row["tau"] != row["tau"]:
        why = "two" if shared == 2 else "one" if shared == 1 else "no"
        return f"{head}{why} name{'' if shared == 1 else 's'} shared; an order needs three."
    epochs = int(row["until"])
    part = "" if epochs == inputs.settings["epochs"] else f", ours after {epochs} epochs"
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    words = _tau_words(row["ci_low"], row["ci_high"])
    return (
        f"{head}Kendall's tau {_signed(row['tau'])} ({level(row['confidence'])} interval "
        f"{_signed(row['ci_low'])} to {_signed(row['ci_high'])}; {shared} names shared{part}, "
        f"{seeds}): {words}"
    )


def _tau_words(low: float, high: float) -> str:
    if low > 0:
        return "more of the order is shared than chance would give."
    if high < 0:
        return "the order is rather turned round."
    return "whether the orders have anything in common is open."


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\u2212")


def _pairs_table(pairs: pd.DataFrame) -> Table:
    rows = [
        [
            *words_of(row["round"], row["higher"], row["lower"]),
            Cell(points(row["difference"]), span_points(row["ci_low"], row["ci_high"])),
            *words_of(p_word(row["p_value"]), p_word(row["p_adjusted"]), p_word(row["p_smallest"])),
            Cell(*_verdict(row["p_adjusted"])),
        ]
        for _, row in pairs.iterrows()
    ]
    return Table(
        "Differences in percentage points. p: two independent shares; corrected: by Holm within "
        "the round; smallest: what McNemar's test could give at best, since the same pictures were "
        "used and how their answers pair is not printed.",
        ("round", "higher", "lower", "difference", "p", "corrected", "smallest", "verdict"),
        rows,
        words=("higher", "lower", "verdict"),
    )


def _verdict(p_adjusted: float) -> tuple[str, str, str]:
    return ("shown", "", "gain") if p_adjusted < 0.05 else ("could not be shown", "", "")
