"""Paired predictions of two models for the same images; a missing prediction counts as wrong."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.core.labels import UNKNOWN
from tasks.gate.decision import FROZEN, NEW
from tasks.gate.score import FLIPS, KINDS, Scores

CHAMPION, CHALLENGER = "champion", "challenger"
ALL_CHANGES = "all small changes"
CROSS = " × "
COMBINED = "group"  # column; also the prefix of the columns of single dimensions
WORDS = {CHAMPION: "model in use", CHALLENGER: "challenger"}


@dataclass(frozen=True)
class Named:
    """A group that can stop a version, named in advance.

    Attributes
    ----------
    where
        Column to values, combined with "and".
    needed_by
        Keys of params that require this group to be judged before a version is promoted
        automatically.
    """

    name: str
    where: Mapping[str, Sequence[str]]
    needed_by: tuple[str, ...] = ()

    def rows(self, table: pd.DataFrame) -> pd.Series:
        """Return a mask of the rows in the group."""
        mask = pd.Series(True, index=table.index)
        for column, values in self.where.items():
            mask &= table[column].isin(list(values))
        return mask


def named_groups(
    protected: Sequence[Mapping[str, Sequence[str]]],
    needed: Mapping[str, Mapping[str, Sequence[str]]],
) -> tuple[Named, ...]:
    """Return the groups of `promote.protected`, and those that other sections require.

    `needed` has selections by the key of params that requires them. An empty selection is everyone,
    whom the rule on all images judges.
    """
    groups: dict[tuple[tuple[str, tuple[str, ...]], ...], list[str]] = {}
    for key, where in [("", one) for one in protected] + list(needed.items()):
        if where:
            selection = tuple(
                sorted((name, tuple(sorted(values))) for name, values in where.items())
            )
            groups.setdefault(selection, []).extend(filter(None, [key]))
    return tuple(
        Named(
            CROSS.join(", ".join(values) for _, values in selection), dict(selection), tuple(keys)
        )
        for selection, keys in groups.items()
    )


@dataclass(frozen=True)
class Compared:
    """The compared test images with the predictions of each model.

    Attributes
    ----------
    pictures
        One row per image: `image_id, subject_id, subject_known, emotion, part`, columns of group
        names (see `group_names`), and for each side `answer_<side>` (null: no face was found),
        `correct_<side>, brier_<side>` and `<kind>_<side>` (NaN without a prediction).
    sides
        `challenger`, and `champion` if there is one.
    counts
        Numbers of test images, by what happened to them.
    groups
        Every group that occurs, in order; some may have no test image.
    named
        The groups that can stop a version.
    members
        Mask of `images` by name of the named group.
    in_data
        By name of the named group: whether the split table has any image of it.
    lost
        Labels that the champion has and the challenger lacks, with their numbers of images.
    """

    images: pd.DataFrame
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
    """Pair the models' predictions for the test images.

    An image without a prediction (no face found) counts as wrong for that model, and so does a
    label that the challenger lost. Images of a label that the champion lacks are left out.

    Parameters
    ----------
    split
        The split table, with every frozen image that remains as one of its test images. Its other
        rows only define groups.
    frozen
        `image_id` of the images that the champion was judged on.
    by
        Columns that define groups.
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
    images = pd.concat([used[columns], *sides], axis=1)
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
                images[f"answer_{side}"].isna().sum()
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
        images=images,
        sides=tuple(scores),
        counts=counts,
        groups=tuple(names),
        named=tuple(named),
        members={one.name: one.rows(used).to_numpy() for one in named},
        in_data={one.name: bool(one.rows(split).any()) for one in named},
        lost=lost.to_dict(),
    )


def group_names(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the names of each image's groups, such as "child × female" and "child".

    Column `group` has the combination of all values of `by`. If `by` has several columns, there is
    also `group: <name>` for each. Names are null where a value is unknown. No name is in two
    columns.
    """
    values = table[list(by)].astype("object")
    values = values.mask(values.isna() | (values == UNKNOWN))
    words = values.fillna("").astype("str")
    names = {COMBINED: words.agg(CROSS.join, axis=1).mask(values.isna().any(axis=1))}
    for name in by if len(by) > 1 else ():
        ambiguous = words[name].isin(words.drop(columns=name).to_numpy().ravel())
        single = words[name].mask(ambiguous, words[name] + f" ({name.replace('_', ' ')})")
        names[f"{COMBINED}: {name}"] = single.mask(values[name].isna())
    return pd.DataFrame(names, index=table.index)


def membership(images: pd.DataFrame, groups: Sequence[str]) -> np.ndarray:
    """Return which image is in which group, `(images, groups)` booleans."""
    columns = [name for name in images.columns if str(name).startswith(COMBINED)]
    names = images[columns].to_numpy(dtype=object)[:, :, None]
    return np.asarray((names == np.array(list(groups), dtype=object)).any(axis=1), dtype=bool)


def digest_of(compared: Compared) -> str:
    """Return a digest of the compared images with their parts, subjects and labels."""
    columns = ["image_id", "part", "subject_id", COMBINED, "emotion"]
    rows = compared.images[columns]
    text = rows.sort_values("image_id").to_csv(index=False, lineterminator="\n")
    return hashlib.sha256(text.encode()).hexdigest()


def _answers(images: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    """Return a side's columns of `Compared.pictures`, one row per image in the given order."""
    table = images[["image_id", "emotion"]].merge(scores.table, on="image_id", how="left")
    answered = table["y_pred"].notna().to_numpy()
    predicted = table[[f"p_{label}" for label in scores.labels]].to_numpy(dtype=float)
    probabilities = np.where(answered[:, None], predicted, 0.0)
    target = table["emotion"].to_numpy()[:, None] == np.array(scores.labels, dtype=object)
    kinds = table[[f"{FLIPS}{kind}" for kind in KINDS]].to_numpy(dtype=float)
    # G. W. Brier 1950, Mon. Weather Rev. 78, 1-3: from 0 to 2, summed over all labels. A label that
    # the model lacks has probability 0.
    brier = ((probabilities - target) ** 2).sum(axis=1) + ~target.any(axis=1)
    columns = {
        "answer": table["y_pred"].to_numpy(),
        "correct": (table["y_pred"] == table["emotion"]).to_numpy(),
        "brier": brier,
        ALL_CHANGES: kinds.mean(axis=1),
    }
    return pd.DataFrame(columns | {kind: kinds[:, index] for index, kind in enumerate(KINDS)})
