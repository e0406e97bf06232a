"""Crops of earlier runs: the same bytes with and without them, and only new pictures are cut."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.files import sha256_of
from tasks.core.imaging.shards import encode_png
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table, write_table
from tasks.crop import crop_cache
from tasks.crop.crop_faces import Source, crop_with_digests
from tasks.crop.settings import CropSettings
from tasks.crop.stage import Params, run

PEOPLE = 5
OUTPUTS = ("data/crops.parquet", "data/rejects/crop.csv", "reports/figures/crops.png")


def add_images(paths: Paths, images: dict[str, np.ndarray]) -> None:
    """Write pictures and the checked table of all that are there."""
    paths.drawn.mkdir(parents=True, exist_ok=True)
    for name, rgb in images.items():
        (paths.drawn / f"{name}.png").write_bytes(encode_png(rgb))
    rows = [
        {
            "image_id": path.stem.ljust(16, "0"),
            "path": f"drawn/{path.name}",
            "dataset": "drawn",
            "subject_id": f"drawn/{path.stem}",
            "subject_known": True,
            "emotion": "neutral",
            "age_band": "adult",
            "gender": "male",
            "width_px": 240 if path.stem == "noise" else 256,
            "height_px": 200 if path.stem == "noise" else 256,
            "warnings": "",
        }
        for path in sorted(paths.drawn.iterdir())
    ]
    columns = [*MANIFEST_SCHEMA.names, "warnings"]
    write_table(pd.DataFrame(rows).reindex(columns=columns), paths.checked, MANIFEST_SCHEMA)


@pytest.fixture
def project(tmp_path, draw_face, noise) -> Paths:
    paths = Paths(tmp_path / "project")
    add_images(paths, {f"b{number}": draw_face(number) for number in range(PEOPLE)})
    add_images(paths, {"noise": noise})
    return paths


@pytest.fixture
def quick(params) -> Params:
    return params.model_copy(
        update={"size_px": 64, "images_per_shard": 2, "workers": 1, "min_score": 0.1}
    )


@pytest.fixture
def cut(monkeypatch) -> list[str]:
    """Names of the pictures that were cut, in this process."""
    names: list[str] = []

    def spy(chunk: list[Source], settings: CropSettings):
        names.extend(source.path.stem for source in chunk)
        return crop_with_digests(chunk, settings)

    monkeypatch.setattr(crop_cache, "crop_with_digests", spy)
    return names


def digests(paths: Paths) -> dict[str, str]:
    files = [*(paths.at(name) for name in OUTPUTS), *sorted(paths.crop_shards.iterdir())]
    return {str(path.relative_to(paths.root)): sha256_of(path) for path in files}


def without_kept(paths: Paths, params: Params) -> dict[str, str]:
    """What a project writes that never ran before."""
    fresh = Paths(paths.root.with_name("fresh"))
    shutil.rmtree(fresh.root, ignore_errors=True)
    shutil.copytree(paths.raw, fresh.raw)
    shutil.copy(paths.checked, fresh.checked)
    run(params, fresh)
    return digests(fresh)


def members(paths: Paths) -> dict[str, bytes]:
    found = {}
    for row in read_table(paths.crops).itertuples():
        content = (paths.crop_shards / row.shard).read_bytes()
        found[row.image_id] = content[row.offset_bytes : row.offset_bytes + row.size_bytes]
    return found


def test_a_second_run_cuts_nothing_and_writes_the_same_bytes(project, quick, cut):
    run(quick, project)
    first = digests(project)
    assert len(cut) == PEOPLE + 1
    cut.clear()
    for _ in range(2):
        run(quick, project)
        assert digests(project) == first
    assert not cut  # not the picture without a face either
    assert len([p for p in project.at("work/kept/crop").iterdir() if p.is_dir()]) == 1


def test_a_new_image_alone_is_cut_and_no_old_crop_changes(project, quick, cut, draw_face):
    run(quick, project)
    before = members(project)
    cut.clear()
    add_images(project, {"a-new": draw_face(PEOPLE)})  # the first of all: every place moves
    run(quick, project)
    assert cut == ["a-new"]
    after = members(project)
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 1
    assert digests(project) == without_kept(project, quick)


def test_other_settings_cut_everything_again(project, quick, cut):
    run(quick, project)
    cut.clear()
    wider = quick.model_copy(update={"margin": 0.5})
    run(wider, project)
    assert len(cut) == PEOPLE + 1
    assert digests(project) == without_kept(project, wider)


def test_a_image_whose_bytes_changed_is_cut_again(project, quick, cut, draw_face):
    run(quick, project)
    cut.clear()
    add_images(project, {"b1": draw_face(9)})
    run(quick, project)
    assert cut == ["b1"]
    assert digests(project) == without_kept(project, quick)


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[900] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize("harm", ["a changed byte", "a shard gone", "the index gone", "junk"])
def test_damaged_crops_of_earlier_runs_are_cut_again(project, quick, cut, harm):
    run(quick, project)
    cut.clear()
    kept = project.at("work/kept/crop")
    shutil.rmtree(project.crop_shards)  # as DVC does
    if harm == "a changed byte":
        damage(kept / "1" / "crops-00000.tar")
    elif harm == "a shard gone":
        (kept / "1" / "crops-00001.tar").unlink()
    elif harm == "the index gone":
        (kept / crop_cache.INDEX).unlink()
    else:
        (kept / crop_cache.INDEX).write_bytes(b"junk" * 5000)
    run(quick, project)
    assert 1 <= len(cut) <= (2 if "shard" in harm or "byte" in harm else PEOPLE + 1)
    assert digests(project) == without_kept(project, quick)


def test_without_hard_links_the_crops_are_kept_as_copies(project, quick, cut, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError("two disks")

    monkeypatch.setattr(os, "link", refuse)
    run(quick, project)
    cut.clear()
    run(quick, project)
    assert not cut


KILLED = """
import os, signal, sys
from pathlib import Path
from tasks.core.cache import result_cache as kept
from tasks.core.params import load_section
from tasks.core.paths import Paths
from tasks.crop import stage

kept._COMMIT_EVERY_S = 0.0
def killed(items, total, what):
    for number, item in enumerate(items):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item
stage.track = killed
params = stage.Params.model_validate_json(sys.argv[2])
stage.run(params, Paths(Path(sys.argv[1])))
"""


def test_what_a_killed_run_cut_is_not_cut_again(project, quick, cut):
    command = [sys.executable, "-c", KILLED, str(project.root), quick.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    run(quick, project)
    assert 0 < len(cut) < PEOPLE + 1
    assert digests(project) == without_kept(project, quick)
    numbers = [p.name for p in project.at("work/kept/crop").iterdir() if p.is_dir()]
    assert numbers == ["2"]  # nothing of the killed run is left


def test_runs_that_never_end_do_not_fill_the_disk(project, quick):
    run(quick, project)
    folder = project.at("work/kept/crop")
    for number in range(2, 9):
        (folder / str(number)).mkdir()
    crop_cache._next_run_number(folder)
    assert sorted(p.name for p in folder.iterdir() if p.is_dir()) == ["1", "8"]


def test_a_crop_is_named_by_the_bytes_that_were_read(project, settings):
    path = project.drawn / "b0.png"
    ((digest, _),) = crop_with_digests([Source(path, 256 * 256)], settings)
    assert digest == sha256_of(path)
