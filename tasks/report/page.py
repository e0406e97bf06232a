"""The page: one context for the template, and the HTML that it becomes."""

from pathlib import Path
from typing import Any

from tasks.core.labels import DRAWN_DATASET, DRAWN_NOTICE, credit_line
from tasks.core.paths import MODELS, Paths
from tasks.report import data_section, recall_section
from tasks.report.block import Block
from tasks.report.embed import BUDGET_BYTES, BUDGETS_BYTES, Embedded, embed
from tasks.report.factors_section import factors_section
from tasks.report.fairness_section import (
    calibration_section,
    confusion_gaps_section,
    fairness_section,
)
from tasks.report.findings import findings
from tasks.report.inputs import FIGURES, Inputs
from tasks.report.limits import limits
from tasks.report.provenance import provenance
from tasks.report.strategies_section import (
    chosen_strategy,
    figure_caption,
    kept_epochs,
    strategies_section,
    worst_group_models,
)
from tasks.report.study_section import pretraining_section, study_section
from tasks.report.words import count, listed, methods, model_word


def context(
    inputs: Inputs, paths: Paths, title: str, question: str, own_figures: dict[str, Path]
) -> dict[str, Any]:
    """Return everything that the template shows.

    Parameters
    ----------
    inputs
        What the report was made from.
    paths
        The project's paths.
    title, question
        What was asked, from params.
    own_figures
        The figures that the report drew itself, by name.
    """
    confidence = float(inputs.groups["confidence"].iloc[0])
    drawn = DRAWN_DATASET in inputs.datasets
    figures: dict[str, Embedded | None] = {}
    for name in (*FIGURES, *own_figures):
        path = own_figures.get(name) or inputs.figures.get(name)
        budget = BUDGETS_BYTES.get(name, BUDGET_BYTES)
        figures[name] = None if path is None else embed(path, budget)
    return {
        "title": title,
        "question": " ".join(question.split()),
        "notice": DRAWN_NOTICE if drawn else "",
        "credit": credit_line(name for name in inputs.datasets if name != DRAWN_DATASET),
        "datasets": listed(inputs.datasets),
        "pictures": count(len(inputs.manifest)),
        "by": listed([name.replace("_", " ") for name in inputs.by]),
        "confidence": f"{100 * confidence:g}\u202f%",
        "findings": findings(inputs),
        "data": data_section.data_section(inputs, confidence),
        **_recalls(inputs),
        "blocks": _blocks(inputs),
        "split_by_image": _split_by(inputs) == "image",
        "untrained": [_untrained(inputs, name) for name in MODELS if inputs.histories[name].empty],
        "kept_by": _kept_by(inputs),
        "losses": _losses(inputs),
        "strategies_caption": figure_caption(inputs),
        "lime": [_lime(inputs, name, figures[f"lime_{name}"]) for name in MODELS],
        "figures": figures,
        "made": provenance(inputs, paths),
        "limits": limits(inputs),
    }


def _recalls(inputs: Inputs) -> dict[str, Any]:
    """Return recall by group, changes and gaps, and how their figures were made."""
    return {
        "changes": recall_section.change_rows(inputs),
        "changes_by_emotion": recall_section.emotion_rows(inputs),
        "gaps": [_gaps(inputs, name) for name in MODELS],
        "power": recall_section.power_words(inputs),
        "protocols": recall_section.protocol_rows(inputs),
        "protocol_gap": recall_section.protocol_gap(inputs),
        "changes_how": methods(inputs.before_after),
        "gaps_how": methods(inputs.gaps),
        "groups_how": methods(inputs.groups),
    }


def _blocks(inputs: Inputs) -> dict[str, Block]:
    return {
        "strategies": strategies_section(inputs),
        "factors": factors_section(inputs),
        "fairness": fairness_section(inputs),
        "calibration": calibration_section(inputs),
        "confusion_gaps": confusion_gaps_section(inputs),
        "study": study_section(inputs),
        "pretraining": pretraining_section(inputs),
    }


def _gaps(inputs: Inputs, name: str) -> dict[str, Any]:
    return {
        "model": model_word(name),
        "rows": recall_section.gap_rows(inputs, name),
        "untested": recall_section.untested(inputs, name),
    }


def _lime(inputs: Inputs, name: str, figure: Embedded | None) -> dict[str, Any]:
    table = inputs.lime[name]
    return {
        "model": model_word(name),
        "figure": figure,
        "columns": [] if table is None else [str(column) for column in table.columns],
        "rows": [] if table is None else [[_cell(v) for v in row] for row in table.to_numpy()],
    }


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def _untrained(inputs: Inputs, name: str) -> str:
    """Say why a model has no training curve."""
    if name == MODELS[0]:
        why = "is pre-trained and was used as it is"
    else:  # the chosen one was mixed from two models, or is the base model
        why = f"was not trained by itself ({inputs.specs[name].get('source', 'source not told')})"
    return f"The {model_word(name)} {why}: it has no training curve here."


def _kept_by(inputs: Inputs) -> str:
    """Say which epoch of a training was kept, by which figure of its curve."""
    kept = kept_epochs(inputs)
    if set(kept.values()) == {"last"}:
        return "the last one"
    said = "the highest mean recall on validation pictures"
    if worst_group_models(inputs):
        said += (
            f" (for the fine-tuned model, which is {chosen_strategy(inputs)}, mean recall of the "
            "worst group among the fine-tuned and the replayed ones)"
        )
    said += ", of equal ones the lowest loss"
    others = {"last": "the last", "best_accuracy": "that of the highest validation accuracy"}
    return said + "".join(
        f"; of the {model_word(name)} {others[how]}" for name, how in kept.items() if how in others
    )


def _losses(inputs: Inputs) -> str:
    """Name the losses that the two trainings went by."""
    sections = [inputs.params.get(name) or {} for name in ("train", "finetune")]
    names = [str((part.get("loss") or {}).get("name", "cross_entropy")) for part in sections]
    return listed([name.replace("_", " ") for name in dict.fromkeys(names)])


def _split_by(inputs: Inputs) -> str:
    return str((inputs.params.get("split") or {}).get("by", "subject"))
