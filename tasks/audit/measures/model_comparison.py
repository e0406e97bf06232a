"""Paired comparison of two models on images held out from the training of both.

Where it is not known what two models were trained on, every image is compared, with a note.

Because both read the same images, the change is compared image by image, and people are what
varies; the images that were lost are counted beside those that were gained.
"""

import numpy as np
import pandas as pd
from scipy import sparse

from tasks.audit.measures.group_cube import cell_members, dimensions, sort_cells
from tasks.audit.settings import Settings
from tasks.core.labels import ALL, HELD_OUT
from tasks.core.statistics.cluster_bootstrap import Resampled
from tasks.core.statistics.clusters import whole
from tasks.core.statistics.differences import Sides, complete_cases, differences
from tasks.core.statistics.hypothesis_tests import corrected
from tasks.core.statistics.recalls import recalls

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
    "protocol",
    "effective_subjects",
    "n_unknown",
    "equivalence_margin",
    "equivalent",
]
_OUTCOMES = ["both", "lost", "gained", "neither"]


def paired_table(
    named: pd.DataFrame,
    settings: Settings,
    pair: tuple[str, str] | None,
    protocol: str,
) -> pd.DataFrame:
    """Compare two models on the same images, group by group.

    `named` has one row per model and image with a label that the model has, with `correct` and
    `seen_in_training`. `pair` names the first (base) and the second (fine-tuned) model; None
    compares none. The protocol `held_out` takes images that neither was trained on, `all` every
    image that both read.

    The table has one row per cell: `n`, both recalls with intervals, `change` (second minus first)
    with its interval, how many images both, only the first (`lost`), only the second (`gained`) or
    none reads, and p-values. The figures cover images of known subjects (`n_unknown` counts the
    others); where no subject is known, they cover all images and nothing is tested. A family is
    every cell of one dimension with enough images and subjects. Crossed cells are not tested: their
    `p_adjusted` is empty. The table is empty where there are not two models or no shared image, see
    `why_not_paired`.
    """
    by = settings.by
    columns = [*dimensions(by), *FIGURES]
    if pair is None:
        return pd.DataFrame(columns=columns)
    images = shared_images(named, pair, protocol)
    if images.empty:
        return pd.DataFrame(columns=columns)
    cells, members = cell_members(images, ["dataset", *by, "emotion"], settings.depth)
    cube = pd.concat([cells, changes(images, members, settings)], axis=1)
    cube = sort_cells(cube, images, list(cells.columns))
    cube = cube.assign(**{name: ALL for name in dimensions(by) if name not in cube.columns})
    cube["enough_n"] = settings.enough(cube["n"], cube["effective_subjects"])
    cube["enough_n"] &= cube["p_value"].notna()
    cube["equivalent"] &= cube["enough_n"]
    return _tested(cube, settings).assign(protocol=protocol)[columns]


def why_not_paired(frame: pd.DataFrame, pair: tuple[str, str] | None, protocol: str) -> str:
    """Return why `paired_table` is empty; `frame` holds all images."""
    models = list(dict.fromkeys(frame["model"]))
    if pair is None:
        several = f"the predictions hold {len(models)} models and no two were named (--pair A B)"
        return "the predictions hold one model only" if len(models) == 1 else several
    first, second = (frame[frame["model"] == name] for name in pair)
    common = first["image_id"].isin(second["image_id"])
    if not common.any():
        return "the models have no picture in common (column image_id)"
    seen = set(frame["image_id"][frame["seen_in_training"].astype(bool)])
    if protocol == HELD_OUT and first["image_id"][common].isin(seen).all():
        return "no picture is held out from both models"
    return "no such picture has an answer of both models and a label that both can answer"


def changes(images: pd.DataFrame, members: sparse.csr_array, settings: Settings) -> pd.DataFrame:
    """Return both recalls and the change of each group of images.

    `images` is the result of `shared_images`; `members`, `(images, k)`, has 1 where an image is
    in a group.
    """
    sampled = Resampled(images["subject_id"], settings.resamples, settings.seed)
    known = images["subject_known"].to_numpy(dtype=bool)
    unknown = np.asarray((~known).astype(float) @ members)
    members = complete_cases(members, known)
    first = (images["both"] | images["lost"]).to_numpy()
    second = (images["both"] | images["gained"]).to_numpy()
    figures = {}
    for name, correct in (("base", first), ("finetuned", second)):
        side = recalls(sampled, members, correct, known, settings.confidence)
        figures |= {"n": side["n"], "subjects": side["subjects"], f"recall_{name}": side["recall"]}
        figures |= {f"{name}_ci_low": side["ci_low"], f"{name}_ci_high": side["ci_high"]}
    change = differences(
        sampled,
        Sides.of(members, second),
        Sides.of(members, first),
        known,
        settings.confidence,
        "models",
        margin=settings.equivalence_margin,
    )
    outcomes = {name: whole(images[name].to_numpy(dtype=float) @ members) for name in _OUTCOMES}
    table = pd.DataFrame(figures | outcomes).assign(change=change["gap"])
    carried = ["ci_low", "ci_high", "p_value", "method", "equivalence_margin", "equivalent"]
    table[carried] = change[carried]
    effective = change["effective_subjects_a"]
    return table.assign(
        confidence=settings.confidence, effective_subjects=effective, n_unknown=whole(unknown)
    )


def _tested(cube: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """Correct the p-values of cells of one group at most; a lone data set is no group."""
    several = cube["dataset"].nunique() > 2  # `all` and at least two
    groups = ["dataset", *settings.by] if several else list(settings.by)
    crossed = (cube[groups] != ALL).sum(axis=1) > 1
    repeated = (cube["dataset"] != ALL) & (not several)
    tested = cube["enough_n"] & ~crossed & ~repeated
    # One family per dimension, as for gaps (docs/decisions/0002-family-of-tests.md).
    named = cube[groups] != ALL
    dimension = pd.Series(ALL, index=cube.index)
    if groups:
        dimension = named.idxmax(axis=1).where(named.any(axis=1), ALL)
    for name, part in cube.groupby(dimension):
        chosen = tested[part.index]
        adjusted = corrected(part["p_value"], chosen, settings.correction)
        cube.loc[part.index, "p_adjusted"] = adjusted
        cube.loc[part.index, "family"] = (
            f"{name}: {int(chosen.sum())} groups with at least {settings.least_words()}"
        )
    return cube.assign(correction=settings.correction)


def shared_images(named: pd.DataFrame, pair: tuple[str, str], protocol: str) -> pd.DataFrame:
    """Return the images that both models read, each with one of four outcomes."""
    used = named if protocol == ALL else named[~named["seen_in_training"].astype(bool)]
    first, second = (used[used["model"] == name] for name in pair)
    other = second[["image_id", "correct"]].rename(columns={"correct": "correct_second"})
    images = first.merge(other, on="image_id", how="inner")
    one, two = images["correct"].astype(bool), images["correct_second"].astype(bool)
    return images.assign(
        pair=" ".join(pair), both=one & two, lost=one & ~two, gained=~one & two, neither=~one & ~two
    )
