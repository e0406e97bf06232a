"""The summary: the largest gap that could be shown, and what fine-tuning changed.

Pure functions from the audit's tables to sentences and key numbers; nothing is chosen by hand.
"""

from typing import Any

import pandas as pd

from tasks.core.gap_sentences import (
    gap_sentence,
    intersection_sentence,
    largest_gap,
    no_gap_sentence,
    not_shown,
    percent,
    points,
    turned,
    worst_intersection,
)
from tasks.core.labels import ALL, UNKNOWN, credit_line
from tasks.core.paths import MODELS
from tasks.report.html.formatting import (
    capital,
    confidence_text,
    count,
    group_key,
    interval_words,
    is_significant,
    join_names,
    mde_phrase,
    model_name,
    people_phrase,
    percent_interval,
    points_interval,
    rounded,
)
from tasks.report.inputs import Inputs
from tasks.report.sections.cube_rows import Group, group_list, group_rows, pick
from tasks.report.sections.factors import standardized_gap_metrics, standardized_gap_sentences
from tasks.report.sections.recall import held_out_gaps, same_comparison
from tasks.report.sections.strategies import outcome_sentences, strategy_card, strategy_metrics

BASE, FINETUNED = MODELS[0], MODELS[1]
_MAX_DETECTABLE = 3  # comparisons whose smallest detectable gap is named


def findings(inputs: Inputs) -> dict[str, Any]:
    """Return the sentences and key numbers of the summary box.

    Keys: `lead` (one sentence), `emotion` (the largest gap on one emotion, or ""), `after` (the
    same two groups after fine-tuning), `changes` (sentences), `cards` (key numbers), `caveats`,
    `lead_is_single` (the lead is about one emotion, as no pooled gap could be shown), `further`
    (sentences on the gap at a common mix and on the strategies).
    """
    gap = largest_gap(inputs.gaps, BASE, single_emotions=False)
    single = largest_gap(inputs.gaps, BASE, single_emotions=True)
    name = f"the {model_name(BASE)}"
    lead = gap if gap is not None else single
    sentences = [gap_sentence(row, name) for row in (gap, single) if row is not None]
    return {
        "lead": sentences[0] if sentences else no_gap_sentence(inputs.gaps, BASE),
        "emotion": sentences[1] if len(sentences) > 1 else "",
        "lead_is_single": gap is None and single is not None,
        "further": [
            *standardized_gap_sentences(inputs)[:1],
            *_worst_intersection(inputs),
            " ".join(outcome_sentences(inputs)),
        ],
        "after": _same_pair_after(inputs, lead),
        "changes": changes(inputs),
        "cards": cards(inputs, gap, single),
        "caveats": _caveats(inputs, lead),
    }


def _worst_intersection(inputs: Inputs) -> list[str]:
    """Describe the intersectional group furthest below the rest, if any is significant."""
    worst = worst_intersection(inputs.further["intersections"], BASE)
    return [] if worst is None else [intersection_sentence(worst, f"the {model_name(BASE)}")]


def cards(inputs: Inputs, gap: pd.Series | None, single: pd.Series | None) -> list[dict[str, str]]:
    """Return three or four key numbers, each with its label, counts and interval."""
    result = [_gap_card(row) for row in (gap, single) if row is not None]
    lead = gap if gap is not None else single
    if lead is None:
        result = [_recall_card(inputs, model) for model in MODELS]
    groups = [{}] if lead is None else [{lead["dimension"]: lead[f"group_{s}"]} for s in "ab"]
    emotion = ALL if lead is None else lead["emotion"]
    for group in groups:
        result += _change_card(inputs, group, emotion)
    result += [*_worst_loss_card(inputs), *strategy_card(inputs)]
    return [card for card in result if card]


def _worst_loss_card(inputs: Inputs) -> list[dict[str, str]]:
    """Return the largest significant loss on one emotion, which pooled numbers can hide."""
    lost = [
        (row["change"], group, row["emotion"])
        for group, row in group_rows(inputs.before_after, inputs.by, crossed=False)
        if is_significant(row["p_adjusted"]) and row["change"] < 0 and row["emotion"] != ALL
    ]
    if not lost:
        return []
    _, group, emotion = min(lost, key=lambda loss: loss[0])
    return _change_card(inputs, group, emotion)


def changes(inputs: Inputs) -> list[dict[str, Any]]:
    """Describe the change of every group by fine-tuning: significant gains, losses, then the rest.

    Each entry has a `head` (a line) and `items` (one line per group).
    """
    table = inputs.before_after
    if table.empty:
        head = "No picture is held out from both models, so no change can be measured"
        return [{"head": head, "items": []}]
    rows = [
        (group, row)
        for group, row in group_rows(table, inputs.by, crossed=False)
        if UNKNOWN not in group.values()  # gaps in the records are not a group
        and (row["emotion"] == ALL or is_significant(row["p_adjusted"]))
    ]
    groups = [(group, row) for group, row in rows if group or row["emotion"] != ALL]
    gained = [
        _change(w, r) for w, r in groups if is_significant(r["p_adjusted"]) and r["change"] > 0
    ]
    lost = [_change(w, r) for w, r in groups if is_significant(r["p_adjusted"]) and r["change"] < 0]
    rest = [_change(w, r) for w, r in groups if not is_significant(r["p_adjusted"])]
    none = "could be shown for any group or emotion"
    parts = [
        {"head": "Over all pictures", "items": [_change(*rows[0])]},
        {"head": "Gained" if gained else f"No gain {none}", "items": gained},
        {"head": "Lost" if lost else f"No loss {none}", "items": lost},
    ]
    return parts + (
        [{"head": "No change shown after correction for all comparisons", "items": rest}]
        if rest
        else []
    )


def metrics(inputs: Inputs) -> dict[str, Any]:
    """Return the report's numbers for metrics.json, each with `n` and its interval."""
    groups = inputs.groups[inputs.groups["protocol"] == "held_out"]
    recalls = {
        model: {
            group_key(group): _figures(row, "recall")
            for group in group_list(groups, inputs.by, crossed=False)
            for _, row in pick(groups, inputs.by, group, emotion=ALL, model=model).iterrows()
        }
        for model in MODELS
    }
    change = {
        group_key(group): _figures(row, "change")
        for group, row in group_rows(inputs.before_after, inputs.by, crossed=False)
        if row["emotion"] == ALL
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
        "standardized_gaps": standardized_gap_metrics(inputs),
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


def _same_pair_after(inputs: Inputs, lead: pd.Series | None) -> str:
    """Describe the gap of the same two groups under the fine-tuned model, and before."""
    if lead is None:
        return ""
    same = same_comparison(held_out_gaps(inputs, FINETUNED), lead)
    if same.empty:
        return "After fine-tuning, these two groups have no held-out pictures to compare."
    row = turned(same.iloc[0])
    sentence = gap_sentence(row, f"after fine-tuning, the {model_name(FINETUNED)}")
    if not bool(row["enough_n"]):
        sentence += " Too few pictures to test it."
    elif not is_significant(row["p_adjusted"]):
        least = mde_phrase(row)
        sentence += f" This gap {not_shown(row)}{f': {least}' if least else ''}."
    return sentence + _base_on_same_images(inputs, row)


def _base_on_same_images(inputs: Inputs, row: pd.Series) -> str:
    """Describe the base model's recall on the images held out from both models."""
    recalls = []
    for side in "ab":
        group = {row["dimension"]: row[f"group_{side}"]}
        cells = pick(inputs.before_after, inputs.by, group, emotion=row["emotion"])
        if cells.empty or int(cells.iloc[0]["n"]) != int(row[f"n_{side}"]):
            return ""  # the groups differ in their emotions or data sets
        recalls.append(_recall_words(cells.iloc[0]))
    return f" On these same pictures the base model reads {recalls[0]} and {recalls[1]}."


def _recall_words(row: pd.Series) -> str:
    limits = {"ci_low": row["base_ci_low"], "ci_high": row["base_ci_high"]}
    interval = interval_words({**limits, "confidence": row["confidence"]}, percent_interval)
    n = f"n\u00a0=\u00a0{count(row['n'])}"
    return f"{percent(row['recall_base'])} ({interval}, {n})"


def _change(group: Group, row: pd.Series) -> str:
    emotion = "" if row["emotion"] == ALL else f", {row['emotion']}"
    return (
        f"{people_phrase(group)}{emotion}: {points(row['change'], signed=True)} points (from "
        f"{percent(row['recall_base'])} to {percent(row['recall_finetuned'])}, "
        f"{interval_words(row, points_interval)}, "
        f"n\u00a0=\u00a0{count(row['n'])}; {int(row['gained'])} gained, {int(row['lost'])} lost)"
    )


def _gap_card(row: pd.Series) -> dict[str, str]:
    what = "all emotions" if row["emotion"] == ALL else row["emotion"]
    a, b = (people_phrase({row["dimension"]: row[f"group_{side}"]}) for side in "ab")
    return {
        "value": f"{points(row['gap'], signed=True)} points",
        "label": f"{a} against {b}, {what}, {model_name(BASE)}",
        "detail": f"{percent(row['recall_a'])} of {count(row['n_a'])} against "
        f"{percent(row['recall_b'])} of {count(row['n_b'])}; "
        f"{confidence_text(row['confidence'])} interval "
        f"{points_interval(row['ci_low'], row['ci_high'])}",
        "tone": "gap",
    }


def _change_card(inputs: Inputs, group: Group, emotion: str) -> list[dict[str, str]]:
    if inputs.before_after.empty:
        return []
    rows = pick(inputs.before_after, inputs.by, group, emotion=emotion)
    if rows.empty:
        return []
    row = rows.iloc[0]
    what = "all emotions" if emotion == ALL else emotion
    return [
        {
            "value": f"{points(row['change'], signed=True)} points",
            "label": f"change by fine-tuning for {people_phrase(group)}, {what}",
            "detail": f"{percent(row['recall_base'])} to {percent(row['recall_finetuned'])} of "
            f"{count(row['n'])}; {confidence_text(row['confidence'])} interval "
            f"{points_interval(row['ci_low'], row['ci_high'])}"
            + ("" if is_significant(row["p_adjusted"]) else f"; {not_shown(row)}"),
            "tone": _tone(row),
        }
    ]


def _tone(row: pd.Series) -> str:
    if not is_significant(row["p_adjusted"]):
        return "plain"
    return "gain" if row["change"] > 0 else "loss"


def _recall_card(inputs: Inputs, model: str) -> dict[str, str]:
    rows = pick(inputs.groups, inputs.by, {}, emotion=ALL, model=model, protocol="held_out")
    if rows.empty:
        return {}
    row = rows.iloc[0]
    return {
        "value": percent(row["recall"]),
        "label": f"recall of the {model_name(model)}, all held-out pictures",
        "detail": f"{count(row['correct'])} of {count(row['n'])}; "
        f"{confidence_text(row['confidence'])} "
        f"interval {percent_interval(row['ci_low'], row['ci_high'])}",
        "tone": "plain",
    }


def _caveats(inputs: Inputs, lead: pd.Series | None) -> list[str]:
    """Name what makes the headline weaker than it reads."""
    sentences = []
    if inputs.n_unknown_subjects:
        sentences.append(
            f"Who is in the pictures is not recorded for {count(inputs.n_unknown_subjects)} of "
            f"{count(len(inputs.manifest))}{_unnamed_by_group(inputs)}: "
            f"{_treatment_of_unnamed(inputs)}. The same person may be in training and in test, so "
            "figures of the fine-tuned model may be too high."
        )
    if lead is not None and not str(lead["datasets_with_both"]):
        sentences.append(
            "No data set holds both groups: the gap may be one between data sets (camera, pose, "
            "instructions) as much as one between groups."
        )
    if lead is not None and lead["emotion"] == ALL and str(lead["left_out_emotions"]):
        names = join_names(str(lead["left_out_emotions"]).split())
        sentences.append(
            f"Compared on the emotions that both groups have; {names} left out "
            f"({int(lead['n_left_out'])} pictures)."
        )
    if lead is not None and lead["subjects_a"] < lead["n_a"]:
        sentences.append(
            f"The pictures are of {int(lead['subjects_a'])} and {int(lead['subjects_b'])} people: "
            "few people with many pictures tell less than as many people with one picture each."
        )
    return [*sentences, *_detectable_gaps(inputs, lead)]


def _treatment_of_unnamed(inputs: Inputs) -> str:
    if (inputs.params.get("audit") or {}).get("independent_images"):
        return (
            "each was treated as a different person, independent of all others, as params.yaml says"
        )
    return "no verdict rests on these"


def _unnamed_by_group(inputs: Inputs) -> str:
    """Return how many images of each group have an unknown subject, in parentheses."""
    manifest, counts = inputs.manifest, []
    for name in inputs.by:
        if name in manifest.columns:
            unnamed = manifest[~manifest["subject_known"].astype(bool)]
            sizes = manifest[name].fillna(UNKNOWN).value_counts()
            for group, number in unnamed[name].fillna(UNKNOWN).value_counts().items():
                counts.append(f"{group} {count(number)} of {count(sizes[group])}")
    return f" ({', '.join(counts)})" if counts else ""


def _detectable_gaps(inputs: Inputs, lead: pd.Series | None) -> list[str]:
    """If no pooled gap is significant, describe the smallest detectable gaps."""
    pooled = lead is not None and lead["emotion"] == ALL
    if pooled or inputs.gaps.empty or "mde" not in inputs.gaps:
        return []
    tested = held_out_gaps(inputs, BASE)
    tested = tested[tested["enough_n"].astype(bool) & (tested["emotion"] == ALL)]
    tested = tested[tested["mde"].notna()]
    return [
        f"{capital(people_phrase({row['dimension']: row['group_a']}))} against "
        f"{people_phrase({row['dimension']: row['group_b']})}, all emotions: {mde_phrase(row)}."
        for _, row in tested.nsmallest(_MAX_DETECTABLE, "mde").iterrows()
    ]
