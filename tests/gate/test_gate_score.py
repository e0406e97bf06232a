"""Predictions and perturbations, bit-identical for any number of images."""

import numpy as np
import pandas as pd
import pytest
import torch
from gate_world import params

from tasks.core.imaging.shards import encode_png, write_shards
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
from tasks.gate.score import BRIGHTNESS, FLIP, FLIPS, JPEG, KINDS, SHIFT, score, small_changes

LABELS = ("happiness", "anger", "fear")


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(1).integers(0, 256, (11, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def shards(crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    members = [(f"{index}.png", encode_png(crop)) for index, crop in enumerate(crops)]
    rows = [
        (str(i), p.shard, p.offset_bytes, p.size_bytes)
        for i, p in enumerate(write_shards(members, folder, 4))
    ]
    return folder, pd.DataFrame(rows, columns=["image_id", "shard", "offset_bytes", "size_bytes"])


def test_small_changes_are_what_they_are_called(crops):
    changed = {}
    for kind, pixels in small_changes(crops, params().perturbations):
        assert pixels.shape == crops.shape and pixels.dtype == np.uint8
        changed.setdefault(kind, []).append(pixels)
    assert tuple(changed) == KINDS
    assert (changed[FLIP][0] == crops[:, :, ::-1]).all()
    dark, light = changed[BRIGHTNESS]
    assert (dark == np.rint(crops * np.float32(0.8))).all() and light.max() == 255
    right, left, down, up = changed[SHIFT]  # by 1 px of 40
    assert (right[:, :, 1:] == crops[:, :, :-1]).all() and (right[:, :, 0] == crops[:, :, 0]).all()
    assert (left[:, :, :-1] == crops[:, :, 1:]).all()
    assert (down[:, 1:] == crops[:, :-1]).all() and (up[:, :-1] == crops[:, 1:]).all()
    assert 0 < np.abs(changed[JPEG][0].astype(int) - crops).mean() < 60


def test_scores_are_those_of_the_network_and_flips_are_counted(shards, tmp_path):
    folder, images = shards
    torch.manual_seed(4)
    spec = ModelSpec(
        architecture="compact",
        labels=LABELS,
        input_size_px=32,
        color="rgb",
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        version="",
        source="made up",
    )
    save_model(tmp_path, build_module("compact", 3, 3, 32), spec, empty_seen_table())
    all_at_once = score(tmp_path, images, folder, params())
    assert all_at_once.labels == ("anger", "fear", "happiness")
    table = all_at_once.table
    probabilities = table[[f"p_{name}" for name in all_at_once.labels]].to_numpy()
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    best = np.array(all_at_once.labels)[probabilities.argmax(axis=1)]
    assert (table["y_pred"].to_numpy() == best).all()
    flips = table[[f"{FLIPS}{kind}" for kind in KINDS]].to_numpy()
    assert set(np.unique(flips[:, KINDS.index(SHIFT)])) <= {0, 0.25, 0.5, 0.75, 1}
    few = score(tmp_path, images[:3], folder, params()).table
    pd.testing.assert_frame_equal(few, table[:3])
