"""An ONNX classifier as a module that can be asked, though not trained: through onnxruntime.

Beside `model.onnx` stands `model.yaml`, which says what the file itself does not: the labels in
order, and how a picture becomes its input. Both are kept in the model's folder as they were given.
onnxruntime runs on the CPU here. A file from outside is first tried in a child process, under
limits, and its answers are checked then and whenever it is asked.
"""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import yaml
from pydantic import Field, ValidationError, model_validator
from torch import nn

from tasks.core import safe_yaml
from tasks.core.errors import ModelError
from tasks.core.files import write_bytes
from tasks.core.labels import EMOTION_WORDS, EMOTIONS
from tasks.core.limited import LimitError, call_limited
from tasks.core.models.answers import N_PROBES, Output, fault_of
from tasks.core.models.onnx_session import (
    MAX_BYTES,
    Expected,
    Found,
    examine,
    open_session,
    run_session,
)
from tasks.core.models.spec import CHANNELS, ONNX, ModelSpec
from tasks.core.params import Section
from tasks.core.text import clean, one_line

NETWORK, DESCRIPTION = "model.onnx", "model.yaml"
_VERSION_DIGITS = 12
_MAX_DESCRIPTION_BYTES = 1 << 20
# Limits of the child that tries a file: for a large network, and its inputs and layers.
_SECONDS = 60.0
_SECONDS_PER_MB = 0.5
_MEMORY_MB = 2048
_PER_FILE_BYTE, _PER_INPUT_BYTE = 8, 100
_SMALLEST = float(np.finfo(np.float32).tiny)
# What a pixel from 0 to 255 becomes, as (mean, std) of `(pixel / 255 - mean) / std`.
_SCALES = {"0..255": (0.0, 1 / 255), "0..1": (0.0, 1.0), "-1..1": (0.5, 0.5)}


class ChannelScaling(Section):
    """Means and standard deviations a channel, of pixels from 0 to 1."""

    mean: list[Annotated[float, Field(allow_inf_nan=False)]]
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]


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
    box_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    output: Output
    source: str

    @model_validator(mode="after")
    def _fits(self) -> "OnnxDescription":
        strange = [label for label in self.labels if clean(label).lower() not in EMOTION_WORDS]
        if strange:
            raise ValueError(
                f"labels: {one_line(', '.join(strange))} not known; known are {', '.join(EMOTIONS)}"
            )
        if len(set(self.emotions)) < len(self.labels):
            raise ValueError("labels: each emotion once")
        if {len(self.mean), len(self.std)} != {CHANNELS[self.colour]}:
            raise ValueError(f"scaling: {CHANNELS[self.colour]} values for colour {self.colour}")
        return self

    @property
    def emotions(self) -> tuple[str, ...]:
        """Return the labels in this project's words."""
        return tuple(EMOTION_WORDS[clean(label).lower()] for label in self.labels)

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
    written_here
        Whether this project wrote the file just now, so that no child process has to try it.

    Raises
    ------
    ModelError
        One line: the file cannot be read, is not as described, or answers no numbers.
    """

    def __init__(
        self, file: Path, description: OnnxDescription, written_here: bool = False
    ) -> None:
        super().__init__()
        self.file = file
        self.description = description
        self.content = _read(file)
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        expected = _expected(description)
        if written_here:
            self._found = examine(self.content, str(file), expected)
        else:
            self._found = _tried(file.resolve(), str(file), self.sha256, expected)
        self._session = open_session(self.content, str(file), torch.get_num_threads())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Ask the network about `(N, C, S, S)` normalised pictures."""
        axes = (0, 2, 3, 1) if self.description.layout == "nhwc" else (0, 1, 2, 3)
        pictures = x.detach().cpu().permute(axes).contiguous().numpy()
        rows = run_session(self._session, self._found, pictures, str(self.file))
        fault = fault_of(rows, self.description.output, self._found.sum_tolerance)
        if fault:
            raise ModelError(f"{self.file}: {fault}")
        answers = torch.from_numpy(rows).to(x.device)
        if self.description.output == "probabilities":
            return answers.clamp(min=_SMALLEST).log()
        return answers


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise ModelError(f"{file}: no such ONNX file")
    try:
        if file.stat().st_size > MAX_BYTES:
            raise ModelError(f"{file}: is no ONNX file, which has {MAX_BYTES >> 30} GiB at most")
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({one_line(error)})") from None


def _expected(description: OnnxDescription) -> Expected:
    pairs = list(zip(description.mean, description.std, strict=True))
    return Expected(
        side_px=description.input_size_px,
        n_labels=len(description.labels),
        layout=description.layout,
        output=description.output,
        scale=tuple(1 / (255 * std) for _, std in pairs),
        offset=tuple(-mean / std for mean, std in pairs),
    )


@lru_cache(maxsize=16)
def _tried(path: Path, name: str, sha256: str, expected: Expected) -> Found:
    """Examine a file in a child process, once per content and description."""
    file_mb = path.stat().st_size / (1 << 20)
    input_mb = N_PROBES * 4 * float(np.prod(expected.input_shape())) / (1 << 20)
    seconds = _SECONDS + _SECONDS_PER_MB * file_mb
    memory_mb = _MEMORY_MB + _PER_FILE_BYTE * file_mb + _PER_INPUT_BYTE * input_mb
    try:
        answer = call_limited(
            "tasks.core.models.onnx_session:examine_file",
            *(str(path), name, sha256, list(expected)),
            seconds=seconds,
            memory_mb=int(memory_mb),
        )
    except LimitError as error:
        raise ModelError(
            f"{name}: was tried on {N_PROBES} pictures in a process of its own, and {error}; "
            "export the classifier again, without steps before and after it"
        ) from None
    return Found(*answer)


def read_onnx(file: Path, written_here: bool = False) -> tuple[OnnxNetwork, ModelSpec]:
    """Read `<name>.onnx` and `<name>.yaml` beside it.

    Parameters
    ----------
    file
        The ONNX file.
    written_here
        Whether this project wrote it just now; see `OnnxNetwork`.

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
    network = OnnxNetwork(file, description, written_here)
    spec = ModelSpec(
        architecture=ONNX,
        labels=description.emotions,
        input_size_px=description.input_size_px,
        colour=description.colour,
        mean=description.mean,
        std=description.std,
        version=network.sha256[:_VERSION_DIGITS],
        source=description.source,
    )
    return network, spec


def keep_onnx(network: OnnxNetwork, folder: Path) -> None:
    """Write the ONNX file and its YAML into a model's folder, byte for byte."""
    description = network.file.with_suffix(".yaml").read_bytes()
    write_bytes(folder / NETWORK, network.content)
    write_bytes(folder / DESCRIPTION, description)


def read_description(file: Path) -> OnnxDescription:
    """Read the YAML beside a file of weights; raises ModelError with one line."""
    path = file.with_suffix(".yaml")
    if not path.is_file():
        raise ModelError(
            f"{path}: missing; it says what the {file.suffix} file beside it expects "
            "(docs/models.md)"
        )
    try:
        if path.stat().st_size > _MAX_DESCRIPTION_BYTES:
            raise yaml.YAMLError(f"has more than {_MAX_DESCRIPTION_BYTES:,} bytes")
        content = safe_yaml.load(path.read_text(encoding="utf-8"))
        return OnnxDescription.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(
            ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
            for fault in error.errors()
        )
        raise ModelError(f"{path}: {one_line(faults, 600)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ModelError(f"{path}: is not valid YAML ({one_line(error)})") from None
