"""The same audit for any system: a CSV of labels and answers in, tables and figures out.

The file needs `emotion` (the label) and `y_pred` (the answer); `image_id, subject_id, age_band,
gender, dataset, model, seen_in_training` and `p_<emotion>` are used where they are there. What
cannot be told without them is said in `audit.md`. Words such as "happy" or "F" are translated;
an unknown word stops the audit and is named.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from tasks.audit.by_group import audit_predictions
from tasks.audit.outputs import write_figures, write_tables
from tasks.core.errors import DataError
from tasks.core.files import write_text
from tasks.core.headline import gap_sentence, largest_gap, no_gap_sentence
from tasks.core.intervals import WILSON
from tasks.core.labels import ALL, EMOTION_WORDS, EMOTIONS, GENDER_WORDS, UNKNOWN, credit_line

_CANNOT = {
    "age_band": "recall by age",
    "gender": "recall by gender",
    "subject_id": "how far intervals are too narrow because one person has several pictures "
    "(every picture is taken as a person of its own)",
    "seen_in_training": "whether the system was trained on these pictures (rows are under the "
    "protocol `all`)",
    "p_<emotion>": "which labels the system can answer (it is taken to have all that occur)",
}
_NAMELESS = "system"  # where the file names no model
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def audit_csv(
    csv_path: Path,
    out_dir: Path,
    by: Sequence[str],
    confidence: float,
    min_n: int,
    pair: tuple[str, str],
) -> list[Path]:
    """Audit a CSV of predictions.

    Parameters
    ----------
    csv_path
        One row a picture (and model): `emotion, y_pred` and any of the other columns.
    out_dir
        Where tables, figures and `audit.md` go; made where it is missing.
    by
        Columns to compare groups of, beside `age_band` and `gender`; those that the file lacks are
        left out and named.
    confidence
        Level of every interval, between 0 and 1.
    min_n
        Pictures that a comparison needs on each side.
    pair
        Models of the file that are compared picture by picture, if both are in it.

    Returns
    -------
    list of Path
        What was written, `audit.md` first.

    Raises
    ------
    DataError
        One line, for a file that is missing, no CSV, empty, lacks a column or has unknown labels.
    """
    given = read_predictions(csv_path)
    missing = [name for name in list(_CANNOT)[:-1] if name not in given.columns]
    if not any(f"p_{name}" in given.columns for name in EMOTIONS):
        missing.append("p_<emotion>")
    frame = _complete(given, csv_path)
    wanted = list(dict.fromkeys(["age_band", "gender", *by]))
    compared = [name for name in wanted if name in given.columns]
    tables = audit_predictions(frame, compared, confidence, min_n, pair)
    figures = write_figures(tables, compared, pair, out_dir)
    written = write_tables(tables, out_dir)
    summary = out_dir / "audit.md"
    absent = [name for name in wanted if name not in given.columns and name not in _CANNOT]
    write_text(summary, _markdown(tables, csv_path.name, missing, absent, figures))
    return [summary, *written, *figures]


def read_predictions(path: Path) -> pd.DataFrame:
    """Read the CSV, with column names and labels brought to the project's words.

    Raises
    ------
    DataError
        See `audit_csv`.
    """
    frame = _read(path)
    frame.columns = [_column(name) for name in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise DataError(f"{path}: has two columns that mean '{twice[0]}'")
    absent = [name for name in ("emotion", "y_pred") if name not in frame.columns]
    if absent:
        has = ", ".join(map(str, frame.columns))
        raise DataError(f"{path}: lacks the column(s) {', '.join(absent)} (it has {has})")
    if frame.empty:
        raise DataError(f"{path}: has a header but no rows")
    for name in ("emotion", "y_pred"):
        frame[name] = _translated(frame[name], EMOTION_WORDS, name, path)
    if "gender" in frame.columns:
        frame["gender"] = _translated(frame["gender"], GENDER_WORDS, "gender", path)
    if "seen_in_training" in frame.columns:
        seen = _translated(frame["seen_in_training"], _BOOLEANS, "seen_in_training", path)
        frame["seen_in_training"] = seen.astype(bool)
    for name in frame.columns:
        if name.startswith("p_"):
            frame[name] = pd.to_numeric(frame[name], errors="coerce")
        elif name not in ("emotion", "y_pred", "gender", "seen_in_training"):
            frame[name] = frame[name].str.strip()
    return frame


def _read(path: Path) -> pd.DataFrame:
    """Read every cell as text; a file that is no CSV gives one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # lines longer than the header
            frame = pd.read_csv(
                path, dtype="str", keep_default_na=False, index_col=False, encoding="utf-8-sig"
            )
        return frame.fillna("")  # lines shorter than the header
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from None
    except (
        OSError,
        pd.errors.EmptyDataError,
        pd.errors.ParserError,
        pd.errors.ParserWarning,
    ) as error:
        line = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as CSV ({line})") from None


def _column(name: str) -> str:
    """Bring a column's name to the project's: `P_Happy` is `p_happiness`."""
    plain = str(name).strip().lower()
    if plain.startswith("p_"):
        return f"p_{EMOTION_WORDS.get(plain[2:], plain[2:])}"
    return plain


def _translated(column: pd.Series, words: Mapping[str, object], name: str, path: Path) -> pd.Series:
    """Translate labels; unknown ones are named with the line of the first."""
    plain = column.str.strip().str.lower()
    unknown = ~plain.isin(list(words))
    if unknown.any():
        some = sorted(set(column[unknown]))
        listed = ", ".join(repr(word) for word in some[:5]) + (", …" if len(some) > 5 else "")
        line = int(unknown.to_numpy().argmax()) + 2
        raise DataError(
            f"{path}: column {name} has {int(unknown.sum())} unknown label(s): {listed} "
            f"(first in line {line}); known are {', '.join(filter(None, map(str, words)))}"
        )
    return plain.map(dict(words))


def _complete(given: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add the columns that the audit needs, with values that claim nothing."""
    frame = given.copy()
    numbers = pd.Series([f"line {index + 2}" for index in range(len(frame))])
    for name, value in {"model": _NAMELESS, "dataset": path.stem, "split": UNKNOWN}.items():
        if name not in frame.columns:
            frame[name] = value
    # A picture without a name is one of its own, and so is a subject.
    for name in ("image_id", "subject_id"):
        given_names = frame[name] if name in frame.columns else pd.Series("", index=frame.index)
        frame[name] = given_names.where(given_names != "", numbers)
    if "seen_in_training" not in frame.columns:
        frame["seen_in_training"] = True  # not known: no row may count as held out
    return frame.replace("", UNKNOWN)


def _markdown(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    missing: Sequence[str],
    absent: Sequence[str],
    figures: Sequence[Path],
) -> str:
    """Write the summary: what was found, recall by group, what cannot be told."""
    groups, gaps = tables["groups"], tables["gaps"]
    protocol = "held_out" if (groups["protocol"] == "held_out").any() else ALL
    lines = [f"# Audit of {name}", ""]
    credit = credit_line(groups["dataset"])
    lines += [f"**{credit}**", ""] if credit else []
    for model in dict.fromkeys(groups["model"]):
        lines += [f"## {model}", "", *_findings(gaps, model, protocol), ""]
        lines += [*_recall_lines(groups, model, protocol), ""]
    left_out = tables["counts"].query("split == 'all'").groupby("model")["left_out"].max()
    lines += [
        f"- {model}: {count} pictures left out, as the system lacks their label"
        for model, count in left_out.items()
        if count
    ]
    lines += ["", "## What cannot be told from this file", ""]
    lines += [f"- no column `{name}`: {_CANNOT[name]}" for name in missing]
    lines += [f"- no column `{name}`: recall by {name}" for name in absent]
    lines += ["- nothing is missing"] if not (missing or absent) else []
    lines += ["", f"Recall is what studies of recognisers often call accuracy. {WILSON}.", ""]
    lines += [f"![{path.stem}]({path.name})" for path in figures]
    return "\n".join(lines) + "\n"


def _findings(gaps: pd.DataFrame, model: str, protocol: str) -> list[str]:
    found = [largest_gap(gaps, model, single, protocol) for single in (False, True)]
    name = f"the {model}" if model == _NAMELESS else f"the model {model}"
    said = [gap_sentence(gap, name) for gap in found if gap is not None]
    return [f"- {line}" for line in said or [no_gap_sentence(gaps, model, protocol)]]


def _recall_lines(groups: pd.DataFrame, model: str, protocol: str) -> list[str]:
    """Make a Markdown table of recall by age, gender and emotion; `groups.csv` has the rest."""
    rows = groups[(groups["model"] == model) & (groups["protocol"] == protocol)]
    further = list(groups.columns[11 : groups.columns.get_loc("subjects")])
    rows = rows[(rows[["dataset", *further]] == ALL).all(axis=1)]
    level = f"{100 * rows['confidence'].iloc[0]:g} % interval"
    lines = [f"| age band | gender | emotion | n | correct | recall | {level} |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows.itertuples():
        lines.append(
            f"| {row.age_band} | {row.gender} | {row.emotion} | {row.n} | {row.correct} | "
            f"{100 * row.recall:.1f} % | {100 * row.ci_low:.1f} to {100 * row.ci_high:.1f} |"
        )
    return lines
