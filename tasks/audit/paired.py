"""What fine-tuning changed: two models on the same pictures, held out from the training of both.

Because both read the same pictures, the change has a paired interval and an exact test; and the
pictures that were lost are counted beside those that were gained.
"""

from collections.abc import Sequence

import pandas as pd

from tasks.audit.comparisons import PAIRED_METHOD, holm, mcnemar_exact, newcombe_paired
from tasks.audit.cube import dimensions, pool
from tasks.core.intervals import wilson
from tasks.core.labels import ALL

FIGURES = [
    "n",
    "subjects",
    "recall_base",
    "base_ci_low",
    "base_ci_high",
    "recall_finetuned",
    "finetuned_ci_low",
    "finetuned_ci_high",
    "change",
    "ci_low",
    "ci_high",
    "confidence",
    "both",
    "lost",
    "gained",
    "neither",
    "p_value",
    "p_holm",
    "enough_n",
    "family",
    "method",
]
_OUTCOMES = ["both", "lost", "gained", "neither"]


def paired_table(
    named: pd.DataFrame, by: Sequence[str], confidence: float, min_n: int, pair: tuple[str, str]
) -> pd.DataFrame:
    """Compare two models on every cell of the cube.

    Parameters
    ----------
    named
        One row a model and picture with a label that the model has; `correct`,
        `seen_in_training`.
    by
        Dimensions of the groups.
    confidence
        Level of the intervals.
    min_n
        Pictures that a cell needs to be tested.
    pair
        Names of the first (base) and the second (fine-tuned) model.

    Returns
    -------
    pandas.DataFrame
        One row a cell: `n`, both recalls with Wilson intervals, `change` (second minus first) with
        its paired interval, how many pictures both, only the first (`lost`), only the second
        (`gained`) or none reads, and p-values. Holm's family is every cell with enough pictures
        that is of one group at most (crossed cells are shown, but not tested: `p_holm` is empty).
        Empty where a model is absent or no picture is held out from both.
    """
    columns = [*dimensions(by), *FIGURES]
    pictures = same_pictures(named, pair)
    if pictures.empty:
        return pd.DataFrame(columns=columns)
    cube = pool(pictures, ["dataset", *by, "emotion"], ["pair"], _OUTCOMES)
    cube = cube.assign(**{name: ALL for name in dimensions(by) if name not in cube.columns})
    cube = _recalls(cube, confidence)
    limits = [
        newcombe_paired(*map(int, row), confidence)
        for row in cube[_OUTCOMES].itertuples(index=False)
    ]
    cube["ci_low"], cube["ci_high"] = (list(side) for side in zip(*limits, strict=True))
    cube["p_value"] = [
        mcnemar_exact(lost, gained)
        for lost, gained in zip(cube["lost"], cube["gained"], strict=True)
    ]
    cube["enough_n"] = cube["n"] >= min_n
    cube["confidence"], cube["method"] = confidence, PAIRED_METHOD
    return _tested(cube, by, min_n)[columns]


def _tested(cube: pd.DataFrame, by: Sequence[str], min_n: int) -> pd.DataFrame:
    """Correct the p-values of cells of one group at most; a lone data set is no group."""
    several = cube["dataset"].nunique() > 2  # `all` and at least two
    groups = ["dataset", *by] if several else list(by)
    crossed = (cube[groups] != ALL).sum(axis=1) > 1
    repeated = (cube["dataset"] != ALL) & (not several)
    tested = cube["enough_n"] & ~crossed & ~repeated
    # One family a dimension, as for gaps (docs/decisions/0002-family-of-tests.md).
    dimension = (cube[groups] != ALL).idxmax(axis=1).where((cube[groups] != ALL).any(axis=1), ALL)
    for name, part in cube.groupby(dimension):
        chosen = tested[part.index]
        cube.loc[part.index, "p_holm"] = holm(part["p_value"], chosen)
        family = f"{name}: {int(chosen.sum())} groups with at least {min_n} pictures"
        cube.loc[part.index, "family"] = family
    return cube


def same_pictures(named: pd.DataFrame, pair: tuple[str, str]) -> pd.DataFrame:
    """Return the pictures that neither model was trained on, each with one of four outcomes."""
    held_out = named[~named["seen_in_training"].astype(bool)]
    first, second = (held_out[held_out["model"] == name] for name in pair)
    other = second[["image_id", "correct"]].rename(columns={"correct": "correct_second"})
    pictures = first.merge(other, on="image_id", how="inner")
    one, two = pictures["correct"].astype(bool), pictures["correct_second"].astype(bool)
    return pictures.assign(
        pair=" ".join(pair), both=one & two, lost=one & ~two, gained=~one & two, neither=~one & ~two
    )


def _recalls(cube: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Add both models' recalls with Wilson intervals, and the change."""
    n = cube["n"].to_numpy()
    for name, other in (("base", "lost"), ("finetuned", "gained")):
        correct = (cube["both"] + cube[other]).to_numpy()
        cube[f"recall_{name}"] = correct / n
        cube[f"{name}_ci_low"], cube[f"{name}_ci_high"] = wilson(correct, n, confidence)
    cube["change"] = cube["recall_finetuned"] - cube["recall_base"]
    return cube
