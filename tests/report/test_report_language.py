"""The report follows docs/fairness_language.md: the words that are not used, and how figures stand.

The list of words is read from the document's own table.
"""

import re
from pathlib import Path

import pytest

from tasks.core.labels import DRAWN_NOTICE

GUIDE = Path(__file__).parents[2] / "docs" / "fairness_language.md"
STUDY_SAYS = r"(?:study calls accuracy|calls recall accuracy)"
SENTENCES = ("change", "strategies", "factors", "calibration")  # with generated sentences


def forbidden():
    """The words in the first column of the table below its heading."""
    part = GUIDE.read_text(encoding="utf-8").split("## Words that are not used")[1]
    rows = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("| `")]
    return [word for row in rows for word in re.findall(r"`([^`]+)`", row.split("|")[1])]


def plain(html):
    """What a reader reads: no tags, no style, no copy of params.yaml."""
    html = re.sub(r"<(style|pre)>.*?</\1>", " ", html, flags=re.S)
    text = re.sub(r"<[^>]+>", " ", html).replace("\u00a0", " ").replace("\u202f", " ")
    return " ".join(text.split())


def sections(page):
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.S))


def found_in(text, word):
    return re.findall(rf"\b{re.escape(word)}\b", text, re.I)


def test_the_guide_lists_words():
    assert {"debiased", "significant", "accuracy", "ground truth"} <= set(forbidden())


@pytest.mark.parametrize("word", [word for word in forbidden() if word != "accuracy"])
def test_words_that_are_not_used_are_absent(drawn, word):
    assert not found_in(plain(drawn[0]), word)


def test_recall_is_called_accuracy_only_where_the_study_does(drawn):
    page = drawn[0]
    said = re.sub(STUDY_SAYS, "", plain(page), flags=re.I)
    calibration = plain(sections(page)["calibration"])  # where it means all answers
    assert len(found_in(said, "accuracy")) == len(found_in(calibration, "accuracy"))
    assert re.search(STUDY_SAYS, plain(page))


def sentences(page):
    """Every generated sentence: the summary's, the cards' and the lists'."""
    summary = page.split('id="summary"')[1].split("<section")[0]
    found = re.findall(r"<p(?: class=\"lead\")?>(.*?)</p>", summary, re.S)
    found += re.findall(r'<div class="card[^"]*">(.*?)</div>', summary, re.S)
    for name in SENTENCES:
        found += re.findall(r"<li>((?:(?!<li>|<ul>).)*?)</li>", sections(page)[name], re.S)
    return [plain(sentence) for sentence in found]


def test_a_percentage_never_stands_without_n_and_interval(drawn):
    told = [
        text for text in sentences(drawn[0]) if re.search(r"\d %|\d (?:percentage )?points", text)
    ]
    assert len(told) > 12
    for text in told:
        assert "interval" in text, text
        assert re.search(r"\bn = \d|\d of \d|of \d+ against|to [\d.]+ % of \d", text), text


def test_sections_with_figures_of_drawn_data_carry_the_notice(drawn):
    for name, text in sections(drawn[0]).items():
        if "<figure" in text or 'class="ci"' in text or name in ("data", "pretraining", "fairness"):
            assert DRAWN_NOTICE in text, name


def test_what_gender_and_emotion_mean_is_said(drawn):
    text = plain(drawn[0])
    assert "as recorded by the dataset" in text
    assert "label of a picture" in text
    assert "could not be shown is not a gap that is absent" in text


def test_a_lesser_verdict_is_not_given_a_stronger_word(unshown):
    text = plain(unshown[0])
    assert "No gap between groups could be shown" in text
    assert not any(found_in(text, word) for word in forbidden() if word != "accuracy")
