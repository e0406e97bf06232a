"""Published figures: intervals, pairs, and the agreement of orders."""

import numpy as np
import pytest
from scipy.stats import norm
from study_world import settings

from tasks.core.errors import DataError, ParamsError
from tasks.study import published
from tasks.study.published import agreement, pairwise, read_study, studies, with_intervals
from tasks.study.results import Score


def score(mean, se=0.001):
    return Score(mean, se, se, 0.0, mean, mean, (mean,), 30, 100, 10, "made up")


@pytest.fixture(scope="module")
def printed():
    return read_study("autism_six_emotions")


def test_the_figures_are_those_that_were_printed(printed):
    assert printed.groupby("round", sort=False)["accuracy"].max().to_list() == [0.743, 0.772, 0.755]
    assert len(printed) == 17 and set(printed["validation_n"]) == {240}


def test_wilson_intervals_for_240_images(printed):
    row = with_intervals(printed, 0.95).set_index("name").loc["ResNet-152"]
    share, z, n = 178 / 240, norm.ppf(0.975), 240
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert row["ci_low"] == pytest.approx(middle - reach)
    assert row["ci_high"] == pytest.approx(middle + reach)


def test_every_pair_is_tested_and_corrected_within_its_round(printed):
    pairs = pairwise(printed, 0.95)
    assert pairs["round"].value_counts().to_dict() == {
        "backbones": 28,
        "optimizers": 10,
        "losses": 6,
    }
    close = pairs[(pairs["higher"] == "ResNet-152") & (pairs["lower"] == "ResNet-50")].iloc[0]
    pooled = (178 + 172) / 480
    z = (6 / 240) / np.sqrt(pooled * (1 - pooled) * 2 / 240)
    assert close["p_value"] == pytest.approx(2 * norm.sf(z))
    assert close["p_smallest"] == pytest.approx(2 * 0.5**6)  # 6 apart, all one way
    assert close["ci_low"] < 0 < close["ci_high"] and close["p_adjusted"] == 1
    far = pairs[(pairs["higher"] == "ResNet-152") & (pairs["lower"] == "LeNet-5")].iloc[0]
    assert far["p_adjusted"] < 1e-6 and (pairs["p_adjusted"] >= pairs["p_value"]).all()
    assert not (pairs[pairs["round"] == "losses"]["p_adjusted"] < 0.05).any()


def test_agreement_is_one_for_the_same_order_and_minus_one_turned_round(printed):
    part = printed[printed["round"] == "optimizers"]
    how = (500, 6, 0.95)
    same = {name: score(rate) for name, rate in zip(part["ours"], part["accuracy"], strict=True)}
    tau, low, high = agreement(same, part, *how)
    assert tau == pytest.approx(1)
    assert low < 0.99 < high  # Adam and RMSprop change places in some draws
    turned = {name: score(1 - one.mean) for name, one in same.items()}
    assert agreement(turned, part, *how)[0] == pytest.approx(-1)
    unsure = {name: score(one.mean, 0.5) for name, one in same.items()}
    assert agreement(unsure, part, *how)[1] < 0


def test_an_order_needs_three_names(printed):
    part = printed[printed["round"] == "losses"]
    two = {"mse": score(0.5), "cross_entropy": score(0.6), "label_smoothed": score(0.7)}
    assert np.isnan(agreement(two, part, 100, 6, 0.95)).all()


def test_unknown_studies_and_broken_files_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(ParamsError, match=r"study\.published: no study 'x'; known are autism"):
        read_study("x")
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    (tmp_path / "y.csv").write_text("# a\nround,name,ours,accuracy,validation_n\nlosses,A,a,71,5\n")
    assert studies() == ["y"]
    with pytest.raises(DataError, match="cannot be read"):
        read_study("y")
    assert settings(published="y").published == "y"
