"""The plan of a study: what is trained next, what is decided, and how many epochs it takes."""

import pytest
from study_world import TRAIN, World, settings

from tasks.core.errors import ParamsError, UserError
from tasks.study.candidates import OPTIMizERS, arms_of
from tasks.study.plan import decide, epochs_of_grid, epochs_trained, progress, winning_runs

SKILLS = {"lenet5": -1.0, "compact": 1.1, "mobilenet_v3_small": 0.95, "mse": -0.9}
SKILLS |= {"multi_margin": -0.6, "class_balanced": -0.5, "label_smoothed": -0.4}
SKILLS |= {"multilabel_soft_margin": -0.8, "sgd": -1.2, "adagrad": -1.0, "rmsprop": -0.6}
SKILLS |= {"ranger": -0.5, "adamw@0.001": -0.3, "adamw@0.0003": -0.5, "adam@0.0003": -0.6}
GOOD_LOSS = {**SKILLS, "cross_entropy": -2.0, "multi_margin": 0.4}


def play(params, world):
    """Train the wanted runs until the study is finished."""
    results, batches = {}, []
    while wanted := progress(params, TRAIN, results).wanted:
        batches.append([run.key for run in wanted])
        assert len(batches) < 20
        results |= world.results(wanted)
    return progress(params, TRAIN, results), results, batches


def test_halving_finds_the_same_winner_for_less_than_a_third_of_the_epochs():
    halved, _, _ = play(settings(), World(SKILLS))
    full, _, _ = play(settings(halving=None), World(SKILLS))
    chosen = [[d.choice.name for d in found.decisions] for found in (halved, full)]
    assert chosen[0] == chosen[1] == ["compact", "cross_entropy", "adam@0.001"]
    grid = epochs_of_grid(settings(), full.decisions)
    assert epochs_trained(full.runs) == grid == 19 * 3 * 12
    assert epochs_trained(halved.runs) <= grid / 3


def test_a_single_round_from_the_incumbent_decides_as_in_its_study():
    found, results, _ = play(settings(), World(GOOD_LOSS))
    before = None
    for decision in found.decisions:
        single = decide(decision.round, before, settings(), TRAIN, results)
        assert single.choice == decision.choice
        assert [one.survivors for one in single.rungs] == [one.survivors for one in decision.rungs]
        before = decision.chosen
    lost = found.decisions[-1].runs[-1].key
    rest = {key: result for key, result in results.items() if key != lost}
    with pytest.raises(KeyError, match=lost):
        decide("optimizers", found.decisions[1].chosen, settings(), TRAIN, rest)


def test_the_first_batch_is_one_seed_of_every_backbone_and_the_last_has_all_seeds():
    found, _, batches = play(settings(), World(SKILLS))
    assert batches[0] == [f"backbones-{n}-s1-e3" for n in settings().backbones]
    assert sorted(batches[1]) == [
        f"backbones-{n}-s{s}-e12" for n in ("compact", "mobilenet_v3_small") for s in (1, 2, 3)
    ]
    goes_on = next(run for run in found.runs if run.key == "backbones-compact-s1-e12")
    fresh = next(run for run in found.runs if run.key == "backbones-compact-s2-e12")
    assert (goes_on.before, fresh.before) == ("backbones-compact-s1-e3", None)
    assert [run.key for run in winning_runs(settings(), found.decisions)] == [
        f"backbones-compact-s{seed}-e12" for seed in (1, 2, 3)
    ]


def test_nothing_is_trained_twice_and_the_incumbent_competes_in_the_next_round():
    world = World(SKILLS)
    found, _, batches = play(settings(), world)
    assert len(set(world.trained)) == len(world.trained)
    assert not [key for batch in batches for key in batch if "cross_entropy" in key]
    losses = found.decisions[1]
    assert losses.before == "cross_entropy" and losses.chosen.slug == "backbones-compact"


def test_a_recipe_is_the_section_train_with_the_studys_changes():
    found, _, _ = play(
        settings(init_by_backbone={"lenet5": "imagenet"}, epochs=4), World(GOOD_LOSS)
    )
    first = found.runs[0]
    assert first.train["init"] == "imagenet" and found.runs[1].train["init"] == "random"
    expected = {"weights": None, "subset": {}, "epochs": 4, "checkpoint": "last", "seed": 1}
    assert {key: first.train[key] for key in expected} == expected
    assert first.train["input_size_px"] == TRAIN["input_size_px"]
    assert found.decisions[1].chosen.train["loss"]["name"] == "multi_margin"
    last = found.decisions[2].chosen.train
    assert last["loss"] == {"name": "multi_margin", "smoothing": 0.1, "beta": 0.999}
    assert TRAIN["checkpoint"] == "best" and TRAIN["loss"]["name"] == "cross_entropy"  # as it was


def test_a_study_that_was_stopped_goes_on_and_a_finished_one_is_replayed():
    _, results, _ = play(settings(), World(SKILLS))
    again = progress(settings(), TRAIN, results)
    assert not again.wanted and len(again.decisions) == 3
    lost = "backbones-compact-s2-e12"
    rest = {key: value for key, value in results.items() if key != lost}
    assert [run.key for run in progress(settings(), TRAIN, rest).wanted] == [lost]


def test_the_order_in_which_runs_finish_does_not_matter():
    _, results, _ = play(settings(), World(SKILLS))
    turned = dict(reversed(results.items()))
    one, other = (progress(settings(), TRAIN, found) for found in (results, turned))
    assert [d.choice for d in one.decisions] == [d.choice for d in other.decisions]


def test_a_failed_training_is_left_out_with_its_reason():
    found, results, _ = play(settings(), World(SKILLS, failing=["sgd@0.1", "lenet5"]))
    assert found.decisions[0].failed == {"lenet5": "lenet5: the loss is NaN"}
    assert found.decisions[2].failed == {"sgd@0.1": "sgd@0.1: the loss is NaN"}
    assert not [key for key in results if "lenet5" in key and not key.endswith("-e3")]


def test_where_every_training_fails_one_line_says_so():
    with pytest.raises(UserError, match=r"study\.backbones: no training went to the end; lenet5"):
        play(settings(), World(SKILLS, failing=settings().backbones))


def test_a_result_of_another_recipe_is_wanted_again_and_never_used():
    world = World(SKILLS, failing=settings().backbones)
    first = progress(settings(), TRAIN, {}).wanted
    failed = world.results(first)
    again = progress(settings(), TRAIN, failed, lambda run: False)
    assert again.wanted == first and not again.decisions
    one = first[1].key
    found = progress(settings(), TRAIN, failed, lambda run: run.key != one)
    assert [run.key for run in found.wanted] == [one]


def test_a_later_round_asks_whether_the_first_rounds_own_run_holds():
    asked = []
    _, results, _ = play(settings(), World(SKILLS))
    found = progress(settings(), TRAIN, results, lambda run: asked.append(run) or True)
    assert {run.key: run for run in asked} == {run.key: run for run in found.runs}
    assert all(run in found.runs for run in asked)


def test_the_published_protocol_is_one_seed_the_best_epoch_and_one_rate():
    params = settings(protocol="published", seeds=[5, 6])
    found, results, _ = play(params, World(SKILLS))
    assert {run.seed for run in found.runs} == {5} and {run.until for run in found.runs} == {12}
    assert {run.train["checkpoint"] for run in found.runs} == {"best_accuracy"}
    names = [arm.name for arm in found.decisions[2].arms]
    assert names == [f"{name}@1e-05" for name in params.optimizers]
    assert found.decisions[2].before == ""  # the rate of the rounds before does not compete
    best = found.decisions[0].choice.name
    highest = results[f"backbones-{best}-s5-e12"].history["valid_accuracy_score"].max()
    others = [r.history["valid_accuracy_score"].max() for k, r in results.items() if "backb" in k]
    assert highest == max(others)
    assert best == "mobilenet_v3_small"  # no rule that prefers the smaller one


def test_the_incumbent_competes_even_if_params_do_not_name_it():
    params = settings(optimizers=["sgd"], losses=["mse"])
    found, _, _ = play(params, World(SKILLS))
    assert [arm.name for arm in found.decisions[1].arms] == ["cross_entropy", "mse"]
    assert found.decisions[2].choice.name == "adam@0.001"


def test_names_that_would_share_a_file_are_refused():
    params = settings(backbones=["timm/x", "timm_x"])
    with pytest.raises(ParamsError, match="both be called backbones-timm_x"):
        progress(params, TRAIN, {})


def test_keys_are_safe_in_files():
    params = settings(backbones=["timm/resnet18.a1_in1k"])
    assert progress(params, TRAIN, {}).wanted[0].key == "backbones-timm_resnet18.a1_in1k-s1-e12"
    before = arms_of("backbones", settings(), TRAIN, None)[0]
    slugs = [arm.slug for arm in arms_of(OPTIMizERS, settings(), TRAIN, before)]
    assert "optimizers-adam_0.0003" in slugs and "backbones-lenet5" in slugs
