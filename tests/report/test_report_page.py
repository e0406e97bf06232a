"""The page: found gaps, notices and credits, nothing from outside, nothing that breaks it."""

import hashlib
import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.paths import STAGE_OUTS, Paths
from tasks.core.shards import encode_png, write_shards
from tasks.core.tables import MANIFEST_SCHEMA, rejects_table, write_csv, write_table
from tasks.report import stage
from tasks.report.embed import embed
from tasks.report.figures import choose_pictures

LABELS = ["happiness", "neutral"]
MODELS = ("base", "finetuned")
CREDIT = "Face Research Lab London Set (DeBruine &amp; Jones 2017), CC BY 4.0"
CI = {"ci_low": 0.1, "ci_high": 0.95, "confidence": 0.95}
BANDS = ("all", "child", "adult")


def manifest(dataset):
    rows = []
    for person, emotion in itertools.product(range(20), LABELS):
        name = hashlib.sha256(f"{person}{emotion}".encode()).hexdigest()
        band = "child" if person % 2 else "adult"
        rows.append(
            {
                "image_id": name[:16],
                "path": f"{dataset}/{person}.png",
                "dataset": dataset,
                "batch": "",
                "subject_id": f"{dataset}/{person}",
                "subject_known": True,
                "emotion": emotion,
                "emotion_raw": emotion,
                "age_years": 6.0 if band == "child" else 30.0,
                "age_band": band,
                "age_source": "recorded",
                "gender": "female",
                "ethnicity": "unknown",
                "gaze": "direct",
                "mouth": "closed",
                "pose": "front",
                "width_px": 64,
                "height_px": 64,
                "sha256": name,
                "split": ["train", "validation", "test"][person % 3],
            }
        )
    return pd.DataFrame(rows)


def audit_tables(dataset, gap=0.4, p_holm=0.001):
    """The audit's tables as its contract has them, with a planted gap and a planted change."""
    cells = list(itertools.product(("all", dataset), BANDS, ("all", *LABELS)))
    base = pd.DataFrame(cells, columns=["dataset", "age_band", "emotion"])
    groups = pd.concat(
        base.assign(model=model, protocol=protocol, gender="all", n=40, correct=20, recall=0.5)
        for model, protocol in itertools.product(MODELS, ("held_out", "all"))
    ).assign(**CI, subjects=20, method="Wilson")
    first = ["model", "protocol", "dataset", "age_band", "gender", "emotion", "n", "correct"]
    groups = groups[[*first, "recall", "ci_low", "ci_high", "subjects", "confidence", "method"]]
    change = base.assign(gender="all", n=32, subjects=16, recall_base=0.5, recall_finetuned=0.75)
    change = change.assign(
        change=0.25, **CI, both=14, lost=2, gained=10, neither=6, p_value=0.001, p_holm=0.001
    )
    for name in MODELS:
        change = change.assign(**{f"{name}_ci_low": 0.3, f"{name}_ci_high": 0.8})
    change.loc[change["age_band"] == "adult", ["change", "lost", "gained"]] = [-0.125, 8, 4]
    change.loc[change["age_band"] == "all", "p_holm"] = np.nan
    gaps = pd.concat(
        pd.DataFrame(
            {
                "model": model,
                "protocol": protocol,
                "dataset": "all",
                "dimension": "age_band",
                "group_a": "child",
                "group_b": "adult",
                "emotion": ["all", "happiness"],
                "n_a": 40,
                "correct_a": 16,
                "recall_a": 0.4,
                "subjects_a": 10,
                "n_b": 40,
                "correct_b": 32,
                "recall_b": 0.8,
                "subjects_b": 10,
                "gap": [-gap, -gap - 0.1],
                "ci_low": -0.56,
                "ci_high": -0.18,
                "confidence": 0.95,
                "p_value": p_holm,
                "p_holm": p_holm,
                "enough_n": True,
                "emotions": "happiness neutral",
                "left_out_emotions": "",
                "n_left_out": 0,
                "shared_datasets": dataset,
                "family": "f",
                "method": "m",
            }
        )
        for model, protocol in itertools.product(MODELS, ("held_out", "all"))
    )
    confusion = pd.DataFrame(
        [
            (model, "held_out", dimension, group, true, answer, 10, 20, 0.5)
            for model in MODELS
            for dimension, group in [("all", "all"), ("age_band", "child"), ("age_band", "adult")]
            for true, answer in itertools.product(LABELS, LABELS)
        ],
        columns=[
            *("model", "protocol", "dimension", "group", "emotion", "y_pred"),
            *("n", "n_emotion", "share"),
        ],
    )
    splits = ("all", "train", "test")
    counts = pd.concat(
        base.assign(model=model, gender="all", split=split, pictures=40, subjects=20, held_out=20)
        for model, split in itertools.product(MODELS, splits)
    ).assign(left_out=0)
    order = ["model", "dataset", "age_band", "gender", "emotion", "split"]
    counts = counts[[*order, "pictures", "subjects", "held_out", "left_out"]]
    tables = {"groups": groups, "before_after": change, "gaps": gaps}
    return tables | {"confusion": confusion, "counts": counts}


def make_project(root, dataset="drawn", optional=True, **audit):
    """Write a small project that the report can be made from."""
    paths = Paths(root)
    pictures = manifest(dataset)
    write_table(pictures.drop(columns="split"), paths.manifest, MANIFEST_SCHEMA)
    grey = encode_png(np.full((32, 32, 3), 127, dtype=np.uint8))
    paths.crop_shards.mkdir(parents=True)
    members = [(f"{name}.png", grey) for name in pictures["image_id"]]
    places = pd.DataFrame([vars(p) for p in write_shards(members, paths.crop_shards, 100)])
    write_table(pd.concat([pictures, places], axis=1), paths.crops)
    for index, model in enumerate(MODELS):
        frame = pictures.assign(model=model, y_pred=LABELS[index], p_happiness=0.6, p_neutral=0.4)
        frame["seen_in_training"] = frame["split"] != "test"
        write_table(frame, paths.predictions(model))
    for name, table in audit_tables(dataset, **audit).items():
        write_csv(table, paths.tables / f"{name}.csv")
    if optional:
        write_optional(paths, pictures)
    return paths


def write_optional(paths, pictures):
    paths.params.write_text("split:\n  by: subject\n# <script>alert(1)</script>\n")
    lost = pictures[pictures["age_band"] == "child"].iloc[:3]
    write_csv(
        rejects_table(
            [(i, p, "no_face", "") for i, p in zip(lost["image_id"], lost["path"], strict=True)]
        ),
        paths.rejects("crop"),
    )
    write_csv(rejects_table([("", "drawn/a&b.png", "damaged", "cut")]), paths.rejects("ingest"))
    write_csv(rejects_table(), paths.rejects("check"))
    checks = [{"name": "min_rows", "kind": "set", "success": True, "observed": 40}]
    checks += [{"name": "odd", "column": "age_years", "success": False, "unexpected_count": 2}]
    paths.check_results.write_text(json.dumps(checks))
    epochs = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "valid_loss": [1.0, 0.7]}
    history = pd.DataFrame({**epochs, "valid_recall_score": [0.5, 0.8]})
    write_csv(history.iloc[:0], paths.model("base") / "history.csv")
    write_csv(history, paths.model("finetuned") / "history.csv")
    for stage_name in ("ingest", "evaluate@base"):
        paths.run_record(stage_name).parent.mkdir(parents=True, exist_ok=True)
        record = {"stage": stage_name, "run_id": f"run-of-{stage_name}"}
        paths.run_record(stage_name).write_text(json.dumps(record))
    paths.figures.mkdir(parents=True, exist_ok=True)
    for name in ("crops", "recall", "before_after", "confusion", "lime_base", "lime_finetuned"):
        Image.new("RGB", (60, 40), "white").save(paths.figures / f"{name}.png")


def run(paths, pictures=4):
    params = stage.Params(title="Who is <read>?", question="How?", test_pictures=pictures, seed=1)
    result = stage.run(params, paths)
    return paths.report.read_text(encoding="utf-8").replace("\u202f", " "), result


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


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    paths = make_project(tmp_path_factory.mktemp("drawn"))
    page, result = run(paths)
    return page, paths, result


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


def test_it_says_none_where_no_gap_was_shown(tmp_path):
    paths = make_project(tmp_path, p_holm=0.4)
    page, result = run(paths)
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


def test_london_is_credited_and_has_no_drawn_notice(tmp_path):
    page, _ = run(make_project(tmp_path, dataset="london"))
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.S)
    assert captions and all(CREDIT in caption for caption in captions)
    assert DRAWN_NOTICE not in page and "banner" not in page.split("</style>")[1]


def test_forbidden_words_are_absent(drawn):
    text = drawn[0].lower()
    assert not re.search(r"debias|unbias|\bsolved\b", text)
    assert "as recorded by the dataset" in text
    assert "label of a picture" in text
    assert "study calls accuracy" in " ".join(text.split())


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


def test_missing_optional_inputs_are_a_sentence(tmp_path):
    page, _ = run(make_project(tmp_path, optional=False), pictures=0)
    for sentence in (
        "No results of checks were found.",
        "The figure <code>lime_base.png</code> was not found",
        "No records of tracking runs were found.",
        "No stage left out a picture.",
        "No digests",
    ):
        assert sentence in page


def test_a_missing_table_is_one_line(tmp_path):
    paths = make_project(tmp_path)
    (paths.tables / "gaps.csv").unlink()
    with pytest.raises(DataError, match=r"gaps\.csv: no such table; run"):
        run(paths)


def test_it_writes_what_dvc_expects_and_the_same_again(drawn):
    page, paths, _ = drawn
    outs = [name for name in STAGE_OUTS["report"] if "runs" not in name]
    before = {name: paths.at(name).read_bytes() for name in outs}
    again, _ = run(paths)
    assert again == page
    assert {name: paths.at(name).read_bytes() for name in outs} == before


def test_random_pictures_are_held_out_and_do_not_depend_on_row_order():
    table = manifest("drawn").assign(seen_in_training=False)
    seen = table.assign(seen_in_training=table["subject_id"] == "drawn/2")
    chosen = choose_pictures({"base": table, "finetuned": seen}, 5, 1)
    assert len(chosen) == 5
    rows = seen.set_index("image_id").loc[chosen]
    assert set(rows["split"]) == {"test"} and not rows["seen_in_training"].any()
    mixed = {"base": table.sample(frac=1, random_state=0), "finetuned": seen.iloc[::-1]}
    assert choose_pictures(mixed, 5, 1) == chosen
    assert choose_pictures(mixed, 5, 2) != chosen


def test_large_pictures_are_made_to_fit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (400, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    small = embed(tmp_path / "noise.png", 60_000)
    assert len(small.uri) * 3 / 4 < 80_000 or small.width_px == 320
    kept = embed(tmp_path / "noise.png", 2_000_000)
    assert (kept.width_px, kept.height_px) == (700, 400)
