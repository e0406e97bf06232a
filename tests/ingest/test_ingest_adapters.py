"""Adapters: names, class folders and side files become labels, never guesses."""

import os
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.adapters.folder import read_folders
from tasks.ingest.adapters.london import INFO_NAMES, read_london
from tasks.ingest.label import Fault, Label, Reading
from tasks.ingest.stage import Params, run

HEADER = "face_id,face_age,face_gender,face_eth\n"


def label(reading: Reading, path: str) -> Label:
    found = reading.labels[path]
    assert isinstance(found, Label), found
    return found


def reason(reading: Reading, path: str) -> str:
    found = reading.labels[path]
    assert isinstance(found, Fault), found
    return found.reason


def test_drawn_names_are_parsed() -> None:
    path = "D0042_a05_f_happiness_1.jpg"
    assert label(ADAPTERS["drawn"](Path("drawn"), [path]), path) == Label(
        emotion="happiness",
        emotion_raw="happiness",
        subject="D0042",
        age_years=5.0,
        age_source="recorded",
        gender="female",
    )


@pytest.mark.parametrize(
    "name",
    [
        "D042_a05_f_happiness_1.jpg",
        "D0042_a5_f_happiness_1.jpg",
        "D0042_a05_x_happiness_1.jpg",
        "D0042_a05_f_happiness.jpg",
        "D0042_a05_f_happiness_1.jpg.jpg",
        "xD0042_a05_f_happiness_1.jpg",
        "D٠٠٤٢_a05_f_happiness_1.jpg",
        "README.txt",
    ],
)
def test_drawn_names_of_another_form_are_never_guessed_at(name: str) -> None:
    assert reason(ADAPTERS["drawn"](Path("drawn"), [name]), name) == "unreadable_name"


def test_drawn_name_with_a_foreign_emotion() -> None:
    name = "D0042_a05_f_boredom_1.jpg"
    assert reason(ADAPTERS["drawn"](Path("drawn"), [name]), name) == "unknown_label"


def write_csv(folder: Path, content: str | bytes, name: str = "labels.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_labels_csv_wins_over_the_folder(tmp_path: Path, bom: str) -> None:
    write_csv(
        tmp_path,
        f"{bom}path,emotion,subject_id,age_years,gender,ethnicity,gaze,mouth,pose,batch\n"
        "sad/a.jpg,Angry,kid 7,8.5,F,EA,averted,open,frontal,b1\n"
        "sad/b.jpg,,,NA,,,,,,\n"
        "loose.jpg,neutral,,,boy,,,,,\n",
    )
    files = ["labels.csv", "loose.jpg", "sad/a.jpg", "sad/b.jpg", "sad/c.jpg", "other.jpg"]
    reading = read_folders(tmp_path, files)
    assert reading.side_files == {"labels.csv"} and not reading.missing
    assert label(reading, "sad/a.jpg") == Label(
        emotion="anger",
        emotion_raw="Angry",
        subject="kid 7",
        age_years=8.5,
        age_source="recorded",
        gender="female",
        ethnicity="EA",
        gaze="averted",
        mouth="open",
        pose="frontal",
        batch="b1",
    )
    assert label(reading, "sad/b.jpg") == Label("sadness", "sad")
    assert label(reading, "sad/c.jpg") == Label("sadness", "sad")
    assert label(reading, "loose.jpg") == Label("neutral", "neutral", gender="male")
    assert reason(reading, "other.jpg") == "no_label"


def test_rows_are_matched_by_path_name_and_composed_hangul(tmp_path: Path) -> None:
    on_disk = "모음/" + unicodedata.normalize("NFD", "아이 하나.jpg")
    write_csv(
        tmp_path,
        f"file,emotion\n{unicodedata.normalize('NFC', '아이 하나.jpg')},fear\n"
        "deep\\er\\x.jpg,sad\n./y.jpg,happy\ngone.jpg,happy\n../outside.jpg,sad\n",
    )
    reading = read_folders(tmp_path, ["labels.csv", on_disk, "deep/er/x.jpg", "y.jpg"])
    assert label(reading, on_disk).emotion == "fear"
    assert label(reading, "deep/er/x.jpg").emotion == "sadness"
    assert label(reading, "y.jpg").emotion == "happiness"
    assert {path: fault.reason for path, fault in reading.missing.items()} == {
        "gone.jpg": "missing_file",
        "../outside.jpg": "missing_file",
    }


def test_emotion_of_the_csv_that_names_none(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,emotion\nsad/a.jpg,bored\n")
    reading = read_folders(tmp_path, ["labels.csv", "sad/a.jpg"])
    assert reason(reading, "sad/a.jpg") == "unknown_label"


def test_age_band_and_source_of_the_csv(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,age_band,age_source\nsad/a.jpg,child,dataset\nsad/b.jpg,,estimated\n")
    reading = read_folders(tmp_path, ["labels.csv", "sad/a.jpg", "sad/b.jpg"])
    assert label(reading, "sad/a.jpg").age_band == "child"
    assert label(reading, "sad/a.jpg").age_source == "dataset"
    assert label(reading, "sad/b.jpg").age_source is None  # no age, so no source of it


def test_a_labels_csv_of_other_files_stops_the_run(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,age_years\nsad/img.jpg,5\n")
    with pytest.raises(DataError, match=r"none of its 1 rows names a file .*capitals"):
        read_folders(tmp_path, ["labels.csv", "sad/IMG.jpg"])


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "path"),
        ("emotion\nsad\n", "path"),
        ("path,file\na.jpg,a.jpg\n", "path"),
        ("path,emotion,smile\na.jpg,sad,1\n", "'smile'"),
        ("path,sha256\na.jpg,0\n", "'sha256'"),
        ("path;emotion\na.jpg;sad\n", "separated by commas"),
        ("path,emotion,emotion\na.jpg,sad,sad\n", "twice"),
        ("path,emotion\na.jpg,sad\na.jpg,sad,8\n", "row 3"),
        ("path,emotion\na.jpg,sad\na.jpg,sad\n", "row 3"),
        ("path,emotion\nsad/a.jpg,sad\nb.jpg,sad\n,sad\n", "row 4"),
        ("path,age_years\na.jpg,eight\n", "'eight'"),
        ("path,age_years\na.jpg,-3\n", "'-3'"),
        ("path,age_years\na.jpg,inf\n", "'inf'"),
        ("path,gender\na.jpg,femme\n", "'femme'"),
        ("path,age_source\na.jpg,guessed\n", "'guessed'"),
        ("file,emotion\ntwin.jpg,sad\n", "twin.jpg"),
        ('path,emotion\n"a.jpg,sad\n', "labels.csv"),
        ("path,emotion\n표정.jpg,sad\n".encode("cp949"), "UTF-8"),
        ("path,emotion\na.jpg,sad\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_unusable_labels_csv_is_one_clear_line(
    tmp_path: Path, content: str | bytes, named: str
) -> None:
    write_csv(tmp_path, content)
    files = ["labels.csv", "a.jpg", "b.jpg", "x/twin.jpg", "y/twin.jpg"]
    with pytest.raises(DataError) as caught:
        read_folders(tmp_path, [*files, "sad/a.jpg"])
    text = str(caught.value)
    assert "labels.csv" in text and named in text and "\n" not in text


@pytest.mark.parametrize("name", INFO_NAMES)
def test_london_reads_names_and_people(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path, HEADER + "001,24,female,white\n002,,male,east_asian/white\n", name)
    pictures = [f"neutral_front/00{face}_03.jpg" for face in (1, 2, 3)]
    sides = [name, "neutral_front/001_03.tem", "london_faces_ratings.csv"]
    reading = read_london(tmp_path, [*pictures, "smiling_front/001_08.jpg", *sides])
    assert reading.side_files == set(sides)
    assert label(reading, pictures[0]) == Label(
        emotion="neutral",
        emotion_raw="neutral",
        subject="001",
        age_years=24.0,
        age_source="recorded",
        gender="female",
        ethnicity="white",
        pose="frontal",
    )
    smiling = label(reading, "smiling_front/001_08.jpg")
    assert (smiling.emotion, smiling.emotion_raw) == ("happiness", "smiling")
    without_age = label(reading, pictures[1])
    assert without_age.age_years is None and without_age.age_source is None
    unlisted = label(reading, pictures[2])
    assert unlisted.gender == "unknown" and unlisted.subject == "003"


@pytest.mark.parametrize(
    "path", ["neutral_front/1_03.jpg", "neutral_front/001_08.jpg", "profile/001_03.jpg", "a.jpg"]
)
def test_london_names_of_another_form_are_never_guessed_at(tmp_path: Path, path: str) -> None:
    write_csv(tmp_path, HEADER, INFO_NAMES[0])
    assert reason(read_london(tmp_path, [path, INFO_NAMES[0]]), path) == "unreadable_name"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "london_faces_info.csv"),
        ("face,age\n1,2\n", "face_id"),
        (HEADER + "001,young,female,white\n", "face 001"),
        (HEADER + "001\n", "face_age"),
        ("Größe".encode("latin-1"), "UTF-8"),
    ],
)
def test_london_table_that_cannot_be_used(
    tmp_path: Path, content: str | bytes | None, named: str
) -> None:
    files = ["neutral_front/001_03.jpg"]
    if content is not None:
        write_csv(tmp_path, content, INFO_NAMES[0])
        files.append(INFO_NAMES[0])
    with pytest.raises(DataError) as caught:
        read_london(tmp_path, files)
    assert named in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.skipif("AFFECTGAP_ASSETS" not in os.environ, reason="AFFECTGAP_ASSETS is not set")
def test_the_london_photographs(tmp_path: Path) -> None:
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    (raw / "london").symlink_to(Path(os.environ["AFFECTGAP_ASSETS"]) / "london")
    paths = Paths(tmp_path)
    params = Params.model_validate(
        {
            "datasets": {"london": {"adapter": "london"}},
            "age_bands": {"child": [0, 10], "adolescent": [10, 18], "adult": [18, 130]},
            "may_be_empty": [],
            "max_pixels": 60_000_000,
            "workers": 0,
        }
    )
    result = run(params, paths)
    manifest = pq.read_table(paths.manifest).to_pandas()
    assert len(manifest) == 204
    assert manifest["subject_id"].nunique() == 102 and manifest["subject_known"].all()
    assert manifest["emotion"].value_counts().to_dict() == {"neutral": 102, "happiness": 102}
    assert manifest.groupby("gender")["subject_id"].nunique().to_dict() == {
        "female": 49,
        "male": 53,
    }
    assert (manifest[["width_px", "height_px"]] == 1350).all(axis=None)
    assert set(manifest["age_band"]) == {"adult", "unknown"}
    assert result.metrics["rejects_hidden"] == result.metrics["rejects"] == 3
