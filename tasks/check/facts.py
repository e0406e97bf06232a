"""Derived columns and small derived frames that the expectations look at.

A Great Expectations check sees one column, or two, of one row. What concerns several rows (the
same picture twice, one person with two recorded genders, pictures a group) is computed here first,
so that the suites in `suites.py` stay plain lists.
"""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from tasks.core.labels import GENDERS, UNKNOWN
from tasks.core.lookalikes import find_lookalikes

_RECORDED_GENDERS = [name for name in GENDERS if name != UNKNOWN]
_LISTED_PATHS = 3  # paths that a fact about copies of a picture names


def row_facts(manifest: pd.DataFrame, age_years: tuple[float, float]) -> pd.DataFrame:
    """Add what the row suite needs to the manifest.

    Parameters
    ----------
    manifest
        One row a picture, with the columns of the manifest and an index 0 … n - 1.
    age_years
        The lowest and the highest plausible age; other ages say nothing about a subject.

    Returns
    -------
    pandas.DataFrame
        The same rows and, beside the manifest's columns: `subject_dataset` (what `subject_id`
        says before its first "/"), `image_id_by_sha256` (the id that the sha256 gives),
        `picture_emotions`, `n_picture_emotions` and `picture_paths` (over all rows with the same
        sha256), `n_subject_genders`, `subject_genders` and `subject_age_span_years` (over all rows
        of the subject; genders and ages that are unknown or impossible do not count), and
        `subject_lookalikes` (other known subjects whose id is easily confused with it).
    """
    facts = manifest.copy()
    facts["subject_dataset"] = manifest["subject_id"].str.partition("/")[0]
    facts["image_id_by_sha256"] = manifest["sha256"].str[:16]
    emotions = _sets_by(manifest, "sha256", "emotion")
    facts["picture_emotions"] = emotions.map(", ".join)
    facts["n_picture_emotions"] = emotions.map(len)
    paths = _sets_by(manifest, "sha256", "path")
    facts["picture_paths"] = paths.map(_shortened)
    recorded = manifest.assign(
        gender=manifest["gender"].where(manifest["gender"].isin(_RECORDED_GENDERS)),
        age_years=manifest["age_years"].where(manifest["age_years"].between(*age_years)),
    )
    genders = _sets_by(recorded, "subject_id", "gender")
    facts["subject_genders"] = genders.map(", ".join)
    facts["n_subject_genders"] = genders.map(len)
    ages = recorded.groupby("subject_id")["age_years"]
    facts["subject_age_span_years"] = ages.transform("max") - ages.transform("min")
    known = manifest.loc[manifest["subject_known"].astype(bool), "subject_id"].dropna()
    alike = {name: ", ".join(others) for name, others in find_lookalikes(known.unique()).items()}
    facts["subject_lookalikes"] = manifest["subject_id"].map(lambda name: alike.get(name, ""))
    return facts


def label_shares(passed: pd.DataFrame) -> pd.DataFrame:
    """Count the pictures of each emotion: `emotion`, `n_pictures`, `share` (0 to 1), by name."""
    counts = passed.groupby("emotion").size().rename("n_pictures").reset_index()
    return counts.assign(share=counts["n_pictures"] / max(len(passed), 1))


def group_counts(passed: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Count pictures and subjects of each group that occurs.

    Parameters
    ----------
    passed
        One row a picture.
    by
        The columns that make a group. A picture for which one of them is unknown (or null) is in
        no group: an unknown gender or age is a gap in the records, not a group to be compared.

    Returns
    -------
    pandas.DataFrame
        One row a group, sorted: the columns `by`, `n_pictures`, `n_subjects`.
    """
    known = known_values(passed, by).notna().all(axis=1)
    groups = passed[known].groupby(list(by), sort=True)["subject_id"]
    return groups.agg(n_pictures="size", n_subjects="nunique").reset_index()


def known_values(passed: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return the columns with the word "unknown" turned into null."""
    values = passed[list(columns)]
    return values.where(values != UNKNOWN)


def quarantine_share(rows_in: int, rejects: pd.DataFrame) -> pd.DataFrame:
    """Describe the quarantine in one row.

    Parameters
    ----------
    rows_in
        Pictures that were checked.
    rejects
        The rejects table; reasons are joined by "; ".

    Returns
    -------
    pandas.DataFrame
        `quarantined_share` (0 to 1) and `reasons`, each with its count, the commonest first.
    """
    reasons = Counter(reason for row in rejects["reason"] for reason in row.split("; "))
    ranked = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    words = ", ".join(f"{reason}: {count}" for reason, count in ranked)
    return pd.DataFrame({"quarantined_share": [len(rejects) / max(rows_in, 1)], "reasons": [words]})


def _sets_by(table: pd.DataFrame, key: str, column: str) -> pd.Series:
    """Give each row the sorted tuple of the column's values over all rows with its key."""
    pairs = table[[key, column]].dropna().drop_duplicates().sort_values([key, column])
    sets = pairs.groupby(key)[column].agg(tuple)
    found = table[key].map(sets)
    return found.map(lambda values: values if isinstance(values, tuple) else ())


def _shortened(paths: tuple[str, ...]) -> str:
    more = len(paths) - _LISTED_PATHS
    return ", ".join(paths[:_LISTED_PATHS]) + (f" and {more} more" if more > 0 else "")
