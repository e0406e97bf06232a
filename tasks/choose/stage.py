"""Stage `choose`: model selection by the worst group of the validation split.

Reads models/base, every strategy's model, data/split.parquet and the crops. Writes
reports/tables/choice.csv and models/finetuned, a copy of the chosen model whose seen.csv also lists
the validation images. The base model is the incumbent: a strategy replaces it only if its worst
group improves by more than `standard_errors` standard errors of the paired difference (see
`tasks.core.statistics.selection`). Among the strategies within one standard error of the best, the
one closest to the base model is chosen (`PREFERENCE`). This can still keep a worse model, at the
rates in docs/decisions/0005. The chosen model's score is on the images that chose it; choice.csv
also has a corrected score. The test split is not used. If every strategy was skipped,
models/finetuned is the base model and its source says so.

Intervals of recall when several images show the same subject: Wilson's interval with the number of
images divided by the design effect and a correction for few subjects, following E. L. Korn, B. I.
Graubard (1998), Surv. Methodol. 24, 193-201.
"""

import json
import shutil
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.stats import norm, t

from tasks.core.files import write_text
from tasks.core.models.checkpoint import (
    SEEN,
    SEEN_COLUMNS,
    SPEC,
    load_model,
    load_seen,
    load_spec,
    read_skipped,
)
from tasks.core.params import Section
from tasks.core.paths import STRATEGIES, Paths
from tasks.core.stages import StageResult
from tasks.core.statistics.recalls import WILSON_PEOPLE, WILSON_UNKNOWN, wilson
from tasks.core.statistics.selection import Choice, choose_over_incumbent, worst_scores
from tasks.core.tables import read_csv, write_csv
from tasks.core.training.fit import HISTORY_COLUMNS
from tasks.core.training.train_model import COEFFICIENTS, HISTORY, atomic_folder
from tasks.core.training.validation import (
    Validation,
    ValidationScore,
    eligible_groups,
    load_validation,
    score_by_group,
)

WILSON_DESIGN = (
    "Wilson score interval with the number of pictures divided by the design effect of several "
    "pictures a person, and Student's t for few people"
)
SOME_UNKNOWN = "; pictures whose subject is not known count as people of their own"
BASE, CHOSEN, INTERPOLATE = "base", "finetuned", "interpolate"

# Ordered by closeness to the base model, since groups too small to be tested are safest there:
# only the last layer changes; interpolated weights; distillation; replay; unconstrained.
PREFERENCE: tuple[str, ...] = ("head", "interpolate", "distill", "replay", "naive")
COLUMNS: tuple[str, ...] = (
    "strategy",
    "dimension",
    "group",
    "n",
    "subjects",
    "correct",
    "effective_n",  # effective sample size, for the interval
    "recall",
    "ci_low",
    "ci_high",
    "recall_score",  # mean recall over the emotions, the selection metric
    "counts",  # whether the group can be the worst
    "worst",  # whether it is the worst of this strategy
    "chosen",
    "advantage",  # over base in the worst group, less the optimism of choosing the epoch
    "advantage_se",  # standard error of this paired difference
    "threshold",  # the strategy replaces base if `advantage` exceeds it
    "as_good",  # whether it replaces base and lies within one standard error of the best
    "optimism",  # selection bias of the chosen model's `recall_score`
    "recall_score_corrected",
    "confidence",
    "method",
    "note",  # why the row has no scores
)


def add_wilson_intervals(scored: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Add `recall, ci_low, ci_high, effective_n, confidence, method` to the scores of groups.

    `scored` has one row per group: `n, subjects, known_n` (images with a known subject), `correct`
    and `worth` (see `tasks.core.training.validation`; NaN: each subject counts once).
    """
    recall, subjects = scored["correct"] / scored["n"], scored["subjects"]
    upper = (1 + confidence) / 2
    shrinkage = (norm.ppf(upper) / t.ppf(upper, (subjects - 1).clip(lower=1))) ** 2
    has_variance = scored["worth"].notna()
    effective_n = (scored["worth"] * shrinkage).where(has_variance, subjects)
    low, high = wilson(recall * effective_n, effective_n, confidence)
    none, some = scored["known_n"] == 0, scored["known_n"] < scored["n"]
    method = pd.Series(np.where(has_variance, WILSON_DESIGN, WILSON_PEOPLE), scored.index)
    method = (method + SOME_UNKNOWN).where(some, method).mask(none, WILSON_UNKNOWN)
    return scored.assign(
        recall=recall,
        ci_low=low,
        ci_high=high,
        effective_n=effective_n,
        confidence=confidence,
        method=method,
    )


class Params(Section):
    """Section `choose` of params.yaml."""

    by: list[str]
    min_n: Annotated[int, Field(ge=1)]
    standard_errors: Annotated[float, Field(ge=0)]
    resamples: Annotated[int, Field(ge=100)]
    seed: Annotated[int, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    device: str
    batch_size: Annotated[int, Field(ge=1)]


def run(params: Params, paths: Paths) -> StageResult:
    """Choose among models/base and the strategies' models; write models/finetuned."""
    notes = {name: read_skipped(paths.model(name)) for name in STRATEGIES}
    skipped = {name: note.reason for name, note in notes.items() if note}
    trained = [name for name in STRATEGIES if name not in skipped]
    verdicts: dict[str, ValidationScore] = {}
    seen = load_seen(paths.model(BASE))
    chosen, choice = BASE, None
    if trained:
        spec = load_spec(paths.model(BASE))
        validation = load_validation(paths, spec, params.by, "choose.by")
        names = [BASE, *(name for name in PREFERENCE if name in trained)]
        verdicts = _score_all(params, paths, names, validation)
        choice = _choose(params, paths, verdicts, validation)
        chosen = names[choice.chosen]
        parts = [load_seen(paths.model(chosen)), validation.seen("choose")]
        seen = pd.concat(parts, ignore_index=True)
    _save_chosen(paths, chosen, seen, fine_tuned=bool(trained))
    table = _table(verdicts, choice, skipped, params.confidence)
    write_csv(table, paths.tables / "choice.csv")
    return _result(paths, verdicts, choice, skipped)


def _score_all(
    params: Params, paths: Paths, names: list[str], validation: Validation
) -> dict[str, ValidationScore]:
    options = (params.by, params.min_n, params.device, params.batch_size)
    return {
        name: score_by_group(*load_model(paths.model(name)), validation, *options) for name in names
    }


def _choose(
    params: Params, paths: Paths, verdicts: Mapping[str, ValidationScore], validation: Validation
) -> Choice:
    rows = validation.rows
    scores = worst_scores(
        np.column_stack([verdict.correct for verdict in verdicts.values()]),
        rows["emotion"].to_numpy(dtype=str),
        eligible_groups(rows, params.by, params.min_n),
        rows["subject_id"],
        params.resamples,
        params.seed,
    )
    candidates = [_candidate_scores(paths, name) for name in verdicts]
    return choose_over_incumbent(scores, params.standard_errors, candidates)


def _candidate_scores(paths: Paths, name: str) -> list[float]:
    """Return the validation scores of a strategy's candidate epochs or coefficients."""
    if name == BASE:
        return []  # no correction, which favors the incumbent
    file, column = HISTORY, HISTORY_COLUMNS[3]
    if name == INTERPOLATE:
        file, column = COEFFICIENTS, "worst_recall_score"
    path = paths.model(name) / file
    table = read_csv(path) if path.is_file() else pd.DataFrame()
    return list(table[column]) if column in table else []


def _save_chosen(paths: Paths, chosen: str, seen: pd.DataFrame, fine_tuned: bool) -> None:
    """Copy the chosen model's folder atomically, with its seen.csv and the reason in its source."""
    with atomic_folder(paths.model(CHOSEN)) as fresh:
        shutil.copytree(paths.model(chosen), fresh)
        spec = load_spec(fresh)
        reason = _reason(chosen, fine_tuned)
        spec = spec.model_copy(update={"source": f"{reason}; {spec.source}"})
        write_text(fresh / SPEC, json.dumps(spec.model_dump(mode="json"), indent=2) + "\n")
        write_csv(seen[list(SEEN_COLUMNS)], fresh / SEEN)
        if chosen == BASE:  # the base model's history is not one of fine-tuning
            write_csv(pd.DataFrame(columns=list(HISTORY_COLUMNS)), fresh / HISTORY)


def _reason(chosen: str, fine_tuned: bool) -> str:
    if not fine_tuned:
        return "nothing was fine-tuned: the base model as it is"
    if chosen == BASE:
        return (
            "chosen on validation pictures: the base model as it is, since no strategy is better "
            "by more than its error"
        )
    return f"chosen on validation pictures: {chosen}"


def _table(
    verdicts: Mapping[str, ValidationScore],
    choice: Choice | None,
    skipped: Mapping[str, str],
    confidence: float,
) -> pd.DataFrame:
    notes = [{"strategy": name, "chosen": False, "note": why} for name, why in skipped.items()]
    if choice is None:
        notes.insert(0, {"strategy": BASE, "chosen": True, "note": "there was no choice"})
        return pd.DataFrame(notes).reindex(columns=list(COLUMNS))
    parts = [
        _with_choice(
            verdict.groups.assign(
                strategy=name,
                worst=_group_names(verdict.groups) == verdict.worst_group,
                chosen=index == choice.chosen,
            ),
            choice,
            index,
        )
        for index, (name, verdict) in enumerate(verdicts.items())
    ]
    scored = add_wilson_intervals(pd.concat(parts, ignore_index=True), confidence)
    table = pd.concat([scored, pd.DataFrame(notes)], ignore_index=True)
    return table.reindex(columns=list(COLUMNS))


def _with_choice(rows: pd.DataFrame, choice: Choice, index: int) -> pd.DataFrame:
    """Add the selection statistics to the row of a strategy's worst group."""
    figures: dict[str, float] = {}
    if index > 0:
        figures = {
            "advantage": choice.advantage[index],
            "advantage_se": choice.se[index],
            "threshold": choice.threshold[index],
        }
    if index == choice.chosen:
        figures["optimism"] = choice.optimism
        figures["recall_score_corrected"] = choice.figure
    columns = {
        name: pd.Series(value, rows.index).where(rows["worst"]) for name, value in figures.items()
    }
    return rows.assign(as_good=bool(choice.as_good[index]), **columns)


def _group_names(groups: pd.DataFrame) -> pd.Series:
    """Name each row's group as `Verdict.worst_group` does."""
    return (groups["dimension"] + " " + groups["group"]).where(
        groups["dimension"] != groups["group"], groups["group"]
    )


def _result(
    paths: Paths,
    verdicts: Mapping[str, ValidationScore],
    choice: Choice | None,
    skipped: Mapping[str, str],
) -> StageResult:
    metrics = {"skipped_strategies": float(len(skipped))}
    for name, verdict in verdicts.items():
        metrics[f"{name}_worst_recall_score"] = verdict.worst
        metrics[f"{name}_mean_recall_score"] = verdict.mean
    artifacts = [paths.model(CHOSEN), paths.tables / "choice.csv"]
    if choice is None:
        reasons = "; ".join(sorted(set(skipped.values())))
        return StageResult(metrics, {}, artifacts, f"nothing was fine-tuned ({reasons})")
    metrics["chosen_optimism"] = choice.optimism
    metrics["chosen_worst_recall_score_corrected"] = choice.figure
    chosen = list(verdicts)[choice.chosen]
    best, base = verdicts[chosen], verdicts[BASE]
    summary = (
        f"{chosen} of {', '.join(verdicts)}: worst group {best.worst_group} with mean validation "
        f"recall {best.worst:.1%}"
    )
    if chosen == BASE:
        return StageResult(
            metrics, {}, artifacts, f"{summary}; no strategy is {_describe_nearest(choice)}"
        )
    summary += (
        f", corrected for being chosen by it {choice.figure:.1%} (base: {base.worst_group}, "
        f"{base.worst:.1%})"
    )
    return StageResult(metrics, {}, artifacts, summary)


def _describe_nearest(choice: Choice) -> str:
    """Describe the candidate that came closest to replacing base."""
    nearest = 1 + int(np.argmax(choice.advantage[1:] - np.nan_to_num(choice.threshold[1:])))
    advantage, needed = choice.advantage[nearest], choice.threshold[nearest]
    if np.isnan(needed):
        return "significantly better: fewer than two subjects are in the worst group"
    nearly = f"nearest: {100 * advantage:+.1f} points, more than {100 * needed:.1f} are needed"
    return f"better by more than its error ({nearly})"
