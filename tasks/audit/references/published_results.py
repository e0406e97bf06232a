"""A published study's printed figures, beside ours for the same group.

The study's model before fine-tuning is compared with our base model. Its fine-tuned model is
compared with our `naive`, which is fine-tuned by the published method, and not with the strategy
that this run chose.

`published/<study>.csv` holds one row per printed figure; its first lines explain how to add rows.
The column `note` gives what in the printed figures does not add up. It is computed, so that rows
that are added later are checked too.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tasks.audit.audit import by_protocol, groups_table, prepare
from tasks.audit.settings import Settings
from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import ALL, EMOTIONS, GENDERS
from tasks.core.tables import GROUP_COLUMNS
from tasks.core.text import clean, clean_or_none

FOLDER = Path(__file__).parent / "published"
GROUP = ["dataset", "age_band", "gender", "emotion"]
PRINTED = ["published_n", "published_correct", "published_rate"]
COUNTS = ["n", "share"]  # of a group, in a table of who a model was trained on
GIVEN = ["source", "table", "page", "model", *GROUP, *PRINTED, "note"]
OURS = ["n", "correct", "recall", "ci_low", "ci_high"]
COLUMNS = [*GIVEN, "compared_model", *OURS, "protocol"]
BASE, NAIVE = "base", "naive"
_BESIDE = {"base": BASE, "finetuned": NAIVE, "": ""}  # the study's model to ours
_SKIPPED = (
    "nothing of ours stands beside it: the strategy naive was left out of this run "
    "(reports/tables/choice.csv says why)"
)
_ORDER = {ALL: 0, "held_out": 1, "": 2}  # the paper's protocol first


def published_table(groups: pd.DataFrame, naive: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Put our figures beside the printed ones of the study that `settings.published` names.

    `groups` is the table `groups.csv`. `naive` holds the predictions of the strategy `naive` and is
    empty where it was left out.

    The table has one row per printed figure and protocol. `compared_model` is `base` beside the
    study's base model and `naive` beside its fine-tuned one; the note then gives the share of the
    subjects that ours was trained on. Without a naive model, `compared_model` and our figures are
    empty, with a note. The protocol `all` is the study's: every image, training images included. A
    printed figure of a group that these data lack has one row with `protocol` "" and empty figures.
    A count of images (`model` "") stands beside our count only. The table is empty where no study
    is named.

    Raises ParamsError where there is no study of that name, and DataError where its file has a row
    that cannot be read.
    """
    if settings.published is None:
        return pd.DataFrame(columns=COLUMNS)
    printed = read_study(settings.published).reset_index(names="place")
    printed["compared_model"] = printed["model"].map(_BESIDE)
    of_base = _pooled(groups[groups["model"] == BASE])
    ours = pd.concat([of_base, _images(of_base), _of_naive(naive, settings)], ignore_index=True)
    ours = ours.rename(columns={"model": "compared_model"})
    table = printed.merge(ours, how="left", on=["compared_model", *GROUP])
    table["protocol"] = table["protocol"].fillna("")
    rank = table["protocol"].map(_ORDER)
    table = table.assign(rank=rank).sort_values(["place", "rank"], kind="stable")
    return _with_training(table, naive)[COLUMNS].reset_index(drop=True)


def studies() -> list[str]:
    """Return the names of the studies with printed figures."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_study(name: str) -> pd.DataFrame:
    """Read a study's printed figures, with what does not add up in `note`.

    Raises the errors of `published_table`.
    """
    if name not in studies():
        raise ParamsError(
            f"audit.published: no study {name!r}; known are {', '.join(studies())} (or null)"
        )
    path = FOLDER / f"{name}.csv"
    table = read_printed(path, GIVEN)
    for index, row in table.iterrows():
        fault = _fault(row)
        if fault:
            raise DataError(f"{path}: row {int(str(index)) + 1} below the header: {fault}")
    table["note"] = [_joined(*parts) for parts in zip(table["note"], _doubts(table), strict=True)]
    for column in PRINTED:
        table[column] = pd.to_numeric(table[column])
    return table


def read_printed(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read a CSV as text, without the lines before the header that start with `#`.

    Cells are cleaned; a figure that is given as a word for missing is "". Raises DataError, one
    line, for a missing column or a file that is no UTF-8 CSV.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
        table = pd.read_csv(path, dtype="str", keep_default_na=False, skiprows=comments)
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as CSV ({words}); save it as UTF-8") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{path}: lacks the column(s) {', '.join(missing)}")
    table = table[columns].map(clean)
    figures = [name for name in (*PRINTED, *COUNTS) if name in columns]
    table[figures] = table[figures].map(lambda cell: clean_or_none(cell) or "")
    return table


def half_unit(printed: str) -> float:
    """Return half of the last printed digit's unit: `"0.86"` gives 0.005."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


def adds_up(parts: list[str], total: float) -> bool:
    """Return whether printed numbers add up to a total, as far as their rounding allows."""
    slack = sum(half_unit(part) for part in parts if "." in part)
    return abs(sum(map(float, parts)) - total) <= slack + 1e-9


def _of_naive(naive: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return the naive model's figures, made as those of `groups.csv` are; empty without it."""
    if naive.empty:
        return pd.DataFrame(columns=["model", *GROUP, *OURS, "protocol"])
    table = prepare(naive, settings)
    return _pooled(groups_table(by_protocol(table[table["named"]]), settings))


def _with_training(table: pd.DataFrame, naive: pd.DataFrame) -> pd.DataFrame:
    """Note beside figures of a fine-tuned model who ours was trained on, or that there is none."""
    finetuned = table["model"] == "finetuned"
    remark = _SKIPPED if naive.empty else _trained_on(naive)
    notes = [_joined(note, remark) for note in table["note"][finetuned]]
    table.loc[finetuned, "note"] = notes
    if naive.empty:
        table.loc[finetuned, "compared_model"] = ""
    return table


def _trained_on(naive: pd.DataFrame) -> str:
    """Return how many subjects the naive model was fine-tuned on, of how many."""
    fine_tuned = naive[naive["is_target_group"].astype(bool)]
    everyone = naive.groupby("dataset")["subject_id"].nunique()
    shares = [
        f"{number} of the {everyone[dataset]} people of {dataset}"
        for dataset, number in fine_tuned.groupby("dataset")["subject_id"].nunique().items()
    ]
    return f"ours is naive, trained on the training split: {', '.join(shares) or 'nobody'}"


def _pooled(groups: pd.DataFrame) -> pd.DataFrame:
    """Select the rows in which every dimension that the study does not have is pooled."""
    further = [name for name in GROUP_COLUMNS if name in groups.columns and name not in GROUP]
    return groups[(groups[further] == ALL).all(axis=1)][["model", *GROUP, *OURS, "protocol"]]


def _images(pooled: pd.DataFrame) -> pd.DataFrame:
    """Count our images of each group, which is of no model's doing."""
    empty = dict.fromkeys(OURS[1:], float("nan"))
    return pooled[pooled["protocol"] == ALL].assign(model="", **empty)


def _fault(row: pd.Series) -> str:
    """Return what makes a row unreadable, or ""."""
    allowed = {"model": tuple(_BESIDE), "gender": (*GENDERS, ALL), "emotion": (*EMOTIONS, ALL)}
    for name, words in allowed.items():
        if row[name] not in words:
            return f"{name} is {row[name]!r}, not one of {', '.join(filter(None, words))}"
    for name in PRINTED:
        number = pd.to_numeric(row[name] or "0", errors="coerce")
        if not number >= 0 or (name != "published_rate" and "." in row[name]):
            return (
                f"{name} is {row[name]!r}, which is no {'count' if name != PRINTED[2] else 'share'}"
            )
    if row["published_rate"] and float(row["published_rate"]) > 1:
        return f"published_rate is {row['published_rate']}: write a share, such as 0.86 for 86 %"
    return "" if row["dataset"] and row["age_band"] else "dataset or age_band is empty"


def _doubts(table: pd.DataFrame) -> Iterator[str]:
    """Return for each row which of its figures do not add up."""
    for _, row in table.iterrows():
        yield _joined(_rate_doubt(row), *(_total_doubt(table, row, name) for name in PRINTED[:2]))


def _rate_doubt(row: pd.Series) -> str:
    """Compare a printed rate with its own counts."""
    n, correct, rate = (row[name] for name in PRINTED)
    if n and correct and int(correct) > int(n):
        return f"does not add up: {correct} correct of {n} pictures, as printed"
    if not (n and correct and rate) or not int(n):
        return ""
    share = int(correct) / int(n)
    if abs(share - float(rate)) <= half_unit(rate) + 1e-9:
        return ""
    digits = max(len(rate.partition(".")[2]) - 2, 0)
    return (
        f"does not add up: {correct} of {n} is {100 * share:.{max(digits, 1)}f} %, printed is "
        f"{100 * float(rate):.{digits}f} %"
    )


def _total_doubt(table: pd.DataFrame, row: pd.Series, column: str) -> str:
    """Compare a printed total with its parts in the same table, along each dimension."""
    if not row["table"] or not row[column]:
        return ""
    same = table[
        (table[["source", "table", "model"]] == row[["source", "table", "model"]]).all(axis=1)
    ]
    what = "pictures" if column == PRINTED[0] else "correct"
    for name in GROUP:
        if row[name] != ALL:
            continue
        others = [other for other in GROUP if other != name]
        parts = same[(same[others] == row[others]).all(axis=1) & (same[name] != ALL)]
        numbers = [int(number) for number in parts[column] if number]
        if len(numbers) > 1 and sum(numbers) != int(row[column]):
            word = name.replace("_", " ")
            return (
                f"does not add up: {what} by {word} add up to {sum(numbers)}, the printed total is "
                f"{row[column]}"
            )
    return ""


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
