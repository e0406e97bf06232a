"""What the report does not show: said for every run, and where this run gives cause."""

import pandas as pd

from tasks.core.labels import ALL, DRAWN_DATASET, DRAWN_NOTICE, UNKNOWN
from tasks.core.paths import MODELS
from tasks.report.inputs import Inputs
from tasks.report.words import count, listed

_ALWAYS = (
    "An emotion here is the label of a picture. It says nothing about what a person felt, and a "
    "model that agrees with labels does not read feelings.",
    "Gender is as recorded by the dataset, with the categories that the dataset has.",
    "A group is described by what was recorded; lighting, camera, pose, instructions and who took "
    "part can differ between groups and make a gap that is not about age or gender.",
    "Each model is one training run with one seed. How much recall moves from seed to seed is not "
    "measured here, and a change of that size would not mean anything.",
    "Figures pooled over emotions weigh every picture alike. Where groups differ in which emotions "
    "their pictures show, part of a pooled gap is that mix: the standardised gaps say how much.",
    "A gap that could not be shown is not a gap that is absent: read the interval for how large it "
    "could be.",
    "Factors that differ between groups and were not recorded can make a gap that stays after "
    "standardising; an odds ratio describes these pictures and proves no cause.",
    "The explanation figures overlay a few pictures a group. They show what a model used on those "
    "pictures; they do not carry a claim about a group.",
    "Good figures here do not make a model fit for use on children. That needs data on the people "
    "and the setting in question.",
)


def limits(inputs: Inputs) -> list[str]:
    """Return the limits, those that this run gives cause for first."""
    return [*_of_this_run(inputs), *_ALWAYS]


def _of_this_run(inputs: Inputs) -> list[str]:
    said = []
    if DRAWN_DATASET in inputs.datasets:
        said.append(
            f"{DRAWN_NOTICE.capitalize()}. The faces are drawn from parameters, and the gap between"
            " ages was put into them."
        )
    else:
        said.append(
            "This page, the figures and the tracking runs show recognisable people: share them "
            "only as the data set's licence and the people's consent allow."
        )
    if len(inputs.datasets) > 1:
        said.append(
            f"The pictures come from {listed(inputs.datasets)}: groups that come from different "
            "data sets differ in more than the group."
        )
    if (inputs.params.get("split") or {}).get("by") == "image":
        said.append(
            "The split is by picture, not by person, as some published protocols have it. Held out "
            "still means that no picture of the person was used, which leaves few pictures."
        )
    nobody = int((~inputs.manifest["subject_known"].astype(bool)).sum())
    if nobody:
        said.append(
            f"Who is in the picture is not recorded for {count(nobody)} of "
            f"{count(len(inputs.manifest))} pictures. Each of them counts as a person of its own: "
            "the same person may be in training and in test, so recall on held-out pictures may be "
            "too high and intervals too narrow."
        )
    estimated = int((inputs.manifest["age_source"] == "estimated").sum())
    if estimated:
        said.append(f"The age of {count(estimated)} pictures is an estimate, not a record.")
    return [*said, *_small_groups(inputs), *_unknown(inputs)]


def _small_groups(inputs: Inputs) -> list[str]:
    gaps = inputs.gaps
    rows = gaps[(gaps["model"] == MODELS[0]) & (gaps["protocol"] == "held_out")]
    if rows.empty:
        return ["No two groups could be compared on held-out pictures."]
    small = int((~rows["enough_n"].astype(bool)).sum())
    if not small:
        return []
    return [f"{small} of {len(rows)} comparisons have too few pictures on a side to be tested."]


def _unknown(inputs: Inputs) -> list[str]:
    everyone = inputs.manifest
    said = []
    for name in inputs.by:
        column: pd.Series = everyone[name].fillna(UNKNOWN)
        number = int((column == UNKNOWN).sum())
        if number and number < len(everyone):
            said.append(
                f"{name.replace('_', ' ').capitalize()} is not recorded for {count(number)} of "
                f"{count(len(everyone))} pictures; they make no group in comparisons, but count "
                f"under {ALL}."
            )
    return said
