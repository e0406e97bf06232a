"""The template's context for the page of a study."""

from pathlib import Path
from typing import Any

import pandas as pd

from tasks.core.gap_sentences import percent, points
from tasks.core.labels import ALL, DRAWN_DATASET, DRAWN_NOTICE, credit_line
from tasks.core.paths import Paths
from tasks.report.html.components import Block, Cell, Table, embed, plain
from tasks.report.html.formatting import confidence_text, count, join_names, percent_interval
from tasks.report.page import code_provenance
from tasks.report.study.figures import ROUNDS, millions
from tasks.report.study.inputs import StudyInputs
from tasks.report.study.published_comparison import order_block
from tasks.report.study.rounds import round_block, runs_table

TITLES = {
    "backbones": "Round 1: backbones",
    "losses": "Round 2: losses",
    "optimizers": "Round 3: optimizers",
}


def study_context(inputs: StudyInputs, paths: Paths, figures: dict[str, Path]) -> dict[str, Any]:
    """Return the values that the template shows."""
    drawn = DRAWN_DATASET in inputs.datasets
    settings = inputs.settings
    return {
        "title": "Which backbone, loss and optimizer?",
        "notice": DRAWN_NOTICE if drawn else "",
        "credit": credit_line(name for name in inputs.datasets if name != DRAWN_DATASET),
        "datasets": join_names(inputs.datasets),
        "confidence": confidence_text(settings["confidence"]),
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
        "test": Block(
            sentences=test_notes(inputs), tables=(test_table(inputs), *looks_tables(inputs))
        ),
        "order": order_block(inputs),
        "limits": limits(inputs),
        "figures": {name: embed(path) for name, path in figures.items()},
        "provenance": code_provenance(paths, inputs.params_text),
    }


def test_row(inputs: StudyInputs, measure: str = "mean_recall") -> pd.Series:
    """Return the winner's figure on all test images."""
    test = inputs.test
    return test[(test["dimension"] == ALL) & (test["measure"] == measure)].iloc[0]


def lead(inputs: StudyInputs) -> str:
    """Return what was chosen and its result on test images."""
    summary, test = inputs.summary, test_row(inputs)
    return (
        f"{summary['backbone']} with the loss {summary['loss']} and the optimizer "
        f"{summary['optimizer']} at a learning rate of {summary['learning_rate']:g}: "
        f"{percent(test['value'])} mean recall on test pictures "
        f"({confidence_text(test['confidence'])} "
        f"interval {percent_interval(test['ci_low'], test['ci_high'])})."
    )


def comparison_caption(inputs: StudyInputs) -> str:
    """Return the caption of a round's figure."""
    sentences = [f"Bars are {confidence_text(inputs.settings['confidence'])} intervals"]
    if inputs.published:
        sentences[0] += " that take pictures as independent."
    elif len(inputs.settings["seeds"]) == 1:
        sentences[0] += " for other people; how much another seed would change is not in them."
    else:
        sentences[0] += " for other people and other seeds; small dots are the seeds."
    if not inputs.tables["arms"]["whole"].all():
        sentences.append(
            "Hollow marks were stopped early and had fewer epochs and seeds: read them against "
            "each other, not against the others."
        )
    if "published_rates" in inputs.tables:
        sentences.append(
            "Published figures are of other pictures and other people: only their order can be "
            "compared."
        )
    return " ".join(sentences)


def test_words(inputs: StudyInputs) -> str:
    """Describe the use of the test split, and how far validation was from it."""
    summary, test = inputs.summary, test_row(inputs)
    if inputs.published:
        measure, score_name = "accuracy", "best validation accuracy of any epoch"
        value = test_row(inputs, "accuracy")["value"]
    else:
        measure, score_name, value = "mean recall", "mean validation recall", test["value"]
    gap = points(value - summary["score"], signed=True)
    return (
        f"{looks_words(inputs)} The winner's {score_name} was {percent(summary['score'])}, its "
        f"{measure} on test pictures is {percent(value)} ({gap} points). A figure that "
        "guided the choice tends to be too high."
    )


def looks_words(inputs: StudyInputs) -> str:
    """State how often the test split was looked at, and what repeated looks do."""
    test = test_row(inputs)
    looks = max(int(test["look"]), len(inputs.looks))
    if looks == 1:
        return "The test split was looked at once, after the last choice."
    return (
        f"The test split was looked at {looks} times, each time after the last choice of a study "
        f"with another winner or other test pictures; this is look {int(test['look'])}. Whoever "
        "changed the study after an earlier figure chose by test pictures, so that the figure may "
        "be too high. Later looks have wider intervals, so that those of all looks together hold "
        f"at {confidence_text(test['confidence'])}."
    )


def looks_tables(inputs: StudyInputs) -> list[Table]:
    """Return the ledger of looks as a table, if there were several."""
    if len(inputs.looks) < 2:
        return []
    rows = [
        plain(
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
            text_columns=["winner"],
        )
    ]


def protocol_words(inputs: StudyInputs) -> str:
    """Describe the protocol of the study."""
    settings = inputs.settings
    if inputs.published:
        return (
            "This repeats the published protocol as it is described: the best of all epochs on "
            "validation, one seed, one learning rate for all optimizers, and the highest figure "
            "wins. Such figures are optimistic: the epoch is chosen on the very pictures that it "
            "is then reported on, and how much another seed would change is not measured. "
            "The protocol better (params study.protocol) measures both."
        )
    seeds = len(settings["seeds"])
    counted = "one seed" if seeds == 1 else f"the mean over {seeds} seeds"
    return (
        f"Every arm is scored by mean recall over emotions on validation pictures after the last "
        f"epoch, {counted}; no epoch is picked. Intervals cover other people and other seeds. "
        "Arms less than one standard error below the best count as equally good: among them the "
        "smallest network is chosen, and among equally large ones the recipe of the round before. "
        "Each optimizer is tried at learning rates of its own and displayed at its best."
    )


def meta_words(inputs: StudyInputs) -> str:
    """Return one line on the study's data, epochs and seeds."""
    arms, runs = inputs.tables["arms"], inputs.tables["runs"]
    images, people = arms["images"].max(), arms["people"].max()
    trained = runs["train_images"].max()
    train_people = inputs.people.get("train", 0)
    seeds = inputs.settings["seeds"][:1] if inputs.published else inputs.settings["seeds"]
    return (
        f"trained on {count(trained)} pictures of {count(train_people)} people · validated on "
        f"{count(images)} of {count(people)} · {inputs.settings['epochs']} epochs · seeds "
        f"{', '.join(map(str, seeds))}"
    )


def cards(inputs: StudyInputs) -> list[dict[str, str]]:
    """Return the key numbers at the top of the page."""
    summary, test = inputs.summary, test_row(inputs)
    runs = inputs.tables["runs"]
    longest = runs.sort_values("until").groupby(["round", "arm", "seed"]).last()
    seconds = float(longest["train_seconds"].sum())
    return [
        _card(
            percent(test["value"]),
            "mean recall on test pictures",
            f"{confidence_text(test['confidence'])} interval "
            f"{percent_interval(test['ci_low'], test['ci_high'])}; "
            f"{count(test['images'])} pictures of {count(test['people'])} people",
        ),
        _card(
            millions(summary["parameters"]),
            f"parameters of {summary['backbone']}",
            _compared(inputs),
        ),
        _epochs_card(summary["epochs"], summary["epochs_of_grid"], len(runs)),
        _card(duration(seconds), "of training, all runs added up", "without loading and tests"),
    ]


def duration(seconds: float) -> str:
    """Format a duration."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def cost_words(inputs: StudyInputs) -> list[str]:
    """Describe the cost of the study, and what halving saved."""
    summary, halving = inputs.summary, inputs.settings["halving"]
    trained, grid = summary["epochs"], summary["epochs_of_grid"]
    sentences = []
    if halving and not inputs.published:
        sentences.append(
            f"Successive halving: every arm is trained for {halving['min_epochs']} epochs with "
            f"{halving['first_seeds']} of {len(inputs.settings['seeds'])} seeds; of those, one in "
            f"{halving['reduction_factor']} continues, and so does the incumbent: the backbone "
            "that the rule would choose then, and later the winner of the round before. At least "
            "two arms of a round are trained to the end with every seed. "
            f"So {count(trained)} epochs were trained instead of {count(grid)} "
            f"({100 * trained / grid:.0f}\u202f%). "
            "What a slow-starting arm would have reached in the end is not known."
        )
    else:
        sentences.append(f"Every run was trained to the end: {count(trained)} epochs.")
    sentences.append(
        "A recipe that two rounds share is trained once. Seconds are of training only; "
        "parallel runs slow each other down, so compare them only roughly."
    )
    return sentences


def test_notes(inputs: StudyInputs) -> list[str]:
    """Return notes on the test results."""
    row, accuracy = test_row(inputs), test_row(inputs, "accuracy")
    seeds = int(row["seeds"])
    models = "the winner's model" if seeds == 1 else f"the winner's {seeds} models, one per seed"
    sentences = [
        f"Answers of {models}: mean recall {percent(row['value'])} "
        f"({percent_interval(row['ci_low'], row['ci_high'])}), accuracy "
        f"{percent(accuracy['value'])} "
        f"({percent_interval(accuracy['ci_low'], accuracy['ci_high'])})."
    ]
    if row["also_trained_on"]:
        sentences.append(
            f"{count(row['also_trained_on'])} of the {count(row['images'])} test pictures show "
            "people who also appear in training or validation pictures (split.unit: image): the "
            "figures are therefore too high for new people."
        )
    if row["left_out"]:
        sentences.append(
            f"{count(row['left_out'])} pictures show an emotion that was not trained on."
        )
    sentences.append(
        "Groups of few people have wide intervals, and a difference between two rows here was not "
        "tested: affectgap run compares groups."
    )
    return sentences


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
                *plain(name, count(first["images"]), count(first["people"])),
                *(
                    Cell(percent(c["value"]), percent_interval(c["ci_low"], c["ci_high"]))
                    for c in cells
                ),
                Cell(count(first["emotions"])),
            ]
        )
    return Table(
        f"The winner on test pictures, with {confidence_text(first['confidence'])} intervals for "
        "other "
        "people and other seeds.",
        ("group", "pictures", "people", "mean recall", "accuracy", "emotions"),
        rows,
        methods=[f"{text}." for text in dict.fromkeys(inputs.test["method"])],
    )


def limits(inputs: StudyInputs) -> list[str]:
    """Return what the study cannot show."""
    sentences = []
    if DRAWN_DATASET in inputs.datasets:
        sentences.append(
            f"{DRAWN_NOTICE.capitalize()}. Which network reads drawn faces best says little about "
            "which reads photographs best."
        )
    sentences += [
        "Rounds run one after the other. A loss that is best with the chosen backbone need "
        "not be so with another: pairs that were not tried are not known.",
        "The recipe (augmentation, schedule, epochs, batch size) is the same for all. A backbone "
        "that needs another one is underrated.",
        "The winner's validation score is the highest or near the highest of many and therefore "
        f"rather too high. {looks_words(inputs)}",
        "Accuracies of other studies are of other pictures and other people: compare orders, not "
        "heights.",
        "Mean recall is of labels. It says nothing about what a person felt, and nothing about "
        "gaps between groups that are not in the table of test figures.",
    ]
    if inputs.published:
        sentences.append("With one seed, luck cannot be told from merit.")
    return sentences


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
    arms = inputs.tables["arms"]
    arms = arms[arms["round"] == "optimizers"]
    n_optimizers, n_rates = arms["optimizer"].nunique(), arms["arm"].nunique()
    counts = {row.round: row.compared for row in inputs.choices.itertuples()}
    with_rates = f" ({n_rates} with their rates)" if n_rates > n_optimizers else ""
    return (
        f"{counts['backbones']} backbones, {counts['losses']} losses and {n_optimizers} optimizers"
        f"{with_rates} compared"
    )


def _epochs_card(trained: int, grid: int, runs: int) -> dict[str, str]:
    """Return the card of trained epochs, as a share of those without halving."""
    if trained == grid:
        return _card(count(trained), "epochs trained", f"in {count(runs)} runs, each to its end")
    detail = f"{count(trained)} of {count(grid)} epochs, in {count(runs)} runs"
    return _card(f"{100 * trained / grid:.0f}\u202f%", "of the epochs of the full grid", detail)


def _card(value: str, label: str, detail: str) -> dict[str, str]:
    return {"value": value, "label": label, "detail": detail, "tone": ""}
