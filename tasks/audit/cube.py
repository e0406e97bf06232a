"""The cube of groups: combinations of pooled and unpooled dimensions that have images.

A pooled dimension says `all`. Data sets, emotions and splits cross with everything; of the columns
that are compared, at most `depth` are unpooled at once, since all combinations of k columns would
be 2 to the power of k tables. Rows are sorted with `all` first, emotions in the vocabulary's order
and age bands from young to old.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.group_sizes import natural_order
from tasks.audit.own_columns import is_hidden
from tasks.core.labels import ALL, EMOTIONS, GENDERS, SPLITS, UNKNOWN
from tasks.core.statistics.people import whole

_AT_ONCE = 1 << 22  # entries of (images, groups of cells) in memory at once
_ALWAYS_CROSSED = frozenset(["dataset", "emotion", "split"])
# Where no ages are recorded, bands of these names still come in this order.
_BANDS = ("infant", "toddler", "child", "adolescent", "teenager", "young adult", "adult", "senior")


def dimensions(by: Sequence[str]) -> list[str]:
    """Return the columns that name a group: the contract's first, then further ones of `by`."""
    first = ["dataset", "age_band", "gender", "emotion"]
    return first + [name for name in by if name not in first]


def values_in_order(frame: pd.DataFrame, column: str) -> list[str]:
    """Return a column's values as they are to be shown; "unknown" comes last.

    Age bands are ordered by the median age of their pictures where ages are recorded; the groups of
    a user's own column by the number in their names.
    """
    values = sorted(frame[column].unique(), key=natural_order if is_hidden(column) else None)
    known: Sequence[str] = ()
    if column in ("emotion", "y_pred"):
        known = EMOTIONS
    elif column == "gender":
        known = GENDERS
    elif column == "split":
        known = SPLITS
    elif column == "age_band":
        known = _BANDS
        if "age_years" in frame and frame["age_years"].notna().any():
            known = list(frame.groupby("age_band")["age_years"].median().sort_values().index)
    rank = {value: index for index, value in enumerate(known)}
    return sorted(values, key=lambda value: (value == UNKNOWN, rank.get(value, len(rank))))


def cell_members(
    frame: pd.DataFrame, dims: Sequence[str], depth: int
) -> tuple[pd.DataFrame, sparse.csr_array]:
    """Return every cell of the cube that has images, and which images are in it.

    Parameters
    ----------
    frame
        One row per image.
    dims
        Dimensions that are pooled in turn.
    depth
        How many of them are unpooled at once; data sets, emotions and splits do not count.

    Returns
    -------
    cells
        One row per cell, columns `dims`: values, or `all` where the dimension is pooled.
    members
        `(images, cells)` zeros and ones: which image is in which cell.
    """
    blocks = list(cell_blocks(frame, dims, depth, len(frame) << 20))
    cells = pd.concat([block for block, _ in blocks], ignore_index=True)
    members = sparse.csr_array(sparse.hstack([block for _, block in blocks]))
    place = np.arange(len(cells))
    for name, value in _constants(frame, dims).items():
        cells = pd.concat([cells, cells.assign(**{name: value})], ignore_index=True)
        place = np.concatenate([place, place])
    return cells, members[:, place]


def cell_blocks(
    frame: pd.DataFrame, dims: Sequence[str], depth: int, entries: int = _AT_ONCE
) -> Iterator[tuple[pd.DataFrame, sparse.csr_array]]:
    """Yield what `cell_members` returns in parts of bounded memory.

    A data set, emotion or split that is the same for all images stays pooled here: the cells within
    it are those without it, which `with_constants` adds to a table.
    """
    constants = _constants(frame, dims)
    coded = {name: pd.factorize(frame[name]) for name in dims if name not in constants}
    parts: list[pd.DataFrame] = []
    columns: list[np.ndarray] = []
    total = 0
    for kept in _subsets(list(coded), depth):
        part, cell = _cells_of(coded, kept, len(frame))
        parts.append(part.assign(**{name: ALL for name in dims if name not in kept}))
        columns.append(cell + total)
        total += len(part)
        if len(columns) * len(frame) >= entries:
            yield _block(parts, columns, total, dims)
            parts, columns, total = [], [], 0
    if parts:
        yield _block(parts, columns, total, dims)


def distinct_rows(frame: pd.DataFrame, dims: Sequence[str], sums: Sequence[str]) -> pd.DataFrame:
    """Return one row per subject and cell of all dimensions, with `images` and sums of columns.

    A subject has many images in the same groups: what is summed over images is summed over these
    rows, which are fewer.
    """
    keys = ["subject_id", "subject_known", *dims]
    numbers = frame[[*keys, *sums]].assign(images=1)
    return numbers.groupby(keys, sort=False)[["images", *sums]].sum().reset_index()


def with_constants(table: pd.DataFrame, frame: pd.DataFrame, dims: Sequence[str]) -> pd.DataFrame:
    """Repeat a table's rows for each data set, emotion or split that all images share."""
    for name, value in _constants(frame, dims).items():
        table = pd.concat([table, table.assign(**{name: value})], ignore_index=True)
    return table


def _constants(frame: pd.DataFrame, dims: Sequence[str]) -> dict[str, str]:
    return {
        name: frame[name].iloc[0]
        for name in dims
        if name in _ALWAYS_CROSSED and len(frame) and frame[name].nunique(dropna=False) == 1
    }


def _cells_of(
    coded: Mapping[str, tuple[np.ndarray, pd.Index]], kept: Sequence[str], images: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the cells with images of some dimensions, and the cell of each image."""
    key, size = np.zeros(images, dtype=np.int64), 1
    for name in kept:
        codes, values = coded[name]
        key, size = key * len(values) + codes, size * len(values)
    if size <= max(images, 1 << 16):  # without sorting
        there = np.flatnonzero(np.bincount(key, minlength=size))
        place = np.empty(size, dtype=np.int64)
        place[there] = np.arange(len(there))
        cell = place[key]
    else:
        there, cell = np.unique(key, return_inverse=True)
    found: dict[str, np.ndarray] = {}
    rest = there
    for name in reversed(kept):
        values = coded[name][1]
        found[name] = values.to_numpy()[rest % len(values)]
        rest = rest // len(values)
    return pd.DataFrame(found, index=range(len(there))), cell


def _block(
    parts: list[pd.DataFrame], columns: list[np.ndarray], total: int, dims: Sequence[str]
) -> tuple[pd.DataFrame, sparse.csr_array]:
    images, subsets = len(columns[0]), len(columns)
    # A row has one entry per subset, in the order of the columns.
    entries = np.stack(columns, axis=1).ravel()
    ends = np.arange(0, images * subsets + 1, subsets)
    members = sparse.csr_array((np.ones(len(entries)), entries, ends), shape=(images, total))
    return pd.concat(parts, ignore_index=True)[list(dims)], members


def _subsets(dims: Sequence[str], depth: int) -> Iterator[tuple[str, ...]]:
    compared = [name for name in dims if name not in _ALWAYS_CROSSED]
    crossed = [name for name in dims if name in _ALWAYS_CROSSED]
    for size in range(min(depth, len(compared)) + 1):
        for some in combinations(compared, size):
            for further in range(len(crossed) + 1):
                for more in combinations(crossed, further):
                    yield tuple(name for name in dims if name in {*some, *more})


def pool(
    frame: pd.DataFrame,
    dims: Sequence[str],
    depth: int,
    never_pooled: Sequence[str],
    sums: Sequence[str],
) -> pd.DataFrame:
    """Sum columns over every cell of the cube and count its images and known subjects.

    Parameters
    ----------
    frame
        One row per image and model, with `subject_id`, `subject_known` and the columns named.
    dims, depth
        As in `cell_members`.
    never_pooled
        Columns that every row keeps, at least one.
    sums
        Columns to sum (booleans count).

    Returns
    -------
    pandas.DataFrame
        `never_pooled`, `dims`, `n`, `subjects` and `sums`; one row per cell with images, sorted.
    """
    parts = []
    for kept, part in frame.groupby(list(never_pooled), sort=False):
        rows = distinct_rows(part, dims, sums)
        known = rows["subject_known"].to_numpy(dtype=bool)
        people = pd.factorize(rows["subject_id"])[0].astype(np.int64)
        numbers = {name: rows[name].to_numpy(dtype=float) for name in ("images", *sums)}
        constants = _constants(part, dims)
        coded = {name: pd.factorize(rows[name]) for name in dims if name not in constants}
        found = []
        for subset in _subsets(list(coded), depth):
            cells, cell = _cells_of(coded, subset, len(rows))
            pairs = np.unique(cell[known] * (people.max() + 1) + people[known])
            figures = {
                **{name: ALL for name in dims if name not in subset},
                "subjects": np.bincount(pairs // (people.max() + 1), minlength=len(cells)),
                **{
                    name: whole(np.bincount(cell, weights=values, minlength=len(cells)))
                    for name, values in numbers.items()
                },
            }
            found.append(cells.assign(**figures))
        table = pd.concat(found, ignore_index=True)
        table = table.rename(columns={"images": "n"})
        table = table.assign(**dict(zip(never_pooled, kept, strict=True)))
        parts.append(with_constants(table, part, dims))
    columns = [*never_pooled, *dims, "n", "subjects", *sums]
    table = pd.concat(parts, ignore_index=True)[columns]
    return sort_cells(table, frame, [*never_pooled, *dims])


def sort_cells(table: pd.DataFrame, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Sort rows by `columns`, each in the order in which its values in `frame` are shown."""
    keys = {}
    for column in columns:
        rank = {value: index for index, value in enumerate(_shown(frame, column))}
        keys[column] = table[column].map(rank)
    index = pd.DataFrame(keys).sort_values(list(columns), kind="stable").index
    return table.loc[index].reset_index(drop=True)


def _shown(frame: pd.DataFrame, column: str) -> list[str]:
    if column == "model":  # in the order of training
        return list(dict.fromkeys(frame[column]))
    if column == "protocol":
        return ["held_out", "all"]
    return [ALL, *values_in_order(frame, column)]
