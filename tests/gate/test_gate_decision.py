"""Decisions: reproducible bytes, round trip to disk, and a self-contained page."""

import hashlib
import json
import re

import pytest
from gate_world import answers, images, judge

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_NOTICE
from tasks.gate.decision import read_decision
from tasks.gate.page import page


@pytest.fixture(scope="module")
def table():
    return images()


def test_the_same_models_images_and_params_give_the_same_bytes(table, tmp_path):
    first, again = (judge(table, answers(table), answers(table, right=0.6)) for _ in range(2))
    assert first.to_json() == again.to_json() and page(first) == page(again)
    shuffled = table.sample(frac=1, random_state=3)
    assert judge(shuffled, answers(table), answers(table, right=0.6)).test_set == first.test_set
    other = judge(table, answers(table), answers(table, right=0.6), seed=8)
    assert other.decision_id != first.decision_id
    same = judge(table, answers(table), answers(table, right=0.6), require_approval=True)
    assert same.decision_id == first.decision_id  # approval does not change the decision

    file = tmp_path / "decision.json"
    assert read_decision(file) is None
    file.write_text(first.to_json())
    back = read_decision(file)
    assert back.to_json() == first.to_json() and page(back) == page(first)


def test_a_decision_that_was_edited_is_noticed(table, tmp_path):
    content = json.loads(judge(table, answers(table, right=0.5), answers(table)).to_json())
    assert content["outcome"] == "refuse"
    file = tmp_path / "decision.json"
    file.write_text(json.dumps({**content, "outcome": "pass"}))
    with pytest.raises(DataError, match="changed after it was written"):
        read_decision(file)
    file.write_text("{")
    with pytest.raises(DataError, match="is no decision"):
        read_decision(file)


def test_the_page_is_self_contained_and_has_every_rule(table):
    decision = judge(table, answers(table, right=0.5), answers(table))
    html = page(decision)
    assert not re.search(r"(src|href)=\"(?!data:)|<script|url\(|@import", html)
    assert "Version 2 is refused" in html and html.count(DRAWN_NOTICE) == 5  # on top, 4 headings
    assert all(reason in html for reason in decision.reasons)
    assert "How often this gate errs on this test set" in html
    assert html.count("<tr") == len(decision.table) + 1  # and the head
    for text in ("run-1", "run-2", "a" * 12, "infant × female", "100 (10)", "not judged"):
        assert text in html
    assert not re.search(r"\b(significant|biased|proven|fair)\b", html)
    other = judge(table.assign(dataset="london"), answers(table), answers(table))
    assert DRAWN_NOTICE not in page(other) and "CC BY 4.0" in page(other)
    assert "Version 2, the first, may be used" in page(judge(table, answers(table)))


def test_a_decision_of_an_earlier_release_is_read_as_it_was_written(table, tmp_path):
    """It has fewer columns, and neither `errors` nor `waits`."""
    content = json.loads(judge(table, answers(table), answers(table)).to_json())
    for name in ("decision_id", "waits", "errors"):
        content.pop(name)
    for row in content["rules"]:
        for name in ("effective", "method", "own_low", "own_high"):
            row.pop(name)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = tmp_path / "decision.json"
    written = json.dumps({"decision_id": digest, **content}, indent=2, ensure_ascii=False) + "\n"
    file.write_text(written)
    old = read_decision(file)
    assert old.to_json() == written and old.passed and not old.needs_a_person
    assert old.worst_group != ""
