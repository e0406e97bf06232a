"""The page of a study: made from made-up results, for both protocols."""

import re
from html import unescape

import pandas as pd
import pytest
from study_world import World, made_up_test, make_project, settings

from tasks.core.errors import DataError
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.core.tables import write_csv
from tasks.report.study import figures
from tasks.report.study import stage as study_stage
from tasks.report.study.inputs import load_study
from tasks.study import stage

SKILLS = {"lenet5": -1.0, "compact": 0.9, "mobilenet_v3_small": 0.95, "mse": -0.9, "sgd": -1.0}
FIGURES = ("backbones", "losses", "optimizers", "curves", "costs", "test")


def make(root, world=None, **changed):
    """Write a finished study and its page."""
    params = settings(**changed)
    make_project(root, params, world or World(SKILLS, failing=["sgd@0.1"]))
    paths = Paths(root)
    stage.run(stage.Params.model_validate(params.model_dump()), paths)
    write_csv(made_up_test(params, len(params.used_seeds)), root / "study/test.csv")
    study_stage.run(load_section(paths.params, "study", study_stage.Params), paths)
    return paths


def plain(html):
    html = re.sub(r"<(style|pre)>.*?</\1>", " ", html, flags=re.S)
    text = unescape(re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ").replace("\u202f", " ")
    return " ".join(text.split())


@pytest.fixture(scope="module")
def better(tmp_path_factory):
    return make(tmp_path_factory.mktemp("better"))


@pytest.fixture(scope="module")
def page(better):
    return better.at("reports/study.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_opens_offline(better, page):
    assert "</html>" in page and not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert page.count("<img ") == len(FIGURES) + 1
    folder = better.at("reports/study")
    assert {path.stem for path in folder.glob("*.png")} == {*FIGURES, "published"}
    assert {"arms", "runs", "choices", "test", "published_pairs"} <= {
        path.stem for path in folder.glob("*.csv")
    }


def test_the_choice_and_its_reason_stand_first(better, page):
    choices = load_study(better).choices
    summary = plain(page[page.index('id="summary"') : page.index("<section")])
    for row in choices.itertuples():
        assert plain(row.why) in summary
    assert "62.0 % mean recall on test pictures" in summary
    assert "The test split was looked at once, after the last choice." in summary


def test_the_drawn_cohort_is_named_wherever_its_figures_stand(page):
    for part in re.findall(r"<section.*?</section>", page, re.S):
        if "<img" in part and 'id="published"' not in part:
            assert DRAWN_NOTICE in part


def test_what_could_not_be_trained_and_rates_at_the_edge_are_told(page):
    text = plain(page)
    assert "sgd@0.1 could not be trained to the end: sgd@0.1: the loss is NaN." in text
    assert "a rate outside may be better" in text


def test_the_published_order_is_judged_in_words(page):
    text = plain(page)
    assert "cannot be told from ResNet-50, VGG, AlexNet and DenseNet" in text
    assert "by our estimate" in text and "second-hand" in text
    assert "Ours against theirs, backbones: one name shared; an order needs three." in text
    assert "Ours against theirs, optimizers: Kendall's tau" in text


def test_the_cost_is_told_against_the_full_grid(better, page):
    summary = load_study(better).summary
    assert summary["epochs_of_grid"] == 19 * 3 * 12
    assert summary["epochs"] < summary["epochs_of_grid"] / 3
    assert f"{summary['epochs']} epochs were trained instead of 684" in plain(page)


def test_the_published_protocol_is_labelled_as_what_it_is(tmp_path):
    paths = make(tmp_path, World(SKILLS), protocol="published")
    text = plain(paths.at("reports/study.html").read_text(encoding="utf-8"))
    assert "the best of all epochs on validation, one seed, one learning rate" in text
    assert "optimistic" in text and "standard error below" not in text
    assert "which is more" in text or load_study(paths).choices["threshold"].is_monotonic_increasing


def test_without_a_published_study_the_page_says_so(tmp_path):
    paths = make(tmp_path, World(SKILLS), published=None, halving=None, seeds=[1], epochs=4)
    text = plain(paths.at("reports/study.html").read_text(encoding="utf-8"))
    assert "No published study is named" in text
    assert "how much another seed would change is not in them" in text
    assert "Hollow marks" not in text and "Published figures are" not in text


def test_figures_are_the_same_bytes_for_the_same_study(better, tmp_path):
    path = tmp_path / "losses.png"
    figures.comparison_figure(load_study(better), "losses", DRAWN_NOTICE, path)
    assert path.read_bytes() == better.at("reports/study/losses.png").read_bytes()


def test_a_study_that_is_not_finished_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("study: {confidence: 0.95}")
    params = study_stage.Params(confidence=0.95)
    with pytest.raises(DataError, match="run `affectgap study`"):
        study_stage.run(params, Paths(tmp_path))


def test_several_looks_at_the_test_split_are_counted_and_listed(tmp_path):
    paths = make(tmp_path)
    assert "was looked at once" in plain(paths.at("reports/study.html").read_text("utf-8"))
    params = settings()
    write_csv(made_up_test(params, len(params.used_seeds), look=2), paths.at("study/test.csv"))
    rows = [
        {"look": look, "at": f"2026-11-2{look}", "winner": f"w{look} x", "pictures": 180}
        | {"people": 30, "mean_recall": 0.5 + look / 100}
        for look in (1, 2, 3)
    ]
    write_csv(pd.DataFrame(rows), paths.at("study/test_looks.csv"))
    study_stage.run(load_section(paths.params, "study", study_stage.Params), paths)
    text = plain(paths.at("reports/study.html").read_text("utf-8"))
    assert "The test split was looked at 3 times" in text and "this is look 2" in text
    assert "those of all looks together hold at 95 %" in text
    assert "2026-11-23 w3 180 30 53.0 %" in text
    assert "looked at once" not in text
