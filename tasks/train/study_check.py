"""What would stop a study's runs, found before the first of them is trained.

A study may take days; a misspelt loss or a weights file that cannot be had must not end it in the
last round. Files of weights that are to be downloaded are downloaded here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from tasks.core.errors import DataError, DownloadError, ModelError, ParamsError
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.core.selection import select_rows
from tasks.core.tables import read_table
from tasks.train.pictures import choose_rows
from tasks.train.recipe import LossName, OptimiserName
from tasks.train.study_run import GROUP
from tasks.train.untrained import TrainParams, labels_of, untrained


def check_names(losses: Sequence[str], optimisers: Sequence[str]) -> None:
    """Make sure that there are such losses and optimisers; raises ParamsError."""
    asked = (("losses", losses, LossName), ("optimisers", optimisers, OptimiserName))
    for key, names, known in asked:
        for name in names:
            if name not in get_args(known):
                raise ParamsError(
                    f"study.{key}: there is no '{name}'; there are {', '.join(get_args(known))}"
                )


def check_recipe(train: Mapping[str, Any], paths: Paths) -> TrainParams:
    """Make sure that a section `train` can be one; raises ParamsError."""
    return parse_section("train", {"train": train}, TrainParams, paths.params)


def check_trainable(recipes: Sequence[Mapping[str, Any]], paths: Paths) -> None:
    """Make sure that there are pictures in every split, and that every network can be built.

    Parameters
    ----------
    recipes
        A whole section `train` for each backbone.
    paths
        The project's paths; the split table must be there.

    Raises
    ------
    ParamsError, DataError, ModelError, DownloadError
        One line that names the key of section `study`.
    """
    table = read_table(paths.split)
    for recipe in recipes:
        params = check_recipe(recipe, paths)
        rows = choose_rows(table, params.group, GROUP, labels=None)
        labels = labels_of(rows, GROUP)
        tested = select_rows(table[table["split"] == "test"], params.group, f"{GROUP} (test split)")
        if not tested["emotion"].isin(labels).any():
            raise DataError(f"{GROUP}: no test picture shows {', '.join(labels)}")
        try:
            untrained(params, labels, rows.train["dataset"], paths)
        except (ModelError, ParamsError, DownloadError) as error:
            raise type(error)(f"study.backbones, {params.backbone}: {error}") from None
