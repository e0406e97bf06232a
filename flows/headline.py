"""The few lines that `affectgap run` ends with: recall by group, before and after."""

import pandas as pd
from rich.table import Table

from tasks.core.labels import ALL, credit_line
from tasks.core.paths import Paths
from tasks.core.tables import read_csv, read_table

_END = "n"  # the dimensions of before_after.csv stand before its figures


def headline_table(paths: Paths) -> Table:
    """Return recall by group, before and after, with intervals and n.

    The first column of figures is the base model on all pictures that it has not seen; the other
    is about the pictures that neither model has seen, so that like is compared with like.
    """
    groups = read_csv(paths.tables / "groups.csv", keep_default_na=False)
    change = read_csv(paths.tables / "before_after.csv", keep_default_na=False)
    dimensions = [name for name in change.columns[: change.columns.get_loc(_END)]]
    dimensions = [name for name in dimensions if name not in ("dataset", "emotion")]
    base = groups[(groups["model"] == "base") & (groups["protocol"] == "held_out")]
    table = Table(title="recall on held-out pictures", title_justify="left", box=None)
    table.add_column("group")
    table.add_column("base model", justify="right")
    table.add_column("held out from both: base → fine-tuned", justify="right")
    for name, where in _groups(base, dimensions):
        alone, both = _row(base, where), _row(change, where)
        before = _figure(both, "recall_base", "base_ci_low", "base_ci_high")
        after = _figure(both, "recall_finetuned", "finetuned_ci_low", "finetuned_ci_high")
        table.add_row(
            name,
            f"{_figure(alone, 'recall', 'ci_low', 'ci_high')} n={alone['n']}",
            "none" if both is None else f"{before} → {after} n={both['n']}",
        )
    return table


def notices(paths: Paths) -> list[str]:
    """Return what must be said with the table: notices of the data sets, people not recorded."""
    manifest = read_table(paths.manifest, ["dataset", "subject_known"])
    said = [credit_line(manifest["dataset"].unique())]
    nobody = int((~manifest["subject_known"]).sum())
    if nobody:
        said.append(
            f"who is in the picture is not recorded for {nobody} of {len(manifest)} pictures: the "
            "same person may be in training and in test, so these figures may be too high"
        )
    return [line for line in said if line]


def _groups(base: pd.DataFrame, dimensions: list[str]) -> list[tuple[str, dict[str, str]]]:
    everyone = {"dataset": ALL, "emotion": ALL, **dict.fromkeys(dimensions, ALL)}
    found = [("all", everyone)]
    for name in dimensions:
        values = [value for value in dict.fromkeys(base[name]) if value != ALL]
        if len(values) > 1:
            found += [(str(value), {**everyone, name: value}) for value in values]
    return found


def _row(table: pd.DataFrame, where: dict[str, str]) -> "pd.Series | None":
    rows = table[(table[list(where)] == pd.Series(where)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def _figure(row: "pd.Series | None", recall: str, low: str, high: str) -> str:
    if row is None:
        return ""
    return f"{float(row[recall]):.2f} ({float(row[low]):.2f}–{float(row[high]):.2f})"
