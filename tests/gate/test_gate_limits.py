"""Simultaneous limits: error rates, and agreement of limits and verdicts."""

import numpy as np
import pytest
from gate_world import params

from tasks.gate.decision import FAIL, HELD, NOT_SHOWN, PASS
from tasks.gate.error_rates import caught, equally_good, error_rates
from tasks.gate.families import judged
from tasks.gate.limits import Comparison, Family, critical_values, effective_people, limits, spent

PEOPLE, EACH = 60, 10


def family(rng, losses=(0.0, 0.0, 0.0), each=None, share=1.0, margin=0.0, versions=1):
    """Recall of three groups of subjects, and of all, for two versions with recall 0.8."""
    each = np.full(PEOPLE, EACH) if each is None else each
    group = np.arange(len(each)) % 3
    new = rng.binomial(each, 0.8 - np.array(losses)[group])
    comparisons = []
    for number in range(versions):
        old = rng.binomial(each, 0.8)
        for index in range(4):
            mask = (group == index) | (index == 3)
            name = "all" if index == 3 else f"g{index}"
            change, size = np.where(mask, new - old, 0), np.where(mask, each, 0)
            before = np.where(mask, old, 0)
            recalls = {"champion": before.sum() / size.sum()}
            recalls["challenger"] = recalls["champion"] + change.sum() / size.sum()
            rule = "overall recall" if index == 3 else "group recall"
            values = {"margin": margin, "note": f"version {number}", **recalls}
            comparisons.append(
                Comparison(rule, "frozen", name, change=change, before=before, size=size, **values)
            )
    return Family(tuple(comparisons), share)


def shares(rng, cohorts, **options):
    """The shares of cohorts in which any group, and in which group 0, is refused."""
    any_refused = first = 0
    for _ in range(cohorts):
        (test,) = judged([family(rng, **options)], params(resamples=400), 1.0)
        result = [one.outcome for one in test.verdicts]
        any_refused += FAIL in result
        first += result[0] == FAIL
    return any_refused / cohorts, first / cohorts


@pytest.mark.parametrize("sizes", ["equal", "log-normal", "one has a third"])
def test_equally_good_versions_are_refused_as_often_as_was_asked(sizes):
    rng = np.random.default_rng(3)
    each = {
        "equal": np.full(PEOPLE, EACH),
        "log-normal": np.maximum(1, np.rint(rng.lognormal(2, 1, PEOPLE))).astype(int),
        "one has a third": np.where(np.arange(PEOPLE) == 0, 30 * EACH, EACH),
    }[sizes]
    refused, _ = shares(rng, 200, each=each)
    assert refused < 0.165  # a rate of .1, and three times its Monte Carlo error of .021


def test_a_loss_is_caught_and_the_luckiest_of_many_versions_is_no_loss():
    rng = np.random.default_rng(4)
    _, caught_share = shares(rng, 60, losses=(0.2, 0.0, 0.0))
    assert caught_share > 0.8
    refused, _ = shares(rng, 120, versions=12)
    assert refused < 0.19  # twelve comparisons with limits of their own each: .5 of the cohorts


def test_no_verdict_contradicts_its_limits_and_every_change_lies_between_them():
    rng = np.random.default_rng(5)
    seen = set()
    for cohort in range(60):
        each = np.maximum(1, np.rint(rng.lognormal(1, 1, int(rng.integers(6, 40))))).astype(int)
        losses = rng.choice([0.0, 0.1, 0.4], 3)
        members = family(rng, losses, each, margin=float(rng.choice([0.02, 0.1, 0.3])))
        (test,) = judged([members], params(resamples=200), 1.0 + cohort % 3)
        for one in test.verdicts:
            change = one.comparison.challenger - one.comparison.champion
            assert one.low <= change + 1e-12 and change <= one.high + 1e-12
            expected = {
                PASS: one.low >= -one.comparison.margin,
                FAIL: one.high < 0 and one.low < -one.comparison.margin,
                HELD: one.high < 0 and one.low < -one.comparison.margin,
                NOT_SHOWN: one.high >= 0 and one.low < -one.comparison.margin,
            }
            assert expected[one.outcome], one
            seen.add(one.outcome)
    assert seen == {PASS, FAIL, HELD, NOT_SHOWN}


def test_where_no_answer_differs_a_harm_in_others_is_still_possible():
    same = np.zeros(20)
    size = np.full(20, 10.0)
    one = Comparison("group recall", "frozen", "a", same, size, size, 0.05, 1.0, 1.0)
    members = Family((one,), 1.0)
    (critical,) = critical_values(members.change, [0.1], 100, 1)
    result = limits(members, critical)
    assert -0.06 < result.low[0] < -0.02 and result.high[0] == 0


def test_unequal_people_count_as_fewer():
    sizes = np.array([[10, 30], [10, 1], [10, 1], [0, 0]])
    assert effective_people(sizes) == pytest.approx([3, 32**2 / 902])


def test_what_is_left_of_the_rate_adds_up_over_any_number_of_looks():
    parts = [spent(0.1, looks) for looks in range(1, 2000)]
    assert parts[0] == 0.1 and sum(parts) < 0.165


def test_the_error_rates_that_are_printed_are_those_of_the_gate():
    rng = np.random.default_rng(6)
    (test,) = judged([family(rng)], params(), 1.0)
    result = error_rates([test], 1)
    assert result == error_rates([test], 1)
    assert result["equal"]["refused"] == pytest.approx(0.1, abs=0.04)
    harms = {one["group"]: one["points"] for one in result["harm"]}
    assert set(harms) == {"g0", "g1", "g2"} and all(0.02 < loss < 0.4 for loss in harms.values())
    assert caught(test, 0, harms["g0"], 9) == pytest.approx(0.8, abs=0.08)
    (later,) = judged([test.family], params(), 5.0)
    assert equally_good([later], 1).refused < 0.02 < equally_good([later], 1).held
    few = judged([family(rng, each=np.full(9, 3))], params(), 8.0)
    assert {one["points"] for one in error_rates(few, 1)["harm"]} == {None}
