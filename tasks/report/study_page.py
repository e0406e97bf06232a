"""The page of a study: one context for the template, and the HTML that it becomes."""

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.headline import percent, points
from tasks.core.labels import ALL, DRAWN_DATASET, DRAWN_NOTICE, credit_line
from tasks.core.paths import Paths
from tasks.core.provenance import commit_of, has_changes, versions
from tasks.report.block import Block, Cell, Table, words_of
from tasks.report.embed import embed
from tasks.report.study_figures import ROUNDS, millions
from tasks.report.study_inputs import StudyInputs
from tasks.report.study_published import order_block
from tasks.report.study_rounds import round_block, runs_table
from tasks.report.words import count, level, listed, span

TITLES = {
    "backbones": "Round 1: backbones",
    "losses": "Round 2: losses",
    "optimisers": "Round 3: optimisers",
}


def study_context(inputs: StudyInputs, paths: Paths, figures: dict[str, Path]) -> dict[str, Any]:
    """Return everything that the template shows.

    Parameters
    ----------
    inputs
        What the page is made from.
    paths
        The project's paths.
    figures
        The figures that were drawn, by name.
    """
    drawn = DRAWN_DATASET in inputs.datasets
    settings = inputs.settings
    return {
        "title": "Which backbone, loss and optimiser?",
        "notice": DRAWN_NOTICE if drawn else "",
        "credit": credit_line(name for name in inputs.datasets if name != DRAWN_DATASET),
        "datasets": listed(inputs.datasets),
        "confidence": level(settings["confidence"]),
        "published": inputs.published,
        "protocol": protocol_words(inputs),
        "meta": meta_words(inputs),
        "lead": lead(inputs),
        "test_words": test_words(inputs),
        "cards": cards(inputs),
        "comparison_caption": comparison_caption(inputs),
        "rounds": [_round(inputs, name) for name in ROUNDS],
        "cost": cost_words(inputs),
        "runs": runs_table(inputs),
        "test": Block(said=test_notes(inputs), tables=(test_table(inputs), *looks_tables(inputs))),
        "order": order_block(inputs),
        "limits": limits(inputs),
        "figures": {name: embed(path) for name, path in figures.items()},
        "made": {
            "commit": commit_of(paths.root),
            "changed": has_changes(paths.root),
            "versions": versions(),
            "params": inputs.params_text,
        },
    }


def test_row(inputs: StudyInputs, measure: str = "mean_recall") -> pd.Series:
    """Return the winner's figure on all test pictures."""
    test = inputs.test
    return test[(test["dimension"] == ALL) & (test["measure"] == measure)].iloc[0]


def lead(inputs: StudyInputs) -> str:
    """Say what was chosen and how it does on test pictures."""
    whole, test = inputs.whole, test_row(inputs)
    return (
        f"{whole['backbone']} with the loss {whole['loss']} and the optimiser {whole['optimiser']} "
        f"at a learning rate of {whole['learning_rate']:g}: {percent(test['value'])} mean recall "
        f"on test pictures ({level(test['confidence'])} interval "
        f"{span(test['ci_low'], test['ci_high'])})."
    )


def comparison_caption(inputs: StudyInputs) -> str:
    """Say how the figure of a round is read."""
    said = [f"Bars are {level(inputs.settings['confidence'])} intervals"]
    if inputs.published:
        said[0] += " that take pictures as independent."
    elif len(inputs.settings["seeds"]) == 1:
        said[0] += " for other people; how much another seed would change is not in them."
    else:
        said[0] += " for other people and other seeds; small dots are the seeds."
    if not inputs.tables["arms"]["whole"].all():
        said.append(
            "Hollow marks were stopped early and had fewer epochs and seeds: read them against "
            "each other, not against the others."
        )
    if "published_rates" in inputs.tables:
        said.append(
            "Published figures are of other pictures and other people: only their order can be "
            "compared."
        )
    return " ".join(said)


def test_words(inputs: StudyInputs) -> str:
    """Say what part the test split had, and how far validation was from it."""
    whole, test = inputs.whole, test_row(inputs)
    if inputs.published:
        measure, kind = "accuracy", "best validation accuracy of any epoch"
        value = test_row(inputs, "accuracy")["value"]
    else:
        measure, kind, value = "mean recall", "mean validation recall", test["value"]
    gap = points(value - whole["score"], signed=True)
    return (
        f"{looks_words(inputs)} The winner's {kind} was {percent(whole['score'])}, its {measure} "
        f"on test pictures is {percent(value)} ({gap} points). A figure by which something was "
        "chosen tends to be too high."
    )


def looks_words(inputs: StudyInputs) -> str:
    """Count the looks at the test split, and say what several of them do to the figure."""
    test = test_row(inputs)
    looks = max(int(test["look"]), len(inputs.looks))
    if looks == 1:
        return "The test split was looked at once, after the last choice."
    return (
        f"The test split was looked at {looks} times, each time after the last choice of a study "
        f"with another winner or other test pictures; this is look {int(test['look'])}. Whoever "
        "changed the study after an earlier figure chose by test pictures, so that the figure may "
        "be too high. Later looks have wider intervals, so that those of all looks together hold "
        f"at {level(test['confidence'])}."
    )


def looks_tables(inputs: StudyInputs) -> list[Table]:
    """Return the ledger of looks as a table, where there were several."""
    if len(inputs.looks) < 2:
        return []
    rows = [
        words_of(
            count(row["look"]),
            str(row["at"]),
            str(row["winner"]).split(" ")[0],
            count(row["pictures"]),
            count(row["people"]),
            percent(row["mean_recall"]),
        )
        for row in inputs.looks.to_dict("records")
    ]
    return [
        Table(
            "Every look at the test split (study/test_looks.csv); the winner by its first run.",
            ("look", "when (UTC)", "winner", "pictures", "people", "mean recall"),
            rows,
            words=["winner"],
        )
    ]


def protocol_words(inputs: StudyInputs) -> str:
    """Say how the study was done."""
    settings = inputs.settings
    if inputs.published:
        return (
            "This repeats the published protocol as it is described: the best of all epochs on "
            "validation, one seed, one learning rate for all optimisers, and the highest figure "
            "wins. Such figures are optimistic: the epoch is chosen on the very pictures that it "
            "is then told for, and how much another seed would change is not looked at. "
            "The protocol better (params study.protocol) measures both."
        )
    seeds = len(settings["seeds"])
    counted = "one seed" if seeds == 1 else f"the mean over {seeds} seeds"
    return (
        f"Every arm is scored by mean recall over emotions on validation pictures after the last "
        f"epoch, {counted}; no epoch is picked. Intervals stand for other people and other seeds. "
        "Arms less than one standard error below the best are taken for as good: among them the "
        "smallest network is chosen, and among equally large ones the recipe of the round before. "
        "Each optimiser is tried at learning rates of its own and shown at its best."
    )


def meta_words(inputs: StudyInputs) -> str:
    """Say what it was done on, in one line."""
    arms, runs = inputs.tables["arms"], inputs.tables["runs"]
    pictures, people = arms["pictures"].max(), arms["people"].max()
    trained = runs["train_pictures"].max()
    train_people = inputs.people.get("train", 0)
    seeds = inputs.settings["seeds"][:1] if inputs.published else inputs.settings["seeds"]
    return (
        f"trained on {count(trained)} pictures of {count(train_people)} people · validated on "
        f"{count(pictures)} of {count(people)} · {inputs.settings['epochs']} epochs · seeds "
        f"{', '.join(map(str, seeds))}"
    )


def cards(inputs: StudyInputs) -> list[dict[str, str]]:
    """Return the figures that a reader sees first."""
    whole, test = inputs.whole, test_row(inputs)
    runs = inputs.tables["runs"]
    longest = runs.sort_values("until").groupby(["round", "arm", "seed"]).last()
    seconds = float(longest["train_seconds"].sum())
    return [
        _card(
            percent(test["value"]),
            "mean recall on test pictures",
            f"{level(test['confidence'])} interval {span(test['ci_low'], test['ci_high'])}; "
            f"{count(test['pictures'])} pictures of {count(test['people'])} people",
        ),
        _card(
            millions(whole["parameters"]),
            f"parameters of {whole['backbone']}",
            _compared(inputs),
        ),
        _epochs_card(whole["epochs"], whole["epochs_of_grid"], len(runs)),
        _card(duration(seconds), "of training, all runs added up", "without loading and tests"),
    ]


def duration(seconds: float) -> str:
    """Write a span of time."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def cost_words(inputs: StudyInputs) -> list[str]:
    """Say what the study cost, and what halving spared."""
    whole, halving = inputs.whole, inputs.settings["halving"]
    done, grid = whole["epochs"], whole["epochs_of_grid"]
    said = []
    if halving and not inputs.published:
        said.append(
            f"Successive halving: every arm is trained for {halving['first_epochs']} epochs with "
            f"{halving['first_seeds']} of {len(inputs.settings['seeds'])} seeds; of those, one in "
            f"{halving['reduction']} goes on, and so does one more: the backbone that the rule "
            "would choose then, and later what the round before ended with. "
            "At least two arms of a round are trained to the end with every seed. So "
            f"{count(done)} epochs were trained instead of {count(grid)} ("
            f"{100 * done / grid:.0f}\u202f%). "
            "What an arm that starts slowly would have reached in the end is not known."
        )
    else:
        said.append(f"Every run went to the end: {count(done)} epochs.")
    said.append(
        "A recipe that two rounds share is trained once. Seconds are of the training alone; runs "
        "side by side slow each other down, so compare them only roughly."
    )
    return said


def test_notes(inputs: StudyInputs) -> list[str]:
    """Say what goes with the test figures."""
    row, accuracy = test_row(inputs), test_row(inputs, "accuracy")
    seeds = int(row["seeds"])
    models = "the winner's model" if seeds == 1 else f"the winner's {seeds} models, one a seed"
    said = [
        f"Answers of {models}: mean recall {percent(row['value'])} "
        f"({span(row['ci_low'], row['ci_high'])}), accuracy {percent(accuracy['value'])} "
        f"({span(accuracy['ci_low'], accuracy['ci_high'])})."
    ]
    if row["also_trained_on"]:
        said.append(
            f"{count(row['also_trained_on'])} of the {count(row['pictures'])} test pictures show "
            "people who are on training or validation pictures too (split.by: image): the figures "
            "are then too high for people who are new."
        )
    if row["left_out"]:
        said.append(f"{count(row['left_out'])} pictures show an emotion that was not trained on.")
    said.append(
        "Groups of few people have wide intervals, and a difference between two rows here was not "
        "tested: affectgap run compares groups."
    )
    return said


def test_table(inputs: StudyInputs) -> Table:
    """Return recall and accuracy of everyone and by group."""
    rows = []
    named = zip(inputs.test["dimension"], inputs.test["group"], strict=True)
    wide = inputs.test.set_index(["dimension", "group", "measure"])
    for dimension, group in dict.fromkeys(named):
        cells = [wide.loc[(dimension, group, name)] for name in ("mean_recall", "accuracy")]
        name = "all" if dimension == ALL else f"{group} ({dimension.replace('_', ' ')})"
        first = cells[0]
        rows.append(
            [
                *words_of(name, count(first["pictures"]), count(first["people"])),
                *(Cell(percent(c["value"]), span(c["ci_low"], c["ci_high"])) for c in cells),
                Cell(count(first["emotions"])),
            ]
        )
    return Table(
        f"The winner on test pictures, with {level(first['confidence'])} intervals for other "
        "people and other seeds.",
        ("group", "pictures", "people", "mean recall", "accuracy", "emotions"),
        rows,
        how=[f"{text}." for text in dict.fromkeys(inputs.test["method"])],
    )


def limits(inputs: StudyInputs) -> list[str]:
    """Return what the study cannot say."""
    said = []
    if DRAWN_DATASET in inputs.datasets:
        said.append(
            f"{DRAWN_NOTICE.capitalize()}. Which network reads drawn faces best says little about "
            "which reads photographs best."
        )
    said += [
        "Rounds are taken one after the other. A loss that is best with the chosen backbone need "
        "not be so with another: pairs that were not tried are not known.",
        "The recipe (augmentation, schedule, epochs, batch size) is one for all. A backbone that "
        "wants another one is judged below its worth.",
        "The winner's validation score is the highest or near the highest of many and therefore "
        f"rather too high. {looks_words(inputs)}",
        "Accuracies of other studies are of other pictures and other people: compare orders, not "
        "heights.",
        "Mean recall is of labels. It says nothing about what a person felt, and nothing about "
        "gaps between groups that are not in the table of test figures.",
    ]
    if inputs.published:
        said.append("With one seed nothing here tells luck from merit.")
    return said


def _round(inputs: StudyInputs, name: str) -> dict[str, Any]:
    row = inputs.choices.set_index("round").loc[name]
    return {
        "name": name,
        "title": TITLES[name],
        "chosen": row["chosen"],
        "why": row["why"],
        "block": round_block(inputs, name),
    }


def _compared(inputs: StudyInputs) -> str:
    """Count what the rounds compared."""
    arms = inputs.tables["arms"]
    arms = arms[arms["round"] == "optimisers"]
    optimisers, rates = arms["optimiser"].nunique(), arms["arm"].nunique()
    counts = {row.round: row.compared for row in inputs.choices.itertuples()}
    with_rates = f" ({rates} with their rates)" if rates > optimisers else ""
    return (
        f"{counts['backbones']} backbones, {counts['losses']} losses and {optimisers} optimisers"
        f"{with_rates} compared"
    )


def _epochs_card(done: int, grid: int, runs: int) -> dict[str, str]:
    """Tell the epochs, and their share of those without halving."""
    if done == grid:
        return _card(count(done), "epochs trained", f"in {count(runs)} runs, each to its end")
    detail = f"{count(done)} of {count(grid)} epochs, in {count(runs)} runs"
    return _card(f"{100 * done / grid:.0f}\u202f%", "of the epochs of the full grid", detail)


def _card(value: str, label: str, detail: str) -> dict[str, str]:
    return {"value": value, "label": label, "detail": detail}
