"""The served model as an MLflow pyfunc: images in, one row per face out.

It includes the crop step, so that serving and training see the same crops. This file and all that
it imports are stored with every registered version, so that a version's answers do not change with
the project.

Images given as paths are read below one folder only. All unreadable paths get the same message, so
that answers do not reveal which files exist.
"""

import base64
import binascii
import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image

from tasks.core.imaging.decode import BadImageError, decode_image, read_descriptor
from tasks.core.models.predictor import EmotionClassifier
from tasks.register.request_guard import guard_scoring_server
from tasks.register.serve_settings import (
    MAX_ROWS,
    SERVED_FOLDER,
    ServeSettings,
    serve_settings,
    usable_cores,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # do not block on a pipe
COLUMN = "image"  # of the input
FOLDER = "model"  # the artifact: the model's folder
SERVING = "serving.json"  # in that folder: settings for serving
_LONGEST_PATH = 4096  # characters
_LEAST_BYTES = 16  # of an image; a short path may decode as base64
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"II*\0", b"MM\0*", b"RIFF", b"P6\n")
_BLANKS = b" \t\r\n\v\f"
_ID_DIGITS = 16  # of `image_id`, as in the manifest
_DIGITS = 6


def read_below(folder: Path, given: str, max_pixels: int) -> bytes:
    """Read a file below a folder.

    Parameters
    ----------
    folder
        The folder, resolved.
    given
        A path relative to it, or an absolute path into it. Links that stay inside are followed.
    max_pixels
        Files with more bytes than that many pixels can need are not read.

    Raises
    ------
    BadImageError
        With reason `unreadable` and the same message whether the file is missing, is no regular
        file, is too large or is outside.
    """
    try:
        return _read(folder, PurePosixPath(given), max_pixels)
    except (BadImageError, OSError, ValueError):
        message = "no image file of that path in the folder that is served"
        raise BadImageError("unreadable", message) from None


def _read(folder: Path, path: PurePosixPath, max_pixels: int) -> bytes:
    if path.is_absolute():
        path = path.relative_to(folder)  # lexically: nothing outside is accessed
    if ".." in path.parts:
        raise ValueError("leads out of the folder")
    inside = Path(os.path.realpath(folder / path)).relative_to(folder)
    # Step by step, so that a link that is created after the path was resolved is not followed.
    opened = [os.open(folder, _DIRECTORY)]
    try:
        for name in inside.parts[:-1]:
            opened.append(os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        file = os.open(inside.name, _FILE, dir_fd=opened[-1])
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return read_descriptor(file, max_pixels)


class Faces(Protocol):
    """Result of the crop step: crops `(N, S, S, 3)` uint8, N boxes and N scores."""

    crops: np.ndarray
    boxes_xyxy_px: list[tuple[float, float, float, float]]
    scores: list[float]


class ServedModel(PythonModel):
    """A recognizer with the crop step, for `mlflow.pyfunc.load_model` and `mlflow models serve`.

    Parameters
    ----------
    face_cropper
        Maps a model's folder to a function that crops the faces of a decoded image. Injected,
        since stage packages do not import each other.

    Notes
    -----
    MLflow's server calls `predict` from several threads, which share no mutable state: weights are
    only read, onnxruntime's sessions are thread-safe, and each face detection has its own detector.
    One image more than there are cores is processed concurrently. This bounds the memory for
    decoded images, and no core idles while a thread waits for the GIL.
    """

    def __init__(self, face_cropper: Callable[[Path], Callable[[Image.Image, int], Faces]]) -> None:
        self._face_cropper = face_cropper

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights; raises ModelError if they or the environment are not usable."""
        folder = Path(context.artifacts[FOLDER])
        serving = json.loads((folder / SERVING).read_text(encoding="utf-8"))
        settings = serve_settings()
        max_pixels = min(settings.max_pixels, int(serving["max_pixels"]))
        self._settings = replace(settings, max_pixels=max_pixels)
        self._in_server = guard_scoring_server(self._settings)
        if self._in_server:
            torch.set_num_threads(1)  # requests run in parallel, each thread with its own pool
        self._recognizer = EmotionClassifier.load(folder, "auto")
        self._cut_faces = self._face_cropper(folder)
        self._in_progress = threading.BoundedSemaphore(usable_cores() + 1)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predict the emotion label of every face.

        Parameters
        ----------
        model_input
            A DataFrame with a column `image`: the bytes of an image, the same as base64 text (also
            as a `data:` URL), or a path below the folder AFFECTGAP_SERVE_FOLDER.

        Returns
        -------
        pandas.DataFrame
            One row per face, the most prominent first: `row` (of the input, from 0), `image` (the
            path as given, else the image_id), `face` (from 0), `box_xyxy_px`, `detector_score`,
            `emotion`, `p_<label>` (sum to 1), `model_version`, and `note`. An image without a
            face, or one that cannot be read, has one row with a note only.

        Raises
        ------
        MlflowException
            In a server, for more images than a request may have.
        """
        images = list(_flatten(model_input[COLUMN]))
        if self._in_server and len(images) > self._settings.max_rows:
            raise MlflowException(
                f"{len(images)} images; a request may hold {self._settings.max_rows} ({MAX_ROWS})",
                INVALID_PARAMETER_VALUE,
            )
        rows = []
        for number, given in enumerate(images):
            with self._in_progress:
                rows += [{"row": number, **row} for row in self._answer(given)]
        columns = ["row", *output_columns(self._recognizer.labels)]
        # dtype object keeps missing values as None, which JSON can represent, unlike NaN.
        return pd.DataFrame(rows, columns=columns, dtype="object")

    def _answer(self, given: object) -> Iterator[dict[str, Any]]:
        name = given if isinstance(given, str) and len(given) <= _LONGEST_PATH else "(not a path)"
        try:
            content, is_path = image_bytes(given, self._settings)
            name = name if is_path else hashlib.sha256(content).hexdigest()[:_ID_DIGITS]
            image, exif_orientation, reading_note = decode_image(content, self._settings.max_pixels)
        except BadImageError as error:
            yield self._row(name, note=f"{error.reason}: {error.detail}")
            return
        faces = self._cut_faces(image, exif_orientation)
        if not len(faces.crops):
            yield self._row(name, note="no face found")
            return
        labels, predicted = self._recognizer.labels, self._recognizer.predict(faces.crops)
        results = zip(faces.boxes_xyxy_px, faces.scores, predicted, strict=True)
        for number, (box, score, probabilities) in enumerate(results):
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
        blank = dict.fromkeys(output_columns(self._recognizer.labels))
        version = self._recognizer.spec.version
        return {**blank, "image": image, "model_version": version, "note": note, **values}


def output_columns(labels: tuple[str, ...]) -> list[str]:
    """Return the columns of an answer, without `row`."""
    first = ["image", "face", "box_xyxy_px", "detector_score", "emotion"]
    return [*first, *(f"p_{label}" for label in labels), "model_version", "note"]


def image_bytes(given: object, settings: ServeSettings) -> tuple[bytes, bool]:
    """Return the bytes of an image, and whether `given` (bytes, base64 text, path) is a path.

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


def _flatten(column: Iterable[object]) -> Iterator[object]:
    """Yield images; the form `{"inputs": {"image": [a, b]}}` arrives as one cell with both."""
    for cell in column:
        if isinstance(cell, list | tuple | np.ndarray):
            yield from cell
        else:
            yield cell


def _from_base64(text: str) -> bytes | None:
    """Decode base64; None for other text, such as a path."""
    marked = text.startswith("data:")
    text = text.partition(",")[2] if marked else text
    try:
        content = base64.b64decode(text.encode("ascii").translate(None, _BLANKS), validate=True)
    except (binascii.Error, ValueError):
        return b"" if marked else None
    # `photos/anna` is valid base64 too, but does not decode to the start of an image.
    return content if marked or _begins_as_image(content) else None


def _begins_as_image(content: bytes) -> bool:
    return len(content) >= _LEAST_BYTES and content.startswith(_STARTS)
