"""A base model that is there already: whichever form it has, it becomes models/base whole."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
import yaml
from in_process import read_models_here
from keras_writer import CLASSES, head, mobilenet, write_flat
from onnx import TensorProto, helper, numpy_helper

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module, head_parameter_names
from tasks.core.models.checkpoint import SEEN_COLUMNS, load_model, load_seen, save_model
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.evaluate.batch_prediction import predict_crops
from tasks.train import initial_model, stage
from tasks.train.initial_model import InitialModel, build_initial_model
from tasks.train.pretrained import catalog, external_model
from tasks.train.pretrained.keras_networks import read_mobilenet
from tasks.train.pretrained.transfer import InitialWeights

LABELS = ("anger", "happiness", "neutral")


@pytest.fixture(autouse=True)
def without_a_child_process(monkeypatch):
    read_models_here(monkeypatch)


@pytest.fixture
def cut(cohort: Paths) -> Paths:
    """The cohort, with crops that show a quarter of the box beside it."""
    cohort.crop_settings.write_text(json.dumps({"margin": 0.25, "size_px": 40}))
    return cohort


def write_onnx(folder: Path, margin: float) -> Path:
    """A network that answers by how bright the three stripes of the made-up faces are."""
    weights = np.zeros((3, 3), np.float32)
    np.fill_diagonal(weights, 0.05)
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["rows"], keepdims=0),
        helper.make_node("Split", ["rows"], ["a", "b", "c"], axis=1, num_outputs=3),
        *(helper.make_node("ReduceMean", [p, "one"], [f"m{p}"], keepdims=1) for p in "abc"),
        helper.make_node("Concat", ["ma", "mb", "mc"], ["means"], axis=1),
        helper.make_node("MatMul", ["means", "w"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 3]), "axes"),
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(weights, "w"),
    ]
    entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 36, 36])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [entry], [answer], constants)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), folder / "stripes.onnx")
    about = {
        "labels": list(LABELS),
        "input_size_px": 36,
        "color": "rgb",
        "layout": "nchw",
        "scaling": "0..255",
        "box_margin": margin,
        "output": "logits",
        "source": "made for a test",
    }
    (folder / "stripes.yaml").write_text(yaml.safe_dump(about))
    return folder / "stripes.onnx"


def test_an_onnx_file_becomes_the_base_model_and_reads_the_crops(cut, train_params):
    (cut.root / "given").mkdir()
    file = write_onnx(cut.root / "given", margin=0.25)
    result = stage.run(train_params(weights="given/stripes.onnx"), cut)
    base = cut.model("base")
    names = {"model.onnx", "model.yaml", "model.json", "seen.csv", "history.csv", "crop.json"}
    assert {path.name for path in base.iterdir()} == names
    assert sha256_of(file)[:12] in result.summary and load_seen(base).empty
    table = read_table(cut.split)
    recognizer = EmotionClassifier.load(base, "cpu", 16)
    answers = predict_crops(recognizer, table, cut.crop_shards).argmax(axis=1)
    assert [recognizer.labels[index] for index in answers] == list(table["emotion"])


def test_another_margin_than_the_onnx_files_is_one_line_that_names_both(cut, train_params):
    file = write_onnx(cut.root, margin=0.0)
    with pytest.raises(ModelError, match=r"crop\.margin is 0\.25, but box_margin of .* is 0;") as e:
        stage.run(train_params(weights=str(file)), cut)
    assert str(file.with_suffix(".yaml")) in str(e.value) and "\n" not in str(e.value)
    assert not cut.model("base").exists()


@pytest.fixture
def ours(cut, tmp_path_factory) -> Path:
    """A model's folder of another run, trained on two people."""
    folder = tmp_path_factory.mktemp("other") / "finetuned"
    seen = pd.DataFrame([["00", "made/00", "train", "train"]], columns=list(SEEN_COLUMNS))
    spec = ModelSpec(
        architecture="lenet5",
        labels=LABELS,
        input_size_px=32,
        color="rgb",
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 1.0, 1.0),
        version="",
        source="trained elsewhere",
    )
    torch.manual_seed(3)
    save_model(folder, build_module("lenet5", 3, 3), spec, seen)
    shutil.copyfile(cut.crop_settings, folder / "crop.json")
    return folder


@pytest.mark.parametrize("relative", [False, True])
def test_a_model_of_ours_is_taken_over_with_whom_it_has_seen(cut, train_params, ours, relative):
    if relative:
        ours = Path(shutil.copytree(ours, cut.root / "kept/finetuned"))
    weights = "kept/finetuned" if relative else str(ours)
    stage.run(train_params(weights=weights), cut)
    base = cut.model("base")
    for name in ("model.safetensors", "model.json", "seen.csv"):
        assert (base / name).read_bytes() == (ours / name).read_bytes()
    assert list(load_seen(base)["subject_id"]) == ["made/00"]


def test_what_a_given_model_was_once_fine_tuned_on_is_the_base_models_training(
    cut, train_params, ours
):
    rows = [["00", "made/00", "finetune", "train"], ["10", "made/01", "choose", "validation"]]
    pd.DataFrame(rows, columns=list(SEEN_COLUMNS)).to_csv(ours / "seen.csv", index=False)
    stage.run(train_params(weights=str(ours)), cut)
    seen = load_seen(cut.model("base"))
    assert list(seen["stage"]) == ["train", "train"]
    assert list(seen["role"]) == ["train", "validation"]


def test_a_model_of_ours_for_other_crops_is_one_line(cut, train_params, ours):
    (ours / "crop.json").write_text(json.dumps({"margin": 0.1}))
    with pytest.raises(ModelError, match=r"crop\.margin is 0\.25, but margin of .*crop\.json is"):
        stage.run(train_params(weights=str(ours)), cut)
    (ours / "crop.json").unlink()
    with pytest.raises(ModelError, match=r"crop\.json: missing"):
        stage.run(train_params(weights=str(ours)), cut)


def test_a_tight_box_is_wanted_and_a_looser_one_is_noted(cut, train_params, monkeypatch):
    name, made = "fer2013/mini_xception", build_module("mini_xception", 7, 1).state_dict()
    entry = replace(catalog.PRETRAINED[name], read=lambda _: ("mini_xception", made))
    for module in (catalog, external_model):
        monkeypatch.setattr(module, "PRETRAINED", {name: entry})
    monkeypatch.setattr(catalog, "weights_file", lambda name, root: root / name)
    looser = stage.run(train_params(weights=name), cut)
    assert "crop.margin is 0.25, but that of fer2013/mini_xception is 0" in looser.summary
    cut.crop_settings.write_text(json.dumps({"margin": 0.0}))
    assert "margin" not in stage.run(train_params(weights=name), cut).summary


@pytest.mark.parametrize("weights", ["nowhere/at/all", "gone.onnx", "."])
def test_what_is_no_model_is_one_line(cut, train_params, weights):
    with pytest.raises(ModelError, match=r"train\.weights|no such ONNX file") as error:
        stage.run(train_params(weights=weights), cut)
    assert "\n" not in str(error.value)


def test_training_from_imagenet_keeps_its_normalisation_and_says_so(cut, train_params, monkeypatch):
    def start(backbone, n_classes, channels, input_size_px, root):
        module = build_module(backbone, n_classes, channels, input_size_px)
        return InitialWeights(module, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2), "timm made_in1k, mit")

    monkeypatch.setattr("tasks.train.initial_model.init_from_imagenet", start)
    params = {"init": "imagenet", "backbone": "timm/test_efficientnet", "epochs": 1}
    stage.run(train_params(**params), cut)
    _, spec = load_model(cut.model("base"))
    assert spec.architecture == "timm/test_efficientnet" and spec.mean == (0.4, 0.5, 0.6)
    assert spec.source == "trained here from timm made_in1k, mit"


def body_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Everything but the head."""
    names = set(head_parameter_names(module))
    return {name: t for name, t in module.state_dict().items() if name not in names}


def begin(params: initial_model.TrainParams, paths: Paths, *labels: str) -> InitialModel:
    return build_initial_model(params, labels, pd.Series(["drawn"]), paths)


def test_a_model_of_ours_is_trained_on_with_a_fresh_head(cut, train_params, ours):
    (ours / "crop.json").write_text(json.dumps({"margin": 0.1}))
    params = train_params(init=str(ours), learning_rate=1e-9, epochs=1)
    summary = stage.run(params, cut).summary
    before, old = load_model(ours)
    after, spec = load_model(cut.model("base"))
    assert (spec.mean, spec.labels, spec.architecture) == (old.mean, LABELS, "lenet5")
    assert f"trained here from version {old.version} (trained elsewhere)" in spec.source
    for name, tensor in body_of(after).items():
        torch.testing.assert_close(tensor, body_of(before)[name], atol=1e-6, rtol=0)
    for name in head_parameter_names(after):
        assert not torch.allclose(after.get_parameter(name), before.get_parameter(name), atol=1e-3)
    assert "crop.margin is 0.25, but margin of" in summary  # a note: the model is trained on
    seen = load_seen(cut.model("base"))
    assert seen["subject_id"].iloc[0] == "made/00" and set(seen["stage"]) == {"train"}
    assert len(seen) > 1  # and those of this training


def test_the_head_is_that_of_the_label_set_and_the_input_may_be_larger(cut, train_params, ours):
    first = begin(train_params(init=str(ours), input_size_px=64), cut, "anger", "fear")
    assert first.spec.labels == ("anger", "fear") and first.spec.input_size_px == 64
    assert first.module(torch.rand(2, 3, 64, 64)).shape == (2, 2)


@pytest.fixture
def keras_file(tmp_path: Path) -> Path:
    """A MobileNet v1 of Keras with a hidden layer, and the YAML that says what it expects."""
    (tmp_path / "given").mkdir()
    about = {
        "labels": ["anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"][
            :CLASSES
        ],
        "input_size_px": 64,
        "color": "rgb",
        "layout": "nhwc",
        "scaling": "-1..1",
        "box_margin": 0.25,
        "output": "probabilities",
        "source": "made for a test",
    }
    (tmp_path / "given/net.yaml").write_text(yaml.safe_dump(about))
    return write_flat(tmp_path / "given/net.h5", [*mobilenet(), *head()])


def test_a_keras_mobilenet_is_trained_on_with_its_hidden_layer(cut, train_params, keras_file):
    first = begin(train_params(init="given/net.h5", backbone="mobilenet_v1"), cut, *LABELS)
    assert first.spec.architecture == "mobilenet_v1_relu256"
    assert (first.spec.mean, first.spec.std) == ((0.5,) * 3, (0.5,) * 3)
    _, state = read_mobilenet(keras_file)
    for name, tensor in body_of(first.module).items():
        assert torch.equal(tensor, state[name]), name
    assert first.module(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert "made for a test" in first.spec.source


def test_a_keras_mobilenet_with_its_yaml_is_taken_as_it_is(cut, train_params, keras_file):
    assert "nothing was trained" in stage.run(train_params(weights="given/net.h5"), cut).summary
    _, spec = load_model(cut.model("base"))
    assert spec.architecture == "mobilenet_v1_relu256" and len(spec.labels) == CLASSES
    keras_file.with_suffix(".yaml").unlink()
    with pytest.raises(ModelError, match=r"net\.yaml: missing; .*\.h5 file") as error:
        stage.run(train_params(weights="given/net.h5"), cut)
    assert "\n" not in str(error.value)


def test_a_published_mobilenet_is_trained_on(cut, train_params, keras_file, monkeypatch):
    name = "hsemotion/mobilenet_7"
    monkeypatch.setattr(catalog, "weights_file", lambda *_: keras_file)
    labels = catalog.PRETRAINED[name].spec.labels[:CLASSES]
    spec = catalog.PRETRAINED[name].spec.model_copy(update={"labels": labels})
    entry = replace(catalog.PRETRAINED[name], spec=spec)
    for module in (catalog, external_model):
        monkeypatch.setattr(module, "PRETRAINED", {name: entry})
    params = {"init": name, "backbone": "mobilenet_v1"}
    first = begin(train_params(**params), cut, *LABELS)
    assert first.spec.mean == spec.mean and first.spec.labels == LABELS
    assert "but that of hsemotion/mobilenet_7 is 0" in first.note
    with pytest.raises(ModelError, match=r"is mobilenet_v1, but train\.backbone is compact"):
        begin(train_params(init=name, backbone="compact"), cut, *LABELS)
    with pytest.raises(ModelError, match=r"takes rgb, but train\.color is gray"):
        begin(train_params(**params, color="gray"), cut, *LABELS)


def test_a_start_that_is_no_model_or_cannot_be_trained_on_is_one_line(cut, train_params):
    write_onnx(cut.root, margin=0.25)
    with pytest.raises(ModelError, match=r"train\.init: stripes\.onnx cannot be trained on"):
        begin(train_params(init="stripes.onnx"), cut, *LABELS)
    with pytest.raises(ModelError, match="'imagenett' is neither random nor imagenet") as error:
        begin(train_params(init="imagenett"), cut, *LABELS)
    assert "\n" not in str(error.value)
    with pytest.raises(ModelError, match="alexnet: 32 px is too small an input"):
        begin(train_params(backbone="alexnet"), cut, *LABELS)
