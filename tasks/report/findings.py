"""The headline: the largest gap that could be shown, and what fine-tuning changed.

Pure functions from the audit's tables to sentences and key figures; nothing is chosen by hand.
"""

from typing import Any

import pandas as pd

from tasks.core.headline import (
    gap_sentence,
    intersection_sentence,
    largest_gap,
    no_gap_sentence,
    percent,
    points,
    turned,
    worst_intersection,
)
from tasks.core.labels import ALL, UNKNOWN, credit_line
from tasks.core.paths import MODELS
from tasks.report.cells import group_list, pick
from tasks.report.factors_section import standardised_metrics, standardised_words
from tasks.report.inputs import Inputs
from tasks.report.strategies_section import outcome_words, strategy_card, strategy_metrics
from tasks.report.words import (
    capital,
    could_have,
    count,
    group_key,
    interval_words,
    level,
    listed,
    model_word,
    people_word,
    rounded,
    shown,
    span,
    span_points,
)

BASE, FINETUNED = MODELS[0], MODELS[1]
_LEAST = 3  # comparisons whose smallest gap that could have been shown is told


def findings(inputs: Inputs) -> dict[str, Any]:
    """Return the sentences and key figures of the summary box.

    Keys: `lead` (one sentence), `emotion` (the largest gap on one emotion, or ""), `after` (the
    same two groups after fine-tuning), `changes` (sentences), `cards` (key figures), `caveats`,
    `lead_is_single` (the lead is about one emotion, as no pooled gap could be shown), `further`
    (sentences on the gap at a common mix and on the strategies).
    """
    gap = largest_gap(inputs.gaps, BASE, single_emotions=False)
    single = largest_gap(inputs.gaps, BASE, single_emotions=True)
    name = f"the {model_word(BASE)}"
    lead = gap if gap is not None else single
    sentences = [gap_sentence(row, name) for row in (gap, single) if row is not None]
    return {
        "lead": sentences[0] if sentences else no_gap_sentence(inputs.gaps, BASE),
        "emotion": sentences[1] if len(sentences) > 1 else "",
        "lead_is_single": gap is None and single is not None,
        "further": [
            *standardised_words(inputs)[:1],
            *_intersection(inputs),
            " ".join(outcome_words(inputs)),
        ],
        "after": _after(inputs, lead),
        "changes": changes(inputs),
        "cards": cards(inputs, gap, single),
        "caveats": _caveats(inputs, lead),
    }


def _intersection(inputs: Inputs) -> list[str]:
    """Describe the group of several columns that is furthest below the rest, if any is shown."""
    worst = worst_intersection(inputs.further["intersections"], BASE)
    return [] if worst is None else [intersection_sentence(worst, f"the {model_word(BASE)}")]


def cards(inputs: Inputs, gap: pd.Series | None, single: pd.Series | None) -> list[dict[str, str]]:
    """Return three or four key figures, each with its label, counts and interval."""
    found = [_gap_card(row) for row in (gap, single) if row is not None]
    lead = gap if gap is not None else single
    if lead is None:
        found = [_recall_card(inputs, model) for model in MODELS]
    groups = [{}] if lead is None else [{lead["dimension"]: lead[f"group_{s}"]} for s in "ab"]
    emotion = ALL if lead is None else lead["emotion"]
    for where in groups:
        found += _change_card(inputs, where, emotion)
    found += [*_worst_loss_card(inputs), *strategy_card(inputs)]
    return [card for card in found if card]


def _worst_loss_card(inputs: Inputs) -> list[dict[str, str]]:
    """Return the largest loss on one emotion that was shown: pooled figures can hide it."""
    worst: tuple[float, dict[str, str], str] | None = None
    for where in group_list(inputs.before_after, inputs.by, crossed=False):
        for _, row in pick(inputs.before_after, inputs.by, where).iterrows():
            lost = shown(row["p_adjusted"]) and row["change"] < 0 and row["emotion"] != ALL
            if lost and (worst is None or row["change"] < worst[0]):
                worst = (row["change"], where, row["emotion"])
    return [] if worst is None else _change_card(inputs, worst[1], worst[2])


def changes(inputs: Inputs) -> list[dict[str, Any]]:
    """Say for every group what fine-tuning changed: gains that were shown, losses, the rest.

    Returns
    -------
    list of dict
        `head` (a line) and `items` (a line a group) each.
    """
    table = inputs.before_after
    if table.empty:
        head = "No picture is held out from both models, so no change can be told"
        return [{"head": head, "items": []}]
    rows = []
    for where in group_list(table, inputs.by, crossed=False):
        if UNKNOWN not in where.values():  # people whose group is not recorded make no group
            rows += [(where, row) for _, row in pick(table, inputs.by, where).iterrows()]
    rows = [(w, row) for w, row in rows if row["emotion"] == ALL or shown(row["p_adjusted"])]
    groups = [(where, row) for where, row in rows if where or row["emotion"] != ALL]
    gained = [_change(w, r) for w, r in groups if shown(r["p_adjusted"]) and r["change"] > 0]
    lost = [_change(w, r) for w, r in groups if shown(r["p_adjusted"]) and r["change"] < 0]
    rest = [_change(w, r) for w, r in groups if not shown(r["p_adjusted"])]
    none = "could be shown for any group or emotion"
    said = [
        {"head": "Over all pictures", "items": [_change(*rows[0])]},
        {"head": "Gained" if gained else f"No gain {none}", "items": gained},
        {"head": "Lost" if lost else f"No loss {none}", "items": lost},
    ]
    return said + ([{"head": "No change could be shown", "items": rest}] if rest else [])


def metrics(inputs: Inputs) -> dict[str, Any]:
    """Return the report's figures for metrics.json: each with `n` and its interval."""
    groups = inputs.groups[inputs.groups["protocol"] == "held_out"]
    recalls: dict[str, Any] = {}
    for model in MODELS:
        recalls[model] = {}
        for where in group_list(groups, inputs.by, crossed=False):
            for _, row in pick(groups, inputs.by, where, emotion=ALL, model=model).iterrows():
                key = group_key(where)
                recalls[model][key] = _figures(row, "recall")
    change = {
        group_key(where): _figures(row, "change")
        for where in group_list(inputs.before_after, inputs.by, crossed=False)
        for _, row in pick(inputs.before_after, inputs.by, where, emotion=ALL).iterrows()
    }
    gaps = {
        "largest_gap": largest_gap(inputs.gaps, BASE, single_emotions=False),
        "largest_gap_of_an_emotion": largest_gap(inputs.gaps, BASE, single_emotions=True),
    }
    return {
        "notice": credit_line(inputs.datasets),
        "pictures": len(inputs.manifest),
        "rejects": {name: len(table) for name, table in inputs.rejects.items()},
        "held_out_recall_score": recalls,
        "change_by_finetuning": change,
        **{name: None if row is None else _gap_figures(row) for name, row in gaps.items()},
        "standardised_gaps": standardised_metrics(inputs),
        "strategies": strategy_metrics(inputs),
    }


def _figures(row: pd.Series, value: str) -> dict[str, float | int | None]:
    return {
        value: rounded(row[value]),
        "ci_low": rounded(row["ci_low"]),
        "ci_high": rounded(row["ci_high"]),
        "n": int(row["n"]),
    }


def _gap_figures(row: pd.Series) -> dict[str, Any]:
    names = ("dimension", "group_a", "group_b", "emotion", "dataset")
    numbers = ("recall_a", "recall_b", "gap", "ci_low", "ci_high", "p_adjusted")
    counts = ("n_a", "correct_a", "n_b", "correct_b")
    return {
        **{name: str(row[name]) for name in names},
        **{name: rounded(row[name]) for name in numbers},
        **{name: int(row[name]) for name in counts},
    }


def _after(inputs: Inputs, lead: pd.Series | None) -> str:
    """Say how the same two groups compare under the fine-tuned model, and before, like for like."""
    if lead is None:
        return ""
    gaps = inputs.gaps
    same = gaps[(gaps["model"] == FINETUNED) & (gaps["protocol"] == "held_out")]
    for name in ("dataset", "dimension", "emotion"):
        same = same[same[name] == lead[name]]
    pair = {lead["group_a"], lead["group_b"]}
    same = same[same["group_a"].isin(pair) & same["group_b"].isin(pair)]
    if same.empty:
        return "After fine-tuning, these two groups have no held-out pictures to compare."
    row = turned(same.iloc[0])
    sentence = gap_sentence(row, f"after fine-tuning, the {model_word(FINETUNED)}")
    if not bool(row["enough_n"]):
        sentence += " Too few pictures to test it."
    elif not shown(row["p_adjusted"]):
        least = could_have(row)
        sentence += f" This gap could not be shown{f': {least}' if least else ''}."
    return sentence + _before_on_the_same(inputs, row)


def _before_on_the_same(inputs: Inputs, row: pd.Series) -> str:
    """Say how the base model reads the pictures that are held out from both models."""
    said = []
    for side in "ab":
        where = {row["dimension"]: row[f"group_{side}"]}
        cells = pick(inputs.before_after, inputs.by, where, emotion=row["emotion"])
        if cells.empty or int(cells.iloc[0]["n"]) != int(row[f"n_{side}"]):
            return (
                ""  # the two groups do not have the same emotions, or several data sets are apart
            )
        said.append(_recall_words(cells.iloc[0]))
    return f" On these same pictures the base model reads {said[0]} and {said[1]}."


def _recall_words(row: pd.Series) -> str:
    """Say the base model's recall of a cell of before_after, with its interval and count."""
    limits = {"ci_low": row["base_ci_low"], "ci_high": row["base_ci_high"]}
    interval = interval_words({**limits, "confidence": row["confidence"]}, span)
    n = f"n\u00a0=\u00a0{count(row['n'])}"
    return f"{percent(row['recall_base'])} ({interval}, {n})"


def _change(where: dict[str, str], row: pd.Series) -> str:
    emotion = "" if row["emotion"] == ALL else f", {row['emotion']}"
    return (
        f"{people_word(where)}{emotion}: {points(row['change'], signed=True)} points (from "
        f"{percent(row['recall_base'])} to {percent(row['recall_finetuned'])}, "
        f"{interval_words(row, span_points)}, "
        f"n\u00a0=\u00a0{count(row['n'])}; {int(row['gained'])} gained, {int(row['lost'])} lost)"
    )


def _gap_card(row: pd.Series) -> dict[str, str]:
    what = "all emotions" if row["emotion"] == ALL else row["emotion"]
    a, b = (people_word({row["dimension"]: row[f"group_{side}"]}) for side in "ab")
    return {
        "value": f"{points(row['gap'], signed=True)} points",
        "label": f"{a} against {b}, {what}, {model_word(BASE)}",
        "detail": f"{percent(row['recall_a'])} of {count(row['n_a'])} against "
        f"{percent(row['recall_b'])} of {count(row['n_b'])}; {level(row['confidence'])} interval "
        f"{span_points(row['ci_low'], row['ci_high'])}",
        "tone": "gap",
    }


def _change_card(inputs: Inputs, where: dict[str, str], emotion: str) -> list[dict[str, str]]:
    if inputs.before_after.empty:
        return []
    rows = pick(inputs.before_after, inputs.by, where, emotion=emotion)
    if rows.empty:
        return []
    row = rows.iloc[0]
    what = "all emotions" if emotion == ALL else emotion
    return [
        {
            "value": f"{points(row['change'], signed=True)} points",
            "label": f"change by fine-tuning for {people_word(where)}, {what}",
            "detail": f"{percent(row['recall_base'])} to {percent(row['recall_finetuned'])} of "
            f"{count(row['n'])}; {level(row['confidence'])} interval "
            f"{span_points(row['ci_low'], row['ci_high'])}"
            + ("" if shown(row["p_adjusted"]) else "; could not be shown"),
            "tone": _tone(row),
        }
    ]


def _tone(row: pd.Series) -> str:
    if not shown(row["p_adjusted"]):
        return "plain"
    return "gain" if row["change"] > 0 else "loss"


def _recall_card(inputs: Inputs, model: str) -> dict[str, str]:
    rows = pick(inputs.groups, inputs.by, {}, emotion=ALL, model=model, protocol="held_out")
    if rows.empty:
        return {}
    row = rows.iloc[0]
    return {
        "value": percent(row["recall"]),
        "label": f"recall of the {model_word(model)}, all held-out pictures",
        "detail": f"{count(row['correct'])} of {count(row['n'])}; {level(row['confidence'])} "
        f"interval {span(row['ci_low'], row['ci_high'])}",
        "tone": "plain",
    }


def _caveats(inputs: Inputs, lead: pd.Series | None) -> list[str]:
    """Name what makes the headline weaker than it reads."""
    said = []
    known = inputs.manifest["subject_known"].astype(bool)
    if not known.all():
        said.append(
            f"Who is in the pictures is not recorded for {count(int((~known).sum()))} of "
            f"{count(len(known))}{_nameless_by_group(inputs)}: {_what_of_nameless(inputs)}. The "
            "same person may be in training and in test, so figures of the fine-tuned model may be "
            "too high."
        )
    if lead is not None and not str(lead["shared_datasets"]):
        said.append(
            "No data set holds both groups: the gap may be one between data sets (camera, pose, "
            "instructions) as much as one between groups."
        )
    if lead is not None and lead["emotion"] == ALL and str(lead["left_out_emotions"]):
        names = listed(str(lead["left_out_emotions"]).split())
        said.append(
            f"Compared on the emotions that both groups have; {names} left out "
            f"({int(lead['n_left_out'])} pictures)."
        )
    if lead is not None and lead["subjects_a"] < lead["n_a"]:
        said.append(
            f"The pictures are of {int(lead['subjects_a'])} and {int(lead['subjects_b'])} people: "
            "few people with many pictures tell less than as many people with one picture each."
        )
    return [*said, *_least(inputs, lead)]


def _what_of_nameless(inputs: Inputs) -> str:
    if (inputs.params.get("audit") or {}).get("independent_images"):
        return "each was taken as another person, independent of all others, as params.yaml says"
    return "no verdict rests on these"


def _nameless_by_group(inputs: Inputs) -> str:
    """Return how many pictures of each group are of unknown subjects, in parentheses."""
    manifest, words = inputs.manifest, []
    for name in inputs.by:
        if name in manifest.columns:
            nameless = manifest[~manifest["subject_known"].astype(bool)]
            sizes = manifest[name].fillna(UNKNOWN).value_counts()
            for group, number in nameless[name].fillna(UNKNOWN).value_counts().items():
                words.append(f"{group} {count(number)} of {count(sizes[group])}")
    return f" ({', '.join(words)})" if words else ""


def _least(inputs: Inputs, lead: pd.Series | None) -> list[str]:
    """Where no pooled gap was shown, say how large the gaps are that could have been."""
    gaps = inputs.gaps
    pooled = lead is not None and lead["emotion"] == ALL
    if pooled or gaps.empty or "mde" not in gaps:
        return []
    tested = gaps[(gaps["model"] == BASE) & (gaps["protocol"] == "held_out")]
    tested = tested[tested["enough_n"].astype(bool) & (tested["emotion"] == ALL)]
    tested = tested[tested["mde"].notna()]
    return [
        f"{capital(people_word({row['dimension']: row['group_a']}))} against "
        f"{people_word({row['dimension']: row['group_b']})}, all emotions: {could_have(row)}."
        for _, row in tested.nsmallest(_LEAST, "mde").iterrows()
    ]
