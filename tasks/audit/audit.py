"""The audit of one or more models' predictions: from one row per image to the tables.

Two protocols: `held_out` judges a model on images that it was not trained on; `all` judges it on
every image, those of its training included, as published studies do. Images whose label a model
does not have, or that it gave no answer for, are left out and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from tasks.audit.measures.calibration import calibration_table, reasons_uncalibrated
from tasks.audit.measures.confusion_gaps import confusion_gaps_table
from tasks.audit.measures.factor_model import factors_table
from tasks.audit.measures.fairness_metrics import fairness_table
from tasks.audit.measures.gaps import gaps_table
from tasks.audit.measures.group_cube import (
    cell_blocks,
    dimensions,
    distinct_rows,
    pool,
    sort_cells,
    values_in_order,
    with_constants,
)
from tasks.audit.measures.intersections import intersections_table
from tasks.audit.measures.model_comparison import paired_table
from tasks.audit.measures.predictive_values import predictive_values_table
from tasks.audit.measures.sensitivity import sensitivity_table
from tasks.audit.measures.standardized_gaps import standardized_table, with_limits_of_gaps
from tasks.audit.settings import NUMBERS, Settings
from tasks.core.errors import DataError, ParamsError
from tasks.core.labels import ALL, EMOTIONS, HELD_OUT, UNKNOWN, in_order
from tasks.core.parallel.execution import map_in_order, process_pool
from tasks.core.statistics.clusters import People, known_subjects, without_verdicts
from tasks.core.statistics.recalls import selected, shares

# In the column `method`, where a user says so.
INDEPENDENT = "; images without a subject id were taken as independent at the user's word"
PROTOCOLS: tuple[str, ...] = (HELD_OUT, ALL)
_Job = tuple[Callable[..., pd.DataFrame], tuple[Any, ...]]
_MANY_CELLS = 1_000_000  # images times columns, from which on starting processes pays
_SLOWEST = ("fairness", "standardized", "calibration", "confusion_gaps", "intersections")
_NEEDED = ("image_id", "dataset", "subject_id", "emotion", "split", "model", "y_pred")
_SUBJECTS = ("effective_subjects", "n_unknown", "recall_per_subject")
_SUBJECTS += ("per_subject_ci_low", "per_subject_ci_high")
_KEPT = ("seen_in_training", "subject_known", *NUMBERS)


def model_labels(frame: pd.DataFrame) -> dict[str, list[str] | None]:
    """Return the emotions that each model can answer.

    They are its `p_<emotion>` columns that hold values, and whatever it did answer: a file may lack
    the column of an emotion that the system knows. None for a model without any such column
    (another system's predictions): it is not known.
    """
    columns = [f"p_{name}" for name in EMOTIONS if f"p_{name}" in frame.columns]
    found: dict[str, list[str] | None] = {}
    for model, part in frame.groupby("model", sort=False):
        answerable = [name.removeprefix("p_") for name in columns if part[name].notna().any()]
        found[str(model)] = in_order({*answerable, *answered(part)}) if answerable else None
    return found


def answered(part: pd.DataFrame) -> set[str]:
    """Return the emotions that occur among a model's answers."""
    return set(part["y_pred"].unique()) & set(EMOTIONS)


def prepare(frame: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Add what the tables count, after checking that the columns are there.

    Parameters
    ----------
    frame
        One row per model and image.
    settings
        `by` names the columns whose groups are compared; `factors` and `standardize_to` name
        columns that are carried where they are there.

    Returns
    -------
    pandas.DataFrame
        The columns that the tables need, with `correct` and `named` (the model has the image's
        label and gave an answer), booleans. Columns of groups are text, and what is not recorded is
        "unknown"; `age_years, face_side_px, sharpness, brightness, detector_score` stay numbers,
        NaN where there is none. `face_side_px` is the side of the face's box in pixels of the
        image.

    Raises
    ------
    ParamsError
        For a column of `by` that the predictions lack.
    DataError
        For a missing column, an empty table, or an image that a model has twice.
    """
    _check_columns(frame, settings.by)
    sided = _with_face_side(frame)
    wanted = [*settings.by, *settings.factors, *settings.standardize_to]
    answers = [f"p_{name}" for name in EMOTIONS]
    carried = [name for name in (*_NEEDED, *_KEPT, *answers, *wanted) if name in sided.columns]
    table = sided[list(dict.fromkeys(carried))].copy()
    if "subject_known" not in table.columns:
        table["subject_known"] = True
    for name in _labels_of_groups(table, settings):
        text = table[name].astype("str").where(table[name].notna(), UNKNOWN).replace("", UNKNOWN)
        table[name] = text.replace(ALL, "all (recorded)")  # `all` means pooled
    if settings.independent_images:
        unknown = ~table["subject_known"].astype(bool)
        table.loc[unknown, "subject_id"] = "image " + table.loc[unknown, "image_id"].astype("str")
        table["subject_known"] = True
    table["correct"] = table["y_pred"] == table["emotion"]
    table["named"] = _named(frame)
    return table


def _named(frame: pd.DataFrame) -> np.ndarray:
    """Return which images can be judged: the model has the label and gave an answer."""
    labels = model_labels(frame)
    has_label = [
        labels[model] is None or emotion in labels[model]
        for emotion, model in zip(frame["emotion"], frame["model"], strict=True)
    ]
    return np.array(has_label) & ~unanswered(frame).to_numpy()


def unanswered(frame: pd.DataFrame) -> pd.Series:
    """Return for which images a model gave no answer, as where it found no face: booleans."""
    return frame["y_pred"].isna() | frame["y_pred"].isin(["", UNKNOWN])


def uncalibrated(frame: pd.DataFrame) -> dict[str, str]:
    """Return why a model has no rows in `calibration`; `frame` is as for `audit_predictions`."""
    return reasons_uncalibrated(frame[_named(frame)])


def _labels_of_groups(table: pd.DataFrame, settings: Settings) -> list[str]:
    """Name the columns that hold names of groups, not figures."""
    factors = [
        name
        for name in dict.fromkeys([*settings.factors, *settings.standardize_to])
        if name in table.columns and name not in ("emotion", *NUMBERS)
        if not is_numeric_dtype(table[name])
    ]
    return list(dict.fromkeys(["dataset", *settings.by, *factors]))


def _check_columns(frame: pd.DataFrame, by: Sequence[str]) -> None:
    absent = [name for name in by if name not in frame.columns]
    if absent:
        known = ", ".join(map(str, frame.columns))
        raise ParamsError(f"audit.by: the predictions have no column {absent} (they have {known})")
    missing = [name for name in (*_NEEDED, "seen_in_training") if name not in frame.columns]
    if missing:
        raise DataError(f"the predictions lack the columns {missing}")
    if frame.empty:
        raise DataError("the predictions hold no row: there is nothing to audit")
    twice = frame.duplicated(["model", "image_id"])
    if twice.any():
        raise DataError(f"the predictions hold picture {frame['image_id'][twice].iloc[0]} twice")


def _with_face_side(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the side of the face's box, from `box_xyxy_px`, where the predictions have boxes."""
    if "face_side_px" in frame.columns or "box_xyxy_px" not in frame.columns:
        return frame
    sides = [
        np.nan if box is None or len(box) != 4 else max(box[2] - box[0], box[3] - box[1])
        for box in frame["box_xyxy_px"]
    ]
    return frame.assign(face_side_px=sides)


def audit_predictions(
    frame: pd.DataFrame,
    settings: Settings,
    pair: tuple[str, str] | None,
    pair_protocol: str = HELD_OUT,
) -> dict[str, pd.DataFrame]:
    """Audit predictions by group.

    Parameters
    ----------
    frame
        One row per model and image: `image_id, dataset, subject_id, emotion, split, model, y_pred,
        seen_in_training`, the columns of `settings.by`, and `p_<emotion>` for the labels a model
        has. `subject_known` and the columns of `factors` and `standardize_to` are used where they
        are there.
    settings
        How the audit is done.
    pair
        The two models of `before_after`; the table is empty where one is absent or for None.
    pair_protocol
        On which images these are compared.

    Returns
    -------
    dict
        Name to table, as written to `reports/tables/`.

    Raises
    ------
    ParamsError, DataError
        See `prepare`.
    """
    table = prepare(frame, settings)
    judged = by_protocol(table[table["named"]])
    if judged.empty:
        raise DataError("no picture has an answer and a label that its model knows: none to audit")
    known = known_subjects(judged)
    jobs: dict[str, _Job] = {
        "counts": (counts_table, (table, settings.by, settings.depth)),
        "groups": (groups_table, (judged, settings)),
        "gaps": (gaps_table, (judged, settings)),
        "before_after": (
            paired_table,
            (table[table["named"]], settings, pair, pair_protocol),
        ),
        "confusion": (confusion_table, (judged, settings.by, model_labels(frame))),
        "factors": (factors_table, (judged, settings)),
        "confusion_gaps": (confusion_gaps_table, (judged, settings)),
        "intersections": (intersections_table, (judged, settings)),
        "predictive_values": (predictive_values_table, (judged, settings)),
        "standardized": (standardized_table, (known, settings)),
        "fairness": (fairness_table, (known, settings)),
        "calibration": (calibration_table, (known, settings)),
    }
    tables = _make_tables(jobs, len(judged) * len(settings.by))
    for name in ("standardized", "fairness", "calibration"):
        tables[name] = without_verdicts(tables[name], judged)
    tables["standardized"] = with_limits_of_gaps(tables["standardized"], tables["gaps"])
    tables["sensitivity"] = sensitivity_table(judged, tables["gaps"], settings)
    return _with_assumption(tables) if assumed_independent(frame, settings) else tables


def _make_tables(jobs: Mapping[str, _Job], cells: int) -> dict[str, pd.DataFrame]:
    """Make tables that do not depend on each other, in several processes where they are large."""
    if cells < _MANY_CELLS:
        return {name: make(*arguments) for name, (make, arguments) in jobs.items()}
    order = [*_SLOWEST, *(name for name in jobs if name not in _SLOWEST)]
    with process_pool(0) as pool:
        made = map_in_order(_make, [jobs[name] for name in order], pool, chunk_size=1)
        tables = dict(zip(order, made, strict=True))
    return {name: tables[name] for name in jobs}


def _make(jobs: Sequence[_Job]) -> list[pd.DataFrame]:
    return [make(*arguments) for make, arguments in jobs]


def assumed_independent(frame: pd.DataFrame, settings: Settings) -> bool:
    """Whether images are taken as independent only because the user says so."""
    known = frame.get("subject_known", pd.Series(True, frame.index)).astype(bool)
    return settings.independent_images and not known.all()


def _with_assumption(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Name the assumption in every table that says how its figures were made."""
    return {
        name: table.assign(method=table["method"].astype("str") + INDEPENDENT)
        if "method" in table.columns and len(table)
        else table
        for name, table in tables.items()
    }


def by_protocol(table: pd.DataFrame) -> pd.DataFrame:
    """Stack the rows of both protocols under each other, with a column `protocol`."""
    held_out = table[~table["seen_in_training"].astype(bool)]
    return pd.concat(
        [held_out.assign(protocol=HELD_OUT), table.assign(protocol=ALL)], ignore_index=True
    )


def groups_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return recall with its interval for every cell of the cube.

    Columns: `model, protocol, dataset, age_band, gender, emotion, n, correct, recall, ci_low,
    ci_high`, then further dimensions, `subjects`, `confidence`, `method`, and how much the images
    tell: `effective_subjects`, `n_unknown` (images of unknown subjects) and `recall_per_subject`,
    the mean of the subjects' own recalls, with its limits. For `emotion=all`, recall is the share
    of all images of the group that are read correctly.
    """
    by, confidence, parts = settings.by, settings.confidence, []
    dims = ["dataset", *by, "emotion"]
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        rows = distinct_rows(part, dims, ["correct"])
        people, known = People(rows["subject_id"]), rows["subject_known"].to_numpy(dtype=bool)
        images, right = (rows[name].to_numpy(dtype=float) for name in ("images", "correct"))
        found = []
        for cells, members in cell_blocks(rows, dims, settings.depth):
            sides = selected(members, images), selected(members, right)
            found.append(pd.concat([cells, shares(people, *sides, known, confidence)], axis=1))
        table = with_constants(pd.concat(found, ignore_index=True), part, dims)
        parts.append(table.assign(model=model, protocol=protocol))
    cube = pd.concat(parts, ignore_index=True)
    cube = sort_cells(cube, judged, ["model", "protocol", "dataset", *by, "emotion"])
    cube = with_all(cube, by).assign(confidence=settings.confidence)
    first = ["model", "protocol", "dataset", "age_band", "gender", "emotion"]
    figures = ["n", "correct", "recall", "ci_low", "ci_high"]
    further = [name for name in by if name not in first]
    return cube[[*first, *figures, *further, "subjects", "confidence", "method", *_SUBJECTS]]


def counts_table(table: pd.DataFrame, by: Sequence[str], depth: int) -> pd.DataFrame:
    """Return images and subjects of every cell and split, with how many a model leaves out.

    `held_out` counts images that the model was not trained on; `left_out` those whose label it
    does not have or that it gave no answer for.
    """
    marked = table.assign(
        left_out=~table["named"], held_out=~table["seen_in_training"].astype(bool)
    )
    cube = pool(
        marked, ["dataset", *by, "emotion", "split"], depth, ["model"], ["held_out", "left_out"]
    ).rename(columns={"n": "images"})
    cube = with_all(cube, by)
    return cube[["model", *dimensions(by), "split", "images", "subjects", "held_out", "left_out"]]


def confusion_table(
    judged: pd.DataFrame, by: Sequence[str], labels: Mapping[str, Sequence[str] | None]
) -> pd.DataFrame:
    """Return what each emotion was read as, overall and for every group of each dimension.

    Columns: `model, protocol, dimension, group, emotion, y_pred, n, n_emotion, share`; the first
    dimension is `all`. `share` is `n` over `n_emotion`, the images of that emotion in the group;
    answers that a model has but did not give are listed with 0.
    """
    parts = []
    for model, of_model in judged.groupby("model", sort=False):
        answers = in_order([*(labels[str(model)] or of_model["emotion"]), *of_model["y_pred"]])
        for protocol, dimension in product(PROTOCOLS, (ALL, *by)):
            rows = of_model[of_model["protocol"] == protocol]
            for group in [ALL] if dimension == ALL else values_in_order(rows, dimension):
                part = rows if dimension == ALL else rows[rows[dimension] == group]
                if not part.empty:
                    cells = _confusion(part, answers)
                    parts.append(
                        cells.assign(
                            model=model, protocol=protocol, dimension=dimension, group=group
                        )
                    )
    columns = ["model", "protocol", "dimension", "group", "emotion", "y_pred"]
    return pd.concat(parts, ignore_index=True)[[*columns, "n", "n_emotion", "share"]]


def _confusion(part: pd.DataFrame, answers: Sequence[str]) -> pd.DataFrame:
    """Count one group's answers: one row per cell of the matrix."""
    matrix = pd.crosstab(part["emotion"], part["y_pred"])
    matrix = matrix.reindex(index=in_order(part["emotion"]), columns=answers, fill_value=0)
    cells = matrix.stack().rename("n").reset_index()
    cells["n_emotion"] = cells.groupby("emotion")["n"].transform("sum")
    return cells.assign(share=cells["n"] / cells["n_emotion"])


def with_all(cube: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Add the contract's dimensions that are not compared, as pooled."""
    pooled = {name: ALL for name in dimensions(by) if name not in cube.columns}
    return cube.assign(**pooled)
