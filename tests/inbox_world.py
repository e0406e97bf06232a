"""A project with an inbox, and batches as strangers send them: what the tests of intake share."""

import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.intake import recovery
from flows.intake.intake import intake_inbox
from flows.intake.recovery import IntakeOutcome
from flows.ledger.ledger import Ledger
from flows.presets import preset_text
from tasks.check import batch_checks
from tasks.core.files import sha256_of
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[1]
EMOTIONS = ("anger", "fear", "happiness")
SETTINGS = {  # small numbers, so that small batches can break them
    "max_files: 50000": "max_files: 30",
    "max_file_mb: 64": "max_file_mb: 0.1",
    "max_batch_mb: 20000": "max_batch_mb: 0.2",
    "max_pixels: 60000000": "max_pixels: 1000000",
}


def new_project(root: Path, **changes: str) -> Paths:
    """A project with params.yaml, and an inbox; keys of `changes` are spelt `key: value` there."""
    text = preset_text(REPOSITORY, REPOSITORY / "presets/quick.yaml")
    for old, new in {**SETTINGS, **changes}.items():
        assert text.count(old) >= 1, old
        text = text.replace(old, new)
    (root / "data/inbox").mkdir(parents=True)
    (root / "params.yaml").write_text(text, encoding="utf-8")
    return Paths(root)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project in which DVC and Great Expectations, slow as they are, are left out.

    Both are tested by themselves, and once together with the inbox.
    """
    monkeypatch.setattr(batch_checks, "batch_faults", _quick_faults)
    monkeypatch.setattr(batch_checks, "pipeline_faults", lambda there, rows, params: [])
    return _without_dvc(tmp_path, monkeypatch)


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project in which only DVC is left out."""
    return _without_dvc(tmp_path, monkeypatch)


def _without_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(recovery, "add_to_dvc", lambda paths, dataset: None)
    return new_project(tmp_path / "project")


def _quick_faults(rows, left_out, repeated, limits, params) -> list[str]:
    if rows.empty:
        return ["no picture"]
    faults = [f"faulty: {count} {reason}" for reason, count in left_out.items()]
    return faults + ["repeated"] * (repeated / len(rows) > limits.max_repeated_share)


def png(*seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (50, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def files_of(seed: int, people: int = 2, emotions: Sequence[str] = EMOTIONS) -> dict[str, bytes]:
    """A batch's files: labels.csv, and a picture of each person and emotion."""
    files = {"labels.csv": b"path,emotion,subject_id,age_years,gender\n"}
    for person in range(people):
        for number, emotion in enumerate(emotions):
            name = f"p{seed}-{person}_{emotion}.png"
            files[name] = png(seed, person, number)
            files["labels.csv"] += f"{name},{emotion},p{seed}-{person},6,female\n".encode()
    return files


def send(
    paths: Paths, name: str, files: Mapping[str, bytes], mark: str | None = "", dvc: bool = False
) -> Path:
    """Put a batch into the inbox, with the text of its `_READY` (None: without one)."""
    folder = paths.inbox / name
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    if mark is not None:
        (folder / "_READY").write_text(mark)
    return folder


def send_archive(paths: Paths, name: str, files: Mapping[str, bytes], inner: str = "") -> Path:
    """Put a batch into the inbox as an archive, by the name's suffix; `inner`: a folder in it."""
    source = paths.root / "to-pack"
    for path, content in files.items():
        (source / inner / path).parent.mkdir(parents=True, exist_ok=True)
        (source / inner / path).write_bytes(content)
    stem, kind = name.split(".", 1)
    kinds = {"zip": "zip", "tar": "tar", "tar.gz": "gztar"}
    path = Path(shutil.make_archive(str(paths.inbox / stem), kinds[kind], source))
    path.with_name(f"{path.name}._READY").touch()
    shutil.rmtree(source)
    return path


def linked_into_cache(paths: Paths, batch: str) -> None:
    """Leave links to an accepted batch's files, as DVC does with `cache.type symlink`."""
    folder, cache = paths.raw / "arrived" / batch, paths.at(".dvc/cache")
    cache.mkdir(parents=True)
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        kept = cache / path.name
        path.rename(kept)
        kept.chmod(0o444)
        path.symlink_to(kept)


def take(paths: Paths) -> dict[str, IntakeOutcome]:
    """Take in the inbox; by the batches' names."""
    said: list[str] = []
    taken = intake_inbox(paths, said.append)
    assert all("\n" not in line for line in said)
    assert {str(one) for one in taken if "was killed" not in one.detail} <= set(said)
    return {one.batch: one for one in taken}


def state_of(paths: Paths) -> dict[str, str]:
    """What the ledger says of each batch."""
    batches = Ledger(paths.ledger).batches()
    return dict(zip(batches["batch"], batches["state"], strict=True))


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, by path, with its digest."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(files)}


def reason(paths: Paths, batch: str) -> str:
    return (paths.quarantine / batch / "REASON.md").read_text(encoding="utf-8")
