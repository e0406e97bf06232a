"""What fine-tuning changed: two models on the same pictures, held out from the training of both.

Because both read the same pictures, the change is compared picture by picture, and people are what
varies; the pictures that were lost are counted beside those that were gained.
"""

import pandas as pd
from scipy import sparse

from tasks.audit.comparisons import corrected
from tasks.audit.cube import cell_members, dimensions, sort_cells
from tasks.audit.difference import Sides, differences
from tasks.audit.people import whole
from tasks.audit.recalls import recalls
from tasks.audit.resample import Resampled
from tasks.audit.settings import Settings
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
    "p_adjusted",
    "correction",
    "enough_n",
    "family",
    "method",
]
_OUTCOMES = ["both", "lost", "gained", "neither"]


def paired_table(named: pd.DataFrame, settings: Settings, pair: tuple[str, str]) -> pd.DataFrame:
    """Compare two models on every cell of the cube.

    Parameters
    ----------
    named
        One row a model and picture with a label that the model has; `correct`,
        `seen_in_training`.
    settings
        How the audit is done; `by` names the dimensions.
    pair
        Names of the first (base) and the second (fine-tuned) model.

    Returns
    -------
    pandas.DataFrame
        One row a cell: `n`, both recalls with intervals, `change` (second minus first) with its
        interval, how many pictures both, only the first (`lost`), only the second (`gained`) or
        none reads, and p-values. A family is every cell of one dimension with enough pictures of
        two people (crossed cells are shown, but not tested: `p_adjusted` is empty). Empty where a
        model is absent or no picture is held out from both.
    """
    by = settings.by
    columns = [*dimensions(by), *FIGURES]
    pictures = same_pictures(named, pair)
    if pictures.empty:
        return pd.DataFrame(columns=columns)
    cells, members = cell_members(pictures, ["dataset", *by, "emotion"])
    cube = pd.concat([cells, changes(pictures, members, settings)], axis=1)
    cube = sort_cells(cube, pictures, list(cells.columns))
    cube = cube.assign(**{name: ALL for name in dimensions(by) if name not in cube.columns})
    cube["enough_n"] = (cube["n"] >= settings.min_n) & (cube["subjects"] >= 2)
    return _tested(cube, settings)[columns]


def changes(pictures: pd.DataFrame, members: sparse.csr_array, settings: Settings) -> pd.DataFrame:
    """Return both recalls and the change of each group of pictures.

    Parameters
    ----------
    pictures
        What `same_pictures` returned.
    members
        `(pictures, k)` zeros and ones: which picture is in which group.
    settings
        `confidence`, `resamples`, `seed`.
    """
    sampled = Resampled(pictures["subject_id"], settings.resamples, settings.seed)
    known = pictures["subject_known"].to_numpy(dtype=bool)
    first = (pictures["both"] | pictures["lost"]).to_numpy()
    second = (pictures["both"] | pictures["gained"]).to_numpy()
    figures = {}
    for name, correct in (("base", first), ("finetuned", second)):
        own = recalls(sampled, members, correct, known, settings.confidence)
        figures |= {"n": own["n"], "subjects": own["subjects"], f"recall_{name}": own["recall"]}
        figures |= {f"{name}_ci_low": own["ci_low"], f"{name}_ci_high": own["ci_high"]}
    change = differences(
        sampled,
        Sides.of(members, second),
        Sides.of(members, first),
        known,
        settings.confidence,
        "models",
    )
    outcomes = {name: whole(pictures[name].to_numpy(dtype=float) @ members) for name in _OUTCOMES}
    table = pd.DataFrame(figures | outcomes).assign(change=change["gap"])
    table[["ci_low", "ci_high", "p_value", "method"]] = change[
        ["ci_low", "ci_high", "p_value", "method"]
    ]
    return table.assign(confidence=settings.confidence)


def _tested(cube: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correct the p-values of cells of one group at most; a lone data set is no group."""
    several = cube["dataset"].nunique() > 2  # `all` and at least two
    groups = ["dataset", *settings.by] if several else list(settings.by)
    crossed = (cube[groups] != ALL).sum(axis=1) > 1
    repeated = (cube["dataset"] != ALL) & (not several)
    tested = cube["enough_n"] & ~crossed & ~repeated
    # One family a dimension, as for gaps (docs/decisions/0002-family-of-tests.md).
    named = cube[groups] != ALL
    dimension = pd.Series(ALL, index=cube.index)
    if groups:
        dimension = named.idxmax(axis=1).where(named.any(axis=1), ALL)
    for name, part in cube.groupby(dimension):
        chosen = tested[part.index]
        adjusted = corrected(part["p_value"], chosen, settings.correction)
        cube.loc[part.index, "p_adjusted"] = adjusted
        cube.loc[part.index, "family"] = (
            f"{name}: {int(chosen.sum())} groups with at least {settings.min_n} pictures of at "
            "least 2 people"
        )
    return cube.assign(correction=settings.correction)


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
