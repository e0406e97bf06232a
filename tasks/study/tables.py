"""The tables of a study, which are the source of its page and figures.

| table | one row per |
|---|---|
| runs.csv | run |
| curves.csv | epoch of a candidate and seed |
| arms.csv | candidate and rung that judged it; `last` marks its last rung |
| seeds.csv | seed of such a row |
| choices.csv | round |
| published_rates.csv, published_pairs.csv, agreement.csv | see `tasks.study.published` |
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.study.candidates import Arm, OPTIMizERS, Run, key_of
from tasks.study.plan import Decision, RungResult, epochs_of_grid, epochs_trained
from tasks.study.published import agreement, pairwise, read_study, with_intervals
from tasks.study.results import Result, Score
from tasks.study.selection_rule import Rung
from tasks.study.settings import Params

RUN_FACTS = [
    "parameters",
    "train_seconds",  # of all epochs so far
    "images_per_second",
    "input_size_px",
    "device",
    "kept_epoch",
    "valid_recall_score",
    "valid_accuracy_score",
    "valid_loss",
    "train_images",
    "validation_images",
]
RUNS = ["key", "round", "arm", "seed", "until", "new_epochs"]
RUNS += ["backbone", "loss", "optimizer", "learning_rate", *RUN_FACTS, "failed"]
CURVES = ["round", "arm", "seed", "epoch"]
CURVES += ["train_loss", "valid_loss", "valid_recall_score", "valid_accuracy_score"]
SCORES = ["mean", "se", "people_se", "seeds_se", "ci_low", "ci_high", "people", "images"]
SCORES += ["parameters", "method"]
ARMS = ["round", "arm", "optimizer", "learning_rate", "until", "seeds", "last", "whole", "goes_on"]
ARMS += ["chosen", "best", "within", "before", "best_rate", *SCORES, "seconds_an_epoch"]
ARMS += ["images_per_second", "confidence", "failed"]
SEEDS = ["round", "arm", "until", "seed", "score"]
CHOICES = ["round", "chosen", "best", "threshold", "within", "before", "why", "compared", "whole"]
CHOICES += ["epochs", "epochs_of_grid"]
AGREEMENT = ["round", "shared", "until", "seeds", "tau", "ci_low", "ci_high", "confidence"]


def study_tables(
    settings: Params,
    decisions: Sequence[Decision],
    runs: Sequence[Run],
    results: Mapping[str, Result],
) -> dict[str, pd.DataFrame]:
    """Return every table of a finished study by its file's name without `.csv`.

    `runs` are all runs of the plan in its order; `results` are by key.
    """
    tables = {
        "runs": pd.DataFrame(_runs(runs, results), columns=RUNS),
        "curves": _curves(decisions, runs, results),
        "arms": pd.DataFrame(_arms(settings, decisions, results), columns=ARMS),
        "seeds": pd.DataFrame(_seeds(decisions), columns=SEEDS),
        "choices": pd.DataFrame(_choices(settings, decisions), columns=CHOICES),
    }
    return tables | _published(settings, decisions)


def _runs(runs: Sequence[Run], results: Mapping[str, Result]) -> list[dict[str, object]]:
    rows, until = [], {run.key: run.until for run in runs}
    for run in runs:
        result, recipe = results[run.key], run.train
        rows.append(
            {
                **{name: getattr(run, name) for name in ("key", "round", "arm", "seed", "until")},
                "new_epochs": run.until - until.get(run.before or "", 0),
                "backbone": recipe["backbone"],
                "loss": recipe["loss"]["name"],
                "optimizer": recipe["optimizer"]["name"],
                "learning_rate": recipe["learning_rate"],
                **{name: result.facts.get(name, np.nan) for name in RUN_FACTS},
                "failed": result.failed,
            }
        )
    return rows


def _curves(
    decisions: Sequence[Decision], runs: Sequence[Run], results: Mapping[str, Result]
) -> pd.DataFrame:
    """Return the longest history of each candidate and seed, for every round it competes in."""
    longest = {run.key.rpartition("-e")[0]: run.key for run in runs}  # later runs are longer
    parts = []
    for decision in decisions:
        for arm in decision.arms:
            for run in (run for run in decision.runs if run.key.startswith(f"{arm.slug}-s")):
                if longest.get(f"{arm.slug}-s{run.seed}") != run.key:
                    continue
                history = results[run.key].history
                parts.append(history.assign(round=decision.round, arm=arm.name, seed=run.seed))
    return pd.concat(parts, ignore_index=True)[CURVES] if parts else pd.DataFrame(columns=CURVES)


def _arms(
    settings: Params, decisions: Sequence[Decision], results: Mapping[str, Result]
) -> list[dict[str, object]]:
    rows = []
    for decision in decisions:
        best_rates = _best_rates(decision)
        for arm in decision.arms:
            rungs = [rung for rung in decision.rungs if arm.name in rung.scores]
            shared = {
                "round": decision.round,
                "arm": arm.name,
                "optimizer": arm.train["optimizer"]["name"],
                "learning_rate": arm.train["learning_rate"],
                "chosen": arm.name == decision.choice.name,
                "best": arm.name == decision.choice.best,
                "within": arm.name in decision.choice.within,
                "before": arm.name == decision.before,
                "best_rate": arm.name in best_rates,
                "confidence": settings.confidence,
                "failed": decision.failed.get(arm.name, ""),
            }
            rows += [
                {**shared, **_at(rung, arm, results), "last": rung is rungs[-1]}
                | {"whole": rung is decision.rungs[-1]}
                for rung in rungs
            ]
            if not rungs:
                rows.append({**shared, "last": True, "whole": False, "goes_on": False})
    return rows


def _at(rung_result: RungResult, arm: Arm, results: Mapping[str, Result]) -> dict[str, object]:
    """Return a candidate's score after a rung, and the cost of its runs."""
    score, rung = rung_result.scores[arm.name], rung_result.rung
    facts = [results[key_of(arm, seed, rung.until)].facts for seed in rung.seeds]
    seconds = [fact["train_seconds"] / max(fact["until"], 1) for fact in facts]
    return {
        "until": rung.until,
        "seeds": len(rung.seeds),
        "goes_on": arm.name in rung_result.survivors,
        **{name: getattr(score, name) for name in SCORES},
        "seconds_an_epoch": float(np.mean(seconds)),
        "images_per_second": float(np.mean([f.get("images_per_second", np.nan) for f in facts])),
    }


def _best_rates(decision: Decision) -> set[str]:
    """Return the names to display: of each optimizer only the rate that got furthest."""
    if decision.round != OPTIMizERS:
        return {arm.name for arm in decision.arms}
    best: dict[str, tuple[tuple[int, float], str]] = {}
    for arm in decision.arms:
        reached = (-1, 0.0)
        for index, rung in enumerate(decision.rungs):
            if arm.name in rung.scores:
                reached = (index, rung.scores[arm.name].mean)
        optimizer = arm.train["optimizer"]["name"]
        if optimizer not in best or reached > best[optimizer][0]:
            best[optimizer] = (reached, arm.name)
    return {name for _, name in best.values()}


def _seeds(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    return [
        {
            "round": decision.round,
            "arm": name,
            "until": result.rung.until,
            "seed": seed,
            "score": score,
        }
        for decision in decisions
        for result in decision.rungs
        for name, scored in result.scores.items()
        for seed, score in zip(result.rung.seeds, scored.by_seed, strict=True)
    ]


def _choices(settings: Params, decisions: Sequence[Decision]) -> list[dict[str, object]]:
    rows = []
    for index, decision in enumerate(decisions):
        so_far, earlier = decisions[: index + 1], decisions[:index]
        trained = [epochs_trained(_all_runs(part)) for part in (so_far, earlier)]
        grid = [epochs_of_grid(settings, part) for part in (so_far, earlier)]
        choice = decision.choice
        rows.append(
            {
                "round": decision.round,
                "chosen": choice.name,
                "best": choice.best,
                "threshold": choice.threshold,
                "within": " ".join(choice.within),
                "before": decision.before,
                "why": choice.why,
                "compared": len(decision.arms),
                "whole": len(decision.rungs[-1].scores),
                "epochs": trained[0] - trained[1],
                "epochs_of_grid": grid[0] - grid[1],
            }
        )
    return rows


def _all_runs(decisions: Sequence[Decision]) -> list[Run]:
    return [run for decision in decisions for run in decision.runs]


def _published(settings: Params, decisions: Sequence[Decision]) -> dict[str, pd.DataFrame]:
    """Return the three tables of the published study; none if no study is named."""
    if settings.published is None:
        return {}
    printed = read_study(settings.published)
    agreements = []
    for decision in decisions:
        part = printed[printed["round"] == decision.round]
        rung, scores = _most_shared(decision, set(part["ours"]))
        level, draws = settings.confidence, (settings.resamples, settings.resampling_seed)
        tau, low, high = agreement(scores, part, *draws, level)
        numbers = (len(scores), rung.until, len(rung.seeds), tau, low, high, level)
        agreements.append([decision.round, *numbers])
    return {
        "published_rates": with_intervals(printed, settings.confidence),
        "published_pairs": pairwise(printed, settings.confidence),
        "agreement": pd.DataFrame(agreements, columns=AGREEMENT),
    }


def _most_shared(decision: Decision, names: set[str]) -> tuple[Rung, dict[str, Score]]:
    """Return the rung that judged most of the named candidates, the later of equals."""
    displayed = _best_rates(decision)
    options = []
    for result in decision.rungs:
        named = {
            _published_name(arm): result.scores[arm.name]
            for arm in decision.arms
            if arm.name in result.scores and arm.name in displayed and _published_name(arm) in names
        }
        options.append((result.rung, named))
    return max(reversed(options), key=lambda option: len(option[1]))


def _published_name(arm: Arm) -> str:
    """Return a candidate's name in the table of a published study: an optimizer has no rate."""
    return arm.train["optimizer"]["name"] if arm.round == OPTIMizERS else arm.name
