"""The model card: the run's figures, worded as in docs/fairness_language.md, self-contained."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from registered_project import TABLES, make_project, split_table

from tasks.core.labels import DRAWN_NOTICE
from tasks.core.models.checkpoint import load_spec
from tasks.core.plotting.html import render
from tasks.core.tables import write_table
from tasks.register.card import as_markdown, write_cards
from tasks.register.card_content import Card, Section, build_card
from tasks.register.card_tables import Table

GUIDE = Path(__file__).parents[2] / "docs" / "fairness_language.md"
TEMPLATES = Path(__file__).parents[2] / "tasks" / "register" / "templates"
SECTIONS = ["The model", "Intended use", "Not intended", "Data", "Recall by group", "Gaps"]
SECTIONS += ["Calibration", "Limits", "Licences and notices"]


@pytest.fixture(scope="module")
def texts(registered):
    folder = registered.registry / "cards"
    return [(folder / f"1.{kind}").read_text(encoding="utf-8") for kind in ("md", "html")]


def words_not_used():
    part = GUIDE.read_text(encoding="utf-8").split("## Words that are not used")[1]
    rows = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("| `")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def plain(text):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", text, flags=re.S).split())


def test_words_that_are_not_used_are_absent(texts):
    for text in texts:
        for word in words_not_used():
            assert not re.search(rf"\b{re.escape(word)}\b", plain(text), re.I), word


def test_both_forms_have_every_section_and_the_notice_by_every_table(texts):
    markdown, page = texts
    assert re.findall(r"^## (.+)$", markdown, re.M) == SECTIONS
    assert re.findall(r"<h2>(.+?)</h2>", page) == SECTIONS
    for part in re.findall(r"<section>.*?</section>", page, re.S):
        assert ("<table" in part) <= (DRAWN_NOTICE in part)
    for part in markdown.split("\n## ")[1:]:
        assert ("| ---" in part) <= (DRAWN_NOTICE in part)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page) and "<script" not in page


def test_figures_are_those_of_the_run_with_n_people_and_interval(texts):
    groups = pd.read_csv(TABLES / "groups.csv")
    pooled = groups[(groups["emotion"] == "all")]
    for _, row in pooled.iterrows():
        low, high = (f"{100 * row[name]:.1f}\u202f%" for name in ("ci_low", "ci_high"))
        cells = [row["age_band"], row["gender"], f"{row['n']}", f"{row['subjects']}"]
        cells += [f"{100 * row['recall']:.1f}\u202f%", f"{low} to {high}"]
        assert f"| {' | '.join(cells)} |" in texts[0]
    assert "No gap between groups could be shown" in texts[0]


def test_the_data_are_counted_by_split_and_by_who_was_seen(texts):
    assert "42 pictures of 42 people" in texts[0] and "came later: spring" in texts[0]
    assert "| drawn | child | male | 2 (2) | 2 (2) | 3 (3) |" in texts[0]
    assert "| child | train | 1 | 1 |" in texts[0]


def test_what_is_not_recorded_and_who_is_not_known_is_said(tmp_path):
    paths = make_project(tmp_path)
    table = split_table()
    table.loc[:4, "gender"] = "unknown"
    table.loc[:9, "subject_known"] = False
    table.loc[:2, "age_source"] = "estimated"
    write_table(table.assign(dataset="mine"), paths.split)
    text = as_markdown(build_card(paths, paths.model("finetuned"), 3, {}))
    assert "Gender is not recorded for 5 of 42 pictures" in text
    assert "not recorded for 10 of 42 pictures; each counts as a person of its own" in text
    assert "The age of 3 pictures is an estimate" in text
    assert DRAWN_NOTICE not in text and "without a notice of their own here: mine" in text


def test_a_run_without_tables_has_a_card_that_says_so(tmp_path):
    paths = make_project(tmp_path)
    shutil.rmtree(paths.tables)
    card = build_card(paths, paths.model("finetuned"), 1, {})
    assert "The run wrote no table of groups." in as_markdown(card)
    assert load_spec(paths.model("finetuned")).version in card.title


def test_a_card_of_a_store_that_is_gone_is_replaced_and_no_batch_is_said(tmp_path):
    paths = make_project(tmp_path)
    client = SimpleNamespace(log_text=lambda *_: None)
    asked = (paths, client, paths.model("finetuned"), 1, "run", {"batches": ""})
    for file in write_cards(*asked):
        file.write_text("# Model card: affectgap, version 1 (0123456789ab)")
    markdown, page = write_cards(*asked)
    assert load_spec(paths.model("finetuned")).version in page.read_text(encoding="utf-8")
    assert "Batches that came later: none." in markdown.read_text(encoding="utf-8")
    markdown.write_text(text := markdown.read_text(encoding="utf-8") + "kept as it is")
    assert write_cards(*asked)[0].read_text(encoding="utf-8") == text


def test_names_of_others_are_text_and_not_markup():
    table = Table("a|b", ["x_1"], [["<b>|*"]])
    card = Card("<i>", "", [Section("s", ["<script>1</script>"], ["_p_"], [table])])
    page = render(TEMPLATES, "card.html.j2", {"card": card})
    assert "<script" not in page and "&lt;b&gt;|*" in page
    markdown = as_markdown(card)
    assert "| \\<b\\>\\|\\* |" in markdown and "\\<script\\>" in markdown
