from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.core.errors import ModelError
from tasks.core.models.backbones import build_module
from tasks.core.models.device import choose_device
from tasks.core.models.predictor import EmotionClassifier, Normalization, prepare, probe
from tasks.core.models.spec import ModelSpec

SPEC = ModelSpec(
    architecture="compact",
    labels=("anger", "happiness", "neutral"),
    input_size_px=48,
    color="rgb",
    mean=(0.5, 0.4, 0.3),
    std=(0.5, 0.25, 0.2),
    version="",
    source="trained here",
)
GRAY = SPEC.model_copy(update={"color": "gray", "mean": (0.5,), "std": (0.5,)})
CPU = torch.device("cpu")


@pytest.fixture
def crops() -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (9, 14, 14, 3)).astype(np.uint8)
    return np.repeat(np.repeat(small, 8, axis=1), 8, axis=2)  # 112 px


@pytest.fixture
def recognizer() -> EmotionClassifier:
    torch.manual_seed(0)
    return EmotionClassifier(SPEC, build_module("compact", 3, 3), CPU, batch_size=4)


def test_probabilities_are_one_distribution_a_image(recognizer, crops):
    probabilities = recognizer.predict(crops)
    assert probabilities.shape == (9, 3)
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert recognizer.predict(crops[:0]).shape == (0, 3)


def test_a_image_does_not_feel_its_neighbours(recognizer, crops):
    together = recognizer.predict(crops)
    for index in range(9):
        alone = recognizer.predict(crops[index : index + 1])[0]
        assert np.abs(alone - together[index]).max() < 1e-5
    # In batches of one size the bits are the same wherever in the batch a picture is.
    turned = recognizer.predict(crops[[3, 0, 1, 2]])
    assert np.array_equal(turned, together[[3, 0, 1, 2]])


def test_threads_get_the_same_bits(recognizer, crops):
    alone = [recognizer.predict(crops[:n]) for n in range(1, 10)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda n: recognizer.predict(crops[:n]), [*range(1, 10)] * 8))
    assert all(np.array_equal(one, alone[at % 9]) for at, one in enumerate(together))


def test_prepare_then_predict_is_predict(recognizer, crops):
    prepared = recognizer.prepare(crops)
    assert prepared.shape == (9, 48, 48, 3)
    assert prepared.dtype == np.uint8
    assert np.array_equal(recognizer.predict_prepared(prepared), recognizer.predict(crops))


def test_resizing_is_antialiased_bilinear_as_in_pillow(crops):
    ours = prepare(crops, SPEC).astype(int)
    pillow = np.stack(
        [np.asarray(Image.fromarray(c).resize((48, 48), Image.Resampling.BILINEAR)) for c in crops]
    )
    assert np.abs(ours - pillow).max() <= 1


def test_gray_is_the_standard_luma(crops):
    exact = GRAY.model_copy(update={"input_size_px": 112})
    pillow = np.stack([np.asarray(Image.fromarray(c).convert("L")) for c in crops])
    assert np.array_equal(prepare(crops, exact)[..., 0], pillow)
    assert prepare(crops, GRAY).shape == (9, 48, 48, 1)


def test_crops_of_the_right_size_are_left_alone(crops):
    exact = SPEC.model_copy(update={"input_size_px": 112})
    assert np.array_equal(prepare(crops, exact), crops)


def test_normalisation_is_by_channel():
    pixels = torch.tensor([[[[255, 102, 0]]]], dtype=torch.uint8)
    normal = Normalization(SPEC, CPU)(pixels)
    assert normal.shape == (1, 3, 1, 1)
    assert torch.allclose(normal.flatten(), torch.tensor([1.0, 0.0, -1.5]), atol=1e-6)


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", ""])
def test_a_device_that_is_not_there_is_one_line(name):
    with pytest.raises(ModelError, match=f"device '{name}' cannot be used here") as error:
        choose_device(name)
    assert "\n" not in str(error.value)


class Constant(torch.nn.Module):
    """Gives the same row for every picture."""

    def __init__(self, row: list[float]) -> None:
        super().__init__()
        self.row = torch.tensor(row)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.row.expand(len(x), -1)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ([float("nan"), 1, 2], "gives NaN or infinite numbers for 4 of 4 pictures"),
        ([float("inf"), 1, 2], "gives NaN or infinite numbers"),
        ([1, 2], r"gives \(4, 2\) numbers for 4 pictures, but has 3 labels"),
    ],
)
def test_an_answer_without_numbers_names_the_model(crops, row, named):
    recognizer = EmotionClassifier(SPEC, Constant(row), CPU, 4, origin="models/base")
    with pytest.raises(ModelError, match=f"models/base: {named}") as error:
        recognizer.predict(crops)
    assert "\n" not in str(error.value)


def test_a_network_is_probed_when_it_is_given():
    probe(Constant([1, 2, 3]), SPEC, "given/m.h5")
    with pytest.raises(ModelError, match=r"given/m\.h5: gives NaN"):
        probe(Constant([1, 2, float("nan")]), SPEC, "given/m.h5")
    with pytest.raises(ModelError, match=r"given/m\.h5: cannot process pictures of 48 px"):
        probe(torch.nn.Linear(5, 3), SPEC, "given/m.h5")
