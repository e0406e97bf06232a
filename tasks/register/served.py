"""The model as others ask it: pictures in, one row a face out, through MLflow's pyfunc.

It holds the crop step, so that serving sees what training saw. This file travels with every
registered version, together with all that it imports: a version answers as it did when it was
registered, whatever the project has become since.
"""

import base64
import binascii
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

from tasks.core.images import BadImageError, decode_image
from tasks.core.models.recogniser import Recogniser
from tasks.register.request_guard import guard_scoring_server
from tasks.register.serve_settings import (
    MAX_ROWS,
    SERVED_FOLDER,
    ServeSettings,
    serve_settings,
    usable_cores,
)
from tasks.register.served_folder import read_below

COLUMN = "image"  # of the input
FOLDER = "model"  # the artefact: the model's folder
SERVING = "serving.json"  # in that folder: what serving needs beside the model
_LONGEST_PATH = 4096  # characters; a longer text is not looked for on the disk
_LEAST_BYTES = 16  # fewer are no picture, though a short path may be read as base64
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"P6\n")
_BLANKS = b" \t\r\n\v\f"
_ID_DIGITS = 16  # of `image_id`, as in the manifest
_DIGITS = 6


class Faces(Protocol):
    """What cutting gives: crops `(N, S, S, 3)` uint8, N boxes and N scores."""

    crops: np.ndarray
    boxes_xyxy_px: list[tuple[float, float, float, float]]
    scores: list[float]


class ServedModel(PythonModel):
    """A recogniser with the crop step, for `mlflow.pyfunc.load_model` and `mlflow models serve`.

    Parameters
    ----------
    face_finder
        From a model's folder to a function that cuts the faces of a decoded image. It is given
        from outside, since stage packages do not import each other.

    Notes
    -----
    MLflow's server calls `predict` from several threads. Nothing that a call changes is shared:
    the network only reads its weights, onnxruntime's sessions may be used by several threads, and
    each search for faces has a detector of its own. One image more than there are cores is worked
    on at once: this bounds the memory that decoded images take, and no core idles while one of
    them waits for Python's lock.
    """

    def __init__(self, face_finder: Callable[[Path], Callable[[Image.Image, int], Faces]]) -> None:
        self._face_finder = face_finder

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights; raises ModelError where they, or the environment, are not usable."""
        folder = Path(context.artifacts[FOLDER])
        serving = json.loads((folder / SERVING).read_text(encoding="utf-8"))
        settings = serve_settings()
        max_pixels = min(settings.max_pixels, int(serving["max_pixels"]))
        self._settings = replace(settings, max_pixels=max_pixels)
        self._in_server = guard_scoring_server(self._settings)
        if self._in_server:
            torch.set_num_threads(1)  # requests run side by side, and each thread has such a pool
        self._recogniser = Recogniser.load(folder, "auto")
        self._cut_faces = self._face_finder(folder)
        self._in_progress = threading.BoundedSemaphore(usable_cores() + 1)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Read pictures.

        Parameters
        ----------
        context
            MLflow's; not used.
        model_input
            A DataFrame with a column `image`: a picture's bytes, the same as base64 text (also as
            a `data:` address), or a path below the folder that AFFECTGAP_SERVE_FOLDER names.
        params
            None are known.

        Returns
        -------
        pandas.DataFrame
            One row a face, the most prominent first: `row` (of the input, from 0), `image` (the
            path as given, else the picture's image_id), `face` (from 0), `box_xyxy_px`,
            `detector_score`, `emotion`, `p_<label>` (float, they sum to 1), `model_version`, and
            `note`. A picture without a face, or one that cannot be read, has one row with a note
            and nothing else.

        Raises
        ------
        MlflowException
            In a server, for more images than a request may hold.
        """
        images = list(_one_by_one(model_input[COLUMN]))
        if self._in_server and len(images) > self._settings.max_rows:
            raise MlflowException(
                f"{len(images)} images; a request may hold {self._settings.max_rows} ({MAX_ROWS})",
                INVALID_PARAMETER_VALUE,
            )
        rows = []
        for number, given in enumerate(images):
            with self._in_progress:
                rows += [{"row": number, **row} for row in self._answer(given)]
        columns = ["row", *output_columns(self._recogniser.labels)]
        # As objects, so that what is missing stays None, which JSON has, and becomes no NaN.
        return pd.DataFrame(rows, columns=columns, dtype="object")

    def _answer(self, given: object) -> Iterator[dict[str, Any]]:
        name = given if isinstance(given, str) and len(given) <= _LONGEST_PATH else "(not a path)"
        try:
            content, is_path = picture_bytes(given, self._settings)
            name = name if is_path else hashlib.sha256(content).hexdigest()[:_ID_DIGITS]
            image, exif_orientation, reading_note = decode_image(content, self._settings.max_pixels)
        except BadImageError as error:
            yield self._row(name, note=f"{error.reason}: {error.detail}")
            return
        faces = self._cut_faces(image, exif_orientation)
        if not len(faces.crops):
            yield self._row(name, note="no face found")
            return
        found = zip(
            faces.boxes_xyxy_px, faces.scores, self._recogniser.predict(faces.crops), strict=True
        )
        for number, (box, score, probabilities) in enumerate(found):
            labels = self._recogniser.labels
            yield self._row(
                name,
                note=reading_note,
                face=number,
                box_xyxy_px=[float(edge) for edge in box],
                detector_score=round(float(score), _DIGITS),
                emotion=labels[int(probabilities.argmax())],
                **{f"p_{k}": float(p) for k, p in zip(labels, probabilities, strict=True)},
            )

    def _row(self, image: str, note: str = "", **values: Any) -> dict[str, Any]:
        blank = dict.fromkeys(output_columns(self._recogniser.labels))
        version = self._recogniser.spec.version
        return {**blank, "image": image, "model_version": version, "note": note, **values}


def output_columns(labels: tuple[str, ...]) -> list[str]:
    """Name the columns of an answer, but for `row`."""
    first = ["image", "face", "box_xyxy_px", "detector_score", "emotion"]
    return [*first, *(f"p_{label}" for label in labels), "model_version", "note"]


def picture_bytes(given: object, settings: ServeSettings) -> tuple[bytes, bool]:
    """Return a picture's bytes, and whether they were read from a path.

    Parameters
    ----------
    given
        Bytes, base64 text, or a path.
    settings
        Says whether paths are read, and below which folder.

    Raises
    ------
    BadImageError
        With reason `unreadable` or `too_large`.
    """
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given), False
    if not isinstance(given, str):
        raise BadImageError("unreadable", "neither bytes, nor base64 text, nor a path")
    content = _from_base64(given)
    if content is not None:
        return content, False
    if settings.folder is None:
        message = f"no image in base64; paths are read only where {SERVED_FOLDER} names a folder"
        raise BadImageError("unreadable", message)
    if len(given) > _LONGEST_PATH:
        raise BadImageError("unreadable", "a text that is neither base64 of a picture nor a path")
    return read_below(settings.folder, given, settings.max_pixels), True


def _one_by_one(column: Iterable[object]) -> Iterator[object]:
    """Pass pictures on; the form `{"inputs": {"image": [a, b]}}` arrives as one cell with both."""
    for cell in column:
        if isinstance(cell, list | tuple | np.ndarray):
            yield from cell
        else:
            yield cell


def _from_base64(text: str) -> bytes | None:
    """Decode base64; None for a text that is none, such as a path."""
    marked = text.startswith("data:")
    text = text.partition(",")[2] if marked else text
    try:
        content = base64.b64decode(text.encode("ascii").translate(None, _BLANKS), validate=True)
    except (binascii.Error, ValueError):
        return b"" if marked else None
    # `photos/anna` is base64 too, but of nothing that begins as a picture does.
    return content if marked or _begins_as_picture(content) else None


def _begins_as_picture(content: bytes) -> bool:
    return len(content) >= _LEAST_BYTES and content.startswith(_STARTS)
