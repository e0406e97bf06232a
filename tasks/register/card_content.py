"""Content of a model card: general statements, and the figures of this model.

docs/fairness_language.md says how figures and groups are written.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tasks.core.labels import CREDITS, DRAWN_DATASET, DRAWN_NOTICE, credit_line
from tasks.core.models.checkpoint import load_spec
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import read_csv, read_table
from tasks.core.tracking.versions import commit_of
from tasks.register.card_tables import (
    Table,
    calibration_table,
    emotion_table,
    gap_sentences,
    gap_table,
    group_table,
    people_table,
    split_table,
    unknown_points,
)

_DATA = ["image_id", "subject_id", "subject_known", "dataset", "batch"]
_DATA += ["age_band", "age_source", "gender", "split"]
_INTENDED = (
    "Measuring, on labelled pictures of faces, how recall of expression labels differs between "
    "groups of age and gender, and how that changes with the data.",
    "Research and teaching on such gaps, with the pictures' licences and the consent of the people "
    "(for children: of their guardians) covering the use.",
)
_NOT_INTENDED = (
    "Saying what a person felt. The model reads a picture as one of its labels, and a label says "
    "which expression a picture is said to show.",
    "Any decision about a person: at school, at work, in care, in law, in insurance, at a border. "
    "In the EU, inferring emotions at work and in education is prohibited but for medical or "
    "safety reasons (Regulation (EU) 2024/1689, Article 5(1)(f)).",
    "Watching children, or anyone, without their (and their guardians') consent.",
    "People, cameras, poses or settings that the data below does not hold.",
    "Naming who somebody is, or their age, gender or ethnicity.",
)
_LIMITS = (
    "A figure belongs to this model, these pictures and this protocol. A gap on these pictures is "
    "not the gap elsewhere.",
    "A gap that could not be shown is not a gap that is absent: read the interval for how large it "
    "could be.",
    "Groups are as recorded, and differ in more than the group: camera, size of the face, how "
    "strongly an expression is shown, and much that nobody recorded.",
    "The crop step is part of the model. A face that the detector does not find gets no answer, "
    "and it may miss faces more often in one group than in another.",
    "It is one training run with one seed. How much recall moves from seed to seed is not measured "
    "here.",
    "Good figures here do not make the model fit for use on children.",
)


@dataclass(frozen=True)
class Section:
    """A part of a card: sentences, then bullet points, then tables."""

    title: str
    sentences: list[str] = field(default_factory=list)
    points: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Card:
    """A card; `notice` is repeated at the top and above all tables."""

    title: str
    notice: str
    sections: list[Section]


def build_card(paths: Paths, model: Path, number: int, tags: Mapping[str, str]) -> Card:
    """Build a version's card from data/split.parquet and reports/tables of its run.

    Raises
    ------
    DataError, ModelError
        If the split table or the model is missing.
    """
    spec = load_spec(model)
    data = read_table(paths.split, _DATA)
    datasets = sorted(set(data["dataset"]))
    notice = credit_line(datasets)
    sections = [
        Section("The model", points=_about(paths, number, tags, spec)),
        Section("Intended use", points=list(_INTENDED)),
        Section("Not intended", points=list(_NOT_INTENDED)),
        _data_section(data, tags, model),
        *_figures(paths),
        Section("Limits", points=[*_limits(data), *_LIMITS]),
        Section("Licences and notices", points=_licences(datasets, spec)),
    ]
    return Card(f"Model card: affectgap, version {number} ({spec.version})", notice, sections)


def _about(paths: Paths, number: int, tags: Mapping[str, str], spec: ModelSpec) -> list[str]:
    size = f"{spec.input_size_px} × {spec.input_size_px} px, {spec.color}"
    points = [
        f"What it does: reads the crop of a face as one of {len(spec.labels)} labels: "
        f"{', '.join(spec.labels)}. It holds the crop step (dlib's frontal face detector).",
        f"Network: {spec.architecture}, input {size}. Weights: {spec.source}.",
        f"Version {number} of affectgap in the registry; predictions name it {spec.version}, the "
        "start of the weights' sha256.",
        f"Code: commit {commit_of(paths.root) or 'none'}.",
        f"The gate's decision: {paths.decision(number).relative_to(paths.root)}/decision.html, "
        "once it was judged.",
    ]
    onnx = tags.get("onnx", "")
    return [*points, f"As ONNX: {onnx}."] if onnx else points


def _data_section(data: pd.DataFrame, tags: Mapping[str, str], model: Path) -> Section:
    subjects = data["subject_id"].nunique()
    sentences = [
        f"{len(data):,} pictures of {subjects:,} people. Data sets: "
        f"{', '.join(sorted(set(data['dataset'])))}. Batches that came later: "
        f"{tags.get('batches') or 'none'}.",
        "People are divided, not pictures: nobody is in two splits."
        if _by_subject(data)
        else "Pictures are divided, not people: some people are in more than one split.",
        "Gender is as recorded by the data set. An emotion is the label of a picture. Age bands "
        "are those of params.yaml.",
    ]
    tables = [split_table(data), people_table(data, model)]
    return Section("Data", sentences, unknown_points(data), tables)


def _by_subject(data: pd.DataFrame) -> bool:
    return bool((data.groupby("subject_id")["split"].nunique() <= 1).all())


def _figures(paths: Paths) -> list[Section]:
    """Return the sections with figures; without a table of groups only a sentence about that."""
    groups, gaps, calibration = (
        _table(paths.tables / f"{name}.csv") for name in ("groups", "gaps", "calibration")
    )
    if groups.empty:
        return [Section("Recall by group", ["The run wrote no table of groups."])]
    recall = Section(
        "Recall by group",
        [
            "Held out: only pictures of people who had no part in the weights, nor in choosing "
            "them. Recall is the share of pictures whose label the model gives."
        ],
        tables=[group_table(groups), emotion_table(groups)],
    )
    sections = [recall]
    if not gaps.empty:
        sections.append(Section("Gaps", gap_sentences(gaps), tables=[gap_table(gaps)]))
    if not calibration.empty:
        sentences = [
            "The calibration error is the mean distance of the largest probability from the share "
            "of right answers, without the part that chance adds where pictures are few; a figure "
            "below 0 reads as 0."
        ]
        sections.append(Section("Calibration", sentences, tables=[calibration_table(calibration)]))
    return sections


def _table(file: Path) -> pd.DataFrame:
    return read_csv(file) if file.is_file() else pd.DataFrame()


def _limits(data: pd.DataFrame) -> list[str]:
    sentences = []
    if DRAWN_DATASET in set(data["dataset"]):
        sentences.append(
            f"{DRAWN_NOTICE.capitalize()}. The faces are drawn from parameters, and the gap "
            "between ages was put into them."
        )
    nobody = int((~data["subject_known"].astype(bool)).sum())
    if nobody:
        sentences.append(
            f"Who is in the picture is not recorded for {nobody:,} of {len(data):,} pictures; each "
            "counts as a person of its own, so held-out figures may be too high and intervals too "
            "narrow."
        )
    return sentences


def _licences(datasets: list[str], spec: ModelSpec) -> list[str]:
    asked = [CREDITS[name] for name in datasets if name in CREDITS]
    others = [name for name in datasets if name not in CREDITS]
    sentences = [
        f"Code: Apache-2.0. Weights: {spec.source}.",
        *(f"Must be said with everything made from it: {line}." for line in asked),
    ]
    if others:
        sentences.append(
            f"Data sets without a notice of their own here: {', '.join(others)}; their licences "
            "and the people's consent say what the weights may be used for."
        )
    return sentences
