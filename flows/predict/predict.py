"""`affectgap predict`: one line per face, cut as the model's own crops were."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flows.predict.figure import PredictFigure
from flows.registry.recovery import has_store
from tasks.core.errors import ModelError, UserError
from tasks.core.files import write_bytes
from tasks.core.imaging.decode import BadImageError, read_image
from tasks.core.imaging.shards import encode_png
from tasks.core.models.checkpoint import SPEC, load_spec, read_skipped
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.parallel.progress import track
from tasks.core.params import load_section
from tasks.core.paths import EVALUATED, Paths
from tasks.crop.crop_all_faces import CroppedFaces, crop_all_faces
from tasks.crop.settings import CropSettings, model_crop_settings
from tasks.evaluate import stage as evaluate_stage
from tasks.explain import stage as explain_stage
from tasks.explain.overlay import draw_explanation
from tasks.ingest import stage as ingest_stage

IN_USE = "champion"  # the model in use, by the registry
FINETUNED = "finetuned"  # the model of the last run
_BOX_COLOR = (0, 158, 115)
_DIGITS = 6


@dataclass(frozen=True)
class Request:
    """Options of the command.

    `model` is one of `EVALUATED`, `IN_USE` or a folder. `out` is a folder for images with boxes and
    probabilities, and with `explain` for LIME figures of each face. `figure` is a PNG with each
    image, its crops and one bar per class. None draws nothing.
    """

    images: tuple[Path, ...]
    model: str
    explain: bool
    out: Path | None
    figure: Path | None = None


def predict_faces(paths: Paths, request: Request) -> Iterator[dict[str, Any]]:
    """Yield one JSON-ready line per face, in the order of the images.

    Its keys are `image, face, box_xyxy_px, detector_score, emotion, probabilities, model,
    model_version, model_source` and, if drawn, `drawn`, `explained` and `figure`. An image without
    a face has `face: null` and `note`; one that cannot be read has `error`.

    Raises UserError for a model that is missing or was skipped, `explain` without an output folder,
    or a `figure` that is no PNG.
    """
    if request.explain and request.out is None:
        raise UserError("--explain writes images: name a folder with --out DIR")
    folder = _folder(paths, request.model)
    device = load_section(paths.params, "evaluate", evaluate_stage.Params).device
    classifier = EmotionClassifier.load(folder, device)
    predictor = _Predictor(paths, classifier, model_crop_settings(folder), request)
    for image in track(request.images, len(request.images), "predict"):
        yield from predictor.predict(image)
    if predictor.figure is not None:
        predictor.figure.finish()


def model_note(paths: Paths, model: str) -> str:
    """Return a note if `finetuned` is not the model in use, else ""."""
    folder = paths.model(FINETUNED)
    if model != FINETUNED or not has_store(paths) or not (folder / SPEC).is_file():
        return ""
    from tasks.register.registry import champion

    version, digest = champion(paths), load_spec(folder).version
    if version is None or version.digest == digest:
        return ""
    return (
        f"models/{FINETUNED} ({digest}) is not the model in use, version {version.number} "
        f"({version.digest}); --model {IN_USE} uses that one"
    )


def _in_use(paths: Paths) -> Path:
    if has_store(paths):
        from tasks.register.registry import champion, fetch

        if version := champion(paths):
            return fetch(paths, version.number)
    raise UserError("no model is in use; `affectgap retrain` trains and promotes the first")


def _folder(paths: Paths, model: str) -> Path:
    """Return a model's folder; raises ModelError if the run skipped that model."""
    if model == IN_USE:
        return _in_use(paths)
    folder = paths.model(model) if model in EVALUATED else Path(model)
    skipped = read_skipped(folder)
    if skipped:
        raise ModelError(f"{folder}: there is no such model, since {skipped.reason}")
    return folder


class _Predictor:
    """A loaded model with the settings that all images share."""

    def __init__(
        self, paths: Paths, classifier: EmotionClassifier, crop: CropSettings, request: Request
    ) -> None:
        self.crop = crop
        self.explain = load_section(paths.params, "explain", explain_stage.Params)
        self.max_pixels = load_section(paths.params, "ingest", ingest_stage.Params).max_pixels
        self.classifier = classifier
        self.request = request
        self.used_paths: set[Path] = set()  # output files; two images may have the same name
        self.figure = _figure(classifier, request)

    def predict(self, image: Path) -> list[dict[str, Any]]:
        """Return the lines of one image: one per face, or one that says why there is none."""
        try:
            loaded = read_image(image, self.max_pixels)
        except BadImageError as error:
            line = {"image": str(image), "error": f"{error.reason}: {error.detail}"}
            if self.figure is not None:
                self.figure.add_unreadable(image, line)
            return [line]
        faces = crop_all_faces(loaded, self.crop)
        if not faces.scores:
            note = f"no face found; {loaded.note}" if loaded.note else "no face found"
            faceless = {"image": str(image), "face": None, "note": note}
            if self.figure is not None:
                self.figure.add_faceless(image, loaded.rgb, faceless)
            return [faceless]
        lines = self._lines(image, faces, self.classifier.predict(faces.crops))
        if loaded.note:
            lines = [{**line, "note": loaded.note} for line in lines]
        if self.request.out is not None:
            self._draw_image(self.request.out, image, loaded.rgb, faces.crops, lines)
        if self.figure is not None:
            self.figure.add_faces(image, loaded.rgb, faces.crops, lines)
        return lines

    def _lines(
        self, image: Path, faces: CroppedFaces, probabilities: np.ndarray
    ) -> list[dict[str, Any]]:
        spec = self.classifier.spec
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
                zip(faces.boxes_xyxy_px, faces.scores, probabilities, strict=True)
            )
        ]

    def _draw_image(
        self,
        out: Path,
        image: Path,
        rgb: np.ndarray,
        crops: np.ndarray,
        lines: list[dict[str, Any]],
    ) -> None:
        annotated = self._unused_path(out / f"{image.stem}.png")
        write_bytes(annotated, encode_png(_with_boxes(rgb, lines)))
        for line, crop in zip(lines, crops, strict=True):
            line["drawn"] = str(annotated)
            if self.request.explain:
                path = self._unused_path(out / f"{annotated.stem}_face{line['face']}_lime.png")
                explanation = draw_explanation(self.classifier, crop, self.explain)
                write_bytes(path, encode_png(explanation))
                line["explained"] = str(path)

    def _unused_path(self, path: Path) -> Path:
        names = (
            path if number == 0 else path.with_stem(f"{path.stem}_{number}")
            for number in range(len(self.used_paths) + 1)
        )
        free = next(name for name in names if name not in self.used_paths)
        self.used_paths.add(free)
        return free


def _figure(classifier: EmotionClassifier, request: Request) -> PredictFigure | None:
    if request.figure is None:
        return None
    spec = classifier.spec
    model = f"{request.model}, version {spec.version}"
    return PredictFigure(request.figure, model, spec.source)


def _with_boxes(rgb: np.ndarray, lines: list[dict[str, Any]]) -> np.ndarray:
    """Draw each face's box, and beside it its probabilities, largest first."""
    image = Image.fromarray(rgb)
    draw = ImageDraw.Draw(image)
    width_px = max(2, round(max(image.size) / 400))
    font = ImageFont.load_default(size=max(12, round(max(image.size) / 50)))
    for line in lines:
        left, top, right, bottom = line["box_xyxy_px"]
        draw.rectangle((left, top, right, bottom), outline=_BOX_COLOR, width=width_px)
        ranked = sorted(line["probabilities"].items(), key=lambda pair: -pair[1])
        text = "\n".join(f"{label} {p:.2f}" for label, p in ranked)
        _draw_label(draw, (left, bottom + width_px), text, font, image.size)
    return np.asarray(image)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    position: tuple[float, float],
    text: str,
    font: Any,
    size: tuple[int, int],
) -> None:
    """Write text on a dark background, shifted so that all of it lies in the image."""
    left, top, right, bottom = draw.multiline_textbbox(position, text, font=font)
    move_x = min(0, size[0] - right - 4) + max(0, 4 - left)
    move_y = min(0, size[1] - bottom - 4) + max(0, 4 - top)
    background = (left + move_x - 4, top + move_y - 4, right + move_x + 4, bottom + move_y + 4)
    draw.rectangle(background, fill=(20, 20, 20))
    draw.multiline_text((position[0] + move_x, position[1] + move_y), text, font=font, fill="white")
