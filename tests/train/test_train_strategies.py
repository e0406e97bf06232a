import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax
from scipy.stats import entropy

from tasks.core.errors import ParamsError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import load_model, load_seen, load_spec, read_skipped
from tasks.core.tables import read_table, write_table
from tasks.core.training import fit, training_state
from tasks.core.training import trainer as trainer_module
from tasks.core.training.config import Loss
from tasks.core.training.data import loader
from tasks.core.training.losses import label_loss
from tasks.core.training.validation import score_groups, worst_recall_score
from tasks.finetune import stage as finetune_stage
from tasks.finetune.strategies import Distill, Replay
from tasks.train import stage

EVERY = ("naive", "head", "replay", "distill")


def state(paths, name):
    return load_file(paths.model(name) / "model.safetensors")


def weights(paths, name):
    return sha256_of(paths.model(name) / "model.safetensors")


def blank(images_of, n_images):
    return images_of(np.zeros((n_images, 2, 2, 3), np.uint8), [0] * n_images)


@pytest.fixture
def trained(cohort, train_params):
    """The cohort with a base model that has batch normalization."""
    stage.run(train_params(epochs=2, backbone="compact"), cohort)
    return cohort


@pytest.fixture
def last_epoch_kept(monkeypatch, validated):
    """Every epoch validates better than the one before, so that the last one is kept."""
    recalls = iter(np.linspace(0.1, 0.9, 1000))
    monkeypatch.setattr(trainer_module.Trainer, "validate", lambda *_: validated(next(recalls)))


@pytest.mark.usefixtures("last_epoch_kept")
def test_head_changes_the_head_and_nothing_else(trained, finetune_params):
    finetune_stage.run(finetune_params(epochs=2), trained, "head")
    before, after = state(trained, "base"), state(trained, "head")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}  # running means and variances stay too
    finetune_stage.run(finetune_params(epochs=2), trained, "naive")
    naive = state(trained, "naive")
    assert not torch.equal(naive["stem.1.running_mean"], before["stem.1.running_mean"])


@pytest.mark.parametrize(("share", "replayed"), [(0.0, 0), (0.25, 10), (0.5, 30), (0.75, 90)])
def test_replay_shows_every_own_image_once_and_the_others_share(images_of, share, replayed):
    way = Replay(n_own=30, share=share)
    order = way.order(blank(images_of, 70), np.random.default_rng(0))
    assert len(order) == way.shown(70) == 30 + replayed
    shown = np.bincount(order, minlength=70)
    assert (shown[:30] == 1).all()
    assert shown[30:].sum() == replayed
    assert shown[30:].max() - shown[30:].min() <= 1  # none comes again before all came


def test_replay_draws_others_in_every_epoch_and_the_same_from_the_same_seed(images_of):
    way, images = Replay(n_own=10, share=0.5), blank(images_of, 100)

    def drawn(epoch):
        return set(way.order(images, np.random.default_rng([1, epoch])))

    assert drawn(1) == drawn(1) != drawn(2)


def test_a_image_shown_twice_in_an_epoch_is_changed_in_two_ways():
    order = np.array([4, 2, 4, 0])
    assert sorted(loader.repeat_index(order)) == [0, 1, 2, 3]
    shuffled = np.random.default_rng(0).permutation(9)
    assert np.array_equal(loader.repeat_index(shuffled), shuffled)


@pytest.mark.parametrize("name", ["replay", "distill"])
def test_seen_names_what_was_replayed_and_what_it_was_validated_on(trained, finetune_params, name):
    finetune_stage.run(finetune_params(epochs=1), trained, name)
    seen = load_seen(trained.model(name))
    table = read_table(trained.split)
    for role, (stage_, band) in itertools.product(
        ("train", "validation"), {"finetune": "child", "replay": "adult"}.items()
    ):
        mine = seen[(seen["stage"] == stage_) & (seen["role"] == role)]
        own = (table["split"] == role) & (table["age_band"] == band)
        assert set(mine["image_id"]) == set(table.loc[own, "image_id"])
    assert set(seen.loc[seen["stage"] == "train", "image_id"]) == set(
        table.loc[(table["split"] != "test") & (table["age_band"] == "adult"), "image_id"]
    )


def test_everyone_else_is_replayed_where_no_group_is_named(trained, finetune_params):
    result = finetune_stage.run(finetune_params(epochs=1, replay={"subset": {}}), trained, "replay")
    assert result.metrics["train_images"] == 36  # six children and six adults, three each
    with pytest.raises(ParamsError, match=r"finetune\.replay\.subset: every picture") as error:
        finetune_stage.run(finetune_params(subset={}), trained, "replay")
    assert "\n" not in str(error.value)


def test_the_replayed_images_have_a_say_in_which_epoch_is_kept(trained, finetune_params, validated):
    """Validation counts the worst of the fine-tuned and the replayed groups."""
    asked = []

    def validate(trainer, images):
        asked.append(images.groups)
        return validated(0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "validate", validate)
        finetune_stage.run(finetune_params(epochs=1), trained, "replay")
        finetune_stage.run(finetune_params(epochs=1), trained, "naive")
    assert asked[0].sum(axis=0).tolist() == [6, 6]  # adults, children: two subjects, three each
    assert asked[-1].sum(axis=0).tolist() == [6]


def test_a_checkpoint_does_not_hang_on_a_handful_or_on_people_of_unknown_age(
    trained, finetune_params, monkeypatch, validated
):
    """Epochs are judged by the groups that count: the same ones as the strategies are."""
    asked = []

    def validate(trainer, images):
        asked.append(images.groups)
        return validated(0.5)

    monkeypatch.setattr(trainer_module.Trainer, "validate", validate)
    table = read_table(trained.split)
    validation = table["split"] == "validation"
    adults = table["image_id"][validation & (table["age_band"] == "adult")]
    some = table["image_id"].isin(adults.iloc[:2])
    band = table["age_band"].mask(some, "unknown")
    band = band.mask(table["image_id"] == adults.iloc[2], "adolescent")
    write_table(table.assign(age_band=band), trained.split)
    everyone = {"subset": {}}
    for min_n, counting in ((2, [3, 6]), (1, [1, 3, 6]), (4, [6]), (7, [12])):
        asked.clear()
        finetune_stage.run(
            finetune_params(epochs=1, min_n=min_n, replay=everyone), trained, "replay"
        )
        assert sorted(asked[0].sum(axis=0)) == counting
        rows = table.assign(age_band=band)[validation]
        verdict = score_groups(rows, rows["emotion"].to_numpy(), ["age_band"], min_n)
        counted = verdict.groups.loc[verdict.groups["counts"], "n"]
        assert sorted(counted) == counting


def test_the_worst_group_is_not_outvoted_by_the_larger_one():
    targets = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    predicted = np.array([0, 1, 0, 1, 0, 1, 1, 1])
    small = np.arange(8) >= 6
    groups = np.column_stack([~small, small])
    assert worst_recall_score(targets, predicted, groups) == 0.5


@pytest.mark.parametrize("name", ["cross_entropy", "mse"])
def test_distill_has_the_label_loss_on_own_and_divergence_from_the_base_on_replayed(
    trained, images_of, name
):
    module, spec = load_model(trained.model("base"))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images = images_of(pixels, [0, 1, 2, 0, 1])
    way = Distill(n_own=2, share=0.5, temperature=3.0, weight=0.7)
    labelled = label_loss(Loss(name=name, smoothing=0, beta=0), np.array([2, 2, 1]))
    loss = way.objective(module, spec, images, torch.device("cpu"), labelled)
    logits = torch.from_numpy(rng.normal(size=(3, 3)).astype(np.float32))
    rows = np.array([4, 0, 2])

    normal = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    with torch.no_grad():
        base = module(torch.from_numpy(normal.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    now, soft = logits.numpy(), softmax(base / 3, axis=1)
    expected = [
        0.7
        * 9
        * entropy(soft[4], softmax(now[0] / 3)),  # scipy's entropy of two is Kullback–Leibler
        -np.log(softmax(now[1])[0])
        if name == "cross_entropy"
        else np.mean((softmax(now[1]) - np.eye(3)[0]) ** 2),
        0.7 * 9 * entropy(soft[2], softmax(now[2] / 3)),
    ]
    found = loss(logits, rows, torch.from_numpy(images.targets[rows]))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("last_epoch_kept")
def test_distill_never_looks_at_the_replayed_labels(trained, finetune_params):
    def run(name, **changed):
        finetune_stage.run(finetune_params(epochs=1, **changed), trained, name)
        return weights(trained, name)

    first, unweighted, replay = run("distill"), run("distill", distill={"weight": 0}), run("replay")
    table = read_table(trained.split)
    adults = (table["age_band"] == "adult") & (table["split"] == "train")
    other = {"anger": "neutral", "neutral": "happiness", "happiness": "anger"}
    table["emotion"] = table["emotion"].where(~adults, table["emotion"].map(other))
    write_table(table, trained.split)
    assert run("distill") == first
    assert run("distill", distill={"weight": 0}) == unweighted != first
    assert run("replay") != replay


@pytest.mark.parametrize("name", EVERY[1:])
def test_a_strategy_that_was_killed_ends_with_the_same_bits(
    trained, finetune_params, monkeypatch, name
):
    params = finetune_params(epochs=3)
    finetune_stage.run(params, trained, name)
    undisturbed = weights(trained, name), (trained.model(name) / "history.csv").read_bytes()

    real, epochs = training_state.save_progress, []

    def save_then_die(folder, progress, fingerprint):
        real(folder, progress, fingerprint)
        epochs.append(progress.epoch)
        if epochs == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_progress", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        finetune_stage.run(params, trained, name)
    finetune_stage.run(params, trained, name)
    assert epochs == [1, 2, 3]
    assert (
        weights(trained, name),
        (trained.model(name) / "history.csv").read_bytes(),
    ) == undisturbed


def test_strategies_have_their_own_pace(trained, finetune_params):
    params = finetune_params(epochs=2, replay={"epochs": 1})
    assert len(finetune_stage.run(params, trained, "replay").series["train_loss"]) == 1
    assert len(finetune_stage.run(params, trained, "naive").series["train_loss"]) == 2


def test_a_strategy_that_is_left_out_says_so_and_leaves_nothing_else(trained, finetune_params):
    finetune_stage.run(finetune_params(epochs=1), trained, "head")
    result = finetune_stage.run(finetune_params(strategies=["naive"]), trained, "head")
    assert [path.name for path in trained.model("head").iterdir()] == ["skipped.json"]
    skipped = read_skipped(trained.model("head"))
    assert "finetune.strategies does not name head" in skipped.reason
    assert skipped.labels == load_spec(trained.model("base")).labels
    assert result.summary.startswith("skipped: ")


def test_a_base_model_that_cannot_be_trained_skips_every_strategy(trained, finetune_params):
    path = trained.model("base") / "model.json"
    path.write_text(path.read_text().replace('"compact"', '"onnx"'))
    for name in EVERY:
        finetune_stage.run(finetune_params(), trained, name)
        assert "onnx" in read_skipped(trained.model(name)).reason


@pytest.mark.parametrize("missing_in", [("train", "validation"), ("validation",)])
def test_a_group_without_images_yet_is_waited_for_or_stops(trained, finetune_params, missing_in):
    table = read_table(trained.split)
    children = table["age_band"].eq("child") & table["split"].isin(missing_in)
    write_table(table[~children], trained.split)
    for name in EVERY:
        finetune_stage.run(finetune_params(allow_empty_group=True), trained, name)
        assert "no pictures of finetune.subset yet" in read_skipped(trained.model(name)).reason
    with pytest.raises(ParamsError, match=r"finetune\.subset.*finetune\.allow_empty_group: true"):
        finetune_stage.run(finetune_params(allow_empty_group=False), trained, "naive")


def test_a_misspelt_group_column_is_not_waited_for(trained, finetune_params):
    with pytest.raises(ParamsError, match="age_bnad"):
        params = finetune_params(allow_empty_group=True, subset={"age_bnad": ["child"]})
        finetune_stage.run(params, trained, "naive")


def test_an_unknown_strategy_is_refused_by_the_params(finetune_params):
    with pytest.raises(ValueError, match="strategies"):
        finetune_params(strategies=["rehearse"])


def test_source_says_which_strategy(trained, finetune_params):
    finetune_stage.run(finetune_params(epochs=1), trained, "replay")
    assert load_spec(trained.model("replay")).source.startswith("fine-tuned here (replay) from")
    history = pd.read_csv(trained.model("replay") / "history.csv")
    assert list(history["epoch"]) == [0, 1]
