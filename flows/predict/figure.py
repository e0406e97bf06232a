"""`affectgap predict --figure`: PNG pages with images, faces, crops and one bar per class."""

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.core.errors import UserError
from tasks.core.plotting.face_grid import Answer, Box, Shown, faces_figure, thumbnail

CELLS_A_PAGE = 24
_FOOT_WIDTH = 165  # characters per line of the footer
_CAUTION = "What the model answers about the picture; not what a person feels."


class PredictFigure:
    """Pages with one cell per face, in the order of the images; full pages are written at once.

    `path` is the first page, a PNG; the next are `<name>_2.png`, `<name>_3.png` … The legend names
    the `model`, the footer the `source` of its weights with the required notices.
    """

    def __init__(self, path: Path, model: str, source: str) -> None:
        if path.suffix.lower() != ".png":
            raise UserError(f"--figure {path}: name a file that ends in .png")
        if path.is_dir():
            raise UserError(f"--figure {path}: is a folder; name a file")
        self._path, self._model = path, model
        self._foot = "\n".join([_CAUTION, *textwrap.wrap(f"Model: {source}", _FOOT_WIDTH)])
        self._cells: list[Shown] = []
        self._pages = 0

    def add_faces(
        self, image: Path, rgb: np.ndarray, crops: np.ndarray, lines: list[dict[str, Any]]
    ) -> None:
        """Add an image's faces; each of its lines gets `figure`, the page that shows it."""
        boxes: list[Box] = [tuple(line["box_xyxy_px"]) for line in lines]
        small, scaled_boxes = thumbnail(Image.fromarray(rgb), boxes)
        for line, crop in zip(lines, crops, strict=True):
            number = int(line["face"])
            answer = Answer(line["emotion"], line["probabilities"])
            cell = Shown(
                heading=image.name,
                detail=f"face {number}, {len(lines)} found" if len(lines) > 1 else "1 face found",
                image=small,
                boxes=scaled_boxes,
                own=number,
                crop=crop,
                answers={self._model: answer},
            )
            line["figure"] = self._add(cell)

    def add_faceless(self, image: Path, rgb: np.ndarray, line: dict[str, Any]) -> None:
        """Add an image in which no face was found."""
        small, _ = thumbnail(Image.fromarray(rgb), ())
        line["figure"] = self._add(Shown(image.name, "", small, note=line["note"]))

    def add_unreadable(self, image: Path, line: dict[str, Any]) -> None:
        """Add a file that cannot be read."""
        reason = "\n".join(textwrap.wrap(str(line["error"]), 44))
        line["figure"] = self._add(Shown(image.name, "", None, note=f"cannot be read\n{reason}"))

    def finish(self) -> None:
        """Write the last, incomplete page."""
        if self._cells:
            faces_figure(self._cells, [self._model], self._foot, self._page())
            self._cells = []
            self._pages += 1

    def _add(self, cell: Shown) -> str:
        page = self._page()
        self._cells.append(cell)
        if len(self._cells) == CELLS_A_PAGE:
            self.finish()
        return str(page)

    def _page(self) -> Path:
        number = self._pages + 1
        return self._path if number == 1 else self._path.with_stem(f"{self._path.stem}_{number}")
