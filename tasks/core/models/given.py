"""`train.weights`: a model that is there already, by name, as a folder or as an ONNX file."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from torch import nn

from tasks.core.errors import ModelError
from tasks.core.models.checkpoint import SPEC, load_model, load_seen, no_pictures_seen
from tasks.core.models.onnx_network import read_onnx
from tasks.core.models.pretrained import PRETRAINED, load_pretrained
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import CROP_SETTINGS

_KEY = "train.weights"


@dataclass(frozen=True)
class BoxMargin:
    """How much around the face a model was trained on.

    Attributes
    ----------
    share
        Share of the face box's side on each side; None where nothing says it.
    where
        The key or file that says it, for messages.
    binding
        Whether another margin is a mistake; else it is worth a note.
    """

    share: float | None
    where: str
    binding: bool

    def compare(self, crop_settings: Path) -> str:
        """Compare with how this run's crops were cut.

        Parameters
        ----------
        crop_settings
            The crops' `crop.json`.

        Returns
        -------
        str
            A note where they differ and may; "" where they agree or one is not known.

        Raises
        ------
        ModelError
            One line that names both keys, where they differ and must not.
        """
        ours = crop_margin(crop_settings)
        if self.share is None or ours is None or abs(ours - self.share) < 1e-6:
            return ""
        difference = f"crop.margin is {ours:g}, but {self.where} is {self.share:g}"
        if self.binding:
            raise ModelError(
                f"{_KEY}: {difference}; the model would be shown another part of the face than "
                f"in training: set crop.margin to {self.share:g}"
            )
        return f"{difference}: it is shown more or less of the face than in training"


@dataclass(frozen=True)
class Given:
    """A model as it was given: its network, its spec, whom it has seen and how it was cropped."""

    module: nn.Module
    spec: ModelSpec
    seen: pd.DataFrame
    margin: BoxMargin


def load_given(weights: str, root: Path) -> Given:
    """Load what `train.weights` names.

    Parameters
    ----------
    weights
        A name in `PRETRAINED`, a folder with a model of this project, or an ONNX file with its
        YAML beside it; paths are absolute or relative to the project.
    root
        The project's folder.

    Raises
    ------
    ModelError, DownloadError
        One line, for something else or something damaged; see `load_pretrained`, `load_model` and
        `read_onnx`.
    """
    if weights in PRETRAINED:
        module, spec = load_pretrained(weights, root)
        tight = BoxMargin(PRETRAINED[weights].box_margin, f"that of {weights}", binding=False)
        return Given(module, spec, no_pictures_seen(), tight)
    path = root / weights  # an absolute path stays as it is
    if path.suffix == ".onnx":
        network, spec = read_onnx(path)
        description = path.with_suffix(".yaml")
        margin = BoxMargin(network.description.box_margin, f"box_margin of {description}", True)
        return Given(network, spec, no_pictures_seen(), margin)
    if (path / SPEC).is_file():
        module, spec = load_model(path)
        cut = path / CROP_SETTINGS
        margin = BoxMargin(crop_margin(cut), f"margin of {cut}", binding=True)
        return Given(module, spec, load_seen(path), margin)
    raise ModelError(
        f"{_KEY}: '{weights}' is no pre-trained model ({', '.join(PRETRAINED)}), no folder with a "
        f"{SPEC} and no .onnx file"
    )


def crop_margin(crop_settings: Path) -> float | None:
    """Read the margin from a `crop.json`; None where it has none.

    Raises
    ------
    ModelError
        One line, where the file is missing or damaged.
    """
    try:
        margin = json.loads(crop_settings.read_text(encoding="utf-8")).get("margin")
        return None if margin is None else float(margin)
    except FileNotFoundError:
        raise ModelError(f"{crop_settings}: missing; how faces were cut is unknown") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{crop_settings}: does not say how faces are cut ({error})") from None
