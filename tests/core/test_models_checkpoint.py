import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import (
    SEEN_COLUMNS,
    empty_seen_table,
    load_model,
    load_seen,
    save_model,
)
from tasks.core.models.spec import ModelSpec

SPEC = ModelSpec(
    architecture="compact",
    labels=("anger", "happiness"),
    input_size_px=32,
    color="gray",
    mean=(0.5,),
    std=(0.1,),
    version="",
    source="trained here",
)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "m", build_module("compact", 2, 1), SPEC, empty_seen_table())
    return tmp_path / "m"


def refused(folder, pattern):
    with pytest.raises(ModelError, match=pattern) as error:
        load_model(folder)
    assert str(error.value).isprintable()


def test_round_trip_gives_the_same_weights_spec_and_bytes(folder, tmp_path):
    module, spec = load_model(folder)
    torch.manual_seed(0)
    for name, tensor in build_module("compact", 2, 1).state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor)
    assert not module.training
    assert spec == SPEC.model_copy(update={"version": spec.version})
    assert spec.version == sha256_of(folder / "model.safetensors")[:12]
    save_model(tmp_path / "again", module, spec, empty_seen_table())
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_a_model_of_an_earlier_version_keeps_its_input_channels(folder):
    description = folder / "model.json"
    content = json.loads(description.read_text())
    former = {name: value for name, value in content.items() if name != "color"}
    description.write_text(json.dumps({**former, "colour": "grey"}))
    assert load_model(folder)[1].color == "gray"


def test_channels_last_weights_are_saved_alike(folder, tmp_path):
    module, spec = load_model(folder)
    moved = module.to(memory_format=torch.channels_last)
    assert save_model(tmp_path / "last", moved, spec, empty_seen_table()).version == spec.version


def test_seen_keeps_odd_subject_names(tmp_path):
    row = ["0a1b", 'set/김, "01"', "train", "validation"]
    seen = pd.DataFrame([row, ["00", "set/NA", "train", "train"]], columns=list(SEEN_COLUMNS))
    save_model(tmp_path, build_module("compact", 2, 1), SPEC, seen)
    seen["subject_id"] = ['set/김, "01"', "set/00"]  # nobody is called NA: the picture is its own
    assert load_seen(tmp_path).to_numpy().tolist() == seen.to_numpy().tolist()


def test_truncated_weights_are_one_line(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, "model.safetensors: the weights file is damaged")


def test_flipped_bits_in_the_weights_are_noticed(folder):
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-50] ^= 0xFF
    weights.write_bytes(content)
    refused(folder, "not the weights that model.json describes")


def test_missing_weights_and_missing_model_are_one_line(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    refused(folder, "no such weights file")
    refused(tmp_path / "none", "no model here")


def test_torn_or_foreign_description_is_one_line(folder):
    description = folder / "model.json"
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "architecture": "resnet18"}))
    refused(folder, "does not fit the network 'resnet18'")
    description.write_text(description.read_text()[:40])
    refused(folder, "is not a valid model description")


def test_missing_record_of_seen_images_is_not_taken_for_none_seen(folder):
    (folder / "seen.csv").unlink()
    with pytest.raises(ModelError, match=r"seen\.csv: missing"):
        load_seen(folder)


def replace_weights(folder, state):
    """Put other weights into a folder, with a description that names them."""
    save_file(state, folder / "model.safetensors")
    content = json.loads((folder / "model.json").read_text())
    content["version"] = sha256_of(folder / "model.safetensors")[:12]
    (folder / "model.json").write_text(json.dumps(content))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_at_load(folder, value):
    state = load_file(folder / "model.safetensors")
    state["head.bias"][1] = value
    replace_weights(folder, state)
    refused(folder, r"model\.safetensors: holds weights that are NaN or infinite.*head\.bias")


def test_half_precision_is_read_and_other_kinds_of_numbers_are_not(folder):
    state = load_file(folder / "model.safetensors")
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}
    replace_weights(folder, half)
    read = load_model(folder)[0].state_dict()
    assert all(torch.equal(read[name], half[name].to(read[name].dtype)) for name in half)
    whole = {k: v.int() if k == "head.bias" else v for k, v in state.items()}
    replace_weights(folder, whole)
    refused(folder, "does not fit the network 'compact'")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "mobilenet_v1_relu999999999999"}, "does not fit|can be built"),
        ({"architecture": "mobilenet_v1_relu" + "9" * 5000}, "can be built"),
        ({"architecture": "\x1b[2J"}, r"there is no network"),
        ({"input_size_px": 10**9}, "input_size_px: Input should be less than or equal to 2048"),
        ({"mean": [float("nan")]}, "mean.0: Input should be a finite number"),
        ({"std": [0.0]}, "std.0: Input should be greater than 0"),
        ({"mean": [0.5, 0.5]}, "must have 1 values for color gray"),
        ({"labels": ["anger", "anger"]}, "each once"),
        ({"labels": ["anger", "bored"]}, "must be some of anger"),
        ({"labels": []}, "must be some of anger"),
        ({"source": [[]]}, "source: "),
    ],
)
def test_a_description_without_sense_is_one_line(folder, change, named):
    description = folder / "model.json"
    description.write_text(json.dumps({**json.loads(description.read_text()), **change}))
    refused(folder, named)


def test_a_nested_or_endless_description_is_one_line(folder):
    (folder / "model.json").write_text("[" * 100_000)
    refused(folder, "is not a valid model description")
    (folder / "model.json").write_text(" " * (2 << 20))
    refused(folder, "more than 1,048,576 bytes")
