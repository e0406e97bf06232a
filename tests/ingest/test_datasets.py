"""Fetching an open data set, without its server, and unpacking archives of strangers."""

import importlib
import io
import stat
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tasks.core.errors import DataError, DownloadError, UserError
from tasks.core.paths import Paths
from tasks.ingest import datasets, unzip
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.datasets import DATASETS, describe_dataset, fetch_dataset, list_datasets
from tasks.ingest.intake import intake
from tasks.ingest.unzip import unpack

INFO = "face_id,face_age,face_gender,face_eth\n001,24,female,white\n"


def archive(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 30), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def london_downloads(folder: Path) -> None:
    archive(
        folder / "neutral_front.zip",
        {
            "neutral_front/001_03.jpg": picture(),
            "neutral_front/001_03.tem": b"189",
            "__MACOSX/neutral_front/._001_03.jpg": b"fork",
        },
    )
    archive(folder / "smiling_front.zip", {"001_08.jpg": picture() + b"\0"})  # without a folder
    (folder / "london_faces_info.csv").write_text(INFO)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def no_figshare(doi: str) -> dict[str, tuple[str, str]]:
    raise DownloadError(f"https://doi.org/{doi}: no network")


def test_files_put_there_by_hand_are_unpacked_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "figshare_files", no_figshare)
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

    monkeypatch.setattr(datasets, "figshare_files", listed)
    monkeypatch.setattr(datasets, "fetch_file", fetched)
    assert len(tree(fetch_dataset("london", tmp_path))) == 4
    assert sorted(asked) == sorted(published.values())


def test_without_a_network_one_line_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "figshare_files", no_figshare)
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("london", tmp_path)
    text = str(caught.value)
    assert "\n" not in text and str(tmp_path / "datasets/london/downloads") in text
    assert all(name in text for name in DATASETS["london"].files)


def test_damaged_archive_leaves_no_half_unpacked_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "figshare_files", no_figshare)
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
    with pytest.raises(UserError, match=r"known are affectnet, cafe, .*, utkface"):
        describe_dataset("cifar")


def test_every_adapter_has_its_paragraph_and_its_docstring() -> None:
    text = (Path(__file__).parents[2] / "docs/datasets.md").read_text(encoding="utf-8")
    for name in ADAPTERS:
        assert f"\n## {name}\n" in text, name
        module = importlib.import_module(f"tasks.ingest.adapters.{name.replace('-', '_')}")
        assert f"Adapter `{name}`" in (module.__doc__ or ""), name


def test_each_data_set_says_how_to_go_on_with_it() -> None:
    cafe = describe_dataset("cafe")
    assert "LoBue" in cafe and "Databrary" in cafe
    assert "affectgap intake PATH --dataset cafe; affectgap use cafe-nimh" in cafe
    assert "kdef: {adapter: kdef}" in describe_dataset("kdef")
    assert "affectgap datasets count FOLDER --adapter fairface" in describe_dataset("fairface")
    for entry in list_datasets():
        assert entry.citation and entry.licence and entry.obtain, entry.name


@pytest.mark.parametrize(
    "name", ["../out.jpg", "/etc/out.jpg", "a/../../out.jpg", "C:\\out.jpg", "a\\..\\out.jpg"]
)
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.zip", {"fine.jpg": b"1", name: b"2"})
    (tmp_path / "into").mkdir()
    with pytest.raises(DataError, match="leads out"):
        unpack(path, tmp_path / "into")
    assert tree(tmp_path) <= {"a.zip", "into/fine.jpg"}


def test_links_in_an_archive_are_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link.jpg")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as opened:
        opened.writestr(member, "/etc/passwd")
    (tmp_path / "into").mkdir()
    with pytest.raises(DataError, match="link"):
        unpack(tmp_path / "a.zip", tmp_path / "into")
    assert tree(tmp_path / "into") == set()


def test_archives_that_unpack_to_too_much_are_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "a.zip", {"a": bytes(3 << 20), "b": bytes(3 << 20)})
    assert path.stat().st_size < 20_000
    (tmp_path / "into").mkdir()
    monkeypatch.setattr(unzip, "MAX_BYTES", 4 << 20)
    with pytest.raises(DataError, match="more than"):
        unpack(path, tmp_path / "into")
    assert sum(entry.stat().st_size for entry in (tmp_path / "into").iterdir()) <= 4 << 20
    monkeypatch.setattr(unzip, "MAX_MEMBERS", 1)
    with pytest.raises(DataError, match="2 files, more than 1"):
        unpack(path, tmp_path / "into")


def test_damaged_members_and_doubled_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as opened:
        opened.writestr("a.jpg", b"sound content")
    path.write_bytes(path.read_bytes().replace(b"sound", b"sOund"))
    (tmp_path / "into").mkdir()
    with pytest.raises(DataError, match="damaged"):
        unpack(path, tmp_path / "into")
    with pytest.warns(UserWarning), zipfile.ZipFile(path, "w") as opened:
        opened.writestr("b.jpg", b"1")
        opened.writestr("b.jpg", b"2")
    with pytest.raises(DataError, match="twice"):
        unpack(path, tmp_path / "into")
