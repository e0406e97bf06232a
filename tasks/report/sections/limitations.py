"""The limitations: those of every run, and those that this run gives cause for."""

import pandas as pd

from tasks.core.labels import ALL, DRAWN_DATASET, DRAWN_NOTICE, UNKNOWN
from tasks.core.paths import MODELS
from tasks.report.html.formatting import count, join_names
from tasks.report.inputs import Inputs
from tasks.report.sections.recall import held_out_gaps

_ALWAYS = (
    "An emotion here is the label of a picture. It says nothing about what a person felt, and a "
    "model that agrees with labels does not read feelings.",
    "Gender is as recorded by the dataset, with the categories that the dataset has.",
    "A group is described by what was recorded; lighting, camera, pose, instructions and who took "
    "part can differ between groups and make a gap that is not about age or gender.",
    "Each model is one training run with one seed. How much recall moves from seed to seed is not "
    "measured here, and a change of that size would not mean anything.",
    "Figures pooled over emotions weigh every picture equally. Where groups differ in which "
    "emotions their pictures show, part of a pooled gap is that mix: the standardized gaps show "
    "how much.",
    "A gap that could not be shown is not a gap that is absent: read the interval for how large it "
    "could be.",
    "Factors that differ between groups and were not recorded can make a gap that remains after "
    "standardizing; an odds ratio describes these pictures and proves no cause.",
    "The explanation figures overlay a few pictures per group. They show what a model used on "
    "those pictures; they do not support a claim about a group.",
    "Good figures here do not make a model fit for use on children. That needs data on the people "
    "and the setting in question.",
)


def limits(inputs: Inputs) -> list[str]:
    """Return the limitations, those of this run first."""
    return [*_of_this_run(inputs), *_ALWAYS]


def _of_this_run(inputs: Inputs) -> list[str]:
    sentences = []
    if DRAWN_DATASET in inputs.datasets:
        sentences.append(
            f"{DRAWN_NOTICE.capitalize()}. The faces are drawn from parameters, and the gap between"
            " ages was put into them."
        )
    else:
        sentences.append(
            "This page, the figures and the tracking runs show recognizable people: share them "
            "only as the data set's license and the people's consent allow."
        )
    if len(inputs.datasets) > 1:
        sentences.append(
            f"The pictures come from {join_names(inputs.datasets)}: groups that come from "
            "different "
            "data sets differ in more than the group."
        )
    if inputs.split_by_image:
        sentences.append(
            "The split is by picture, not by person, as in some published protocols. Held out "
            "still means that no picture of the person was used, which leaves few pictures."
        )
    if inputs.n_unknown_subjects:
        sentences.append(
            f"Who is in the picture is not recorded for {count(inputs.n_unknown_subjects)} of "
            f"{count(len(inputs.manifest))} pictures. Each of them counts as a separate person: "
            "the same person may be in training and in test, so recall on held-out pictures may be "
            "too high and intervals too narrow."
        )
    estimated = int((inputs.manifest["age_source"] == "estimated").sum())
    if estimated:
        sentences.append(f"The age of {count(estimated)} pictures is an estimate, not a record.")
    return [*sentences, *_small_groups(inputs), *_unknown(inputs)]


def _small_groups(inputs: Inputs) -> list[str]:
    rows = held_out_gaps(inputs, MODELS[0])
    if rows.empty:
        return ["No two groups could be compared on held-out pictures."]
    small = int((~rows["enough_n"].astype(bool)).sum())
    if not small:
        return []
    return [f"{small} of {len(rows)} comparisons have too few pictures on a side to be tested."]


def _unknown(inputs: Inputs) -> list[str]:
    manifest = inputs.manifest
    sentences = []
    for name in inputs.by:
        column: pd.Series = manifest[name].fillna(UNKNOWN)
        number = int((column == UNKNOWN).sum())
        if number and number < len(manifest):
            sentences.append(
                f"{name.replace('_', ' ').capitalize()} is not recorded for {count(number)} of "
                f"{count(len(manifest))} pictures; they make no group in comparisons, but count "
                f"under {ALL}."
            )
    return sentences
