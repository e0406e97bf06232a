"""First weights from files on this machine, made up here: what is taken, and what is refused."""

import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tasks.core.errors import DownloadError, ModelError
from tasks.core.files import sha256_of
from tasks.core.models.backbones import build_module, head_parameter_names
from tasks.train.pretrained.imagenet import init_from_imagenet

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which files are looked for; the network is out of reach."""
    monkeypatch.setenv("AFFECTGAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("AFFECTGAP_ASSETS", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    folder = tmp_path / "cache/weights"
    folder.mkdir(parents=True)
    return folder


def publish(folder: Path, name: str) -> torch.nn.Module:
    """Write a file of random weights as timm publishes a network's; return the network."""
    torch.manual_seed(11)
    network = timm.create_model(name, pretrained=False).eval()
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    return network


def test_torchvisions_resnet_gets_the_same_weights_from_timm(weights: Path) -> None:
    published = publish(weights, "resnet18.tv_in1k")
    start = init_from_imagenet("resnet18", 5, 3, 64, weights)
    assert (start.mean, start.std) == IMAGENET
    file = weights / "resnet18.tv_in1k.safetensors"
    assert start.source == f"timm resnet18.tv_in1k, bsd-3-clause, file's sha256 {sha256_of(file)}"
    assert (weights / f"{file.name}.sha256").read_text().strip() == sha256_of(file)

    ours = build_module("resnet18", 1000, 3)  # torchvision's module with timm's whole state
    ours.load_state_dict(published.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), published(images), atol=1e-4, rtol=0)
    head = set(head_parameter_names(start.module))
    for name, tensor in start.module.state_dict().items():
        assert (name in head) or torch.equal(tensor, published.state_dict()[name])
    assert start.module.fc.out_features == 5


@pytest.mark.parametrize(
    ("name", "size_px"), [("test_resnet.r160_in1k", 64), ("test_vit.r160_in1k", 96)]
)
def test_a_network_of_timm_gets_its_weights_and_a_fresh_head(
    weights: Path, name: str, size_px: int
) -> None:
    published = publish(weights, name)
    backbone = f"timm/{name.partition('.')[0]}"
    start = init_from_imagenet(backbone, 5, 3, size_px, weights)
    config = timm.get_pretrained_cfg(name)
    assert (start.mean, start.std) == (config.mean, config.std)
    with torch.inference_mode():
        assert start.module.eval()(torch.rand(2, 3, size_px, size_px)).shape == (2, 5)
    same = [
        name
        for name, tensor in start.module.state_dict().items()
        if torch.equal(tensor, published.state_dict().get(name, torch.zeros(0)))
    ]
    different = set(start.module.state_dict()) - set(same) - {"pos_embed"}  # of another size
    assert different == set(head_parameter_names(start.module))


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3"])
def test_for_gray_images_the_first_layer_is_summed_over_the_colors(
    weights: Path, tmp_path: Path, backbone: str
) -> None:
    name = {"resnet18": "resnet18.tv_in1k", "mobilenet_v3": "mobilenetv3_large_100.ra_in1k"}
    (tmp_path / "given").mkdir()
    published = publish(tmp_path / "given", name[backbone])  # found there too
    start = init_from_imagenet(backbone, 5, 1, 32, tmp_path)
    assert start.mean == pytest.approx((0.449,), abs=1e-3) and len(start.std) == 1
    gray = torch.rand(2, 1, 32, 32)
    first = next(iter(published.state_dict()))
    ours, theirs = start.module.state_dict()[first], published.state_dict()[first]
    torch.testing.assert_close(ours, theirs.sum(dim=1, keepdim=True))
    with torch.inference_mode():
        assert start.module.eval()(gray).shape == (2, 5)


def test_without_the_file_and_a_network_one_line_says_what_to_put_where(weights: Path) -> None:
    place = weights / "resnet50.tv2_in1k.safetensors"
    with pytest.raises(DownloadError, match=re.escape(f"put it at {place}")) as error:
        init_from_imagenet("resnet50", 7, 3, 224, weights)
    assert "https://huggingface.co/timm/resnet50.tv2_in1k" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("backbone", "named"),
    [
        ("compact", "resnet18, resnet50, vgg16, .*timm/<name>"),
        ("alexnet", "start: random"),
        ("mobilenet_v1", "start: hsemotion/mobilenet_7"),
        ("mobilenet_v3_small", "timm/mobilenetv3_small_100"),
        ("vgg", "start: random"),
        ("timm/resnet81", "near are .*resnet18"),
        ("timm/resnet18.tw_in1k", "tv_in1k"),
    ],
)
def test_what_has_no_such_weights_is_one_line(weights: Path, backbone: str, named: str) -> None:
    with pytest.raises(ModelError, match=named) as error:
        init_from_imagenet(backbone, 7, 3, 224, weights)
    assert "\n" not in str(error.value)


def test_a_file_of_another_network_or_a_torn_one_is_one_line(weights: Path) -> None:
    file = weights / "resnet18.tv_in1k.safetensors"
    save_file({"conv1.weight": torch.zeros(3)}, file)
    with pytest.raises(ModelError, match="does not fit the network 'ResNet'"):
        init_from_imagenet("resnet18", 7, 3, 224, weights)
    (weights / f"{file.name}.sha256").unlink()
    file.write_bytes(b"torn")
    with pytest.raises(ModelError, match="the weights file is damaged, or no safetensors file"):
        init_from_imagenet("resnet18", 7, 3, 224, weights)


def test_a_network_built_for_one_size_says_so_when_it_cannot_be(weights: Path) -> None:
    with pytest.raises(ModelError, match=r"timm/test_vit: cannot be built for 100 px") as error:
        build_module("timm/test_vit", 7, 3, 100)
    assert "\n" not in str(error.value)
    assert build_module("timm/test_vit", 7, 1, 64)(torch.rand(1, 1, 64, 64)).shape == (1, 7)
