"""The section on the published order: whether it is more than noise, and whether ours agrees."""

import pandas as pd

from tasks.core.gap_sentences import ALPHA, not_shown, percent, points
from tasks.report.html.components import Block, Cell, Table, plain
from tasks.report.html.formatting import (
    confidence_text,
    count,
    join_names,
    p_value_text,
    points_interval,
)
from tasks.report.study.figures import ROUNDS, significantly_lower
from tasks.report.study.inputs import StudyInputs

_NONE = (
    "No published study is named (params study.published), so there is no order to compare with."
)
_SECOND_HAND = (
    "The published figures are second-hand: taken from a description of the study, not from its "
    "own tables."
)


def order_block(inputs: StudyInputs) -> Block:
    """Return the comparison with the published order, or a note that none is named."""
    if "published_rates" not in inputs.tables:
        return Block(missing=_NONE)
    rates, pairs = inputs.tables["published_rates"], inputs.tables["published_pairs"]
    n = count(rates["validation_n"].iloc[0])
    sentences = [
        f"{_SECOND_HAND} The number of pictures behind them is not printed; with 1,200 pictures "
        f"split 6:2:2 it is {n} for validation, by our estimate.",
        *(
            _significant_order(rates, pairs, name)
            for name in ROUNDS
            if (rates["round"] == name).any()
        ),
        *_drop_between_rounds(rates),
        "Each figure is the best of 30 epochs of one seed. Both add noise that these tests do not "
        "see, so that even a difference that is shown here is shown for that one training only.",
        *(_agreement_words(inputs, row) for _, row in inputs.tables["agreement"].iterrows()),
    ]
    table = _pairs_table(pairs)
    return Block(
        sentences=sentences, collapsed=((f"All {len(pairs)} pairs of published figures", table),)
    )


def _significant_order(rates: pd.DataFrame, pairs: pd.DataFrame, name: str) -> str:
    """Describe which part of a round's published order is significant."""
    rows = rates[rates["round"] == name].sort_values("accuracy", ascending=False)
    of_round = pairs[pairs["round"] == name]
    n_significant = int((of_round["p_adjusted"] < 0.05).sum())
    top = rows.iloc[0]
    lower = significantly_lower(pairs, name, str(top["name"]))
    ties = [str(other) for other in rows["name"][1:] if other not in lower]
    first = (
        f"{name.capitalize()}: {n_significant} of {len(of_round)} differences could be shown "
        f"(tests of two shares, corrected by Holm). "
    )
    if not ties:
        return (
            f"{first}The highest, {top['name']} ({percent(top['accuracy'])}), is shown to be best."
        )
    rest = f" Shown to be lower: {join_names(sorted(lower))}." if lower else ""
    return (
        f"{first}The highest, {top['name']} ({percent(top['accuracy'])}), cannot be told from "
        f"{join_names(ties)}: among these the published order may be noise.{rest}"
    )


def _drop_between_rounds(rates: pd.DataFrame) -> list[str]:
    """Point out if the last round ended below the one before."""
    best = rates.groupby("round")["accuracy"].max()
    if not {"losses", "optimizers"} <= set(best.index) or best["optimizers"] >= best["losses"]:
        return []
    return [
        f"The published last round ends at {percent(best['optimizers'])}, below the "
        f"{percent(best['losses'])} with which the round before ended: its optimizers were all "
        "compared at one rate, which suits some better than others."
    ]


def _agreement_words(inputs: StudyInputs, row: pd.Series) -> str:
    """Describe how far our order of a round agrees with the published one."""
    shared = int(row["shared"])
    prefix = f"Ours against theirs, {row['round']}: "
    if row["tau"] != row["tau"]:
        number = "two" if shared == 2 else "one" if shared == 1 else "no"
        return f"{prefix}{number} name{'' if shared == 1 else 's'} shared; an order needs three."
    epochs = int(row["until"])
    epoch_words = "" if epochs == inputs.settings["epochs"] else f", ours after {epochs} epochs"
    seeds = f"{int(row['seeds'])} seed{'s' if row['seeds'] > 1 else ''}"
    verdict = _tau_words(row["ci_low"], row["ci_high"])
    return (
        f"{prefix}Kendall's tau {_signed(row['tau'])} ({confidence_text(row['confidence'])} "
        "interval "
        f"{_signed(row['ci_low'])} to {_signed(row['ci_high'])}; {shared} names shared"
        f"{epoch_words}, {seeds}): {verdict}"
    )


def _tau_words(low: float, high: float) -> str:
    if low > 0:
        return "more of the order is shared than chance would give."
    if high < 0:
        return "the order is rather reversed."
    return "whether the orders have anything in common remains open."


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\u2212")


def _pairs_table(pairs: pd.DataFrame) -> Table:
    rows = [
        [
            *plain(row["round"], row["higher"], row["lower"]),
            Cell(points(row["difference"]), points_interval(row["ci_low"], row["ci_high"])),
            *plain(
                p_value_text(row["p_value"]),
                p_value_text(row["p_adjusted"]),
                p_value_text(row["p_smallest"]),
            ),
            Cell(*_verdict(row)),
        ]
        for _, row in pairs.iterrows()
    ]
    return Table(
        "Differences in percentage points. p: two independent shares; corrected: by Holm within "
        "the round; smallest: what McNemar's test could give at best, since the same pictures were "
        "used and how their answers pair is not printed.",
        ("round", "higher", "lower", "difference", "p", "corrected", "smallest", "verdict"),
        rows,
        text_columns=("higher", "lower", "verdict"),
    )


def _verdict(row: pd.Series) -> tuple[str, str, str]:
    if row["p_adjusted"] < ALPHA:
        return "shown", "", "gain"
    return not_shown(row).removeprefix("was "), "", ""
