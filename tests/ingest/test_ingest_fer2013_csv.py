"""FER2013's table of pixels: pictures by row, all or nothing, in memory that does not grow."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flows.intake.place_images import intake
from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.ingest import stage
from tasks.ingest.dataset_reader import read_source
from tasks.ingest.list_files import list_files
from tasks.ingest.spreadsheet import LABELS_NAME, image_name, write_images

LIMIT = 1_000_000
CODES = (0, 3, 6, 9)


def pixels(row: int) -> np.ndarray:
    """A ramp whose slope the row sets: `(48, 48)` uint8."""
    return (np.arange(48 * 48).reshape(48, 48) * (row + 1) % 256).astype(np.uint8)


def table(path: Path, header: str = "emotion,pixels,Usage", rows: int = len(CODES)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [cell.strip().lower() for cell in header.split(",")]
    with path.open("w") as handle:
        handle.write(header + "\n")
        for row in range(rows):
            cells = {
                "emotion": str(CODES[row % len(CODES)]),
                "pixels": " ".join(map(str, pixels(row).ravel())),
                "usage": "Training",
            }
            handle.write(",".join(cells[name] for name in order) + "\n")
    return path


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "project")


@pytest.mark.parametrize(
    ("name", "header"),
    [("fer2013.csv", "emotion,pixels,Usage"), ("icml_face_data.csv", "emotion, Usage, pixels")],
)
def test_intake_makes_images_with_their_labels(tmp_path, paths, name, header) -> None:
    source = table(tmp_path / "given" / name, header).parent
    (source / "._readme.txt").write_text("beside, and hidden")
    summary = intake(source, "fer2013", paths, LIMIT)
    assert summary.files == len(CODES) + 2 and not summary.already_there
    folder = paths.raw / "fer2013"
    for row in range(len(CODES)):
        assert np.array_equal(np.asarray(Image.open(folder / image_name(row))), pixels(row))
    assert (folder / LABELS_NAME).read_text().splitlines()[:2] == [
        "file,emotion,usage",
        "fer0000000.png,0,Training",
    ]
    assert not (folder / name).exists()
    assert intake(source, "fer2013", paths, LIMIT).already_there
    found = read_source("fer2013", "fer2013", paths)
    assert [getattr(entry.label, "emotion", None) for entry in found.entries][:3] == [
        "anger",
        "happiness",
        "neutral",
    ]
    last = {entry.path: entry.label for entry in found.entries}["fer0000003.png"]
    assert last.reason == "unknown_label" and "'9'" in last.detail


def test_from_the_table_to_the_manifest(tmp_path, paths, monkeypatch) -> None:
    path = table(tmp_path / "fer2013.csv")
    with path.open("a") as handle:  # row 0 again, and row 1 again under another label
        for row, code in ((0, 0), (1, 4)):
            handle.write(f"{code},{' '.join(map(str, pixels(row).ravel()))},PrivateTest\n")
    intake(path, "fer2013", paths, LIMIT)
    monkeypatch.setattr(stage, "process_pool", lambda workers: ThreadPoolExecutor(2))
    content = {
        "datasets": {"fer2013": {"adapter": "fer2013"}},
        "age_bands": {"child": [0, 10]},
        "optional_datasets": [],
        "max_pixels": LIMIT,
        "workers": 1,
    }
    stage.run(stage.Params.model_validate(content), paths)
    manifest = pd.read_parquet(paths.manifest)
    assert manifest["path"].tolist() == ["fer2013/fer0000000.png", "fer2013/fer0000002.png"]
    assert manifest["emotion"].tolist() == ["anger", "neutral"]
    assert (manifest[["width_px", "height_px"]] == 48).all(axis=None)
    rejects = pd.read_csv(paths.rejects("ingest")).set_index("path")["reason"]
    assert rejects.to_dict() == {
        "fer2013/fer0000001.png": "conflicting_labels",
        "fer2013/fer0000003.png": "unknown_label",
        "fer2013/fer0000004.png": "duplicate",
        "fer2013/fer0000005.png": "conflicting_labels",
    }


def test_the_table_itself_can_be_given(tmp_path: Path, paths: Paths) -> None:
    summary = intake(table(tmp_path / "fer2013.csv"), "fer", paths, LIMIT)
    assert summary.files == len(CODES) + 1
    with pytest.raises(DataError, match=r"other\.csv: is not a folder"):
        intake(table(tmp_path / "other.csv"), "other", paths, LIMIT)


def test_a_folder_that_has_the_images_already_is_copied_as_it_is(tmp_path, paths) -> None:
    source = table(tmp_path / "given/fer2013.csv").parent
    (source / "all").mkdir()
    write_images(source / "fer2013.csv", source / "all")
    assert intake(source, "fer2013", paths, LIMIT).files == len(CODES) + 2
    assert (paths.raw / "fer2013/fer2013.csv").is_file()
    assert (paths.raw / "fer2013/all/fer0000000.png").is_file()


@pytest.mark.parametrize("bad", ["1 2 3", "x " * 2304, "256 " * 2304, "-1 " * 2304, ""])
def test_a_bad_row_is_named_and_nothing_is_taken_in(tmp_path, paths, bad) -> None:
    path = table(tmp_path / "given/fer2013.csv")
    with path.open("a") as handle:
        handle.write(f"1,{bad},Training\n")
    with pytest.raises(DataError) as caught:
        intake(path.parent, "fer2013", paths, LIMIT)
    text = str(caught.value)
    assert "fer2013.csv: row 6: pixels are not 2304 values" in text and "\n" not in text
    assert list_files(paths.raw).files == () and list(paths.raw.iterdir()) == []


def test_another_table_under_the_same_name_is_refused(tmp_path: Path, paths: Paths) -> None:
    intake(table(tmp_path / "a/fer2013.csv"), "fer2013", paths, LIMIT)
    before = list_files(paths.raw).files
    with pytest.raises(DataError, match="holds a data set already"):
        intake(table(tmp_path / "b/fer2013.csv", rows=2), "fer2013", paths, LIMIT)
    assert list_files(paths.raw).files == before


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    def peak_bytes(rows: int) -> int:
        path = table(tmp_path / f"{rows}/fer2013.csv", rows=rows)
        folder = tmp_path / f"{rows}/out"
        folder.mkdir()
        tracemalloc.start()
        try:
            assert write_images(path, folder) == rows
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(5)  # what is set aside once, such as Pillow's plugins
    few, many = peak_bytes(20), peak_bytes(400)
    assert many < few + 200_000  # the table itself is 3.4 MB longer
