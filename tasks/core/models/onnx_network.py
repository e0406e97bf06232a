"""An ONNX classifier as a module that can be asked, though not trained: through onnxruntime.

Beside `model.onnx` stands `model.yaml`, which says what the file itself does not: the labels in
order, and how a picture becomes its input. Both are kept in the model's folder as they were given.
onnxruntime runs on the CPU here.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, ValidationError, model_validator
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.files import sha256_of, write_bytes
from tasks.core.labels import EMOTION_WORDS, EMOTIONS
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.params import Section

NETWORK, DESCRIPTION = "model.onnx", "model.yaml"
_VERSION_DIGITS = 12
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_SMALLEST = float(np.finfo(np.float32).tiny)
# What a pixel from 0 to 255 becomes, as (mean, std) of `(pixel / 255 - mean) / std`.
_SCALES = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}


class ChannelScaling(Section):
    """Means and standard deviations a channel, of pixels from 0 to 1."""

    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]


class OnnxDescription(Section):
    """The YAML beside an ONNX file.

    Attributes
    ----------
    labels
        The emotions in the order of the outputs, in this project's words or those of
        `EMOTION_WORDS`.
    input_size_px
        Width and height of the input.
    colour
        Order of the input's channels: rgb, bgr or grey (one channel).
    layout
        Order of the input's axes: nchw or nhwc.
    scaling
        What pixels become: 0..255, 0..1, -1..1, or `{mean, std}` a channel of pixels from 0 to 1,
        in the order of the input's channels.
    box_margin
        Share of the face box's side that stood on each side in training; 0 is a tight box.
    output
        What comes out: probabilities, or logits that a softmax turns into them.
    source
        Who trained it on what, where it comes from, and its licence; stands in the report.
    """

    labels: Annotated[list[str], Field(min_length=2)]
    input_size_px: Annotated[int, Field(ge=8, le=2048)]
    colour: Literal["rgb", "bgr", "grey"]
    layout: Literal["nchw", "nhwc"]
    scaling: Literal["0..255", "0..1", "-1..1"] | ChannelScaling
    box_margin: Annotated[float, Field(ge=0)]
    output: Literal["probabilities", "logits"]
    source: str

    @model_validator(mode="after")
    def _fits(self) -> "OnnxDescription":
        strange = [label for label in self.labels if label.lower() not in EMOTION_WORDS]
        if strange:
            raise ValueError(
                f"labels: {', '.join(strange)} not known; known are {', '.join(EMOTIONS)}"
            )
        if len(set(self.emotions)) < len(self.labels):
            raise ValueError("labels: each emotion once")
        if {len(self.mean), len(self.std)} != {CHANNELS[self.colour]}:
            raise ValueError(f"scaling: {CHANNELS[self.colour]} values for colour {self.colour}")
        return self

    @property
    def emotions(self) -> tuple[str, ...]:
        """Return the labels in this project's words."""
        return tuple(EMOTION_WORDS[label.lower()] for label in self.labels)

    @property
    def mean(self) -> tuple[float, ...]:
        """Return one mean a channel, of pixels from 0 to 1."""
        if isinstance(self.scaling, ChannelScaling):
            return tuple(self.scaling.mean)
        return (_SCALES[self.scaling][0],) * CHANNELS[self.colour]

    @property
    def std(self) -> tuple[float, ...]:
        """Return one standard deviation a channel, of pixels from 0 to 1."""
        if isinstance(self.scaling, ChannelScaling):
            return tuple(self.scaling.std)
        return (_SCALES[self.scaling][1],) * CHANNELS[self.colour]


class OnnxNetwork(nn.Module):
    """From `(N, C, S, S)` float32 to `(N, K)` logits, by onnxruntime.

    Of a network that answers probabilities the logarithms are returned, which a softmax turns back
    into the same probabilities.

    Parameters
    ----------
    file
        The ONNX file; its weights must be inside.
    description
        What the YAML beside it says.

    Raises
    ------
    ModelError
        One line: onnxruntime is not installed, or the file cannot be read or is not as described.
    """

    def __init__(self, file: Path, description: OnnxDescription) -> None:
        super().__init__()
        self.file = file
        self.description = description
        self.content, self._session = _open(file)
        self._input = self._checked_input()
        self._output = self._checked_output()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ask the network about `(N, C, S, S)` normalised pictures."""
        axes = (0, 2, 3, 1) if self.description.layout == "nhwc" else (0, 1, 2, 3)
        pictures = x.detach().cpu().permute(axes).contiguous().numpy()
        pictures = pictures.astype(_TYPES[self._input.type], copy=False)
        fixed = self._input.shape[0]
        at_once = fixed if isinstance(fixed, int) else max(1, len(pictures))
        parts = [
            self._ask(pictures[start : start + at_once], at_once)
            for start in range(0, len(pictures), at_once)
        ]
        answers = torch.from_numpy(np.concatenate(parts)).to(x.device)
        if self.description.output == "probabilities":
            return answers.clamp(min=_SMALLEST).log()
        return answers

    def _ask(self, pictures: np.ndarray, at_once: int) -> np.ndarray:
        """Ask about at most `at_once` pictures, filled up with the first one to exactly that."""
        filled = np.concatenate([pictures, np.repeat(pictures[:1], at_once - len(pictures), 0)])
        answers = self._session.run([self._output.name], {self._input.name: filled})[0]
        rows: np.ndarray = answers.reshape(at_once, -1)[: len(pictures)].astype(np.float32)
        return rows

    def _checked_input(self) -> Any:
        inputs = self._session.get_inputs()
        size, n_channels = self.description.input_size_px, CHANNELS[self.description.colour]
        nhwc = self.description.layout == "nhwc"
        wanted = [size, size, n_channels] if nhwc else [n_channels, size, size]
        given = inputs[0]
        fits = len(inputs) == 1 and given.type in _TYPES and len(given.shape) == 4
        axes = zip(given.shape[1:], wanted, strict=False)
        if not fits or any(isinstance(has, int) and has != want for has, want in axes):
            found = "; ".join(f"{entry.name} {entry.type} {entry.shape}" for entry in inputs)
            raise ModelError(
                f"{self.file}: takes {found}, but {DESCRIPTION} says one input of {wanted} "
                f"({self.description.layout}, floating point)"
            )
        return given

    def _checked_output(self) -> Any:
        """Find the output with one number a label, by asking about one grey picture."""
        outputs = self._session.get_outputs()
        shape = [self._input.shape[0] if isinstance(self._input.shape[0], int) else 1]
        size, n_channels = self.description.input_size_px, CHANNELS[self.description.colour]
        nhwc = self.description.layout == "nhwc"
        shape += [size, size, n_channels] if nhwc else [n_channels, size, size]
        try:
            zeros = np.zeros(shape, _TYPES[self._input.type])
            answers = self._session.run(None, {self._input.name: zeros})
        except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
            raise ModelError(f"{self.file}: cannot be run ({_first_line(error)})") from None
        n_labels = len(self.description.labels)
        fitting = [
            output
            for output, answer in zip(outputs, answers, strict=True)
            if isinstance(answer, np.ndarray) and answer.size == shape[0] * n_labels
        ]
        if len(fitting) != 1:
            sizes = [list(np.shape(answer)) for answer in answers]
            raise ModelError(
                f"{self.file}: its outputs have the shapes {sizes}; exactly one must hold "
                f"{n_labels} numbers a picture, as {DESCRIPTION} names {n_labels} labels"
            )
        return fitting[0]


def read_onnx(file: Path) -> tuple[OnnxNetwork, ModelSpec]:
    """Read `<name>.onnx` and `<name>.yaml` beside it.

    Returns
    -------
    tuple
        The network, and its spec with the first 12 hex digits of the file's sha256 as version.

    Raises
    ------
    ModelError
        One line: a file is missing or not understood, or the two do not fit.
    """
    if not file.is_file():
        raise ModelError(f"{file}: no such ONNX file")
    description = read_description(file)
    spec = ModelSpec(
        architecture=ONNX,
        labels=description.emotions,
        input_size_px=description.input_size_px,
        colour=description.colour,
        mean=description.mean,
        std=description.std,
        version=sha256_of(file)[:_VERSION_DIGITS],
        source=description.source,
    )
    return OnnxNetwork(file, description), spec


def keep_onnx(network: OnnxNetwork, folder: Path) -> None:
    """Write the ONNX file and its YAML into a model's folder, byte for byte."""
    description = network.file.with_suffix(".yaml").read_bytes()
    write_bytes(folder / NETWORK, network.content)
    write_bytes(folder / DESCRIPTION, description)


def _open(file: Path) -> tuple[bytes, Any]:
    import onnxruntime  # slow to import, and seldom needed

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # it prints what it raises as well
    content = file.read_bytes()
    try:
        # From memory: a file whose weights lie in a second file would not survive being copied.
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime has many types of its own
        raise ModelError(
            f"{file}: is no ONNX file that can be run; its weights must be inside "
            f"({_first_line(error)})"
        ) from None
    return content, session


def read_description(file: Path) -> OnnxDescription:
    """Read the YAML beside a file of weights; raises ModelError with one line."""
    path = file.with_suffix(".yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return OnnxDescription.model_validate(content)
    except FileNotFoundError:
        raise ModelError(
            f"{path}: missing; it says what the {file.suffix} file beside it expects "
            "(docs/models.md)"
        ) from None
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
            for fault in error.errors()
        )
        raise ModelError(f"{path}: {faults}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: is not valid YAML ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
