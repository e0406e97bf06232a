"""The page: found gaps, notices and credits, nothing from outside, nothing that breaks it."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.paths import STAGE_OUTS
from tasks.report.html.components import embed
from tasks.report.sample_predictions import choose_images

CREDIT = "Face Research Lab London Set (DeBruine &amp; Jones 2017), CC BY 4.0"


class Links(HTMLParser):
    """Collects what a browser would load, the texts for images, and unclosed tags."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self):
        super().__init__()
        self.loads, self.alts, self.open, self.faults = [], [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.loads += [values[key] for key in ("src", "href", "srcset") if values.get(key)]
        if tag == "img":
            self.alts.append(values.get("alt"))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open[-1:] != [tag]:
            self.faults.append((tag, self.getpos()))
        else:
            self.open.pop()


def test_the_page_loads_nothing_and_is_well_formed(drawn):
    page = drawn[0]
    links = Links()
    links.feed(page)
    inside = ("data:", "#", "http://127.0.0.1:5000/#/experiments/")  # the last: only when clicked
    assert links.loads and all(link.startswith(inside) for link in links.loads)
    offline = page.replace('<a href="http://127.0.0.1:5000/#/', "")  # followed only when clicked
    assert not re.search(r"https?://|@import|url\(|<script|//cdn", offline)
    assert links.alts and all(links.alts)
    assert not links.faults and not links.open
    targets = {link[1:] for link in links.loads if link.startswith("#")}
    assert targets <= set(re.findall(r'id="([^"]+)"', page))


def test_what_comes_from_outside_is_escaped(drawn):
    assert "Who is &lt;read&gt;?" in drawn[0]
    assert "&lt;script&gt;alert(1)" in drawn[0]


def test_it_finds_the_planted_gap_with_counts_and_interval(drawn):
    page, paths, result = drawn
    lead = re.search(r'class="lead">([^<]+)<', page).group(1)
    assert "40.0 % of the pictures of children correctly (16 of 40)" in lead
    assert "80.0 % of those of adults (32 of 40)" in lead
    assert "95 % interval 18.0 to 56.0" in lead
    assert "pictures labelled happiness of children" in page
    numbers = json.loads(paths.metrics.read_text(encoding="utf-8"))
    assert numbers["largest_gap"]["gap"] == -0.4
    assert (numbers["largest_gap"]["n_a"], numbers["largest_gap"]["n_b"]) == (40, 40)
    assert numbers["change_by_finetuning"]["age_band=child"]["n"] == 32
    assert numbers["rejects"] == {"ingest": 1, "check": 0, "crop": 3}
    assert result.metrics["largest_gap"] == 0.4


def test_it_says_who_gained_and_who_lost(drawn):
    section = drawn[0].split('id="change"')[1].split("</section>")[0]
    gained, lost = section.split("<li>Gained")[1].split("<li>Lost")
    assert "children: +25.0 points" in gained and "adults" not in gained
    assert "adults: −12.5 points" in lost and "n\u00a0=\u00a032; 4 gained, 8 lost" in lost


def test_it_says_none_where_no_gap_was_shown(unshown):
    page, paths, result = unshown
    assert "No gap between groups could be shown in 2 comparisons" in page
    assert "a gap of" not in page.split('id="change"')[0].split("<main>")[1]
    assert json.loads(paths.metrics.read_text())["largest_gap"] is None
    assert result.metrics == {}


def test_the_drawn_notice_is_a_banner_and_in_every_section_with_figures(drawn):
    page = drawn[0]
    assert f'<div class="banner" role="note">{DRAWN_NOTICE}</div>' in page
    sections = re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.S)
    with_figures = [name for name, text in sections if "<figure" in text]
    assert len(with_figures) >= 6
    for name, text in sections:
        if "<figure" in text or name in ("recall", "gaps", "data"):
            assert DRAWN_NOTICE in text, name


def test_london_is_credited_and_has_no_drawn_notice(tmp_path, project, report):
    page, _ = report(project(tmp_path, dataset="london"))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S)
    assert captions and all(CREDIT in caption for caption in captions)
    assert DRAWN_NOTICE not in page and "banner" not in page.split("</style>")[1]


def test_rejects_are_counted_by_group_and_the_detector_by_band(drawn):
    page = drawn[0]
    assert re.search(
        r"<td>crop</td><td class=\"text\">no face found</td>.*?child.*?<td>3</td>", page
    )
    assert re.search(
        r"<td>ingest</td><td class=\"text\">damaged</td><td class=\"text\">–</td>", page
    )
    misses = page.split("found no face")[1]
    assert re.search(r"<td>child</td><td>20</td><td>3</td><td>15.0 %", misses)
    assert re.search(r"<td>adult</td><td>20</td><td>0</td><td>0.0 %", misses)


def test_checks_runs_and_untrained_models_are_told(drawn):
    page = drawn[0]
    assert "1 of 2 expectations held" in page
    assert "run-of-evaluate@base" in page
    assert "The base model is pre-trained and was used as it is" in page
    assert "The fine-tuned model is pre-trained" not in page


def test_missing_optional_inputs_are_a_sentence(tmp_path, project, report):
    page, _ = report(project(tmp_path, optional=False), images=0)
    for sentence in (
        "No results of checks were found.",
        "The figure <code>lime_base.png</code> was not found",
        "No records of tracking runs were found.",
        "No stage left out a picture.",
        "No digests",
        "No strategies were compared on held-out pictures.",
        "No gap was standardized",
        "none is worst or best",
        "Calibration cannot be computed",
        "No two groups could be compared in what they are read as.",
        "Who the base model was first trained on is not known here",
        "No published figures are named",
    ):
        assert sentence in page


def test_a_missing_table_is_one_line(tmp_path, project, report):
    paths = project(tmp_path)
    (paths.tables / "gaps.csv").unlink()
    with pytest.raises(DataError, match=r"gaps\.csv: no such table; run"):
        report(paths)


def test_it_writes_what_dvc_expects_and_the_same_again(drawn, report):
    page, paths, _ = drawn
    outs = [name for name in STAGE_OUTS["report"] if "runs" not in name]
    before = {name: paths.at(name).read_bytes() for name in outs}
    again, _ = report(paths)
    assert again == page
    assert {name: paths.at(name).read_bytes() for name in outs} == before


def test_random_images_are_held_out_and_do_not_depend_on_row_order(images):
    table = images.assign(seen_in_training=False)
    seen = table.assign(seen_in_training=table["subject_id"] == "drawn/2")
    chosen = choose_images({"base": table, "finetuned": seen}, 5, 1)
    assert len(chosen) == 5
    rows = seen.set_index("image_id").loc[chosen]
    assert set(rows["split"]) == {"test"} and not rows["seen_in_training"].any()
    mixed = {"base": table.sample(frac=1, random_state=0), "finetuned": seen.iloc[::-1]}
    assert choose_images(mixed, 5, 1) == chosen
    assert choose_images(mixed, 5, 2) != chosen


def test_large_images_are_made_to_fit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    small = embed(tmp_path / "noise.png", 60_000)
    assert len(small.uri) * 3 / 4 < 80_000 or small.width_px == 320
    kept = embed(tmp_path / "noise.png", 2_000_000)
    assert (kept.width_px, kept.height_px) == (700, 400)
