"""Stage `choose`: which fine-tuned model is kept, by the validation split's worst group.

Reads models/base and every strategy's model, data/split.parquet and the crops; writes
models/finetuned, a copy of the chosen model whose seen.csv names the validation images too, and
reports/tables/choice.csv. The base model is the incumbent: a strategy replaces it only where its
worst group does better by more than `standard_errors` standard errors of the paired difference (see
`tasks.core.statistics.selection`). Of the strategies that do, the one that departs least from the
base model is kept among those within one standard error of the best (`PREFERENCE`). This can still
keep a model that is worse, at the rates in docs/decisions/0005. The chosen model's figure is of the
images that chose it; choice.csv has a corrected one beside it. The test split takes no part. Where
no strategy was carried out, models/finetuned is the base model and says so.
"""

import json
import shutil
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd
from pydantic import Field

from tasks.core.files import write_text
from tasks.core.models.checkpoint import SEEN, SEEN_COLUMNS, SPEC, load_model, load_seen, load_spec
from tasks.core.params import Section
from tasks.core.paths import STRATEGIES, Paths
from tasks.core.result import StageResult
from tasks.core.skipped import read_skipped
from tasks.core.statistics.selection import Choice, choose_over_incumbent, worst_scores
from tasks.core.tables import read_csv, write_csv
from tasks.train.by_people import with_intervals
from tasks.train.groups import counting_groups
from tasks.train.interpolate import COEFFICIENTS
from tasks.train.loop import HISTORY_COLUMNS
from tasks.train.on_validation import Validation, Verdict, judge, load_validation
from tasks.train.outcome import HISTORY, whole_folder

BASE, CHOSEN, INTERPOLATE = "base", "finetuned", "interpolate"
# From the one that departs least from the base model, since groups that are too small to be judged
# are safest there: only the last layer changes; weights lie between the base model's and others;
# replayed images must be answered as the base model does; they are only shown; nothing holds it.
PREFERENCE: tuple[str, ...] = ("head", "interpolate", "distill", "replay", "naive")
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
    "advantage",  # in the worst group against base, less what choosing the epoch added
    "advantage_se",  # standard error of this paired difference
    "threshold",  # what `advantage` has to exceed for the strategy to replace base
    "as_good",  # whether it replaces base and lies within one standard error of the best
    "optimism",  # by how much the chosen one's `recall_score` is too high since it was chosen by it
    "recall_score_corrected",
    "confidence",
    "method",
    "note",  # why there are no figures
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
    made = [name for name in STRATEGIES if name not in skipped]
    verdicts: dict[str, Verdict] = {}
    seen = load_seen(paths.model(BASE))
    chosen, choice = BASE, None
    if made:
        spec = load_spec(paths.model(BASE))
        validation = load_validation(paths, spec, params.by, "choose.by")
        names = [BASE, *(name for name in PREFERENCE if name in made)]
        verdicts = _judge_all(params, paths, names, validation)
        choice = _choose(params, paths, verdicts, validation)
        chosen = names[choice.chosen]
        parts = [load_seen(paths.model(chosen)), validation.seen("choose")]
        seen = pd.concat(parts, ignore_index=True)
    _keep(paths, chosen, seen, fine_tuned=bool(made))
    table = _table(verdicts, choice, skipped, params.confidence)
    write_csv(table, paths.tables / "choice.csv")
    return _result(paths, verdicts, choice, skipped)


def _judge_all(
    params: Params, paths: Paths, names: list[str], validation: Validation
) -> dict[str, Verdict]:
    how = (params.by, params.min_n, params.device, params.batch_size)
    return {name: judge(*load_model(paths.model(name)), validation, *how) for name in names}


def _choose(
    params: Params, paths: Paths, verdicts: Mapping[str, Verdict], validation: Validation
) -> Choice:
    """Choose among the models' answers about the validation images."""
    rows = validation.rows
    scores = worst_scores(
        np.column_stack([verdict.correct for verdict in verdicts.values()]),
        rows["emotion"].to_numpy(dtype=str),
        counting_groups(rows, params.by, params.min_n),
        rows["subject_id"],
        params.resamples,
        params.seed,
    )
    tried = [_tried(paths, name) for name in verdicts]
    return choose_over_incumbent(scores, params.standard_errors, tried)


def _tried(paths: Paths, name: str) -> list[float]:
    """Return the validation scores that a strategy chose its epoch, or coefficient, by."""
    if name == BASE:
        return []  # left as it is, which favors the incumbent
    file, column = HISTORY, HISTORY_COLUMNS[3]
    if name == INTERPOLATE:
        file, column = COEFFICIENTS, "worst_recall_score"
    path = paths.model(name) / file
    table = read_csv(path) if path.is_file() else pd.DataFrame()
    return list(table[column]) if column in table else []


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
            "chosen on validation pictures: the base model as it is, since no strategy is better "
            "by more than its error"
        )
    return f"chosen on validation pictures: {chosen}"


def _table(
    verdicts: Mapping[str, Verdict],
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
                worst=_named(verdict.groups) == verdict.worst_group,
                chosen=place == choice.chosen,
            ),
            choice,
            place,
        )
        for place, (name, verdict) in enumerate(verdicts.items())
    ]
    scored = with_intervals(pd.concat(parts, ignore_index=True), confidence)
    table = pd.concat([scored, pd.DataFrame(notes)], ignore_index=True)
    return table.reindex(columns=list(COLUMNS))


def _with_choice(rows: pd.DataFrame, choice: Choice, place: int) -> pd.DataFrame:
    """Add what the choice went by to the row of a strategy's worst group."""
    figures: dict[str, float] = {}
    if place > 0:
        figures = {
            "advantage": choice.advantage[place],
            "advantage_se": choice.se[place],
            "threshold": choice.threshold[place],
        }
    if place == choice.chosen:
        figures["optimism"] = choice.optimism
        figures["recall_score_corrected"] = choice.figure
    found = {
        name: pd.Series(value, rows.index).where(rows["worst"]) for name, value in figures.items()
    }
    return rows.assign(as_good=bool(choice.as_good[place]), **found)


def _named(groups: pd.DataFrame) -> pd.Series:
    """Name each row's group as `Verdict.worst_group` does."""
    return (groups["dimension"] + " " + groups["group"]).where(
        groups["dimension"] != groups["group"], groups["group"]
    )


def _result(
    paths: Paths, verdicts: Mapping[str, Verdict], choice: Choice | None, skipped: Mapping[str, str]
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
        return StageResult(metrics, {}, artifacts, f"{summary}; no strategy is {_rule(choice)}")
    summary += (
        f", corrected for being chosen by it {choice.figure:.1%} (base: {base.worst_group}, "
        f"{base.worst:.1%})"
    )
    return StageResult(metrics, {}, artifacts, summary)


def _rule(choice: Choice) -> str:
    """Describe the candidate that came nearest to replacing base."""
    nearest = 1 + int(np.argmax(choice.advantage[1:] - np.nan_to_num(choice.threshold[1:])))
    ahead, needed = choice.advantage[nearest], choice.threshold[nearest]
    if np.isnan(needed):
        return "shown to be better: fewer than two subjects are in the worst group"
    nearly = f"nearest: {100 * ahead:+.1f} points, more than {100 * needed:.1f} are needed"
    return f"better by more than its error ({nearly})"
