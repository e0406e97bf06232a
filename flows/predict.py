"""`affectgap predict`: pictures in, one line a face out, cut as the model's own crops were."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flows.predict_figure import PredictFigure
from flows.unfinished import has_store
from tasks.core.errors import ModelError, UserError
from tasks.core.files import write_bytes
from tasks.core.images import BadImageError, read_picture
from tasks.core.models.checkpoint import SPEC, load_spec
from tasks.core.models.recogniser import Recogniser
from tasks.core.params import load_section
from tasks.core.paths import EVALUATED, Paths
from tasks.core.progress import track
from tasks.core.shards import encode_png
from tasks.core.skipped import read_skipped
from tasks.crop.all_faces import CutFaces, cut_all_faces
from tasks.crop.settings import CropSettings, settings_of_model
from tasks.evaluate import stage as evaluate_stage
from tasks.explain import stage as explain_stage
from tasks.explain.overlay import draw_explanation
from tasks.ingest import stage as ingest_stage

IN_USE = "champion"  # the model in use, by the registry
FINETUNED = "finetuned"  # what the last run made
_LINE_COLOUR = (0, 158, 115)
_DIGITS = 6


@dataclass(frozen=True)
class Request:
    """What is asked: pictures, a model (of `EVALUATED`, `IN_USE`, a folder), what to draw where.

    `out` is a folder for pictures with boxes and probabilities, and with `explain` for what the
    model looks at in each face; `figure` is a PNG with each picture, its crops and a bar a class.
    None draws nothing.
    """

    images: tuple[Path, ...]
    model: str
    explain: bool
    out: Path | None
    figure: Path | None = None


def predict_faces(paths: Paths, request: Request) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready line a face, in the order of the pictures.

    Parameters
    ----------
    paths
        The project's paths; the model's `crop.json` says how faces are cut.
    request
        What is asked.

    Yields
    ------
    dict
        `image, face, box_xyxy_px, detector_score, emotion, probabilities, model, model_version,
        model_source` and, where drawn, `drawn`, `explained` and `figure`; a picture without a face
        has `face: null` and `note`; one that cannot be read has `error`.

    Raises
    ------
    UserError
        For a model that is not there or was skipped, `explain` without a folder to draw into, or
        a `figure` that is no PNG.
    """
    if request.explain and request.out is None:
        raise UserError("--explain draws pictures; say where with --out DIR")
    folder = _folder(paths, request.model)
    device = load_section(paths.params, "evaluate", evaluate_stage.Params).device
    recogniser = Recogniser.load(folder, device)
    asker = _Asker(paths, recogniser, settings_of_model(folder), request)
    for image in track(request.images, len(request.images), "predict"):
        yield from asker.ask(image)
    if asker.figure is not None:
        asker.figure.finish()


def not_in_use(paths: Paths, model: str) -> str:
    """Say that `finetuned` holds another model than the one in use; "" where it does not."""
    folder = paths.model(FINETUNED)
    if model != FINETUNED or not has_store(paths) or not (folder / SPEC).is_file():
        return ""
    from tasks.register.registry import champion

    version, there = champion(paths), load_spec(folder).version
    if version is None or version.digest == there:
        return ""
    return (
        f"models/{FINETUNED} ({there}) is not the model in use, version {version.number} "
        f"({version.digest}); --model {IN_USE} reads with that"
    )


def _in_use(paths: Paths) -> Path:
    """Return the folder of the registry's model in use."""
    if has_store(paths):
        from tasks.register.registry import champion, fetch

        if version := champion(paths):
            return fetch(paths, version.number)
    raise UserError("no model is in use; `affectgap retrain` trains and promotes the first")


def _folder(paths: Paths, model: str) -> Path:
    """Return a model's folder; raises ModelError where the run skipped that model."""
    if model == IN_USE:
        return _in_use(paths)
    folder = paths.model(model) if model in EVALUATED else Path(model)
    skipped = read_skipped(folder)
    if skipped:
        raise ModelError(f"{folder}: there is no such model, since {skipped.reason}")
    return folder


class _Asker:
    """Everything that stays the same from picture to picture."""

    def __init__(
        self, paths: Paths, recogniser: Recogniser, crop: CropSettings, request: Request
    ) -> None:
        self.crop = crop
        self.explain = load_section(paths.params, "explain", explain_stage.Params)
        self.max_pixels = load_section(paths.params, "ingest", ingest_stage.Params).max_pixels
        self.recogniser = recogniser
        self.request = request
        self.taken: set[Path] = set()  # two pictures may have one name
        self.figure = _figure(recogniser, request)

    def ask(self, image: Path) -> list[dict[str, Any]]:
        """Answer one picture: a line a face, or one line that says why there is none."""
        try:
            picture = read_picture(image, self.max_pixels)
        except BadImageError as error:
            line = {"image": str(image), "error": f"{error.reason}: {error.detail}"}
            if self.figure is not None:
                self.figure.add_unreadable(image, line)
            return [line]
        found = cut_all_faces(picture, self.crop)
        if not found.scores:
            note = f"no face found; {picture.note}" if picture.note else "no face found"
            faceless = {"image": str(image), "face": None, "note": note}
            if self.figure is not None:
                self.figure.add_faceless(image, picture.rgb, faceless)
            return [faceless]
        lines = self._lines(image, found, self.recogniser.predict(found.crops))
        if picture.note:
            lines = [{**line, "note": picture.note} for line in lines]
        if self.request.out is not None:
            self._draw(self.request.out, image, picture.rgb, found.crops, lines)
        if self.figure is not None:
            self.figure.add_faces(image, picture.rgb, found.crops, lines)
        return lines

    def _lines(
        self, image: Path, found: CutFaces, probabilities: np.ndarray
    ) -> list[dict[str, Any]]:
        spec = self.recogniser.spec
        return [
            {
                "image": str(image),
                "face": number,
                "box_xyxy_px": list(box),
                "detector_score": round(score, _DIGITS),
                "emotion": spec.labels[int(row.argmax())],
                "probabilities": {
                    label: round(float(p), _DIGITS)
                    for label, p in zip(spec.labels, row, strict=True)
                },
                "model": self.request.model,
                "model_version": spec.version,
                "model_source": spec.source,
            }
            for number, (box, score, row) in enumerate(
                zip(found.boxes_xyxy_px, found.scores, probabilities, strict=True)
            )
        ]

    def _draw(
        self,
        out: Path,
        image: Path,
        rgb: np.ndarray,
        crops: np.ndarray,
        lines: list[dict[str, Any]],
    ) -> None:
        drawn = self._free(out / f"{image.stem}.png")
        write_bytes(drawn, encode_png(_with_boxes(rgb, lines)))
        for line, crop in zip(lines, crops, strict=True):
            line["drawn"] = str(drawn)
            if self.request.explain:
                path = self._free(out / f"{drawn.stem}_face{line['face']}_lime.png")
                picture = draw_explanation(self.recogniser, crop, self.explain)
                write_bytes(path, encode_png(picture))
                line["explained"] = str(path)

    def _free(self, path: Path) -> Path:
        names = (
            path if number == 0 else path.with_stem(f"{path.stem}_{number}")
            for number in range(len(self.taken) + 1)
        )
        free = next(name for name in names if name not in self.taken)
        self.taken.add(free)
        return free


def _figure(recogniser: Recogniser, request: Request) -> PredictFigure | None:
    if request.figure is None:
        return None
    spec = recogniser.spec
    model = f"{request.model}, version {spec.version}"
    return PredictFigure(request.figure, model, spec.source)


def _with_boxes(rgb: np.ndarray, lines: list[dict[str, Any]]) -> np.ndarray:
    """Draw every face's box and its probabilities, largest first, beside it."""
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    width_px = max(2, round(max(picture.size) / 400))
    font = ImageFont.load_default(size=max(12, round(max(picture.size) / 50)))
    for line in lines:
        left, top, right, bottom = line["box_xyxy_px"]
        pen.rectangle((left, top, right, bottom), outline=_LINE_COLOUR, width=width_px)
        ranked = sorted(line["probabilities"].items(), key=lambda pair: -pair[1])
        text = "\n".join(f"{label} {p:.2f}" for label, p in ranked)
        _label(pen, (left, bottom + width_px), text, font, picture.size)
    return np.asarray(picture)


def _label(
    pen: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    font: Any,
    size: tuple[int, int],
) -> None:
    """Write on a dark ground, moved so that all of it lies in the picture."""
    left, top, right, bottom = pen.multiline_textbbox(place, text, font=font)
    move_x = min(0, size[0] - right - 4) + max(0, 4 - left)
    move_y = min(0, size[1] - bottom - 4) + max(0, 4 - top)
    ground = (left + move_x - 4, top + move_y - 4, right + move_x + 4, bottom + move_y + 4)
    pen.rectangle(ground, fill=(20, 20, 20))
    pen.multiline_text((place[0] + move_x, place[1] + move_y), text, font=font, fill="white")
