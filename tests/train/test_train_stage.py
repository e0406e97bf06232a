import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.core.errors import DataError, ModelError, ParamsError
from tasks.core.files import sha256_of
from tasks.core.models.checkpoint import load_model, load_seen
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.tables import read_table, write_table
from tasks.core.training import fit, trainer, training_state
from tasks.core.training.fit import HISTORY_COLUMNS, best_epoch
from tasks.core.training.validation import mean_recall_score
from tasks.finetune import stage as finetune_stage
from tasks.train import stage


def weights(paths, name="base"):
    return sha256_of(paths.model(name) / "model.safetensors")


def test_base_model_folder_says_what_was_trained_on_whom(cohort, train_params):
    result = stage.run(train_params(epochs=4), cohort)

    _, spec = load_model(cohort.model("base"))
    assert spec.labels == ("anger", "happiness", "neutral")
    assert spec.version == weights(cohort)[:12]
    seen = load_seen(cohort.model("base"))
    table = read_table(cohort.split)
    adults = table[table["age_band"] == "adult"]
    for role in ("train", "validation"):
        expected = set(adults.loc[adults["split"] == role, "image_id"])
        assert set(seen.loc[seen["role"] == role, "image_id"]) == expected
    assert set(seen["stage"]) == {"train"}
    history = pd.read_csv(cohort.model("base") / "history.csv")
    assert list(history.columns) == list(HISTORY_COLUMNS)
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert [epoch for epoch, _ in result.series["train_loss"]] == [1, 2, 3, 4]
    assert not list(cohort.at("work").glob("train/*"))  # progress is cleared away


def test_same_seed_same_bytes_other_seed_other_bytes(cohort, train_params):
    digests = []
    for seed in (1, 1, 2):
        stage.run(train_params(seed=seed, epochs=2), cohort)
        digests.append(weights(cohort))
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("killed_after", [1, 3])
def test_resumed_training_ends_with_the_same_bits(cohort, train_params, monkeypatch, killed_after):
    # mobilenet has batch norm and drop-out: both must come back as they were.
    params = train_params(epochs=4, backbone="mobilenet_v3_small")
    stage.run(params, cohort)
    undisturbed = weights(cohort), (cohort.model("base") / "history.csv").read_bytes()

    real, epochs = training_state.save_progress, []

    def save_then_die(folder, progress, fingerprint):
        real(folder, progress, fingerprint)
        epochs.append(progress.epoch)
        if progress.epoch == killed_after:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit, "save_progress", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        stage.run(params, cohort)
    monkeypatch.setattr(fit, "save_progress", lambda *a: (epochs.append(a[1].epoch), real(*a)))
    stage.run(params, cohort)

    assert epochs == [1, 2, 3, 4]  # each epoch was trained once
    assert (weights(cohort), (cohort.model("base") / "history.csv").read_bytes()) == undisturbed


def test_torn_or_foreign_progress_is_not_used(cohort, train_params, monkeypatch):
    params = train_params(epochs=2)
    stage.run(params, cohort)
    undisturbed = weights(cohort)
    real = training_state.load_progress

    def tear(folder, fingerprint):
        folder.mkdir(parents=True)
        (folder / "progress.safetensors").write_bytes(b"\x10\x00\x00torn")
        return real(folder, fingerprint)

    monkeypatch.setattr(fit, "load_progress", tear)
    stage.run(params, cohort)
    assert weights(cohort) == undisturbed


def test_compact_learns_a_small_set_by_heart(cohort, train_params):
    still = {
        **dict.fromkeys(("flip", "rotation_deg", "shear_deg", "shift", "gray"), 0),
        **dict.fromkeys(("brightness", "contrast", "saturation"), 0),
        "scale": [1, 1],
    }
    params = train_params(backbone="compact", epochs=30, learning_rate=0.003, augmentation=still)
    result = stage.run(params, cohort)
    assert result.series["train_loss"][-1][1] < 0.05
    assert result.metrics["valid_recall_score_at_best"] == 1.0


def test_best_epoch_is_by_recall_then_loss_then_earliest():
    def row(epoch, loss, recall):
        return {"epoch": epoch, "train_loss": 1.0, "valid_loss": loss, "valid_recall_score": recall}

    history = [row(1, 0.1, 0.5), row(2, 0.9, 0.8), row(3, 0.7, 0.8), row(4, 0.7, 0.8)]
    assert best_epoch(history) == 3


def test_the_model_kept_is_the_one_that_validates_best(
    cohort, train_params, monkeypatch, validated
):
    recalls = iter([0.4, 0.9, 0.6])
    states = []

    def validate(own, _images):
        states.append(own.weights())
        return validated(next(recalls))

    monkeypatch.setattr(trainer.Trainer, "validate", validate)
    result = stage.run(train_params(epochs=3), cohort)
    module, _ = load_model(cohort.model("base"))
    assert result.metrics["best_epoch"] == 2
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, states[1][name])
    assert not torch.equal(states[1]["head.0.weight"], states[2]["head.0.weight"])


def test_mean_recall_weighs_rare_emotions_as_much_as_common_ones():
    targets = np.array([0, 0, 0, 0, 2])
    assert mean_recall_score(targets, np.array([0, 0, 0, 0, 1])) == 0.5


def test_finetuned_model_starts_from_base_and_remembers_what_both_saw(
    cohort, train_params, finetune_params
):
    stage.run(train_params(epochs=3), cohort)
    base = weights(cohort)
    result = finetune_stage.run(finetune_params(epochs=2), cohort, "naive")

    assert weights(cohort) == base
    _, spec = load_model(cohort.model("naive"))
    assert spec.labels == ("anger", "happiness", "neutral")
    assert base[:12] in spec.source
    seen = load_seen(cohort.model("naive"))
    table = read_table(cohort.split)
    assert set(seen["image_id"]) == set(table.loc[table["split"] != "test", "image_id"])
    assert set(zip(seen["stage"], seen["role"], strict=True)) == {
        (stage_, role) for stage_ in ("train", "finetune") for role in ("train", "validation")
    }
    history = pd.read_csv(cohort.model("naive") / "history.csv")
    assert list(history["epoch"]) == [0, 1, 2]  # the base model's own weights compete
    assert np.isnan(history["train_loss"][0])
    assert [epoch for epoch, _ in result.series["valid_loss"]] == [1, 2]


def test_finetuning_that_only_harms_keeps_the_base_model(
    cohort, train_params, finetune_params, monkeypatch, validated
):
    stage.run(train_params(epochs=2), cohort)
    recalls = iter([0.9, 0.1, 0.2])
    monkeypatch.setattr(trainer.Trainer, "validate", lambda *_: validated(next(recalls)))
    result = finetune_stage.run(finetune_params(epochs=2), cohort, "naive")
    assert result.metrics["best_epoch"] == 0
    assert weights(cohort, "naive") == weights(cohort)


def test_emotions_that_the_base_model_lacks_are_left_out_and_counted(
    cohort, train_params, finetune_params
):
    table = read_table(cohort.split)
    adult_anger = (table["age_band"] == "adult") & (table["emotion"] == "anger")
    write_table(table[~adult_anger], cohort.split)
    stage.run(train_params(epochs=1), cohort)
    result = finetune_stage.run(finetune_params(epochs=1), cohort, "naive")
    assert load_model(cohort.model("naive"))[1].labels == ("happiness", "neutral")
    children_angry = table[~adult_anger].query("emotion == 'anger' and split != 'test'")
    assert result.metrics["left_out_images"] == len(children_angry) > 0
    assert "left out" in result.summary


def test_group_without_images_is_one_line_that_names_the_key(cohort, train_params):
    with pytest.raises(ParamsError, match=r"train\.subset .*infant") as error:
        stage.run(train_params(subset={"age_band": ["infant"]}), cohort)
    assert "\n" not in str(error.value)


def test_one_emotion_alone_is_no_training_set(cohort, train_params):
    table = read_table(cohort.split)
    write_table(table[table["emotion"] == "anger"], cohort.split)
    with pytest.raises(DataError, match="two emotions are needed"):
        stage.run(train_params(), cohort)


def test_diverging_training_says_to_lower_the_rate(cohort, train_params):
    params = train_params(learning_rate=1e12, schedule="constant", epochs=3, backbone="lenet5")
    with pytest.raises(ModelError, match=r"diverged in epoch \d.*learning_rate"):
        stage.run(params, cohort)


def test_pretrained_weights_train_nothing_and_have_seen_nobody(
    cohort, train_params, finetune_params, monkeypatch
):
    from tasks.core.models.small_networks import MiniXception
    from tasks.train.pretrained import catalog

    torch.manual_seed(0)
    made = MiniXception(7, 1).state_dict()
    entry = catalog.PRETRAINED["fer2013/mini_xception"]
    monkeypatch.setattr(catalog, "weights_file", lambda name, root: root / name)
    monkeypatch.setattr(
        catalog,
        "PRETRAINED",
        {"fer2013/mini_xception": replace(entry, read=lambda _: ("mini_xception", made))},
    )
    stage.run(train_params(weights="fer2013/mini_xception"), cohort)

    _, spec = load_model(cohort.model("base"))
    assert (spec.architecture, spec.input_size_px, spec.color) == ("mini_xception", 64, "gray")
    assert load_seen(cohort.model("base")).empty
    history = (cohort.model("base") / "history.csv").read_text()
    assert history == ",".join(HISTORY_COLUMNS) + "\n"

    finetune_stage.run(
        finetune_params(epochs=1), cohort, "naive"
    )  # three of its seven labels occur
    assert load_model(cohort.model("naive"))[1].labels == spec.labels


def test_unknown_pretrained_name_lists_the_known_ones(cohort, train_params):
    with pytest.raises(ModelError, match="fer2013/mini_xception") as error:
        stage.run(train_params(weights="fer2014/maxi"), cohort)
    assert "\n" not in str(error.value)


def test_trained_model_reads_the_crops_it_was_trained_for(cohort, train_params):
    params = train_params(backbone="compact", epochs=12, learning_rate=0.003)
    stage.run(params, cohort)
    recognizer = EmotionClassifier.load(cohort.model("base"), "cpu")
    crop = np.full((1, 40, 40, 3), 90, dtype=np.uint8)
    crop[:, 6:14, 8:32] = 230
    assert recognizer.labels[recognizer.predict(crop).argmax()] == "anger"


def test_spec_file_is_plain_json(cohort, train_params):
    stage.run(train_params(epochs=1), cohort)
    spec = json.loads((cohort.model("base") / "model.json").read_text())
    assert spec["labels"] == ["anger", "happiness", "neutral"]
