"""Files that were decoded before are read and hashed, not decoded, and the manifest is the same."""

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.core.paths import Paths
from tasks.ingest import scan, stage


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG")
    return buffer.getvalue()


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def params(**changes: object) -> stage.Params:
    content: dict[str, object] = {
        "datasets": {"mine": {"adapter": "folder"}},
        "age_bands": {"adult": [18, 130]},
        "optional_datasets": [],
        "max_pixels": 1_000_000,
        "workers": 1,
    }
    return stage.Params.model_validate(content | changes)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    real = scan.scan_file

    def spy(path: Path, max_pixels: int) -> scan.Scan:
        names.append(path.name)
        return real(path, max_pixels)

    monkeypatch.setattr(scan, "scan_file", spy)
    monkeypatch.setattr(stage, "process_pool", lambda workers: ThreadPoolExecutor(2))
    return names


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    files = {f"happy/{number}.jpg": jpeg(number) for number in range(4)}
    fill(tmp_path / "data/raw/mine", {**files, "sad/cut.jpg": jpeg(9)[:300], "sad/empty.jpg": b""})
    return Paths(tmp_path)


def outputs(paths: Paths, **changes: object) -> list[bytes]:
    stage.run(params(**changes), paths)
    return [path.read_bytes() for path in (paths.manifest, paths.rejects("ingest"))]


def test_only_new_contents_are_decoded(project, decoded):
    first = outputs(project)
    assert len(decoded) == 6
    decoded.clear()
    assert outputs(project) == first
    assert not decoded  # the damaged and the empty file were judged before, too
    fill(project.raw / "mine", {"happy/4.jpg": jpeg(4), "sad/0.jpg": jpeg(7)})
    (project.raw / "mine/happy/1.jpg").write_bytes(jpeg(11))
    second = outputs(project)
    assert sorted(decoded) == ["0.jpg", "1.jpg", "4.jpg"]
    project.at("work/kept/ingest.sqlite").unlink()
    assert outputs(project) == second


def test_a_file_that_moved_is_known_by_its_content(project, decoded):
    outputs(project)
    decoded.clear()
    (project.raw / "mine/happy/1.jpg").rename(project.raw / "mine/sad/moved.jpg")
    outputs(project)
    assert not decoded


def test_another_limit_of_pixels_judges_every_file_again(project, decoded):
    outputs(project)
    decoded.clear()
    _, rejects = outputs(project, max_pixels=1201)
    assert len(decoded) == 6
    assert b"too_large" not in rejects
