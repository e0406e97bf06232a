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

from tasks.audit.measures.group_columns import is_hidden, natural_order
from tasks.core.labels import ALL, EMOTIONS, GENDERS, SPLITS, UNKNOWN
from tasks.core.statistics.clusters import whole

_AT_ONCE = 1 << 22  # entries of (images, groups of cells) in memory at once
_ALWAYS_CROSSED = frozenset(["dataset", "emotion", "split"])

# Cells with images: the codes of each unpooled dimension's values, and how many cells there are.
_Codes = tuple[dict[str, np.ndarray], int]

# Where no ages are recorded, bands of these names still come in this order.
_BANDS = ("infant", "toddler", "child", "adolescent", "teenager", "young adult", "adult", "senior")


def dimensions(by: Sequence[str]) -> list[str]:
    """Return the columns that name a group: the contract's first, then further ones of `by`."""
    first = ["dataset", "age_band", "gender", "emotion"]
    return first + [name for name in by if name not in first]


def values_in_order(frame: pd.DataFrame, column: str) -> list[str]:
    """Return a column's values as they are to be shown; "unknown" comes last.

    Age bands are ordered by the median age of their images where ages are recorded; the groups of
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
    parts: list[_Codes] = []
    columns: list[np.ndarray] = []
    total = 0
    for subset in _subsets(list(coded), depth):
        part, cell = _cells_of(coded, subset, len(frame))
        parts.append(part)
        columns.append(cell + total)
        total += part[1]
        if len(columns) * len(frame) >= entries:
            yield _named(coded, parts, dims), _members(columns, total)
            parts, columns, total = [], [], 0
    if parts:
        yield _named(coded, parts, dims), _members(columns, total)


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
    coded: Mapping[str, tuple[np.ndarray, pd.Index]], subset: Sequence[str], images: int
) -> tuple[_Codes, np.ndarray]:
    """Return the cells with images of some dimensions, and the cell of each image."""
    key, size = np.zeros(images, dtype=np.int64), 1
    for name in subset:
        codes, values = coded[name]
        key, size = key * len(values) + codes, size * len(values)
    if size <= max(images, 1 << 16):  # without sorting
        there = np.flatnonzero(np.bincount(key, minlength=size))
        place = np.empty(size, dtype=np.int64)
        place[there] = np.arange(len(there))
        cell = place[key]
    else:
        there, cell = np.unique(key, return_inverse=True)
    unpooled: dict[str, np.ndarray] = {}
    rest = there
    for name in reversed(subset):
        values = coded[name][1]
        unpooled[name] = rest % len(values)
        rest = rest // len(values)
    return (unpooled, len(there)), cell


def _named(
    coded: Mapping[str, tuple[np.ndarray, pd.Index]], parts: Sequence[_Codes], dims: Sequence[str]
) -> pd.DataFrame:
    """Return the cells of all parts, one row each, with the values of their dimensions."""
    names = {}
    for name in dims:
        values = list(coded[name][1]) if name in coded else []
        pooled = len(values)
        places = [codes.get(name, np.full(cells, pooled)) for codes, cells in parts]
        names[name] = np.array([*values, ALL], dtype=object)[np.concatenate(places)]
    return pd.DataFrame(names)


def _members(columns: Sequence[np.ndarray], total: int) -> sparse.csr_array:
    """Return `(images, total)` zeros and ones from the cells that each image is in."""
    images, subsets = len(columns[0]), len(columns)
    # A row has one entry per subset, in the order of the columns.
    entries = np.stack(columns, axis=1).ravel()
    ends = np.arange(0, images * subsets + 1, subsets)
    return sparse.csr_array((np.ones(len(entries)), entries, ends), shape=(images, total))


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
        cells, figures = [], []
        for subset in _subsets(list(coded), depth):
            of_subset, cell = _cells_of(coded, subset, len(rows))
            size = of_subset[1]
            subjects = _distinct(cell[known], people[known], size, int(people.max()) + 1)
            totals = [whole(np.bincount(cell, values, size)) for values in numbers.values()]
            cells.append(of_subset)
            figures.append(np.stack([subjects, *totals], axis=1))
        table = _named(coded, cells, dims)
        table[["subjects", "n", *sums]] = np.concatenate(figures)
        table = table.assign(**dict(zip(never_pooled, kept, strict=True)))
        parts.append(with_constants(table, part, dims))
    columns = [*never_pooled, *dims, "n", "subjects", *sums]
    table = pd.concat(parts, ignore_index=True)[columns]
    return sort_cells(table, frame, [*never_pooled, *dims])


def _distinct(cell: np.ndarray, subject: np.ndarray, cells: int, subjects: int) -> np.ndarray:
    """Count the different subjects in each cell, `(cells,)`."""
    key = cell * subjects + subject
    if cells * subjects <= _AT_ONCE:  # without sorting
        there = np.zeros(cells * subjects, dtype=bool)
        there[key] = True
        return np.asarray(there.reshape(cells, subjects).sum(axis=1))
    return np.bincount(np.unique(key) // subjects, minlength=cells)


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


def in_cells(cell: np.ndarray, cells: int, weight: np.ndarray | None = None) -> sparse.csr_array:
    """Return cells as columns, for sums over images (`Resampled.sums`, `People.by_person`).

    Parameters
    ----------
    cell
        `(n,)` integers below `cells`; −1 for an image that is in none.
    cells
        How many there are.
    weight
        `(n,)` numbers or booleans that are summed; None counts images.

    Returns
    -------
    scipy.sparse.csr_array
        `(n, cells)` float64, at most one entry per row.
    """
    rows = np.flatnonzero(cell >= 0)
    values = np.ones(len(rows)) if weight is None else np.asarray(weight, dtype=float)[rows]
    return sparse.csr_array((values, (rows, cell[rows])), shape=(len(cell), cells))


def codes(values: pd.Series, names: Sequence[str]) -> np.ndarray:
    """Return each value's place among the names, `(n,)` integers; −1 for a value that is none."""
    return pd.Index(list(names), dtype=object).get_indexer(values.astype(object))


def column_sums(members: sparse.csr_array) -> np.ndarray:
    """Sum over all images: `(cells,)` float64."""
    return np.asarray(members.sum(axis=0), dtype=float).ravel()
