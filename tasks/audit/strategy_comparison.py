"""Comparison of the fine-tuning strategies: the gain of one group and the losses of others.

Every strategy reads the same images: those that none of the compared models has seen in its
training or in the choice between them. Each is compared with the base model and with `naive`, the
published method, image by image and clustered by subject.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.audit import prepare
from tasks.audit.measures.group_cube import values_in_order
from tasks.audit.settings import Settings
from tasks.core.errors import DataError
from tasks.core.labels import ALL, UNKNOWN
from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.hypothesis_tests import corrected

BASE, NAIVE = "base", "naive"
COLUMNS = [
    "strategy",
    "chosen",
    "validation_worst_group",
    "validation_worst_recall",
    "dimension",
    "group",
    "is_target_group",
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

    `frames` holds the predictions by model, the base model's among them; an empty table is a
    strategy that was left out. Images that any of these models has seen are not compared.
    `strategies` lists the strategies in the order of the table. `choice` is the table of stage
    `choose`.

    The table has one row per strategy and group, `all` first: recall of the base model and of the
    strategy, `change` (strategy minus base) and `against_naive` (strategy minus naive), each with
    its interval. `is_target_group` marks the group that the strategies were fine-tuned on; if that
    is not one group of the dimension, none is marked and `note` gives the reason.
    `validation_worst_*` is the criterion of the choice. All strategies' changes in the groups are
    one family of tests, their changes over all images another. Raises DataError where predictions
    lack the column `is_target_group`.
    """
    made = {name: frame for name, frame in frames.items() if len(frame)}
    compared = [name for name in strategies if name in made]
    if not compared or BASE not in made:
        return pd.DataFrame(columns=COLUMNS)
    tables = {name: prepare(frame, settings) for name, frame in made.items()}
    images = held_out_from_all(tables)
    if images.empty:
        return pd.DataFrame(columns=COLUMNS)
    dimension = settings.by[0]
    groups = [ALL, *(g for g in values_in_order(images, dimension) if g != UNKNOWN)]
    target, note = fine_tuned_group(tables[BASE], _fine_tuned_on(made, compared), dimension)
    if target and target not in groups:
        note = f"no picture that all models leave unseen is of the fine-tuned group, {target}"
    parts = [
        _compare(images, name, groups, dimension, settings).assign(
            **validation_of(choice, name),
            is_target_group=[group == target for group in groups],
            note=note,
        )
        for name in compared
    ]
    return _tested(pd.concat(parts, ignore_index=True), settings)[COLUMNS]


def held_out_from_all(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the images that no model has seen and all have the label of; `correct_<model>`."""
    images = tables[BASE]
    for name, table in tables.items():
        unseen = table[table["named"] & ~table["seen_in_training"].astype(bool)]
        answers = unseen[["image_id", "correct"]].rename(columns={"correct": f"correct_{name}"})
        images = images.merge(answers, on="image_id", how="inner")
    return images


def fine_tuned_group(base: pd.DataFrame, learned: set[str], dimension: str) -> tuple[str, str]:
    """Return the group that was fine-tuned on and "", or "" and why there is no such group.

    A group is named where nearly all images that were fine-tuned on belong to it, and nearly none
    of the other training images was fine-tuned on. `base` has one row per image of any split;
    `learned` holds the `image_id` of images that were fine-tuned on, without those that were only
    replayed.
    """
    fitted = base[base["image_id"].isin(learned)]
    if fitted.empty:
        return "", "no picture was fine-tuned on"
    shares = fitted[dimension].value_counts(normalize=True)
    name = str(shares.idxmax())
    if name == UNKNOWN or shares.max() < _NEARLY_ALL:
        return "", f"what was fine-tuned on is no one group of {dimension}"
    rest = base[(base["split"] == "train") & (base[dimension] != name)]
    if rest.empty or rest["image_id"].isin(learned).mean() > 1 - _NEARLY_ALL:
        return "", "everybody was fine-tuned on, not one group"
    return name, ""


def _fine_tuned_on(frames: Mapping[str, pd.DataFrame], compared: Sequence[str]) -> set[str]:
    """Return the images that any strategy was fine-tuned on."""
    for name in compared:
        if "is_target_group" not in frames[name].columns:
            raise DataError(
                f"the predictions of {name} lack the column is_target_group; run evaluate again"
            )
    fitted = (frames[name][frames[name]["is_target_group"].astype(bool)] for name in compared)
    return {image_id for part in fitted for image_id in part["image_id"]}


def validation_of(choice: pd.DataFrame, strategy: str) -> dict[str, object]:
    """Return a strategy's figures on the validation split."""
    rows = choice[choice["strategy"] == strategy]
    worst = rows[rows["worst"].astype("boolean").fillna(False).astype(bool)]
    found = len(worst) > 0
    return {
        "chosen": bool(rows["chosen"].astype("boolean").fillna(False).any()),
        "validation_worst_group": str(worst["group"].iloc[0]) if found else "",
        "validation_worst_recall": float(worst["recall_score"].iloc[0]) if found else np.nan,
    }


def _compare(
    images: pd.DataFrame, name: str, groups: Sequence[str], dimension: str, settings: Settings
) -> pd.DataFrame:
    """Compare one strategy with the base model and with `naive`, group by group."""
    values = images[dimension].to_numpy()
    membership = np.column_stack(
        [np.ones(len(values)) if g == ALL else values == g for g in groups]
    )
    members = sparse.csr_array(membership.astype(float))
    change = _change(images, members, name, BASE, settings)
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
    if f"correct_{NAIVE}" in images and name != NAIVE:
        other = _change(images, members, name, NAIVE, settings)
        table[[*limits, "against_naive_p_value"]] = other[["gap", "ci_low", "ci_high", "p_value"]]
    return table.assign(confidence=settings.confidence)


def _change(
    images: pd.DataFrame, members: sparse.csr_array, name: str, other: str, settings: Settings
) -> pd.DataFrame:
    sampled = Resampled(images["subject_id"], settings.resamples, settings.seed)
    sides = [
        Sides.of(members, images[f"correct_{model}"].to_numpy(dtype=bool))
        for model in (name, other)
    ]
    known = images["subject_known"].to_numpy(dtype=bool)
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
