"""The tables of a study, which its page and figures are made from.

| table | one row |
|---|---|
| runs.csv | a run |
| curves.csv | an epoch of an arm and seed |
| arms.csv | an arm at a rung that judged it; `last` marks its last |
| seeds.csv | a seed of such a row |
| choices.csv | a round |
| published_rates.csv, published_pairs.csv, agreement.csv | see `tasks.study.published` |
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.study.arms import OPTIMISERS, Arm, Run, key_of
from tasks.study.plan import Decision, Stand, epochs_of_grid, epochs_trained
from tasks.study.published import agreement, pairwise, read_study, with_intervals
from tasks.study.results import Result
from tasks.study.scores import Score
from tasks.study.settings import Params

RUN_FACTS = [
    "parameters",
    "train_seconds",  # of all epochs so far
    "pictures_per_second",
    "input_size_px",
    "device",
    "kept_epoch",
    "valid_recall_score",
    "valid_accuracy_score",
    "valid_loss",
    "train_pictures",
    "validation_pictures",
]
RUNS = ["key", "round", "arm", "seed", "until", "new_epochs"]
RUNS += ["backbone", "loss", "optimiser", "learning_rate", *RUN_FACTS, "failed"]
CURVES = ["round", "arm", "seed", "epoch"]
CURVES += ["train_loss", "valid_loss", "valid_recall_score", "valid_accuracy_score"]
SCORES = ["mean", "se", "people_se", "seeds_se", "ci_low", "ci_high", "people", "pictures"]
SCORES += ["parameters", "method"]
ARMS = ["round", "arm", "optimiser", "learning_rate", "until", "seeds", "last", "whole", "goes_on"]
ARMS += ["chosen", "best", "within", "before", "best_rate", *SCORES, "seconds_an_epoch"]
ARMS += ["pictures_per_second", "confidence", "failed"]
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

    Parameters
    ----------
    settings
        Section `study`.
    decisions, runs
        The rounds, and every run of the plan in its order.
    results
        What the runs found, by key.
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
                "optimiser": recipe["optimiser"]["name"],
                "learning_rate": recipe["learning_rate"],
                **{name: result.facts.get(name, np.nan) for name in RUN_FACTS},
                "failed": result.failed,
            }
        )
    return rows


def _curves(
    decisions: Sequence[Decision], runs: Sequence[Run], results: Mapping[str, Result]
) -> pd.DataFrame:
    """Return the longest history of each arm and seed, in every round that it stands in."""
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
            stands = [stand for stand in decision.stands if arm.name in stand.scores]
            shared = {
                "round": decision.round,
                "arm": arm.name,
                "optimiser": arm.train["optimiser"]["name"],
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
                {**shared, **_at(stand, arm, results), "last": stand is stands[-1]}
                | {"whole": stand is decision.stands[-1]}
                for stand in stands
            ]
            if not stands:
                rows.append({**shared, "last": True, "whole": False, "goes_on": False})
    return rows


def _at(stand: Stand, arm: Arm, results: Mapping[str, Result]) -> dict[str, object]:
    """Return an arm's score after a rung, and what its runs cost."""
    score, rung = stand.scores[arm.name], stand.rung
    facts = [results[key_of(arm, seed, rung.until)].facts for seed in rung.seeds]
    seconds = [fact["train_seconds"] / max(fact["until"], 1) for fact in facts]
    return {
        "until": rung.until,
        "seeds": len(rung.seeds),
        "goes_on": arm.name in stand.kept,
        **{name: getattr(score, name) for name in SCORES},
        "seconds_an_epoch": float(np.mean(seconds)),
        "pictures_per_second": float(
            np.mean([f.get("pictures_per_second", np.nan) for f in facts])
        ),
    }


def _best_rates(decision: Decision) -> set[str]:
    """Return, for each optimiser, the rate that it is shown at: the one that got furthest."""
    if decision.round != OPTIMISERS:
        return {arm.name for arm in decision.arms}
    best: dict[str, tuple[tuple[int, float], str]] = {}
    for arm in decision.arms:
        stands = [
            (at, stand) for at, stand in enumerate(decision.stands) if arm.name in stand.scores
        ]
        at, score = (stands[-1][0], stands[-1][1].scores[arm.name].mean) if stands else (-1, 0.0)
        optimiser = arm.train["optimiser"]["name"]
        if optimiser not in best or (at, score) > best[optimiser][0]:
            best[optimiser] = ((at, score), arm.name)
    return {name for _, name in best.values()}


def _seeds(decisions: Sequence[Decision]) -> list[dict[str, object]]:
    return [
        {
            "round": decision.round,
            "arm": name,
            "until": stand.rung.until,
            "seed": seed,
            "score": score,
        }
        for decision in decisions
        for stand in decision.stands
        for name, scored in stand.scores.items()
        for seed, score in zip(stand.rung.seeds, scored.by_seed, strict=True)
    ]


def _choices(settings: Params, decisions: Sequence[Decision]) -> list[dict[str, object]]:
    rows = []
    for place, decision in enumerate(decisions):
        so_far, earlier = decisions[: place + 1], decisions[:place]
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
                "whole": len(decision.stands[-1].scores),
                "epochs": trained[0] - trained[1],
                "epochs_of_grid": grid[0] - grid[1],
            }
        )
    return rows


def _all_runs(decisions: Sequence[Decision]) -> list[Run]:
    return [run for decision in decisions for run in decision.runs]


def _published(settings: Params, decisions: Sequence[Decision]) -> dict[str, pd.DataFrame]:
    """Return the three tables of the published study; none where no study is named."""
    if settings.published is None:
        return {}
    printed = read_study(settings.published)
    agreements = []
    for decision in decisions:
        part = printed[printed["round"] == decision.round]
        stand, scores = _most_shared(decision, set(part["ours"]))
        level, draws = settings.confidence, (settings.resamples, settings.resampling_seed)
        tau, low, high = agreement(scores, part, *draws, level)
        rung = stand.rung
        shared = len(scores)
        numbers = (shared, rung.until, len(rung.seeds), tau, low, high, level)
        agreements.append([decision.round, *numbers])
    return {
        "published_rates": with_intervals(printed, settings.confidence),
        "published_pairs": pairwise(printed, settings.confidence),
        "agreement": pd.DataFrame(agreements, columns=AGREEMENT),
    }


def _most_shared(decision: Decision, names: set[str]) -> tuple[Stand, dict[str, Score]]:
    """Return the rung that judged most of the named arms side by side, the later of equals."""
    shown = _best_rates(decision)
    found = []
    for stand in decision.stands:
        named = {
            _our_name(arm): stand.scores[arm.name]
            for arm in decision.arms
            if arm.name in stand.scores and arm.name in shown and _our_name(arm) in names
        }
        found.append((len(named), stand, named))
    most = max(reversed(found), key=lambda one: one[0])
    return most[1], most[2]


def _our_name(arm: Arm) -> str:
    """Return what a published study's table calls ours: an optimiser without its rate."""
    return arm.train["optimiser"]["name"] if arm.round == OPTIMISERS else arm.name
