"""Fetching an open data set, without its server."""

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from flows.datasets import fetch
from flows.datasets.catalog import DATASETS
from flows.datasets.fetch import describe_dataset, fetch_dataset, list_datasets
from flows.intake.place_images import intake
from tasks.core.errors import DataError, DownloadError, UserError
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS

INFO = "face_id,face_age,face_gender,face_eth\n001,24,female,white\n"


def archive(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def london_downloads(folder: Path) -> None:
    archive(
        folder / "neutral_front.zip",
        {
            "neutral_front/001_03.jpg": image(),
            "neutral_front/001_03.tem": b"189",
            "__MACOSX/neutral_front/._001_03.jpg": b"fork",
        },
    )
    archive(folder / "smiling_front.zip", {"001_08.jpg": image() + b"\0"})  # without a folder
    (folder / "london_faces_info.csv").write_text(INFO)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def no_figshare(doi: str) -> dict[str, tuple[str, str]]:
    raise DownloadError(f"https://doi.org/{doi}: no network")


def test_files_put_there_by_hand_are_unpacked_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "figshare_files", no_figshare)
    london_downloads(tmp_path / "datasets/london/downloads")
    folder = fetch_dataset("london", tmp_path)
    assert tree(folder) == {
        "london_faces_info.csv",
        "neutral_front/001_03.jpg",
        "neutral_front/001_03.tem",
        "smiling_front/001_08.jpg",
    }
    assert fetch_dataset("london", tmp_path) == folder
    assert intake(folder, "london", Paths(tmp_path / "project"), 10_000).files == 4


def test_downloads_come_from_the_doi_with_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "figshare"
    london_downloads(store)
    published = {name: (f"https://f/{name}", f"md5:{name}") for name in DATASETS["london"].files}
    asked: list[tuple[str, str]] = []

    def fetched(address: str, digest: str, name: str, folder: Path) -> Path:
        asked.append((address, digest))
        return Path((store / name).rename(folder / name))

    def listed(doi: str) -> dict[str, tuple[str, str]]:
        assert doi == "10.6084/m9.figshare.5047666.v5"
        return published

    monkeypatch.setattr(fetch, "figshare_files", listed)
    monkeypatch.setattr(fetch, "fetch_file", fetched)
    assert len(tree(fetch_dataset("london", tmp_path))) == 4
    assert sorted(asked) == sorted(published.values())


def test_without_a_network_one_line_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "figshare_files", no_figshare)
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("london", tmp_path)
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path / "datasets/london/downloads") in text
    assert all(name in text for name in DATASETS["london"].files)


def test_damaged_archive_leaves_no_half_unpacked_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "figshare_files", no_figshare)
    downloads = tmp_path / "datasets/london/downloads"
    london_downloads(downloads)
    whole = (downloads / "smiling_front.zip").read_bytes()
    (downloads / "smiling_front.zip").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=r"smiling_front\.zip: is damaged"):
        fetch_dataset("london", tmp_path)
    assert not (tmp_path / "datasets/london/london").exists()
    (downloads / "smiling_front.zip").write_bytes(whole)
    assert len(tree(fetch_dataset("london", tmp_path))) == 4


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("drawn", "affectgap run"),
        ("folder", "affectgap intake"),
        ("raf-db", "whdeld.cn"),
        ("cifar", "fetched: london"),
    ],
)
def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path: Path, name: str, how: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        fetch_dataset(name, tmp_path)
    assert how in str(caught.value)


def test_every_adapter_is_described() -> None:
    assert {entry.adapter for entry in list_datasets()} == set(ADAPTERS)
    assert "CC BY 4.0" in describe_dataset("london") and "DeBruine" in describe_dataset("london")
    with pytest.raises(UserError, match=r"use one of affectnet, cafe, .*, utkface"):
        describe_dataset("cifar")


def test_every_adapter_has_its_paragraph_and_its_docstring() -> None:
    text = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
    folder = Path(__file__).parents[2] / "tasks/ingest/adapters"
    modules = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for name in ADAPTERS:
        assert f"\n## {name}\n" in text, name
        assert f"Adapter `{name}`" in modules, name


def test_each_data_set_says_how_to_go_on_with_it() -> None:
    cafe = describe_dataset("cafe")
    assert "LoBue" in cafe and "Databrary" in cafe
    assert "affectgap intake PATH --dataset cafe; affectgap use cafe-nimh" in cafe
    assert "kdef: {adapter: kdef}" in describe_dataset("kdef")
    assert "affectgap datasets count FOLDER --adapter fairface" in describe_dataset("fairface")
    for entry in list_datasets():
        assert entry.citation and entry.licence and entry.obtain, entry.name
