"""Two models' answers to the same pictures, side by side; what one cannot answer is read wrong."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.labels import UNKNOWN
from tasks.gate.changes import KINDS
from tasks.gate.decision import FROZEN, NEW
from tasks.gate.score import FLIPS, Scores

CHAMPION, CHALLENGER = "champion", "challenger"
ALL_CHANGES = "all small changes"
CROSS = " × "
COMBINED = "group"  # column; those of one dimension alone begin with it
WORDS = {CHAMPION: "model in use", CHALLENGER: "challenger"}


@dataclass(frozen=True)
class Named:
    """A group that can stop a version: named in advance, whatever the figures are.

    Attributes
    ----------
    name
        As it is shown.
    where
        Column to values, combined with "and".
    needed_by
        Params that make it one without which no version comes into use by itself.
    """

    name: str
    where: Mapping[str, Sequence[str]]
    needed_by: tuple[str, ...] = ()

    def rows(self, table: pd.DataFrame) -> pd.Series:
        """Return which rows are in the group."""
        inside = pd.Series(True, index=table.index)
        for column, values in self.where.items():
            inside &= table[column].isin(list(values))
        return inside


def named_groups(
    protected: Sequence[Mapping[str, Sequence[str]]],
    needed: Mapping[str, Mapping[str, Sequence[str]]],
) -> tuple[Named, ...]:
    """Return the groups of `promote.protected`, and those that other sections ask for.

    Parameters
    ----------
    protected
        Selections, column to values.
    needed
        Selections by the key of params that makes them needed; an empty one is everybody, whom the
        rule on all pictures judges.
    """
    found: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = {}
    for keys, where in [("", one) for one in protected] + list(needed.items()):
        if where:
            own = tuple(sorted((name, tuple(sorted(values))) for name, values in where.items()))
            found.setdefault(own, []).extend(filter(None, [keys]))
    return tuple(
        Named(CROSS.join(", ".join(values) for _, values in own), dict(own), tuple(keys))
        for own, keys in found.items()
    )


@dataclass(frozen=True)
class Compared:
    """Pictures that every model is asked about.

    Attributes
    ----------
    pictures
        One row a picture: `image_id, subject_id, subject_known, emotion, part`, columns of group
        names (see `group_names`), and for each side `answer_<side>` (null: no face was found),
        `correct_<side>, brier_<side>` and `<kind>_<side>` (NaN without an answer).
    sides
        `challenger`, and `champion` where there is one.
    counts
        Test pictures by what became of them.
    groups
        Every group that occurs, in order; some may have no test picture.
    named
        The groups that can stop a version.
    members
        Of each of these, by name, which of `pictures` are in it.
    in_data
        Of each of these, by name, whether the split table holds any picture of it.
    lost
        Labels that the challenger lacks and the champion has, with their pictures.
    """

    pictures: pd.DataFrame
    sides: tuple[str, ...]
    counts: Mapping[str, int]
    groups: tuple[str, ...]
    named: tuple[Named, ...]
    members: Mapping[str, np.ndarray]
    in_data: Mapping[str, bool]
    lost: Mapping[str, int]


def compare(
    split: pd.DataFrame,
    frozen: pd.Series,
    challenger: Scores,
    champion: Scores | None,
    by: Sequence[str],
    named: Sequence[Named] = (),
) -> Compared:
    """Lay the models' answers to the test pictures side by side.

    Parameters
    ----------
    split
        The split table, with every frozen picture that is still there as one of its test pictures;
        these are compared, its other rows only name groups.
    frozen
        `image_id` of the pictures that the champion was judged on.
    challenger, champion
        Their answers. A picture that one has none for (no face in its crop) is read wrong by it; so
        is a label that the challenger lost. What the champion cannot answer is left out.
    by
        What makes a group.
    named
        The groups that can stop a version.
    """
    groups = group_names(split, by)
    test = pd.concat([split, groups], axis=1)[split["split"] == "test"]
    test["part"] = np.where(test["image_id"].isin(frozen), FROZEN, NEW)
    scores = {CHALLENGER: challenger} | ({CHAMPION: champion} if champion else {})
    known = test["emotion"].isin((champion or challenger).labels)
    used = test[known].reset_index(drop=True)
    columns = ["image_id", "subject_id", "subject_known", "emotion", "part", *groups]
    sides = [_answers(used, one).add_suffix(f"_{side}") for side, one in scores.items()]
    pictures = pd.concat([used[columns], *sides], axis=1)
    lost = used["emotion"][~used["emotion"].isin(challenger.labels)].value_counts().sort_index()
    unnamed = used[list(groups)].isna()
    counts = {
        "test pictures": len(test),
        "compared": len(used),
        f"left out: a label that the {'model in use' if champion else 'model'} lacks": int(
            (~known).sum()
        ),
        **{
            f"read wrong: no face found by the {WORDS[side]}": int(
                pictures[f"answer_{side}"].isna().sum()
            )
            for side in scores
        },
        "read wrong: a label that the challenger lost": int(lost.sum()),
        "in no combined group: age, gender or the like unknown": int(unnamed[COMBINED].sum()),
        "in no group at all": int(unnamed.all(axis=1).sum()),
        "frozen pictures that are no longer there": int((~frozen.isin(test["image_id"])).sum()),
    }
    names = [name for column in groups for name in sorted(groups[column].dropna().unique())]
    return Compared(
        pictures=pictures,
        sides=tuple(scores),
        counts=counts,
        groups=tuple(names),
        named=tuple(named),
        members={one.name: one.rows(used).to_numpy() for one in named},
        in_data={one.name: bool(one.rows(split).any()) for one in named},
        lost=lost.to_dict(),
    )


def group_names(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Name each picture's groups: every combination, such as "child × female", and each part alone.

    Parameters
    ----------
    table
        One row a picture.
    by
        What makes a group.

    Returns
    -------
    pandas.DataFrame
        Column `group` with the combination; where `by` names several, also `group: <name>` for each
        of them alone, over all values of the others. Null where a value is unknown. No name is in
        two columns.
    """
    values = table[list(by)].astype("object")
    values = values.mask(values.isna() | (values == UNKNOWN))
    words = values.fillna("").astype("str")
    names = {COMBINED: words.agg(CROSS.join, axis=1).mask(values.isna().any(axis=1))}
    for name in by if len(by) > 1 else ():
        shared = words[name].isin(words.drop(columns=name).to_numpy().ravel())
        alone = words[name].mask(shared, words[name] + f" ({name.replace('_', ' ')})")
        names[f"{COMBINED}: {name}"] = alone.mask(values[name].isna())
    return pd.DataFrame(names, index=table.index)


def membership(pictures: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    """Tell which picture is in which group, `(pictures, groups)` booleans."""
    columns = [name for name in pictures.columns if str(name).startswith(COMBINED)]
    own = pictures[columns].to_numpy(dtype=object)[:, :, None]
    return np.asarray((own == np.array(list(groups), dtype=object)).any(axis=1), dtype=bool)


def digest_of(compared: Compared) -> str:
    """Digest the compared pictures with their parts, people and labels."""
    columns = ["image_id", "part", "subject_id", COMBINED, "emotion"]
    rows = compared.pictures[columns]
    text = rows.sort_values("image_id").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _answers(pictures: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Return a side's columns of `Compared.pictures`, in the order given."""
    own = pictures[["image_id", "emotion"]].merge(scores.table, on="image_id", how="left")
    answered = own["y_pred"].notna().to_numpy()
    said = own[[f"p_{label}" for label in scores.labels]].to_numpy(dtype=float)
    probabilities = np.where(answered[:, None], said, 0.0)
    wanted = own["emotion"].to_numpy()[:, None] == np.array(scores.labels, dtype=object)
    kinds = own[[f"{FLIPS}{kind}" for kind in KINDS]].to_numpy(dtype=float)
    # G. W. Brier 1950, Mon. Weather Rev. 78, 1-3, as there: from 0 to 2 over all labels; one that
    # the model lacks has probability 0.
    brier = ((probabilities - wanted) ** 2).sum(axis=1) + ~wanted.any(axis=1)
    figures = {
        "answer": own["y_pred"].to_numpy(),
        "correct": (own["y_pred"] == own["emotion"]).to_numpy(),
        "brier": brier,
        ALL_CHANGES: kinds.mean(axis=1),
    }
    return pd.DataFrame(figures | {kind: kinds[:, place] for place, kind in enumerate(KINDS)})
