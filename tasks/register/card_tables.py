"""Tables and sentences of a model card, from the tables of the model's run."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tasks.core.gap_sentences import gap_sentence, largest_gap, no_gap_sentence, percent, points
from tasks.core.labels import ALL, HELD_OUT, SPLITS, UNKNOWN, in_order
from tasks.core.models.checkpoint import load_seen
from tasks.core.tables import read_csv

MODEL = "finetuned"  # the model that a run registers
_GROUPING = ("age_band", "gender")


def _held_out_groups(groups: pd.DataFrame) -> pd.DataFrame:
    """Return the held-out rows of the registered model, over all emotions and data sets."""
    wanted = (groups["model"] == MODEL) & (groups["protocol"] == HELD_OUT)
    pooled = (groups["dataset"] == ALL) & (groups["emotion"] == ALL)
    return groups[wanted & pooled]


def worst_group_tags(file: Path) -> dict[str, str]:
    """Return tags of a version on its group of age band and gender with the lowest recall.

    For example {"worst_group": "child female", "worst_recall": "0.6100", "worst_low": …,
    "worst_high": …, "worst_n": …, "worst_people": …}. Groups with an unknown part do not count.
    Empty if the file is missing or has no group.
    """
    if not file.is_file():
        return {}
    groups = _held_out_groups(read_csv(file))
    crossed = groups[~groups[list(_GROUPING)].isin([ALL, UNKNOWN]).any(axis=1)]
    if crossed.empty:
        return {}
    worst = crossed.sort_values("recall", kind="stable").iloc[0]
    return {
        "worst_group": " ".join(worst[name] for name in _GROUPING),
        "worst_recall": f"{worst['recall']:.4f}",
        "worst_low": f"{worst['ci_low']:.4f}",
        "worst_high": f"{worst['ci_high']:.4f}",
        "worst_n": str(worst["n"]),
        "worst_people": str(worst["subjects"]),
    }


@dataclass(frozen=True)
class Table:
    """A table of a card; columns from number `texts` on are right-aligned."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    texts: int = 1


def split_table(data: pd.DataFrame) -> Table:
    """Count images and subjects by data set, age band, gender and split."""
    keys = ["dataset", *_GROUPING]
    rows = []
    for names, part in data.fillna({"gender": UNKNOWN, "age_band": UNKNOWN}).groupby(keys):
        by_split = dict(list(part.groupby("split")))
        rows.append([*names, *(_counted(by_split.get(split)) for split in SPLITS)])
    head = ["data set", "age band", "gender as recorded", *SPLITS]
    return Table("Pictures (people) by split", head, rows, texts=len(keys))


def people_table(data: pd.DataFrame, model: Path) -> Table:
    """Count training and validation images and subjects by age band."""
    seen = load_seen(model)
    roles = seen.merge(data[["image_id", "age_band"]], on="image_id", how="left")
    roles["age_band"] = roles["age_band"].fillna("not in this data")
    rows = [
        [band, role, f"{part['image_id'].nunique():,}", f"{part['subject_id'].nunique():,}"]
        for (band, role), part in roles.groupby(["age_band", "role"])
    ]
    caption = "Who had a part in the weights (train) or in choosing them (validation)"
    return Table(caption, ["age band", "role", "pictures", "people"], rows, texts=2)


def unknown_points(data: pd.DataFrame) -> list[str]:
    """Return sentences on missing records and estimated ages."""
    sentences = []
    for name in _GROUPING:
        n = int((data[name].fillna(UNKNOWN) == UNKNOWN).sum())
        if n:
            sentences.append(
                f"{name.replace('_', ' ').capitalize()} is not recorded for {n:,} of {len(data):,} "
                "pictures; they are in no comparison."
            )
    estimated = int((data["age_source"] == "estimated").sum())
    if estimated:
        sentences.append(f"The age of {estimated:,} pictures is an estimate, not a record.")
    return sentences


def group_table(groups: pd.DataFrame) -> Table:
    """Tabulate recall for everyone, by age band, by gender, and by both."""
    rows = _held_out_groups(groups)
    pooled = rows[list(_GROUPING)].eq(ALL).sum(axis=1)
    rows = rows.assign(order=-pooled).sort_values("order", kind="stable")
    cells = [[row["age_band"], row["gender"], *_recall(row)] for _, row in rows.iterrows()]
    caption = f"{_level(rows)} intervals: {_method(rows)}"
    head = ["age band", "gender", "pictures", "people", "recall", "interval"]
    return Table(caption, head, cells, texts=2)


def emotion_table(groups: pd.DataFrame) -> Table:
    """Tabulate recall by label over all groups."""
    held_out = groups[(groups["model"] == MODEL) & (groups["protocol"] == HELD_OUT)]
    pooled = held_out[["dataset", *_GROUPING]].eq(ALL).all(axis=1)
    rows = held_out[pooled & (held_out["emotion"] != ALL)].set_index("emotion", drop=False)
    rows = rows.loc[in_order(rows.index)]
    cells = [[row["emotion"], *_recall(row)] for _, row in rows.iterrows()]
    head = ["label", "pictures", "people", "recall", "interval"]
    return Table("By label, all groups", head, cells)


def gap_sentences(gaps: pd.DataFrame) -> list[str]:
    """Return sentences on the largest significant gaps, or that there is none."""
    pooled = largest_gap(gaps, MODEL, single_emotions=False)
    single = largest_gap(gaps, MODEL, single_emotions=True)
    sentences = [gap_sentence(row, "the model") for row in (pooled, single) if row is not None]
    return sentences or [no_gap_sentence(gaps, MODEL)]


def gap_table(gaps: pd.DataFrame) -> Table:
    """Tabulate every comparison of two groups over all labels."""
    wanted = (gaps["model"] == MODEL) & (gaps["protocol"] == HELD_OUT)
    rows = gaps[wanted & (gaps["dataset"] == ALL) & (gaps["emotion"] == ALL)]
    cells = [
        [
            str(row["group_a"]),
            str(row["group_b"]),
            f"{row['n_a']:,} ({row['subjects_a']:,})",
            f"{row['n_b']:,} ({row['subjects_b']:,})",
            points(row["gap"], signed=True),
            f"{points(row['ci_low'], signed=True)} to {points(row['ci_high'], signed=True)}",
            _p(row),
        ]
        for _, row in rows.iterrows()
    ]
    head = ["a", "b", "pictures (people) of a", "of b", "a − b, points", "interval", "corrected p"]
    caption = f"Recall of a less recall of b, in percentage points; {_level(rows)} intervals"
    return Table(caption, head, cells, texts=2)


def calibration_table(calibration: pd.DataFrame) -> Table:
    """Tabulate the calibration error of everyone and of each group."""
    wanted = (calibration["model"] == MODEL) & (calibration["protocol"] == HELD_OUT)
    rows = calibration[wanted & (calibration["bin"].astype(str) == ALL)]
    cells = [
        [
            str(row["dimension"]).replace("_", " "),
            str(row["group"]),
            f"{row['n']:,}",
            f"{row['subjects']:,}",
            "–" if pd.isna(row["ece_loss"]) else f"{row['ece_loss']:.3f}",
            _between(row, "{:.3f}"),
        ]
        for _, row in rows.iterrows()
    ]
    head = ["by", "group", "pictures", "people", "error", "interval"]
    return Table(f"{_level(rows)} intervals", head, cells, texts=2)


def _counted(part: pd.DataFrame | None) -> str:
    return "–" if part is None else f"{len(part):,} ({part['subject_id'].nunique():,})"


def _recall(row: pd.Series) -> list[str]:
    counts = [f"{row['n']:,}", f"{row['subjects']:,}"]
    if pd.isna(row["recall"]):
        return [*counts, "–", "–"]
    if pd.isna(row["ci_low"]):
        return [*counts, percent(row["recall"]), "–"]
    between = f"{percent(row['ci_low'])} to {percent(row['ci_high'])}"
    return [*counts, percent(row["recall"]), between]


def _p(row: pd.Series) -> str:
    if not bool(row["enough_n"]) or pd.isna(row["p_adjusted"]):
        return "too few to test"
    p = float(row["p_adjusted"])
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _between(row: pd.Series, form: str) -> str:
    if pd.isna(row["ci_low"]):
        return "–"
    return f"{form.format(row['ci_low'])} to {form.format(row['ci_high'])}"


def _level(rows: pd.DataFrame) -> str:
    return "" if rows.empty else f"{100 * rows['confidence'].iloc[0]:g} %"


def _method(rows: pd.DataFrame) -> str:
    return "; or ".join(dict.fromkeys(rows["method"].dropna()))
