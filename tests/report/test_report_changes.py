"""What fine-tuning changed: a loss on one emotion must not hide behind a pooled figure."""

from types import SimpleNamespace

import pandas as pd

from tasks.report.sections.summary import cards, changes


def cell(gender: str, emotion: str, change: float, p_adjusted: float) -> dict[str, object]:
    return {
        "dataset": "all",
        "gender": gender,
        "emotion": emotion,
        "n": 50,
        "recall_base": 0.9,
        "recall_finetuned": 0.9 + change,
        "change": change,
        "ci_low": change - 0.1,
        "ci_high": change + 0.1,
        "confidence": 0.95,
        "gained": 1,
        "lost": 2,
        "p_adjusted": p_adjusted,
    }


ROWS = [
    cell("all", "all", 0.01, 1.0),
    cell("female", "all", 0.02, 1.0),
    cell("female", "neutral", -0.22, 0.017),
    cell("female", "happiness", 0.3, 0.001),
    cell("unknown", "all", -0.5, 0.001),
]


def inputs(rows: list[dict[str, object]]) -> SimpleNamespace:
    groups = pd.DataFrame(
        [
            {
                "dataset": "all",
                "gender": "all",
                "emotion": "all",
                "model": model,
                "protocol": "held_out",
                "n": 100,
                "correct": 90,
                "recall": 0.9,
                "ci_low": 0.8,
                "ci_high": 0.95,
                "confidence": 0.95,
            }
            for model in ("base", "finetuned")
        ]
    )
    further = {"strategies": pd.DataFrame(), "choice": pd.DataFrame()}
    change = pd.DataFrame(rows)
    return SimpleNamespace(before_after=change, by=["gender"], groups=groups, further=further)


def test_shown_changes_on_single_emotions_are_told_and_unknown_groups_are_not():
    told = {part["head"]: part["items"] for part in changes(inputs(ROWS))}
    (lost,) = told["Lost"]
    assert "female, neutral: −22.0 points" in lost
    (gained,) = told["Gained"]
    assert "happiness" in gained
    assert not any("unknown" in line for lines in told.values() for line in lines)


def test_no_loss_is_only_said_where_no_emotion_shows_one():
    heads = [part["head"] for part in changes(inputs(ROWS[:2]))]
    assert "No loss could be shown for any group or emotion" in heads


def test_the_largest_shown_loss_on_one_emotion_is_a_key_figure():
    found = cards(inputs(ROWS), None, None)
    assert any("neutral" in card["label"] and card["tone"] == "loss" for card in found)
    assert not any("neutral" in card["label"] for card in cards(inputs(ROWS[:2]), None, None))


def test_a_change_of_one_person_is_told_to_have_no_interval():
    alone = {**cell("female", "all", 0.02, float("nan")), "ci_low": float("nan")}
    told = [line for part in changes(inputs([ROWS[0], alone])) for line in part["items"]]
    assert any("people recorded as female" in line and "no interval" in line for line in told)
    assert "nan" not in " ".join(told)
