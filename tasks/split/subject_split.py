"""Draws each subject's split from a hash of the seed and the subject.

A subject therefore keeps its split whatever is added, removed or reordered; see
docs/decisions/0001-split-by-hash.md for what that costs in balance.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256

import pandas as pd

from tasks.core.labels import ALL, SPLITS, UNKNOWN
from tasks.core.tables import current_subjects

SHARED_NOTE = "split by image: pictures of one subject are on both sides"
_SHOWN = 3  # strata named in a line; the table has all


def draw(seed: int, key: str) -> float:
    """Return a number in [0, 1), even over keys and the same on every machine."""
    digest = sha256(f"{seed}:{key}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)  # what a float holds exactly


def split_of(seed: int, key: str, parts: Mapping[str, float]) -> str:
    """Choose a split for a key with probabilities in proportion to the parts."""
    left = draw(seed, key) * sum(parts.values())
    for name, part in parts.items():
        if left < part:
            return name
        left -= part
    return list(parts)[-1]  # a rounding error beyond the last boundary


def assign_splits(
    images: pd.DataFrame, seed: int, by_subject: bool, parts: Mapping[str, float]
) -> "pd.Series[str]":
    """Choose every image's split.

    `images` has one row per image: `image_id`, `subject_id` and `subject_known`. Older spellings
    of an id (see `current_subjects`) give the split of the current one. With `by_subject`, images
    of a known subject stay together; all other images are drawn independently. `parts` maps a split
    to its relative size, in the order in which [0, 1) is divided.
    """
    images = current_subjects(images)
    keys = images["image_id"]
    if by_subject:
        keys = keys.mask(images["subject_known"].astype(bool), images["subject_id"])
    splits = {key: split_of(seed, key, parts) for key in keys.unique()}
    return keys.map(splits)


def count_by_stratum(
    table: pd.DataFrame, report_by: Sequence[str], parts: Mapping[str, float], by: str
) -> pd.DataFrame:
    """Count subjects and images by stratum and split.

    `table` has one row per image: the `report_by` columns (a missing label counts as "unknown"),
    `image_id`, `subject_id`, `subject_known` and `split`. `parts` maps a split to its relative
    size; `by` is `subject` or `image`.

    The table has three rows per stratum; the first three pool everything ("all"). Shares are of the
    stratum's images, 0 to 1; `deviation` is `share - wanted_share`.
    """
    labelled = table.assign(
        **{column: table[column].fillna(UNKNOWN) for column in report_by},
        person=table["subject_id"].where(table["subject_known"].astype(bool), table["image_id"]),
    )
    pooled = labelled.assign(**dict.fromkeys(report_by, ALL))
    rows = pd.concat([_count(pooled, report_by), _count(labelled, report_by)], ignore_index=True)
    wanted = rows["split"].map({name: parts[name] / sum(parts.values()) for name in SPLITS})
    total = rows["images"].groupby(rows.index // len(SPLITS)).transform("sum")
    return rows.assign(
        share=rows["images"] / total,
        wanted_share=wanted,
        deviation=rows["images"] / total - wanted,
        note=SHARED_NOTE if by == "image" else "",
    )


def lacking_strata(counts: pd.DataFrame) -> list[str]:
    """List the strata without an image in some split, such as "fear child male: test"."""
    names = list(counts.columns[: list(counts.columns).index("split")])
    empty = counts[counts["images"] == 0]
    return [
        f"{' '.join(map(str, stratum))}: {', '.join(rows['split'])}"
        for stratum, rows in empty.groupby(names, sort=False)
    ]


def as_metrics(counts: pd.DataFrame) -> dict[str, float]:
    """Return the sizes of the splits and the deviations from the configured shares."""
    pooled, strata = counts.head(len(SPLITS)), counts.iloc[len(SPLITS) :]
    sizes: dict[str, float] = {}
    for row in pooled.itertuples(index=False):
        sizes[f"pictures_{row.split}"] = float(row.images)
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
    """Return one line on the size of each split and the strata missing from one."""
    held = [
        f"{row.split} {row.images} ({row.share:.0%}"
        + (f", {row.subjects} people)" if people_known else ")")
        for row in counts.head(len(SPLITS)).itertuples(index=False)
    ]
    text = f"pictures: {', '.join(held)}"
    if lacking := lacking_strata(counts):
        listed = "; ".join(lacking[:_SHOWN]) + ("; …" if len(lacking) > _SHOWN else "")
        text += f"; {len(lacking)} strata have no picture in a split ({listed})"
    return f"{text}; {SHARED_NOTE}" if by == "image" else text


def _count(table: pd.DataFrame, report_by: Sequence[str]) -> pd.DataFrame:
    """Count each stratum that occurs in all three splits, zeros included."""
    columns = list(report_by)
    strata = table[columns].drop_duplicates().sort_values(columns)
    every = strata.merge(pd.DataFrame({"split": SPLITS}), how="cross")
    counted = (
        table.groupby([*columns, "split"])
        .agg(subjects=("person", "nunique"), images=("image_id", "size"))
        .reset_index()
    )
    filled = every.merge(counted, how="left", on=[*columns, "split"])
    return filled.fillna({"subjects": 0, "images": 0}).astype({"subjects": int, "images": int})
