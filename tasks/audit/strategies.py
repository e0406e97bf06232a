"""The ways to fine-tune, side by side: what each gives one group and takes from the others.

Every strategy reads the same pictures: those that none of the compared models has seen in any part
of its training or of the choice between them. Each is compared with the base model and with
`naive`, the published way, picture by picture and clustered by subject.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.by_group import prepare
from tasks.audit.comparisons import corrected
from tasks.audit.cube import values_in_order
from tasks.audit.difference import Sides, differences
from tasks.audit.resample import Resampled
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, UNKNOWN

BASE, NAIVE = "base", "naive"
COLUMNS = [
    "strategy",
    "chosen",
    "validation_worst_group",
    "validation_worst_recall",
    "dimension",
    "group",
    "fine_tuned_on",
    "n",
    "subjects",
    "recall_base",
    "recall_strategy",
    "change",
    "ci_low",
    "ci_high",
    "p_value",
    "p_adjusted",
    "correction",
    "enough_n",
    "against_naive",
    "against_naive_ci_low",
    "against_naive_ci_high",
    "against_naive_p_value",
    "confidence",
    "family",
    "method",
]


def strategies_table(
    frames: Mapping[str, pd.DataFrame],
    strategies: Sequence[str],
    choice: pd.DataFrame,
    settings: Settings,
) -> pd.DataFrame:
    """Compare strategies by the groups of the first dimension of `settings.by`.

    Parameters
    ----------
    frames
        Predictions by model, the base model's among them; an empty table is a strategy that was
        left out. Pictures that any of these models has seen are not compared.
    strategies
        Which of the models are strategies, in the order of the table.
    choice
        What stage `choose` wrote: `strategy, group, recall_score, worst, chosen`.
    settings
        How the audit is done.

    Returns
    -------
    pandas.DataFrame
        One row a strategy and group, `all` first: recall of the base model and of the strategy,
        `change` (strategy less base) and `against_naive` (strategy less naive), each with its
        interval. `fine_tuned_on` marks the group of most pictures that the strategies learned from
        and the base model did not. `validation_worst_*` is what the choice went by. A family of
        tests is all strategies' changes in the groups, another all their changes over all pictures.
        Empty where there is no strategy or no picture that none of the models has seen.
    """
    made = {name: frame for name, frame in frames.items() if len(frame)}
    compared = [name for name in strategies if name in made]
    if not compared or BASE not in made:
        return pd.DataFrame(columns=COLUMNS)
    tables = {name: prepare(frame, settings) for name, frame in made.items()}
    pictures = unseen_by_all(tables)
    if pictures.empty:
        return pd.DataFrame(columns=COLUMNS)
    dimension = settings.by[0]
    groups = [ALL, *(g for g in values_in_order(pictures, dimension) if g != UNKNOWN)]
    target = fine_tuned_group(tables, compared, dimension)
    parts = [
        _compare(pictures, name, groups, dimension, settings).assign(
            **validation_of(choice, name), fine_tuned_on=[group == target for group in groups]
        )
        for name in compared
    ]
    return _tested(pd.concat(parts, ignore_index=True), settings)[COLUMNS]


def unseen_by_all(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the pictures that no model has seen and all have the label of; `correct_<model>`."""
    pictures = tables[BASE]
    for name, table in tables.items():
        kept = table[table["named"] & ~table["seen_in_training"].astype(bool)]
        own = kept[["image_id", "correct"]].rename(columns={"correct": f"correct_{name}"})
        pictures = pictures.merge(own, on="image_id", how="inner")
    return pictures


def fine_tuned_group(
    tables: Mapping[str, pd.DataFrame], compared: Sequence[str], dimension: str
) -> str | None:
    """Name the group with most training pictures that a strategy has seen and the base has not.

    None where the strategies learned from nothing that the base model had not seen.
    """
    base, counts = tables[BASE], pd.Series(dtype=float)
    known = set(base["image_id"][base["seen_in_training"].astype(bool)])
    for name in compared:
        table = tables[name]
        learned = table["seen_in_training"].astype(bool) & (table["split"] == "train")
        new = table[learned & ~table["image_id"].isin(known) & (table[dimension] != UNKNOWN)]
        counts = counts.add(new[dimension].value_counts(), fill_value=0)
    return None if counts.empty else str(counts.idxmax())


def validation_of(choice: pd.DataFrame, strategy: str) -> dict[str, object]:
    """Return what is known of a strategy from the choice between them."""
    rows = choice[choice["strategy"] == strategy]
    worst = rows[rows["worst"].astype("boolean").fillna(False).astype(bool)]
    found = len(worst) > 0
    return {
        "chosen": bool(rows["chosen"].astype("boolean").fillna(False).any()),
        "validation_worst_group": str(worst["group"].iloc[0]) if found else "",
        "validation_worst_recall": float(worst["recall_score"].iloc[0]) if found else np.nan,
    }


def _compare(
    pictures: pd.DataFrame, name: str, groups: Sequence[str], dimension: str, settings: Settings
) -> pd.DataFrame:
    """Compare one strategy with the base model and with `naive`, group by group."""
    values = pictures[dimension].to_numpy()
    own = np.column_stack([np.ones(len(values)) if g == ALL else values == g for g in groups])
    members = sparse.csr_array(own.astype(float))
    change = _change(pictures, members, name, BASE, settings)
    table = pd.DataFrame(
        {
            "strategy": name,
            "dimension": [ALL if group == ALL else dimension for group in groups],
            "group": list(groups),
            "n": change["n_a"],
            "subjects": change["subjects_a"],
            "recall_base": change["recall_b"],
            "recall_strategy": change["recall_a"],
            "change": change["gap"],
            **{key: change[key] for key in ("ci_low", "ci_high", "p_value", "method")},
        }
    )
    limits = ["against_naive", *(f"against_naive_{key}" for key in ("ci_low", "ci_high"))]
    table[[*limits, "against_naive_p_value"]] = np.nan
    if f"correct_{NAIVE}" in pictures and name != NAIVE:
        other = _change(pictures, members, name, NAIVE, settings)
        table[[*limits, "against_naive_p_value"]] = other[["gap", "ci_low", "ci_high", "p_value"]]
    return table.assign(confidence=settings.confidence)


def _change(
    pictures: pd.DataFrame, members: sparse.csr_array, name: str, other: str, settings: Settings
) -> pd.DataFrame:
    sampled = Resampled(pictures["subject_id"], settings.resamples, settings.seed)
    sides = [
        Sides.of(members, pictures[f"correct_{model}"].to_numpy(dtype=bool))
        for model in (name, other)
    ]
    known = pictures["subject_known"].to_numpy(dtype=bool)
    return differences(sampled, *sides, known, settings.confidence, "models")


def _tested(table: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correct the p-values: all strategies' groups are one family, their totals another."""
    table["enough_n"] = (table["n"] >= settings.min_n) & (table["subjects"] >= 2)
    for name, part in table.groupby("dimension"):
        tested = part["enough_n"]
        adjusted = corrected(part["p_value"], tested, settings.correction)
        table.loc[part.index, "p_adjusted"] = adjusted
        table.loc[part.index, "family"] = (
            f"{name}: {int(tested.sum())} changes with at least {settings.min_n} pictures of at "
            "least 2 people"
        )
    return table.assign(correction=settings.correction)
