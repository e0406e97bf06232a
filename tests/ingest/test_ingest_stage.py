"""Every file found is a row or a reject with a reason, and none stops the stage."""

import io
import os
import unicodedata
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from spellings import nfd

from tasks.core.errors import DataError, ParamsError
from tasks.core.imaging import decode
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA
from tasks.ingest import scan as scan_module
from tasks.ingest import stage
from tasks.ingest.dataset_reader import Entry
from tasks.ingest.label import Label
from tasks.ingest.manifest import make_rows

BANDS = {"child": [0, 10], "adolescent": [10, 18], "adult": [18, 130]}


def jpeg(seed: int, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return saved(Image.fromarray(noise), "JPEG", **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def fill(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def params(datasets: Mapping[str, str], /, **changes: object) -> stage.Params:
    content = {
        "datasets": {name: {"adapter": adapter} for name, adapter in datasets.items()},
        "age_bands": BANDS,
        "optional_datasets": [],
        "max_pixels": 1_000_000,
        "workers": 1,
        **changes,
    }
    return parse_section("ingest", {"ingest": content}, stage.Params, Path("params.yaml"))


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads instead of processes: these tests are about what is read, not about processes."""
    monkeypatch.setattr(stage, "process_pool", lambda workers: ThreadPoolExecutor(2))


def ingest(root: Path, **datasets: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage and return its manifest and its rejects, checked for what always holds."""
    paths = Paths(root)
    result = stage.run(params(datasets), paths)
    manifest = pq.read_table(paths.manifest)
    assert manifest.schema.equals(MANIFEST_SCHEMA)
    rejects = pd.read_csv(paths.rejects("ingest"), dtype="str", keep_default_na=False)
    assert result.metrics["files"] == manifest.num_rows + len(rejects)
    assert (rejects["detail"] != "").all()
    frame = manifest.to_pandas()
    assert frame["image_id"].is_unique
    keys = list(zip(frame["dataset"], frame["path"], strict=True))
    assert keys == sorted(keys)
    return frame, rejects


def reasons(rejects: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rejects["path"], rejects["reason"], strict=True))


def test_each_bad_file_is_a_reject_with_its_reason(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/mine"
    frames = [Image.new("RGB", (8, 8), (80 * step, 0, 0)) for step in range(3)]
    bad = {
        "happy/._001.jpg": (bytes(217), "hidden"),
        "happy/.DS_Store": (b"x", "hidden"),
        "happy/.thumbs/a.jpg": (jpeg(90), "hidden"),
        "__MACOSX/happy/a.jpg": (b"x", "hidden"),
        "happy/letter.jpg": ("a text file that is named .jpg", "not_an_image"),
        "happy/notes.txt": ("notes", "not_an_image"),
        "happy/zero.png": (b"", "empty"),
        "happy/cut.jpg": (jpeg(91)[:1200], "damaged"),
        "happy/moving.gif": (
            saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
            "animated",
        ),
        "happy/bomb.png": (saved(Image.new("1", (20_000, 100)), "PNG"), "too_large"),
        "dozing/a.jpg": (jpeg(92), "unknown_label"),
        "loose.jpg": (jpeg(93), "no_label"),
    }
    fill(raw, {name: content for name, (content, _) in bad.items()})
    fill(raw, {"happy/sound.jpg": jpeg(1)})
    manifest, rejects = ingest(tmp_path, mine="folder")
    assert manifest["path"].tolist() == ["mine/happy/sound.jpg"]
    assert reasons(rejects) == {f"mine/{name}": reason for name, (_, reason) in bad.items()}
    unknown = rejects.set_index("path").loc["mine/dozing/a.jpg"]
    assert "dozing" in unknown["detail"] and len(unknown["image_id"]) == 16


def test_odd_but_sound_images_are_rows(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/mine"
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    composed = unicodedata.normalize("NFC", "기쁨 사진.jpg")
    decomposed = unicodedata.normalize("NFD", "아이 둘.jpg")
    sound = {
        "Happy/turned.jpg": jpeg(1, exif=turned),
        "Happy/is a PNG.jpg": saved(Image.new("RGB", (40, 30), "red"), "PNG"),
        "Happy/deep.png": saved(deep, "PNG"),
        "Happy/press.jpg": saved(Image.new("CMYK", (40, 30), (9, 8, 7, 6)), "JPEG"),
        "Happy/clear.png": saved(Image.new("RGBA", (40, 30), (1, 2, 3, 4)), "PNG"),
        f"Happy/{composed}": jpeg(2),
        f"Happy/{decomposed}": jpeg(3),
        "HAPPINESS/deeper/still/x.jpg": jpeg(4),
    }
    fill(raw, sound)
    manifest, rejects = ingest(tmp_path, mine="folder")
    assert rejects.empty
    assert set(manifest["path"]) == {f"mine/{name}" for name in sound}  # names as on the disk
    by_path = manifest.set_index("path")
    assert by_path.loc["mine/Happy/turned.jpg", ["width_px", "height_px"]].tolist() == [30, 40]
    assert by_path.loc["mine/Happy/deep.png", ["width_px", "height_px"]].tolist() == [40, 30]
    assert set(manifest["emotion"]) == {"happiness"}
    assert set(manifest["emotion_raw"]) == {"Happy", "HAPPINESS"}
    assert not manifest["subject_known"].any()
    assert manifest["subject_id"].tolist() == [f"mine/{key}" for key in manifest["image_id"]]
    assert set(manifest["age_band"]) == {"unknown"} and manifest["age_source"].isna().all()


def test_names_that_are_not_utf8_are_shown_escaped(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/mine"
    fill(raw, {"sad/a.jpg": jpeg(1)})
    with open(os.fsencode(raw / "sad") + b"/caf\xe9.jpg", "wb") as handle:
        handle.write(jpeg(2))
    manifest, rejects = ingest(tmp_path, mine="folder")
    assert len(manifest) == 1
    assert reasons(rejects) == {"mine/sad/caf\\xe9.jpg": "not_utf8_name"}


def test_links_are_followed_only_inside_the_data_set(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw/mine"
    fill(raw, {"sad/a.jpg": jpeg(1), "stock/.keep": "", "sad/b.jpg": jpeg(2)})
    fill(tmp_path / "secret", {"c.jpg": jpeg(3)})
    (raw / "sad/c.jpg").symlink_to(tmp_path / "secret/c.jpg")
    (raw / "sad/gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (raw / "happy").symlink_to(raw / "sad")
    (raw / "fear").symlink_to(tmp_path / "secret")
    (raw / "sad/same.jpg").symlink_to(raw / "sad/a.jpg")
    os.mkfifo(raw / "sad/pipe.jpg")
    manifest, rejects = ingest(tmp_path, mine="folder")
    assert manifest["path"].tolist() == ["mine/sad/a.jpg", "mine/sad/b.jpg"]
    assert reasons(rejects) == {
        "mine/sad/c.jpg": "outside_link",
        "mine/fear": "outside_link",
        "mine/sad/gone.jpg": "broken_link",
        "mine/happy": "linked_folder",
        "mine/sad/same.jpg": "duplicate",
        "mine/sad/pipe.jpg": "not_a_file",
        "mine/stock/.keep": "hidden",
    }


def test_links_into_the_dvc_cache_are_files(tmp_path: Path) -> None:
    fill(tmp_path / ".dvc/cache/files/md5", {"ab": jpeg(1)})
    fill(tmp_path / "data/raw/mine", {"sad/.keep": ""})
    (tmp_path / "data/raw/mine/sad/a.jpg").symlink_to(tmp_path / ".dvc/cache/files/md5/ab")
    manifest, _ = ingest(tmp_path, mine="folder")
    assert manifest["path"].tolist() == ["mine/sad/a.jpg"]


def test_files_and_folders_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "data/raw/mine"
    fill(raw, {"sad/a.jpg": jpeg(1), "sad/locked.jpg": jpeg(2), "happy/b.jpg": jpeg(3)})
    scandir, opening = os.scandir, os.open

    def guarded_scandir(folder: object) -> object:
        if str(folder).endswith("happy"):
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    def guarded_open(path: object, *flags: int) -> int:
        if str(path).endswith("locked.jpg"):
            raise PermissionError(13, "Permission denied", path)
        return opening(path, *flags)

    monkeypatch.setattr(os, "scandir", guarded_scandir)
    monkeypatch.setattr(os, "open", guarded_open)
    manifest, rejects = ingest(tmp_path, mine="folder")
    assert manifest["path"].tolist() == ["mine/sad/a.jpg"]
    assert reasons(rejects) == {"mine/happy": "unreadable", "mine/sad/locked.jpg": "unreadable"}


def test_same_content_under_one_label_is_kept_once(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/mine", {"sad/b.jpg": jpeg(1), "sad/a.jpg": jpeg(1)})
    fill(tmp_path / "data/raw/other", {"Sad/0.jpg": jpeg(1), "Sad/1.jpg": jpeg(2)})
    manifest, rejects = ingest(tmp_path, other="folder", mine="folder")
    assert manifest["path"].tolist() == ["mine/sad/a.jpg", "other/Sad/1.jpg"]
    assert reasons(rejects) == {"mine/sad/b.jpg": "duplicate", "other/Sad/0.jpg": "duplicate"}
    assert rejects["detail"].str.contains("mine/sad/a.jpg").all()


def test_same_content_under_two_labels_is_left_out_everywhere(tmp_path: Path) -> None:
    fill(
        tmp_path / "data/raw/mine",
        {"sad/a.jpg": jpeg(1), "fear/a.jpg": jpeg(1), "sad/b.jpg": jpeg(1), "sad/c.jpg": jpeg(2)},
    )
    fill(tmp_path / "data/raw/other", {"sad/a.jpg": jpeg(1), "sad/d.jpg": jpeg(3)})
    manifest, rejects = ingest(tmp_path, mine="folder", other="folder")
    assert manifest["path"].tolist() == ["mine/sad/c.jpg", "other/sad/d.jpg"]
    assert set(rejects["reason"]) == {"conflicting_labels"}
    fear = rejects.set_index("path").loc["mine/fear/a.jpg", "detail"]
    for other in ("mine/sad/a.jpg", "mine/sad/b.jpg", "other/sad/a.jpg"):
        assert f"{other} (sadness)" in fear


def test_same_bytes_twice(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/mine", {f"sad/{name}.jpg": jpeg(name) for name in range(20)})
    paths = Paths(tmp_path)
    written = []
    for _ in range(2):
        stage.run(params({"mine": "folder"}), paths)
        written.append((paths.manifest.read_bytes(), paths.rejects("ingest").read_bytes()))
    assert written[0] == written[1]


def test_rejects_are_written_with_a_header_when_there_are_none(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/mine", {"sad/a.jpg": jpeg(1)})
    ingest(tmp_path, mine="folder")
    assert Paths(tmp_path).rejects("ingest").read_text() == "image_id,path,reason,detail\n"


@pytest.mark.parametrize("kind", ["missing", "empty", "only a table"])
def test_data_set_without_files_says_what_to_do(tmp_path: Path, kind: str) -> None:
    if kind != "missing":
        (tmp_path / "data/raw/mine").mkdir(parents=True)
    if kind == "only a table":
        fill(tmp_path / "data/raw/mine", {"labels.csv": "path,emotion\n"})
    with pytest.raises(DataError) as caught:
        ingest(tmp_path, mine="folder")
    text = str(caught.value)
    assert "data/raw/mine: no pictures" in text and "\n" not in text
    assert "affectgap intake PATH --dataset mine" in text


def test_data_set_of_which_nothing_can_be_used_stops_and_says_why(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/good", {"sad/a.jpg": jpeg(1)})
    fill(tmp_path / "data/raw/mine", {"Froh/a.jpg": jpeg(2), "Froh/b.jpg": jpeg(3), "x": ""})
    with pytest.raises(DataError) as caught:
        ingest(tmp_path, good="folder", mine="folder")
    text = str(caught.value)
    assert "none of its 3 files" in text and "2 unknown_label" in text and "Froh" in text
    assert "\n" not in text
    assert len(pd.read_csv(Paths(tmp_path).rejects("ingest"))) == 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"datasets": {"Mine": {"adapter": "folder"}}}, "Mine"),
        ({"datasets": {}}, "ingest.datasets"),
        ({"datasets": {"mine": {"adapter": "kaggle"}}}, "ingest.datasets.mine.adapter"),
        ({"age_bands": {"child": [0, 10], "young": [9, 18]}}, "young"),
        ({"age_bands": {"unknown": [0, 10]}}, "unknown"),
        ({"max_pixels": 0}, "ingest.max_pixels"),
        ({"worker": 2}, "ingest.worker"),
    ],
)
def test_wrong_params_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ParamsError) as caught:
        params({"mine": "folder"}, **changes)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_every_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "data/raw/mine", {f"sad/{name}.jpg": jpeg(name) for name in range(5)})
    read: list[str] = []
    original = decode.read_content

    def counted(path: Path, max_pixels: int) -> bytes:
        read.append(path.name)
        return original(path, max_pixels)

    monkeypatch.setattr(scan_module, "read_content", counted)
    ingest(tmp_path, mine="folder")
    assert sorted(read) == [f"{name}.jpg" for name in range(5)]


def test_bands_come_from_years_and_else_from_the_data_set() -> None:
    scan = scan_module.Scan("ab" * 32, 40, 30)
    bands = {"child": (0, 10), "adult": (18, 130)}
    cases = {
        "child": Label("fear", "fear", age_years=9.9, age_band="adult"),
        "adult": Label("fear", "fear", age_band="adult"),
        "unknown": Label("fear", "fear", age_years=12),
    }
    for band, label in cases.items():
        (row,), rejects = make_rows([Entry("mine", "a.jpg", label)], [scan], bands)
        assert row.age_band == band and not rejects
    rows, (reject,) = make_rows(
        [Entry("mine", "a.jpg", Label("fear", "fear", age_band="toddler"))], [scan], bands
    )
    assert not rows and reject.reason == "unknown_label" and "toddler" in reject.detail


LABELS = "path,emotion,subject_id,age_years\n"


def test_batches_are_read_by_themselves_and_named_in_every_row(tmp_path: Path) -> None:
    """The same names in two batches, one person in both, and a class folder beside them."""
    sets = tmp_path / "data/raw/site"
    fill(sets / "happy", {"a.jpg": jpeg(1)})
    for number, batch in enumerate(("later", "anger"), start=2):
        fill(sets / batch, {"a.jpg": jpeg(number), "labels.csv": LABELS + "a.jpg,fear,S1,6\n"})
        fill(sets / batch, {"_READY": "", "b.jpg": b"torn", "._x": b"1"})
    frame, rejects = ingest(tmp_path, site="folder")
    rows = frame.set_index("path")
    assert rows["batch"].to_dict() == {
        "site/anger/a.jpg": "anger",
        "site/happy/a.jpg": "",
        "site/later/a.jpg": "later",
    }
    assert rows.loc[["site/anger/a.jpg", "site/later/a.jpg"], "emotion"].tolist() == ["fear"] * 2
    assert rows.loc[["site/anger/a.jpg", "site/later/a.jpg"], "subject_id"].nunique() == 1
    assert reasons(rejects) == {
        "site/anger/._x": "hidden",
        "site/anger/b.jpg": "not_an_image",
        "site/later/._x": "hidden",
        "site/later/b.jpg": "not_an_image",
    }


def test_a_data_set_of_batches_alone_and_one_that_holds_none_yet(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/site/one", {"a.jpg": jpeg(1), "_READY": ""})
    fill(tmp_path / "data/raw/site/one", {"labels.csv": LABELS + "a.jpg,fear,S1,6\n"})
    frame, rejects = ingest(tmp_path, site="folder")
    assert frame["path"].tolist() == ["site/one/a.jpg"] and rejects.empty
    both = params({"site": "folder", "more": "folder"}, optional_datasets=["site", "more"])
    assert stage.run(both, Paths(tmp_path)).metrics["pictures"] == 1
    (tmp_path / "none/data/raw/site").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no data set holds a picture yet \(more, site") as caught:
        stage.run(both, Paths(tmp_path / "none"))
    assert "\n" not in str(caught.value) and "data/inbox" in str(caught.value)


def test_a_batch_never_takes_the_place_of_an_earlier_image(tmp_path: Path) -> None:
    fill(tmp_path / "data/raw/site", {"happy/a.jpg": jpeg(1), "a-batch/_READY": ""})
    fill(tmp_path / "data/raw/site/a-batch", {"happy/a.jpg": jpeg(1), "happy/b.jpg": jpeg(2)})
    frame, rejects = ingest(tmp_path, site="folder")
    assert frame["path"].tolist() == ["site/a-batch/happy/b.jpg", "site/happy/a.jpg"]
    assert reasons(rejects) == {"site/a-batch/happy/a.jpg": "duplicate"}


def test_one_child_in_two_spellings_is_one_and_nobody_is_called_na(tmp_path: Path) -> None:
    """The names of two files that look alike keep their bytes: both are opened, and both stay."""
    twins = ["happy/각.jpg", f"happy/{nfd('각')}.jpg"]
    rows = [f"{twins[0]},아이", f"{twins[1]},{nfd('아이')}", "happy/c.jpg,NA", "happy/d.jpg,미상"]
    rows += ["happy/e.jpg,S01", "happy/f.jpg,s1.0"]
    files = {row.partition(",")[0]: jpeg(number) for number, row in enumerate(rows)}
    fill(tmp_path / "data/raw/mine", files | {"labels.csv": "\n".join(["path,subject_id", *rows])})
    frame, rejects = ingest(tmp_path, mine="folder")
    assert rejects.empty and set(frame["path"]) == {f"mine/{path}" for path in files}
    people = frame.set_index("path")["subject_id"]
    assert people[f"mine/{twins[0]}"] == people[f"mine/{twins[1]}"] == "mine/아이"
    unknown = frame[~frame["subject_known"]]
    assert sorted(unknown["path"]) == ["mine/happy/c.jpg", "mine/happy/d.jpg"]
    assert (unknown["subject_id"] == "mine/" + unknown["image_id"]).all()
    summary = stage.run(params({"mine": "folder"}), Paths(tmp_path)).summary
    assert summary.endswith("correct them if they are one: mine/S01 and mine/s1.0")


@pytest.mark.parametrize("name", ["none", "na", "nan", "unknown"])
def test_no_data_set_or_band_is_called_by_a_word_for_missing(name: str) -> None:
    with pytest.raises(ParamsError, match=f"'{name}' stands for a missing value"):
        params({name: "folder"})
    with pytest.raises(ParamsError, match=f"band '{name}'"):
        params({"mine": "folder"}, age_bands={name: [0, 10]})
