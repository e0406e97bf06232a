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
from tasks.audit.cube import values_in_order
from tasks.audit.settings import Settings
from tasks.core.errors import DataError
from tasks.core.labels import ALL, UNKNOWN
from tasks.core.statistics.comparisons import corrected
from tasks.core.statistics.difference import Sides, differences
from tasks.core.statistics.resample import Resampled

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
    "note",  # why no group is marked as fine-tuned on, or nothing
]
_NEARLY_ALL = 0.95


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
        interval. `fine_tuned_on` marks the group that the strategies were fine-tuned on; where it
        is no one group of the dimension, none is marked and `note` says why.
        `validation_worst_*` is what the choice went by. A family of tests is all strategies'
        changes in the groups, another all their changes over all pictures. Empty where there is no
        strategy or no picture that none of the models has seen.

    Raises
    ------
    DataError
        Where predictions do not say which pictures were fine-tuned on.
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
    target, note = fine_tuned_group(tables[BASE], _fine_tuned_on(made, compared), dimension)
    if target and target not in groups:
        note = f"no picture that all models leave unseen is of the fine-tuned group, {target}"
    parts = [
        _compare(pictures, name, groups, dimension, settings).assign(
            **validation_of(choice, name),
            fine_tuned_on=[group == target for group in groups],
            note=note,
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


def fine_tuned_group(base: pd.DataFrame, learned: set[str], dimension: str) -> tuple[str, str]:
    """Name the group that was fine-tuned on, "" where it is no one group; and why it is not.

    A group is named where nearly all pictures that were fine-tuned on are of it, and nearly none of
    the other training pictures was: where everybody was fine-tuned on, nobody is the target,
    however many are of one group.

    Parameters
    ----------
    base
        One row a picture of any split: `image_id, split` and the dimension.
    learned
        `image_id` of the pictures that were fine-tuned on, without those that were only replayed.
    dimension
        The column whose groups may be named.
    """
    own = base[base["image_id"].isin(learned)]
    if own.empty:
        return "", "no picture was fine-tuned on"
    shares = own[dimension].value_counts(normalize=True)
    name = str(shares.idxmax())
    if name == UNKNOWN or shares.max() < _NEARLY_ALL:
        return "", f"what was fine-tuned on is no one group of {dimension}"
    rest = base[(base["split"] == "train") & (base[dimension] != name)]
    if rest.empty or rest["image_id"].isin(learned).mean() > 1 - _NEARLY_ALL:
        return "", "everybody was fine-tuned on, not one group"
    return name, ""


def _fine_tuned_on(frames: Mapping[str, pd.DataFrame], compared: Sequence[str]) -> set[str]:
    """Return the pictures that any strategy was fine-tuned on."""
    for name in compared:
        if "fine_tuned_on" not in frames[name].columns:
            raise DataError(
                f"the predictions of {name} lack the column fine_tuned_on; run evaluate again"
            )
    own = (frames[name][frames[name]["fine_tuned_on"].astype(bool)] for name in compared)
    return {image_id for part in own for image_id in part["image_id"]}


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
            "effective_subjects": change["effective_subjects_a"],
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
    table["enough_n"] = settings.enough(table["n"], table["effective_subjects"])
    table["enough_n"] &= table["p_value"].notna()
    for name, part in table.groupby("dimension"):
        tested = part["enough_n"]
        adjusted = corrected(part["p_value"], tested, settings.correction)
        table.loc[part.index, "p_adjusted"] = adjusted
        table.loc[part.index, "family"] = (
            f"{name}: {int(tested.sum())} changes with at least {settings.least_words()}"
        )
    return table.assign(correction=settings.correction)
