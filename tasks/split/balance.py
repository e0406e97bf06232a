"""Counts what each split holds, stratum by stratum, against the shares that were asked for."""

from collections.abc import Mapping, Sequence

import pandas as pd

from tasks.core.labels import ALL, SPLITS, UNKNOWN

SHARED_NOTE = "split by image: pictures of one subject are on both sides"
_SHOWN = 3  # strata named in a line; the table has all


def count_strata(
    table: pd.DataFrame, stratify: Sequence[str], parts: Mapping[str, float], by: str
) -> pd.DataFrame:
    """Count subjects and pictures by stratum and split.

    Parameters
    ----------
    table
        One row a picture: the `stratify` columns (a missing label counts as "unknown"),
        `image_id`, `subject_id`, `subject_known` and `split`.
    stratify
        Columns whose combinations that occur are the strata.
    parts
        Split name to its relative size.
    by
        `subject` or `image`, as in params.

    Returns
    -------
    DataFrame
        The `stratify` columns ("all" in the first rows, which pool everything), then `split,
        subjects, pictures, share, wanted_share, deviation, note`: three rows a stratum. Shares
        are of the stratum's pictures, 0 to 1; `deviation` is `share - wanted_share`.
    """
    labelled = table.assign(
        **{column: table[column].fillna(UNKNOWN) for column in stratify},
        person=table["subject_id"].where(table["subject_known"].astype(bool), table["image_id"]),
    )
    pooled = labelled.assign(**dict.fromkeys(stratify, ALL))
    rows = pd.concat([_count(pooled, stratify), _count(labelled, stratify)], ignore_index=True)
    wanted = rows["split"].map({name: parts[name] / sum(parts.values()) for name in SPLITS})
    total = rows["pictures"].groupby(rows.index // len(SPLITS)).transform("sum")
    return rows.assign(
        share=rows["pictures"] / total,
        wanted_share=wanted,
        deviation=rows["pictures"] / total - wanted,
        note=SHARED_NOTE if by == "image" else "",
    )


def lacking_strata(counts: pd.DataFrame) -> list[str]:
    """Name the strata that have no picture in some split, such as "fear child male: test"."""
    names = list(counts.columns[: list(counts.columns).index("split")])
    empty = counts[counts["pictures"] == 0]
    return [
        f"{' '.join(map(str, stratum))}: {', '.join(rows['split'])}"
        for stratum, rows in empty.groupby(names, sort=False)
    ]


def as_metrics(counts: pd.DataFrame) -> dict[str, float]:
    """Return the sizes of the splits, and how far the shares are from those that were asked for."""
    pooled, strata = counts.head(len(SPLITS)), counts.iloc[len(SPLITS) :]
    sizes: dict[str, float] = {}
    for row in pooled.itertuples(index=False):
        sizes[f"pictures_{row.split}"] = float(row.pictures)
        sizes[f"subjects_{row.split}"] = float(row.subjects)
    return {
        **sizes,
        "share_deviation_max": float(pooled["deviation"].abs().max()),
        "stratum_share_deviation_mean": float(strata["deviation"].abs().mean()),
        "stratum_share_deviation_max": float(strata["deviation"].abs().max()),
        "strata": float(len(strata) // len(SPLITS)),
        "strata_lacking_a_split": float(len(lacking_strata(counts))),
    }


def describe(counts: pd.DataFrame, by: str, people_known: bool) -> str:
    """Say in one line what each split holds, and which strata have no picture in one."""
    held = [
        f"{row.split} {row.pictures} ({row.share:.0%}"
        + (f", {row.subjects} people)" if people_known else ")")
        for row in counts.head(len(SPLITS)).itertuples(index=False)
    ]
    text = f"pictures: {', '.join(held)}"
    if lacking := lacking_strata(counts):
        shown = "; ".join(lacking[:_SHOWN]) + ("; …" if len(lacking) > _SHOWN else "")
        text += f"; {len(lacking)} strata have no picture in a split ({shown})"
    return f"{text}; {SHARED_NOTE}" if by == "image" else text


def _count(table: pd.DataFrame, stratify: Sequence[str]) -> pd.DataFrame:
    """Count each stratum that occurs in all three splits, zeros included."""
    columns = list(stratify)
    strata = table[columns].drop_duplicates().sort_values(columns)
    every = strata.merge(pd.DataFrame({"split": SPLITS}), how="cross")
    counted = (
        table.groupby([*columns, "split"])
        .agg(subjects=("person", "nunique"), pictures=("image_id", "size"))
        .reset_index()
    )
    filled = every.merge(counted, how="left", on=[*columns, "split"])
    return filled.fillna({"subjects": 0, "pictures": 0}).astype({"subjects": int, "pictures": int})
