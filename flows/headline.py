"""The few lines that `affectgap run` ends with: recall by group, before and after."""

import pandas as pd
from rich.table import Table

from tasks.core.labels import ALL, credit_line
from tasks.core.paths import MODELS, Paths
from tasks.core.tables import read_table

_FIXED = ("model", "protocol", "emotion", "n", "correct", "recall", "ci_low", "ci_high")


def headline_table(paths: Paths) -> Table:
    """Return recall of held-out pictures by group, one row a group and one column a model."""
    groups = pd.read_csv(paths.tables / "groups.csv", keep_default_na=False)
    held_out = groups[(groups["protocol"] == "held_out") & (groups["emotion"] == ALL)]
    table = Table(title="recall on held-out pictures", title_justify="left", box=None)
    table.add_column("group")
    for model in MODELS:
        table.add_column(f"{model} (interval, n)", justify="right")
    for name, rows in _one_dimension_at_a_time(held_out):
        by_model = rows.set_index("model")
        cells = [_cell(by_model.loc[m]) if m in by_model.index else "none" for m in MODELS]
        table.add_row(name, *cells)
    return table


def notice(paths: Paths) -> str:
    """Return the notices and credits of the data sets behind the report."""
    return credit_line(read_table(paths.manifest, ["dataset"])["dataset"].unique())


def _one_dimension_at_a_time(held_out: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    end = held_out.columns.get_loc("subjects") if "subjects" in held_out else None
    dimensions = [name for name in held_out.columns[:end] if name not in _FIXED]
    parts = [("all", held_out[(held_out[dimensions] == ALL).all(axis=1)])]
    for dimension in dimensions:
        others = [name for name in dimensions if name != dimension]
        rows = held_out[(held_out[others] == ALL).all(axis=1) & (held_out[dimension] != ALL)]
        if rows[dimension].nunique() > 1:
            parts += [(f"{dimension} {group}", part) for group, part in rows.groupby(dimension)]
    return parts


def _cell(row: pd.Series) -> str:
    interval = f"{float(row['ci_low']):.2f}–{float(row['ci_high']):.2f}"
    return f"{float(row['recall']):.2f} ({interval}, {row['n']})"
