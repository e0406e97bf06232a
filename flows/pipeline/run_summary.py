"""Summary of `affectgap run`: recall by group, before and after fine-tuning."""

import pandas as pd
from rich.table import Table

from tasks.core.labels import ALL, credit_line
from tasks.core.paths import Paths
from tasks.core.tables import read_csv, read_table

_FIRST_FIGURE = "n"  # first column of before_after.csv after its dimensions


def headline_table(paths: Paths) -> Table:
    """Return recall by group, before and after, with intervals and n.

    The base model's column covers all images that it has not seen. The comparison covers the images
    that neither model has seen, so it is like with like.
    """
    groups = read_csv(paths.tables / "groups.csv", keep_default_na=False)
    change = read_csv(paths.tables / "before_after.csv", keep_default_na=False)
    leading = change.columns[: change.columns.get_loc(_FIRST_FIGURE)]
    dimensions = [name for name in leading if name not in ("dataset", "emotion")]
    base = groups[(groups["model"] == "base") & (groups["protocol"] == "held_out")]
    table = Table(title="recall on held-out pictures", title_justify="left", box=None)
    table.add_column("group")
    table.add_column("base model", justify="right")
    table.add_column("held out from both: base → fine-tuned", justify="right")
    for name, where in _groups(base, dimensions):
        base_row, both = _row(base, where), _row(change, where)
        before = _figure(both, "recall_base", "base_ci_low", "base_ci_high")
        after = _figure(both, "recall_finetuned", "finetuned_ci_low", "finetuned_ci_high")
        table.add_row(
            name,
            f"{_figure(base_row, 'recall', 'ci_low', 'ci_high')} n={base_row['n']}",
            "none" if both is None else f"{before} → {after} n={both['n']}",
        )
    return table


def notices(paths: Paths) -> list[str]:
    """Return the notices that belong to the table: credits and subjects without an id."""
    manifest = read_table(paths.manifest, ["dataset", "subject_known"])
    lines = [credit_line(manifest["dataset"].unique())]
    n_unknown = int((~manifest["subject_known"]).sum())
    if n_unknown:
        lines.append(
            f"the person is not recorded for {n_unknown} of {len(manifest)} pictures: "
            "the same person may be in training and in test, so these figures may be too high"
        )
    return [line for line in lines if line]


def _groups(base: pd.DataFrame, dimensions: list[str]) -> list[tuple[str, dict[str, str]]]:
    overall = {"dataset": ALL, "emotion": ALL, **dict.fromkeys(dimensions, ALL)}
    groups = [("all", overall)]
    for name in dimensions:
        values = [value for value in dict.fromkeys(base[name]) if value != ALL]
        if len(values) > 1:
            groups += [(str(value), {**overall, name: value}) for value in values]
    return groups


def _row(table: pd.DataFrame, where: dict[str, str]) -> "pd.Series | None":
    rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def _figure(row: "pd.Series | None", recall: str, low: str, high: str) -> str:
    if row is None:
        return ""
    return f"{float(row[recall]):.2f} ({float(row[low]):.2f}–{float(row[high]):.2f})"
