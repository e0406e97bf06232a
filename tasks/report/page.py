"""The template's context for the report page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.core.labels import DRAWN_DATASET, DRAWN_NOTICE, credit_line
from tasks.core.paths import MODELS, Paths
from tasks.core.tracking.versions import commit_of, has_changes, input_digests, versions
from tasks.report.html.components import (
    BUDGET_BYTES,
    BUDGETS_BYTES,
    Block,
    Embedded,
    Table,
    embed,
    plain,
)
from tasks.report.html.formatting import confidence_text, count, join_names, methods, model_name
from tasks.report.inputs import FIGURES, Inputs
from tasks.report.sections import data, recall
from tasks.report.sections.factors import factors_section
from tasks.report.sections.fairness import (
    calibration_section,
    confusion_gaps_section,
    fairness_section,
)
from tasks.report.sections.limitations import limits
from tasks.report.sections.published_study import pretraining_section, study_section
from tasks.report.sections.strategies import (
    checkpoint_rules,
    chosen_strategy,
    figure_caption,
    strategies_section,
    worst_group_models,
)
from tasks.report.sections.summary import findings


def code_provenance(paths: Paths, params_text: str) -> dict[str, Any]:
    """Return commit ("" without one), uncommitted changes, library versions and params."""
    return {
        "commit": commit_of(paths.root),
        "changed": has_changes(paths.root),
        "versions": versions(),
        "params": params_text,
    }


def provenance(inputs: Inputs, paths: Paths) -> dict[str, Any]:
    """Return the report's provenance by the names that the template uses.

    `digests` are those that DVC records for the report's inputs.
    """
    return {
        **code_provenance(paths, inputs.params_text),
        "digests": input_digests(paths, "report") if paths.at("dvc.yaml").is_file() else {},
        "runs": dict(inputs.runs),
        "models": [model_facts(name, inputs.specs[name]) for name in MODELS],
    }


def model_facts(name: str, spec: Mapping[str, Any]) -> dict[str, str]:
    """Describe a model: architecture, input, labels, source and version."""
    if not spec:
        return {"name": model_name(name), "text": "model.json is missing"}
    side = spec.get("input_size_px", "?")
    return {
        "name": model_name(name),
        "text": f"{spec.get('architecture', '?')}, {side} × {side} px {spec.get('color', '')}, "
        f"labels {', '.join(spec.get('labels', ()))}; {spec.get('source', 'unknown source')}; "
        f"version {spec.get('version', '?')}",
    }


def context(
    inputs: Inputs, paths: Paths, title: str, question: str, own_figures: dict[str, Path]
) -> dict[str, Any]:
    """Return the values that the template shows.

    `title` and `question` are from params; `own_figures` are those that this stage drew.
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
        "datasets": join_names(inputs.datasets),
        "pictures": count(len(inputs.manifest)),
        "by": join_names([name.replace("_", " ") for name in inputs.by]),
        "confidence": confidence_text(confidence),
        "findings": findings(inputs),
        "data": data.data_section(inputs, confidence),
        **_recalls(inputs, confidence),
        "blocks": _blocks(inputs),
        "untrained": [_untrained(inputs, name) for name in MODELS if inputs.histories[name].empty],
        "checkpoint_rule": _checkpoint_words(inputs),
        "losses": _loss_names(inputs),
        "strategies_caption": figure_caption(inputs),
        "lime": [_lime(inputs, name) for name in MODELS],
        "figures": figures,
        "provenance": provenance(inputs, paths),
        "limits": limits(inputs),
    }


def _recalls(inputs: Inputs, confidence: float) -> dict[str, Any]:
    return {
        "changes": recall.change_table(inputs, confidence),
        "changes_by_emotion": recall.emotion_change_table(inputs),
        "gaps": [_gaps(inputs, name) for name in MODELS],
        "gaps_methods": methods(inputs.gaps),
        "power": recall.power_words(inputs),
        "protocols": recall.protocol_table(inputs),
        "protocol_gap": recall.protocol_gap(inputs),
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
        "model": model_name(name),
        "table": recall.gap_table(inputs, name),
        "untested": recall.untested(inputs, name),
    }


def _lime(inputs: Inputs, name: str) -> dict[str, Any]:
    table = inputs.lime[name]
    if table is None or table.empty:
        return {"model": model_name(name), "table": None}
    head = [str(column).replace("_", " ") for column in table.columns]
    rows = [plain(*map(_cell, row)) for row in table.to_numpy()]
    return {"model": model_name(name), "table": Table("", head, rows)}


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if value != value else f"{value:.4g}"
    return str(value)


def _untrained(inputs: Inputs, name: str) -> str:
    """Explain why a model has no training curve."""
    if name == MODELS[0]:
        reason = "is pre-trained and was used as it is"
    else:  # interpolated from two models, or the base model itself
        reason = f"was not trained by itself ({inputs.specs[name].get('source', 'unknown source')})"
    return f"The {model_name(name)} {reason}: it has no training curve here."


def _checkpoint_words(inputs: Inputs) -> str:
    """Describe which epoch's weights were saved, and by which measure."""
    checkpoints = checkpoint_rules(inputs)
    if set(checkpoints.values()) == {"last"}:
        return "the last one"
    text = "the highest mean recall on validation pictures"
    if worst_group_models(inputs):
        text += (
            f" (for the fine-tuned model, which is {chosen_strategy(inputs)}, mean recall of the "
            "worst group among the fine-tuned and the replayed ones)"
        )
    text += ", ties by the lowest loss"
    others = {"last": "the last", "best_accuracy": "that of the highest validation accuracy"}
    return text + "".join(
        f"; of the {model_name(name)} {others[rule]}"
        for name, rule in checkpoints.items()
        if rule in others
    )


def _loss_names(inputs: Inputs) -> str:
    sections = [inputs.params.get(name) or {} for name in ("train", "finetune")]
    names = [str((part.get("loss") or {}).get("name", "cross_entropy")) for part in sections]
    return join_names([name.replace("_", " ") for name in dict.fromkeys(names)])
