"""The head that fine-tuning may change alone is the last layer, with one output a class."""

import pytest
import torch
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.backbones import ARCHITECTURES, build_module, head_parameter_names

CLASSES = 5
FORMS = (
    "mobilenet_v1_relu256",
    "timm/mobilenetv3_small_050",
    "timm/test_vit",
    "timm/test_convnext",
)
SMALL = [name for name in ARCHITECTURES if name not in ("alexnet", "resnet50")]  # see backbones


@pytest.mark.parametrize("architecture", [*SMALL, *FORMS])
def test_the_head_alone_decides_how_features_become_answers(architecture: str) -> None:
    torch.manual_seed(0)
    module = build_module(architecture, n_classes=CLASSES, channels=3).eval()
    names = head_parameter_names(module)
    weights = [name for name in names if name.endswith("weight")]
    biases = [name for name in names if name.endswith("bias")]
    assert [module.get_parameter(name).shape[0] for name in weights] == [CLASSES]
    with torch.no_grad():
        for name in weights:
            module.get_parameter(name).zero_()
        module.get_parameter(biases[0]).copy_(torch.arange(float(CLASSES)))
        answers = module(torch.randn(2, 3, 160, 160))
    torch.testing.assert_close(answers, torch.arange(float(CLASSES)).expand(2, -1))


def test_a_network_without_a_final_layer_of_classes_is_refused() -> None:
    with pytest.raises(ModelError, match="no classification head"):
        head_parameter_names(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)))
