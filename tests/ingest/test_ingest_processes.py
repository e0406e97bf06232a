"""The stage on processes, as it runs for users."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tasks.core.paths import Paths
from tasks.ingest import scan
from tasks.ingest.stage import Params, run


def test_outputs_do_not_depend_on_the_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_FEW", 0)
    folder = tmp_path / "data/raw/mine/sad"
    folder.mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (20 + number, 30), (number, 0, 0)).save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes((folder / "3.png").read_bytes()[:60])
    paths = Paths(tmp_path)
    written = []
    for workers in (1, 2):
        shutil.rmtree(tmp_path / "work", ignore_errors=True)  # what was decoded before
        params = Params.model_validate(
            {
                "datasets": {"mine": {"adapter": "folder"}},
                "age_bands": {"adult": [18, 130]},
                "optional_datasets": [],
                "max_pixels": 1_000_000,
                "workers": workers,
            }
        )
        result = run(params, paths)
        written.append((paths.manifest.read_bytes(), paths.rejects("ingest").read_bytes()))
    assert written[0] == written[1]
    assert result.metrics == {
        "files": 41.0,
        "pictures": 40.0,
        "subjects": 40.0,
        "rejects": 1.0,
        "rejects_damaged": 1.0,
    }
    assert result.summary == "40 pictures of 40 subjects; left out: 1 damaged"
