"""How many wrong labels, or wrongly recorded subjects, would undo a gap that was shown.

Like the fragility index of trials (M. Walsh et al. 2014, J. Clin. Epidemiol. 67, 622-628), but for
both errors that tables of images have: the label of an image may be wrong, and so may the age or
the gender of a subject, who then belongs to the other group with all images. What moves the gap
most comes first, by each subject's or image's influence (T. Broderick, R. Giordano, R. Meager 2020,
arXiv:2011.14999); the number is the smallest after which the gap's interval, made anew, includes 0.
Another choice may do with fewer, so that the number is an upper bound of the errors that a gap
withstands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.settings import Settings
from tasks.core.gap_sentences import ALPHA, turned
from tasks.core.labels import ALL, HELD_OUT
from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.differences import Sides, differences

COLUMNS = [
    "model",
    "protocol",
    "dataset",
    "dimension",
    "group_a",
    "group_b",
    "emotion",
    "gap",
    "ci_low",
    "ci_high",
    "confidence",
    "n_a",
    "n_b",
    "subjects_a",
    "subjects_b",
    "undone_by_labels",
    "undone_by_subjects",
    "tried_labels",
    "tried_subjects",
    "method",
]
_MOST_GAPS = 100  # of one model; the others are the smaller ones
_MOST_LABELS = 200
_MOST_SUBJECTS = 50
_METHOD = (
    "the fewest changes found after which the gap's interval includes 0, those of the largest "
    "influence first; fewer may do. Empty: not with tried_labels or tried_subjects of them"
)


@dataclass
class _Moves:
    """Changes of one gap, in their order; each may touch several images.

    `side, row, members, hits` have one entry per touched image: 0 for a and 1 for b, the image, and
    what is added to its membership and to its correct answers (1 or -1). `change` is the change
    that the entry belongs to, from 0. `shift` is by how much the gap rises after each change.
    """

    side: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    members: list[int] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)
    change: list[int] = field(default_factory=list)
    shift: list[float] = field(default_factory=list)

    def add(self, entries: Sequence[tuple[int, int, int, int]], shift: float) -> None:
        """Append one change with `(side, row, members, hits)` for each image that it touches."""
        for side, row, members, hits in entries:
            self.side.append(side)
            self.row.append(row)
            self.members.append(members)
            self.hits.append(hits)
            self.change.append(len(self.shift))
        self.shift.append(shift + (self.shift[-1] if self.shift else 0.0))


@dataclass(frozen=True)
class _Gap:
    """A significant gap, oriented so that `a` has the lower recall, and its limit next to 0."""

    rows_a: np.ndarray
    rows_b: np.ndarray
    single: str  # the emotion, or "" where the gap is over several
    others_a: np.ndarray  # images of the groups with other labels, where it is over one
    others_b: np.ndarray
    distance: float


def sensitivity_table(judged: pd.DataFrame, gaps: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Return how many errors undo each significant gap.

    `judged` has one row per model, protocol and image; `gaps` is the result of `gaps_table` for it.

    The table has one row per significant gap of each model, on held-out images where it has any; at
    most `_MOST_GAPS` per model, the largest. A label is corrected where that helps the group with
    the lower recall or harms the other one; a subject is moved to the other group.
    """
    if gaps.empty:
        return pd.DataFrame(columns=COLUMNS)
    significant = gaps[gaps["enough_n"].astype(bool) & (gaps["p_adjusted"] < ALPHA)]
    significant = significant[(significant["ci_low"] > 0) | (significant["ci_high"] < 0)]
    parts = []
    for model, of_model in significant.groupby("model", sort=False):
        held_out = (gaps["protocol"][gaps["model"] == model] == HELD_OUT).any()
        protocol = HELD_OUT if held_out else ALL
        of_model = of_model[of_model["protocol"] == protocol]
        largest = of_model["gap"].abs().sort_values(ascending=False, kind="stable").index
        rows = of_model.loc[largest[:_MOST_GAPS]].sort_index()
        part = judged[(judged["model"] == model) & (judged["protocol"] == protocol)]
        part = part[part["subject_known"].astype(bool)].reset_index(drop=True)
        if len(rows):
            parts.append(_of_model(part, rows, settings))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=COLUMNS)


def _of_model(part: pd.DataFrame, rows: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    sampled = Resampled(part["subject_id"], settings.resamples, settings.seed)
    correct = part["correct"].to_numpy(dtype=bool)
    found = [_gap_of(part, turned(row)) for _, row in rows.iterrows()]
    there = [bool(len(gap.rows_a) and len(gap.rows_b)) for gap in found]
    found = [gap for gap, both in zip(found, there, strict=True) if both]
    table = rows[there].reset_index(drop=True).assign(method=_METHOD)
    kinds: dict[str, Callable[[_Gap], _Moves]] = {
        "labels": lambda gap: _label_moves(part, gap, correct),
        "subjects": lambda gap: _subject_moves(sampled.codes, gap, correct),
    }
    for name, moves_of in kinds.items():
        moves = [moves_of(gap) for gap in found]
        needed = _needed(sampled, found, moves, correct, settings)
        table[f"undone_by_{name}"] = pd.array(needed, dtype="Int64")
        table[f"tried_{name}"] = [len(move.shift) for move in moves]
    return table[COLUMNS]


def _gap_of(part: pd.DataFrame, row: pd.Series) -> _Gap:
    """Find the images of a gap again."""
    within = np.ones(len(part), dtype=bool)
    if row["dataset"] != ALL:
        within = (part["dataset"] == row["dataset"]).to_numpy()
    labelled = part["emotion"].isin(str(row["emotions"]).split()).to_numpy()
    values = part[row["dimension"]].to_numpy()
    in_a, in_b = (within & (values == row[f"group_{side}"]) for side in "ab")
    single = "" if row["emotion"] == ALL else str(row["emotion"])
    return _Gap(
        np.flatnonzero(in_a & labelled),
        np.flatnonzero(in_b & labelled),
        single,
        np.flatnonzero(in_a & ~labelled),
        np.flatnonzero(in_b & ~labelled),
        float(min(abs(row["ci_low"]), abs(row["ci_high"]))),
    )


def _label_moves(part: pd.DataFrame, gap: _Gap, correct: np.ndarray) -> _Moves:
    """Order corrections of labels by what they add to recall of a or take from that of b.

    Over several emotions, a corrected label turns a wrong answer into a right one or the other way
    round. On one emotion an image leaves the comparison with its label, or joins it.
    """
    wrong_a, right_b = gap.rows_a[~correct[gap.rows_a]], gap.rows_b[correct[gap.rows_b]]
    if gap.single:
        answered = (part["y_pred"] == gap.single).to_numpy()
        pools = [
            _Pool(0, -1, 0, list(wrong_a)),
            _Pool(1, -1, -1, list(right_b)),
            _Pool(0, 1, 1, list(gap.others_a[answered[gap.others_a]])),
            _Pool(1, 1, 0, list(gap.others_b[~answered[gap.others_b]])),
        ]
    else:
        pools = [_Pool(0, 0, 1, list(wrong_a)), _Pool(1, 0, -1, list(right_b))]
    n = [len(gap.rows_a), len(gap.rows_b)]
    right = [int(correct[gap.rows_a].sum()), int(correct[gap.rows_b].sum())]
    moves, behind = _Moves(), right[1] / n[1] - right[0] / n[0]
    while len(moves.shift) < _MOST_LABELS and (not moves.shift or moves.shift[-1] < behind):
        gains = [pool.gain(n, right) for pool in pools]
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        pool = pools[best]
        n[pool.side] += pool.more
        right[pool.side] += pool.hits
        moves.add([(pool.side, int(pool.rows.pop()), pool.more, pool.hits)], gains[best])
    return moves


@dataclass
class _Pool:
    """Images whose corrected label does the same: `more` images and `hits` right ones to a side."""

    side: int
    more: int
    hits: int
    rows: list[int]

    def gain(self, n: list[int], right: list[int]) -> float:
        """Return by how much one of them raises the gap (a less b)."""
        images = n[self.side] + self.more
        if not self.rows or images < 1:
            return 0.0
        raised = (right[self.side] + self.hits) / images - right[self.side] / n[self.side]
        return raised if self.side == 0 else -raised


def _subject_moves(codes: np.ndarray, gap: _Gap, correct: np.ndarray) -> _Moves:
    """Order subjects by what the gap rises by where all their images go to the other group."""
    of_a, of_b = codes[gap.rows_a], codes[gap.rows_b]
    both = np.intersect1d(of_a, of_b)
    candidates = []
    recalls = [float(correct[rows].mean()) for rows in (gap.rows_a, gap.rows_b)]
    sizes = [len(gap.rows_a), len(gap.rows_b)]
    for side, (rows, group_subjects) in enumerate(((gap.rows_a, of_a), (gap.rows_b, of_b))):
        subjects, place = np.unique(group_subjects, return_inverse=True)
        n = np.bincount(place)
        right = np.bincount(place, weights=correct[rows])
        there, away = sizes[1 - side], sizes[side]
        joined = (right + recalls[1 - side] * there) / (n + there) - recalls[1 - side]
        rest = np.maximum(away - n, 1)
        left = (recalls[side] * away - right) / rest - recalls[side]
        shift = left - joined if side == 0 else joined - left
        order = np.argsort(-shift, kind="stable")[:_MOST_SUBJECTS]
        candidates += [
            (float(shift[k]), side, rows[place == k])
            for k in order
            if shift[k] > 0 and subjects[k] not in both
        ]
    candidates.sort(key=lambda candidate: -candidate[0])
    moves, left_on = _Moves(), [len(np.unique(of_a)), len(np.unique(of_b))]
    for shift, side, rows in candidates:
        if left_on[side] <= 2 or len(moves.shift) == _MOST_SUBJECTS:
            continue
        left_on[side] -= 1
        entries = [(side, int(row), -1, -int(correct[row])) for row in rows]
        entries += [(1 - side, int(row), 1, int(correct[row])) for row in rows]
        moves.add(entries, shift)
    return moves


def _needed(
    sampled: Resampled,
    gaps: list[_Gap],
    moves: list[_Moves],
    correct: np.ndarray,
    settings: Settings,
) -> list[int | None]:
    """Find for each gap the fewest of its changes after which the interval includes 0.

    All gaps are tried at once. The first try is where the changes make up for the distance from 0
    to the nearer limit; each further one halves what is left or doubles the reach.
    """
    least = np.zeros(len(gaps), dtype=int)  # known not to do
    most = np.array([len(move.shift) + 1 for move in moves])  # known, or taken, to do
    tries = np.array(
        [
            int(np.searchsorted(move.shift, gap.distance)) + 1
            for gap, move in zip(gaps, moves, strict=True)
        ]
    )
    while (open_now := np.flatnonzero(most - least > 1)).size:
        tries = np.clip(tries, least + 1, most - 1)
        done = _includes_zero(sampled, gaps, moves, open_now, tries, correct, settings)
        most[open_now[done]] = tries[open_now[done]]
        least[open_now[~done]] = tries[open_now[~done]]
        tries = np.where(np.isin(np.arange(len(gaps)), open_now[done]), tries - 1, tries + 1)
        far = most - least > 4
        tries = np.where(far, (least + most) // 2, tries)
    return [
        int(number) if number <= len(move.shift) else None
        for number, move in zip(most, moves, strict=True)
    ]


def _includes_zero(
    sampled: Resampled,
    gaps: list[_Gap],
    moves: list[_Moves],
    which: np.ndarray,
    tries: np.ndarray,
    correct: np.ndarray,
    settings: Settings,
) -> np.ndarray:
    """Make the intervals of some gaps anew after their first changes; True where 0 is in it."""
    sides = []
    for side in (0, 1):
        entries: list[np.ndarray] = []
        for place, index in enumerate(which):
            gap, move = gaps[index], moves[index]
            rows = gap.rows_a if side == 0 else gap.rows_b
            entries.append(
                np.stack([rows, np.full(len(rows), place), np.ones(len(rows)), correct[rows]])
            )
            table = np.array([move.side, move.row, move.members, move.hits, move.change])
            table = table[:, (table[0] == side) & (table[4] < tries[index])]
            at = np.full(table.shape[1], place)
            entries.append(np.stack([table[1], at, table[2], table[3]]))
        row, column, members, hits = np.concatenate(entries, axis=1)
        shape, at = (len(correct), len(which)), (row.astype(int), column.astype(int))
        both = [sparse.csr_array(sparse.coo_array((v, at), shape)) for v in (members, hits)]
        for values in both:
            values.eliminate_zeros()
        sides.append(Sides(*both))
    known = np.ones(len(correct), dtype=bool)
    table = differences(sampled, sides[0], sides[1], known, settings.confidence, "groups")
    return ((table["ci_low"] <= 0) & (table["ci_high"] >= 0)).to_numpy()
