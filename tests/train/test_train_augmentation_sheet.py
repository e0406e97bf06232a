"""The figure of what the network is shown holds what the training really shows."""

import numpy as np
import torch
from PIL import Image

from tasks.core.models.predictor import Normalization
from tasks.core.tables import read_table
from tasks.core.training.data.augmentation import augment
from tasks.core.training.data.dataset import choose_rows
from tasks.core.training.data.loader import batches, draw_epoch
from tasks.core.training.distributed import ProcessGroup
from tasks.core.training.strategy import Strategy
from tasks.core.training.train_model import load_train_and_validation
from tasks.train import augmentation_figure, stage
from tasks.train.augmentation_figure import changed_inputs, choose_lines, in_words
from tasks.train.initial_model import build_initial_model

CPU = torch.device("cpu")


def prepared(paths, params):
    rows = choose_rows(read_table(paths.split), params.subset, "train.subset", None)
    labels = ("anger", "happiness", "neutral")
    spec = build_initial_model(params, labels, rows.train["dataset"], paths).spec
    return load_train_and_validation(rows, params, paths, spec)[0], rows.train, spec


def test_the_inputs_are_those_of_the_batches_of_the_same_epoch(cohort, train_params):
    params = train_params(seed=7)
    images, rows, spec = prepared(cohort, params)
    chosen = choose_lines(rows, params.seed)
    for epoch in (1, 2):
        rng = np.random.default_rng([params.seed, epoch])
        order = Strategy().order(images, rng)
        drawn = draw_epoch(images, order, params.augmentation, rng)
        seen = {}
        for batch in batches(images, drawn, 3, ProcessGroup(0, 1, CPU)):
            pixels = batch.pixels
            if batch.changes is not None:  # on a device they are changed there
                pixels = augment(pixels, batch.changes)
            x = Normalization(spec, CPU)(pixels)
            back = (x.permute(0, 2, 3, 1) * torch.tensor(spec.std) + torch.tensor(spec.mean)) * 255
            seen |= dict(zip(batch.rows.tolist(), back.numpy(), strict=True))
        for row, shown in zip(
            chosen, changed_inputs(images, chosen, spec, params, epoch), strict=True
        ):
            assert np.abs(seen[row] - shown).max() < 1.01  # rounded to bytes
            assert np.abs(shown.astype(int) - images.batch(np.array([row]))[0]).max() > 20


def test_without_augmentation_the_input_comes_back_through_its_normalization(cohort, train_params):
    still = {name: 0 for name in ("flip", "rotation_deg", "shear_deg", "shift", "brightness")}
    still |= {"contrast": 0, "saturation": 0, "gray": 0, "scale": [1, 1]}
    params = train_params(augmentation=still, color="gray")
    images, rows, spec = prepared(cohort, params)
    chosen = choose_lines(rows, params.seed)
    shown = changed_inputs(images, chosen, spec, params, 1)
    assert np.abs(np.stack(shown).astype(int) - images.batch(chosen)).max() <= 1


def test_each_label_has_a_line_that_does_not_depend_on_the_order_of_the_rows(cohort):
    rows = read_table(cohort.split)
    chosen = rows.iloc[choose_lines(rows, 1)]
    assert list(chosen["emotion"]) == ["anger", "happiness", "neutral"]
    mixed = rows.sample(frac=1, random_state=3).reset_index(drop=True)
    assert list(mixed.iloc[choose_lines(mixed, 1)]["image_id"]) == list(chosen["image_id"])
    assert list(rows.iloc[choose_lines(rows, 2)]["image_id"]) != list(chosen["image_id"])


def test_a_image_that_a_balanced_epoch_leaves_out_is_not_made_up(train_params, images_of, cohort):
    params = train_params(balance_by=["emotion"])
    spec = prepared(cohort, params)[2]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    images = images_of(pixels, [0] * 8 + [1], cells=[0] * 8 + [1])  # 8 of one, 1 of another
    everyone = np.arange(9)
    shown = changed_inputs(images, everyone, spec, params, 1)
    order = Strategy().order(images, np.random.default_rng([params.seed, 1]))
    left_out = sorted(set(range(9)) - set(order.tolist()))
    assert left_out and [row for row in everyone if shown[row] is None] == left_out


def test_the_stage_writes_the_sheet_with_a_column_an_epoch(cohort, train_params, monkeypatch):
    caught = []
    monkeypatch.setattr(
        augmentation_figure, "_figure", lambda *parts: caught.append(parts) or real(*parts)
    )
    result = stage.run(train_params(epochs=2), cohort)
    path = cohort.figures / "augmentation.png"
    assert path in result.artifacts and Image.open(path).size[0] == 1800
    ((columns, heads, labels),) = caught
    assert heads == ["crop", "input, 32 px", "epoch 1", "epoch 2"]
    assert labels == ["anger", "happiness", "neutral"] and [len(c) for c in columns] == [3] * 4


real = augmentation_figure._figure


def test_where_nothing_is_trained_the_figure_says_so(cohort, train_params):
    stage.run(train_params(epochs=1), cohort)
    kept = cohort.root / "kept"
    cohort.model("base").rename(kept)
    cohort.figures.joinpath("augmentation.png").unlink()
    stage.run(train_params(weights="kept"), cohort)
    assert Image.open(cohort.figures / "augmentation.png").size == (1800, 300)


def test_the_ranges_are_said_in_words(train_params):
    said = in_words(train_params().augmentation)
    assert "flip p = 0.5, turn ±15°, shear ±0°, size × 0.9 to 1.1, shift ±6 %" in said
