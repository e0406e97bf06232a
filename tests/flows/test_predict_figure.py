"""`affectgap predict --figure`: every face has its cell, and every picture is told of."""

import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.predict import figure as figure_module
from flows.predict.figure import PredictFigure
from flows.predict.predict import Request, predict_faces
from tasks.core.errors import UserError
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import empty_seen_table, save_model
from tasks.core.models.spec import ModelSpec
from tasks.core.paths import Paths
from tasks.core.plotting.face_grid import THUMBNAIL_PX, Shown, faces_figure
from tasks.crop.settings import CropSettings
from tasks.draw.action_units import Style
from tasks.draw.plan import COHORTS, ImageName, RenderSpec
from tasks.draw.render import RenderJob, draw_image

REPOSITORY = Path(__file__).parents[2]


def drawn_face(number: int) -> Image.Image:
    subject = COHORTS["adult"][1] + number
    name = ImageName(f"D{subject:04d}", 30, "female", "neutral", 1)
    style = Style(intensity_mean=0.8, intensity_sd=0.1, unit_mixing=0.0)
    order = RenderJob(RenderSpec(name, "adult", subject), style, 20261121, 320)
    return Image.open(io.BytesIO(draw_image(order).jpeg)).convert("RGB")


@pytest.fixture
def project(tmp_path):
    """A project with a model that has not learnt anything."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml")
    spec = ModelSpec(
        architecture="lenet5",
        labels=("anger", "happiness", "neutral"),
        input_size_px=32,
        color="rgb",
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        version="",
        source="made for a test",
    )
    torch.manual_seed(0)
    folder = tmp_path / "models/base"
    save_model(folder, build_module("lenet5", 3, 3), spec, empty_seen_table())
    settings = CropSettings(64, 0.25, "bilinear", 320, 1, 0.0)
    (folder / "crop.json").write_text(json.dumps(asdict(settings)))
    return Paths(tmp_path)


@pytest.fixture
def caught(monkeypatch):
    """Pages as they were drawn: (cells, names, foot, path)."""
    pages = []
    monkeypatch.setattr(figure_module, "faces_figure", lambda *page: pages.append(page))
    return pages


def test_two_faces_a_faceless_image_and_a_broken_file_have_a_cell_each(project, caught):
    both = Image.new("RGB", (640, 320), "white")
    both.paste(drawn_face(0), (0, 0))
    both.paste(drawn_face(1), (320, 0))
    names = [project.root / name for name in ("both.png", "empty.png", "broken.png")]
    both.save(names[0])
    Image.new("RGB", (200, 100), "gray").save(names[1])
    names[2].write_bytes(b"no picture")
    target = project.root / "faces.png"
    request = Request(tuple(names), "base", explain=False, out=None, figure=target)
    lines = list(predict_faces(project, request))

    ((cells, models, foot, path),) = caught
    assert path == target and all(line["figure"] == str(target) for line in lines)
    assert models[0].startswith("base, version ") and "made for a test" in foot
    assert "not what a person feels" in foot
    assert [cell.heading for cell in cells] == ["both.png", "both.png", "empty.png", "broken.png"]
    first, second, empty, broken = cells
    assert (first.own, second.own) == (0, 1) and first.boxes == second.boxes
    assert first.image.shape == (THUMBNAIL_PX // 2, THUMBNAIL_PX, 3)
    scale = THUMBNAIL_PX / 640
    for cell, line in zip((first, second), lines[:2], strict=True):
        assert np.allclose(cell.boxes[cell.own], np.array(line["box_xyxy_px"]) * scale)
        answer = cell.answers[models[0]]
        assert answer.emotion == line["emotion"] and answer.probabilities == line["probabilities"]
        assert cell.crop.shape == (64, 64, 3) and cell.detail == f"face {cell.own}, 2 found"
    assert empty.note == "no face found" and empty.image is not None and empty.crop is None
    assert broken.image is None and broken.note.startswith("cannot be read\nnot_an_image")


def test_what_does_not_fit_a_page_goes_on_the_next(tmp_path, caught):
    figure = PredictFigure(tmp_path / "faces.png", "base", "source")
    pages = []
    for number in range(figure_module.CELLS_A_PAGE + 1):
        line = {"note": "no face found"}
        figure.add_faceless(Path(f"{number}.png"), np.zeros((4, 4, 3), np.uint8), line)
        pages.append(Path(line["figure"]).name)
    figure.finish()
    figure.finish()  # nothing is left
    assert [len(page[0]) for page in caught] == [figure_module.CELLS_A_PAGE, 1]
    assert [page[3].name for page in caught] == ["faces.png", "faces_2.png"]
    assert set(pages[:-1]) == {"faces.png"} and pages[-1] == "faces_2.png"


@pytest.mark.parametrize("name", ["faces.jpg", "faces", "folder.png"])
def test_a_figure_that_is_no_png_is_one_line(tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="--figure") as error:
        PredictFigure(tmp_path / name, "base", "source")
    assert "\n" not in str(error.value)


def test_the_drawing_has_the_same_bytes_again_and_grows_with_the_lines(tmp_path):
    gray = np.full((50, 80, 3), 99, dtype=np.uint8)
    cells = [Shown(f"{n}.png", "", gray, ((5, 5, 20, 20),), 0, note="none") for n in range(3)]
    for name in ("a.png", "b.png"):
        faces_figure(cells, ["base"], "notice", tmp_path / name)
    formula = Shown("a$_$b.jpg", "$^$", None, note="cannot be read: $_$")  # no formula at all
    faces_figure([formula], ["base"], "weights $_$ of others", tmp_path / "dollars.png")
    faces_figure(cells[:2], ["base"], "notice", tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    three, two = (Image.open(tmp_path / name) for name in ("a.png", "c.png"))
    assert three.width == two.width == 1800 and three.height > two.height + 300
