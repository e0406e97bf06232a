"""Random test pictures are shown as they came, with the box, the crop and every model's answer."""

import numpy as np
import pytest
from PIL import Image

from tasks.core.tables import read_table
from tasks.report import sample_predictions
from tasks.report.html.components import BUDGET_BYTES, BUDGETS_BYTES
from tasks.report.inputs import FIGURES
from tasks.report.sample_predictions import sample_predictions_figure


@pytest.fixture
def cells(monkeypatch, tmp_path):
    """Draw the figure of some pictures of a project and return what its cells hold."""

    def draw_and_catch(paths, image_ids):
        caught = []
        monkeypatch.setattr(
            sample_predictions,
            "faces_figure",
            lambda cells, names, *_: caught.extend([cells, names]),
        )
        tables = {name: read_table(paths.predictions(name)) for name in ("base", "finetuned")}
        sample_predictions_figure(paths, tables, image_ids, "", tmp_path / "x.png")
        return caught

    return draw_and_catch


def test_a_cell_shows_the_file_its_box_the_crop_and_both_answers(tmp_path, project, cells):
    paths = project(tmp_path / "a", optional=False)
    row = read_table(paths.crops).iloc[7]
    ((cell,), names) = cells(paths, [row["image_id"]])
    assert np.array_equal(cell.image, np.asarray(Image.open(paths.raw / row["path"])))
    assert cell.boxes == ((8.0, 16.0, 40.0, 48.0),) and cell.own == 0
    assert cell.crop.shape == (32, 32, 3) and cell.crop[0, 0, 0] == 127
    assert names == ["base model", "fine-tuned model"] == list(cell.answers)
    assert cell.answers["base model"].emotion == "happiness"
    assert cell.answers["fine-tuned model"].emotion == "neutral"
    assert cell.answers["base model"].probabilities == {"happiness": 0.6, "neutral": 0.4}
    assert cell.heading == f"label: {row['emotion']}" and cell.label == row["emotion"]
    assert cell.detail == f"{row['age_band']}, female"


def test_a_image_is_turned_by_its_flag_as_its_box_is(tmp_path, project, cells):
    paths = project(tmp_path / "a", optional=False)
    row = read_table(paths.crops).iloc[0]
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(pixels).save(paths.raw / row["path"], exif=exif)
    ((cell,), _) = cells(paths, [row["image_id"]])
    assert cell.image[0].max() == 0 and cell.image[-1].min() == 255


def test_a_file_that_is_gone_is_said_and_the_crop_is_shown(tmp_path, project, cells):
    paths = project(tmp_path / "a", optional=False)
    row = read_table(paths.crops).iloc[0]
    (paths.raw / row["path"]).unlink()
    ((cell,), _) = cells(paths, [row["image_id"]])
    assert cell.image is None and "picture: unreadable" in cell.detail
    assert cell.crop is not None


def test_the_page_has_both_sheets_within_its_size(drawn):
    page = drawn[0]
    for words in ("Training pictures before augmentation", "Random test pictures with each"):
        assert f'alt="{words}' in page
    assert "the original picture with the detected face" in page
    assert "What the network sees in training" in page and "Loss: cross entropy." in page
    assert len(page.encode()) < 8_000_000


def test_figures_of_the_largest_size_leave_the_page_below_eight_megabytes():
    names = [*FIGURES, "example_images", "training"]
    assert sum(BUDGETS_BYTES.get(name, BUDGET_BYTES) for name in names) * 4 / 3 < 8_000_000


def test_the_page_says_which_epoch_was_kept_and_by_which_loss(tmp_path, project, report):
    paths = project(tmp_path)
    paths.params.write_text(
        "train: {checkpoint: last}\nfinetune: {checkpoint: last, loss: {name: multi_margin}}\n"
    )
    page, _ = report(paths)
    assert "The saved epoch is marked: the last one;" in page
    assert "Loss: cross entropy and multi margin." in page
    paths.params.write_text("train: {checkpoint: best}\nfinetune: {checkpoint: last}\n")
    page, _ = report(paths)
    assert "ties by the lowest loss; of the fine-tuned model the last;" in page
