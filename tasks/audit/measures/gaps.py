"""Gaps in recall between groups: every pair of groups of every dimension, pooled and by emotion.

A pair is compared on the emotions that both groups have; the others are left out and named.
People whose group is not recorded ("unknown") make no group. The family of tests, over which
the correction runs, is all comparisons of one model and protocol along one dimension with enough
images and people on both sides: a gap by gender is one question, one by ethnicity another, and
how many groups the second has says nothing about the first
(docs/decisions/0002-family-of-tests.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.measures.group_cube import codes, values_in_order
from tasks.audit.settings import Settings
from tasks.core.gap_sentences import ALPHA
from tasks.core.labels import ALL, EMOTIONS, UNKNOWN
from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences
from tasks.core.statistics.hypothesis_tests import corrected, smallest_shown

COLUMNS = [
    "model",
    "protocol",
    "dataset",
    "dimension",
    "group_a",
    "group_b",
    "emotion",
    "n_a",
    "correct_a",
    "recall_a",
    "subjects_a",
    "n_b",
    "correct_b",
    "recall_b",
    "subjects_b",
    "gap",
    "ci_low",
    "ci_high",
    "confidence",
    "p_value",
    "p_adjusted",
    "correction",
    "mde",
    "power",
    "enough_n",
    "emotions",
    "left_out_emotions",
    "n_left_out",
    "datasets_with_both",
    "family",
    "method",
    "effective_subjects_a",
    "effective_subjects_b",
    "n_unknown_a",
    "n_unknown_b",
    "equivalence_margin",
    "equivalent",
]

_GROUPS = ["group_a", "group_b"]


def gaps_table(judged: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Compare every pair of groups.

    Parameters
    ----------
    judged
        One row per model, protocol and image, with `correct`.
    settings
        `by` names the dimensions; `dataset` joins them where there are several.

    Returns
    -------
    pandas.DataFrame
        One row per comparison; `gap` is recall of a minus recall of b, from -1 to 1. For
        `emotion=all` the recalls are over the emotions that both groups have (`emotions`);
        `left_out_emotions` and `n_left_out` say what that leaves out. `dataset` names the data
        set within which the groups are compared (`all`: across). If `datasets_with_both` is empty,
        no data set holds both groups, and the gap may be one between data sets.
        `p_adjusted` and `mde` are empty where `enough_n` is false: not tested. `mde` is the
        smallest gap that would have been shown with probability `power`, see `smallest_shown`.
        Figures rest on images of known subjects; `n_unknown_a` and `n_unknown_b` count the others.
        `enough_n` counts effective subjects. `equivalent` is true where the gap is shown to be
        smaller than `equivalence_margin` on either side, which an empty finding does not show.
    """
    parts = []
    for (model, protocol), part in judged.groupby(["model", "protocol"], sort=False):
        pairs = list(_pairs(part, settings.by))
        if pairs:
            names = pd.DataFrame([pair.names for pair in pairs])
            figures = _figures(part, pairs, settings)
            parts.append(pd.concat([names, figures], axis=1).assign(model=model, protocol=protocol))
    if not parts:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(parts, ignore_index=True)
    table["enough_n"] = settings.enough(
        table[["n_a", "n_b"]].min(axis=1),
        table[["effective_subjects_a", "effective_subjects_b"]].min(axis=1),
    )
    table["enough_n"] &= table["p_value"].notna()
    table["equivalent"] &= table["enough_n"]
    questions = table.groupby(["model", "protocol", "dimension"], sort=False)
    families = [_tested(part, settings) for _, part in questions]
    return pd.concat(families).sort_index()[COLUMNS]


def _tested(part: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correct the p-values of one model, protocol and dimension, which are one family."""
    first, tested = part.iloc[0], part["enough_n"]
    size = int(tested.sum())
    shown = smallest_shown(
        part["error"].to_numpy(), part["df"].to_numpy(), ALPHA, settings.power, size
    )
    return part.assign(
        p_adjusted=corrected(part["p_value"], tested, settings.correction),
        correction=settings.correction,
        mde=pd.Series(shown, index=part.index).where(tested),
        power=settings.power,
        confidence=settings.confidence,
        family=f"{first['model']}, {first['protocol']}, {first['dimension']}: {size} comparisons "
        f"with at least {settings.least_words()} on both sides",
    )


@dataclass(frozen=True)
class _Pair:
    """A comparison: what it is called, and the rows of the images on each side."""

    names: dict[str, Any]
    rows_a: np.ndarray
    rows_b: np.ndarray


@dataclass(frozen=True)
class _Of:
    """Codes of each image, which are compared much faster than names."""

    emotion: np.ndarray  # places in `EMOTIONS`
    dataset: np.ndarray  # places in `datasets`
    datasets: Sequence[str]


def _pairs(part: pd.DataFrame, by: Sequence[str]) -> Iterator[_Pair]:
    """Yield the comparisons of one model and protocol, across and within data sets."""
    datasets = values_in_order(part, "dataset")
    of_image = _Of(codes(part["emotion"], EMOTIONS), codes(part["dataset"], datasets), datasets)
    dataset_of = part["dataset"].to_numpy()
    several = len(datasets) > 1
    for dataset in [ALL, *datasets] if several else [ALL]:
        within = np.ones(len(part), dtype=bool) if dataset == ALL else dataset_of == dataset
        dims = [*by, "dataset"] if several and dataset == ALL and "dataset" not in by else by
        for dimension in dims:
            values = part[dimension].to_numpy()
            groups = [v for v in values_in_order(part[within], dimension) if v != UNKNOWN]
            rows = {group: np.flatnonzero(within & (values == group)) for group in groups}
            for a, b in combinations(groups, 2):
                names = {"dataset": dataset, "dimension": dimension, "group_a": a, "group_b": b}
                for found in _by_emotion(rows[a], rows[b], of_image):
                    yield _Pair(names | found.names, found.rows_a, found.rows_b)


def _by_emotion(rows_a: np.ndarray, rows_b: np.ndarray, of_image: _Of) -> Iterator[_Pair]:
    """Yield one pair's comparisons: pooled over the emotions of both, then each of these."""
    of_a, of_b = of_image.emotion[rows_a], of_image.emotion[rows_b]
    has_a, has_b = (np.bincount(side, minlength=len(EMOTIONS)) > 0 for side in (of_a, of_b))
    in_both = [EMOTIONS[code] for code in np.flatnonzero(has_a & has_b)]
    apart = [EMOTIONS[code] for code in np.flatnonzero(has_a ^ has_b)]
    if not in_both:
        return
    kept_a, kept_b = (has_a & has_b)[of_a], (has_a & has_b)[of_b]
    n_apart = int((~kept_a).sum() + (~kept_b).sum())
    names = of_image.datasets
    in_a, in_b = (
        np.bincount(of_image.dataset[rows], minlength=len(names)) > 0 for rows in (rows_a, rows_b)
    )
    shared = " ".join(sorted(names[code] for code in np.flatnonzero(in_a & in_b)))
    pooled = {"emotion": ALL, "emotions": " ".join(in_both), "left_out_emotions": " ".join(apart)}
    pooled |= {"n_left_out": n_apart, "datasets_with_both": shared}
    yield _Pair(pooled, rows_a[kept_a], rows_b[kept_b])
    for name in in_both:
        single = {"emotion": name, "emotions": name, "left_out_emotions": "", "n_left_out": 0}
        single["datasets_with_both"] = shared
        code = EMOTIONS.index(name)
        yield _Pair(single, rows_a[of_a == code], rows_b[of_b == code])


def _figures(part: pd.DataFrame, pairs: Sequence[_Pair], settings: Settings) -> pd.DataFrame:
    """Compare all pairs of one model and protocol at once."""
    sampled = Resampled(part["subject_id"], settings.resamples, settings.seed)
    correct, known = (part[name].to_numpy(dtype=bool) for name in ("correct", "subject_known"))
    a, b = (
        Sides.of(_members(rows, len(part)), correct)
        for rows in ([pair.rows_a for pair in pairs], [pair.rows_b for pair in pairs])
    )
    named = pd.DataFrame([pair.names for pair in pairs])[["dataset", "dimension", *_GROUPS]]
    same = named.groupby(list(named.columns), sort=False).ngroup().to_numpy()
    margin = settings.equivalence_margin
    return differences(sampled, a, b, known, settings.confidence, "groups", same, margin)


def _members(rows: Sequence[np.ndarray], images: int) -> sparse.csr_array:
    """Return `(pictures, len(rows))` zeros and ones from the rows of each column."""
    columns = np.repeat(np.arange(len(rows)), [len(mask) for mask in rows])
    entries = (np.ones(len(columns)), (np.concatenate(rows), columns))
    return sparse.csr_array(entries, shape=(images, len(rows)))
