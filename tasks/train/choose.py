"""Stage `choose`: which fine-tuned model is kept, by the validation split's worst group.

Reads models/base and every strategy's model, data/split.parquet and the crops; writes
models/finetuned, a copy of the chosen model whose seen.csv names the validation pictures too, and
reports/tables/choice.csv. The base model competes, so that fine-tuning never ends with a model that
does worse for its worst group than nothing would have. The test split takes no part. Equals are
told apart by the mean over groups, then by the order base, naive, head, replay, distill,
interpolate. Where no strategy was carried out, models/finetuned is the base model and says so.
"""

import json
import shutil
from collections.abc import Mapping
from typing import Annotated

import pandas as pd
from pydantic import Field

from tasks.core.files import write_text
from tasks.core.models.checkpoint import SEEN, SEEN_COLUMNS, SPEC, load_model, load_seen, load_spec
from tasks.core.params import Section
from tasks.core.paths import STRATEGIES, Paths
from tasks.core.result import StageResult
from tasks.core.skipped import read_skipped
from tasks.core.tables import write_csv
from tasks.train.by_people import with_intervals
from tasks.train.loop import HISTORY_COLUMNS
from tasks.train.on_validation import Validation, Verdict, judge, load_validation
from tasks.train.outcome import HISTORY, whole_folder

BASE, CHOSEN = "base", "finetuned"
COLUMNS: tuple[str, ...] = (
    "strategy",
    "dimension",
    "group",
    "n",
    "subjects",
    "correct",
    "effective_n",  # how many pictures of as many people would tell as much; for the interval
    "recall",
    "ci_low",
    "ci_high",
    "recall_score",  # the mean of the emotions' recalls, which the choice goes by
    "counts",  # whether the group can be the worst
    "worst",  # whether it is, of this strategy's
    "chosen",
    "confidence",
    "method",
    "note",  # why there are no figures
)


class Params(Section):
    """Section `choose` of params.yaml."""

    by: list[str]
    min_n: Annotated[int, Field(ge=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    device: str
    batch_size: Annotated[int, Field(ge=1)]


def run(params: Params, paths: Paths) -> StageResult:
    """Choose among models/base and the strategies' models; write models/finetuned."""
    notes = {name: read_skipped(paths.model(name)) for name in STRATEGIES}
    skipped = {name: note.reason for name, note in notes.items() if note}
    made = [name for name in STRATEGIES if name not in skipped]
    verdicts: dict[str, Verdict] = {}
    seen = load_seen(paths.model(BASE))
    chosen = BASE
    if made:
        spec = load_spec(paths.model(BASE))
        validation = load_validation(paths, spec, params.by, "choose.by")
        verdicts = _judge_all(params, paths, [BASE, *made], validation)
        chosen = max(verdicts, key=lambda name: verdicts[name].rank)  # the first of equals
        parts = [load_seen(paths.model(chosen)), validation.seen("choose")]
        seen = pd.concat(parts, ignore_index=True)
    _keep(paths, chosen, seen, fine_tuned=bool(made))
    table = _table(verdicts, skipped, chosen, params.confidence)
    write_csv(table, paths.tables / "choice.csv")
    return _result(paths, verdicts, chosen, skipped)


def _judge_all(
    params: Params, paths: Paths, names: list[str], validation: Validation
) -> dict[str, Verdict]:
    how = (params.by, params.min_n, params.device, params.batch_size)
    return {name: judge(*load_model(paths.model(name)), validation, *how) for name in names}


def _keep(paths: Paths, chosen: str, seen: pd.DataFrame, fine_tuned: bool) -> None:
    """Copy the chosen model's folder into place, whole, with what was seen and how it came here."""
    with whole_folder(paths.model(CHOSEN)) as fresh:
        shutil.copytree(paths.model(chosen), fresh)
        spec = load_spec(fresh)
        said = _said(chosen, fine_tuned)
        spec = spec.model_copy(update={"source": f"{said}; {spec.source}"})
        write_text(fresh / SPEC, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")
        write_csv(seen[list(SEEN_COLUMNS)], fresh / SEEN)
        if chosen == BASE:  # its history is not one of fine-tuning
            write_csv(pd.DataFrame(columns=list(HISTORY_COLUMNS)), fresh / HISTORY)


def _said(chosen: str, fine_tuned: bool) -> str:
    if not fine_tuned:
        return "nothing was fine-tuned: the base model as it is"
    if chosen == BASE:
        return (
            "chosen on validation pictures: the base model as it is, since no strategy does better"
        )
    return f"chosen on validation pictures: {chosen}"


def _table(
    verdicts: Mapping[str, Verdict], skipped: Mapping[str, str], chosen: str, confidence: float
) -> pd.DataFrame:
    parts = [
        verdict.groups.assign(
            strategy=name,
            worst=_named(verdict.groups) == verdict.worst_group,
            chosen=name == chosen,
        )
        for name, verdict in verdicts.items()
    ]
    notes = [{"strategy": name, "chosen": False, "note": why} for name, why in skipped.items()]
    if not verdicts:
        notes.insert(0, {"strategy": BASE, "chosen": True, "note": "there was no choice"})
    scored = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    if parts:
        scored = with_intervals(scored, confidence)
    table = pd.concat([scored, pd.DataFrame(notes)], ignore_index=True)
    return table.reindex(columns=list(COLUMNS))


def _named(groups: pd.DataFrame) -> pd.Series:
    """Name each row's group as `Verdict.worst_group` does."""
    return (groups["dimension"] + " " + groups["group"]).where(
        groups["dimension"] != groups["group"], groups["group"]
    )


def _result(
    paths: Paths, verdicts: Mapping[str, Verdict], chosen: str, skipped: Mapping[str, str]
) -> StageResult:
    metrics = {"skipped_strategies": float(len(skipped))}
    for name, verdict in verdicts.items():
        metrics[f"{name}_worst_recall_score"] = verdict.worst
        metrics[f"{name}_mean_recall_score"] = verdict.mean
    artifacts = [paths.model(CHOSEN), paths.tables / "choice.csv"]
    if not verdicts:
        reasons = "; ".join(sorted(set(skipped.values())))
        return StageResult(metrics, {}, artifacts, f"nothing was fine-tuned ({reasons})")
    best, base = verdicts[chosen], verdicts[BASE]
    summary = (
        f"{chosen} of {', '.join(verdicts)}: worst group {best.worst_group} with mean validation "
        f"recall {best.worst:.1%} (base: {base.worst_group}, {base.worst:.1%})"
    )
    return StageResult(metrics, {}, artifacts, summary)
