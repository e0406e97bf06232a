"""Adapters: names, class folders and side files become labels, never guesses."""

import os
import unicodedata
from datetime import datetime
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest
from spellings import nfd

from tasks.core.errors import DataError
from tasks.core.paths import Paths
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.adapters.folder import read_folders
from tasks.ingest.adapters.london import INFO_NAMES, read_london
from tasks.ingest.label import AdapterResult, Fault, Label, parse_age, parse_gender
from tasks.ingest.stage import Params, run

HEADER = "face_id,face_age,face_gender,face_eth\n"


def label(reading: AdapterResult, path: str) -> Label:
    found = reading.labels[path]
    assert isinstance(found, Label), found
    return found


def reason(reading: AdapterResult, path: str) -> str:
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


def test_texts_of_a_label_are_clean_whichever_adapter_reads_them() -> None:
    told = Label(
        "fear", "Fear\u00a0", subject=nfd("김\u200b민수 "), ethnicity=nfd("é"), batch=" b "
    )
    assert told == Label("fear", "Fear", subject="김민수", ethnicity="é", batch="b")


@pytest.mark.parametrize("word", ["NA", "nan", "None", "n/a", "-", "Unknown", "", "없음", "미상 "])
def test_words_for_missing_are_missing_in_every_column(tmp_path: Path, word: str) -> None:
    told = Label("fear", "fear", word, None, word, ethnicity=word, gaze=word, mouth=word, pose=word)
    assert told == Label("fear", "fear")
    assert parse_age(word, "here") is None and parse_gender(word, "here") == "unknown"
    columns = "emotion,subject_id,age_years,age_band,gender,ethnicity,gaze,mouth,pose,batch"
    cells = ",".join([word] * 10)
    write_csv(tmp_path, f"path,{columns}\nsad/a.jpg,{cells}\nb.jpg,{cells}\n")
    reading = read_folders(tmp_path, ["labels.csv", "sad/a.jpg", "b.jpg", f"{word}/c.jpg"])
    assert label(reading, "sad/a.jpg") == Label("sadness", "sad")
    assert reason(reading, "b.jpg") == "no_label"
    assert reason(reading, f"{word}/c.jpg") == "unknown_label"  # a folder's name is a label


def test_class_folders_are_read_in_any_spelling(tmp_path: Path) -> None:
    path = "\u200bHappy\u00a0/a.jpg"
    assert label(read_folders(tmp_path, [path]), path).emotion == "happiness"


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
        ("path,emotion,emotion\na.jpg,sad,happy\n", "two columns"),
        ("path,emotion,age_years\na.jpg,sad\n", "row 2"),
        ('path,emotion\na.jpg,"sad\nb.jpg,sad"\n', "line 2"),
        ("path,age_band\na.jpg,3-5\nb.jpg,9-Mar\n", "row 3: column age_band: '9-Mar' is a date"),
        ("path,subject_id\na.jpg,1.2E+11\n", "row 2: column subject_id"),
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
        ("path,emotion\nGröße.jpg,sad\n".encode("latin-1"), "UTF-8"),
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


FORMS = {
    "semicolons": ("path;emotion;age_years\na.jpg;sad;8,5\n", "utf-8"),
    "tabs": ("path\temotion\tage_years\na.jpg\tsad\t8,5\n", "utf-16"),
    "a title, empty lines and columns": (
        "\nMy labels;;;;\npath;emotion;age_years;;\na.jpg;sad;8.5;;\n;;;;\n",
        "utf-8-sig",
    ),
    "sep=": ("sep=;\r\npath;emotion;age_years\r\na.jpg;sad;8.5\r\n", "utf-8"),
    "CR alone": ("path,emotion,age_years\ra.jpg,sad,8.5\r", "utf-8"),
    "a column twice": ("path,emotion,age_years,Emotion\na.jpg,sad,8.5,sad\n", "utf-8"),
    "invisible signs": ("path\u200b,\u00a0emotion,age_years\na.jpg\u00a0,sad,8.5\u200b\n", "utf-8"),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_are_read_in_any_form_that_spreadsheets_write(tmp_path: Path, form: str) -> None:
    text, encoding = FORMS[form]
    write_csv(tmp_path, text.encode(encoding))
    found = label(read_folders(tmp_path, ["labels.csv", "a.jpg"]), "a.jpg")
    assert (found.emotion, found.age_years) == ("sadness", 8.5)


def test_korean_windows_labels_are_read_and_it_is_said(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,emotion,subject_id\n아이 하나.jpg,sad,하나\n".encode("cp949"))
    reading = read_folders(tmp_path, ["labels.csv", "아이 하나.jpg"])
    assert label(reading, "아이 하나.jpg").subject == "하나"
    assert reading.notes == (
        "labels.csv: read as cp949 (Korean Windows), not UTF-8, for example '아이'",
    )


@pytest.mark.parametrize("name", ["Labels.csv", "LABELS.CSV", "labels.csv.txt", "labels.tsv"])
def test_labels_are_read_under_the_names_that_windows_makes(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path, "path,emotion\na.jpg,sad\n", name)
    reading = read_folders(tmp_path, [name, "a.jpg"])
    assert label(reading, "a.jpg").emotion == "sadness" and reading.side_files == {name}


def test_labels_are_read_from_a_workbook(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["Our labels"], ["path", "emotion", "subject_id"], ["a.jpg", "sad", 7]):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")
    found = label(read_folders(tmp_path, ["labels.xlsx", "a.jpg"]), "a.jpg")
    assert (found.emotion, found.subject) == ("sadness", "7")
    (tmp_path / "labels.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 100)
    with pytest.raises(DataError, match=r"old Excel workbook .*save it as"):
        read_folders(tmp_path, ["labels.xlsx", "a.jpg"])


def test_a_band_that_excel_made_a_date_of_is_named(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (["path", "age_band"], ["sad/a.jpg", datetime(2024, 9, 3)]):
        book.active.append(row)
    book.save(tmp_path / "labels.xlsx")
    with pytest.raises(DataError, match=r"row 2: column age_band: '2024-09-03.*' is a date"):
        read_folders(tmp_path, ["labels.xlsx", "sad/a.jpg"])


def test_of_two_tables_of_labels_neither_is_chosen(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Labels\.csv and labels\.xlsx could both"):
        read_folders(tmp_path, ["labels.xlsx", "Labels.csv", "sad/a.jpg"])


@pytest.mark.parametrize("name", ["labels (1).csv", "label.csv", "sad/labels.csv", "labels.txt"])
def test_files_with_names_like_labels_are_named(tmp_path: Path, name: str) -> None:
    reading = read_folders(tmp_path, [name, "sad/a.jpg"])
    assert reading.notes == (f"{name} is not read, though its name is like labels.csv",)
    assert not read_folders(tmp_path, ["sad/label.jpg", "labelled.csv"]).notes


def test_words_for_missing_are_no_people(tmp_path: Path) -> None:
    write_csv(tmp_path, "path,subject_id,age_band,gaze\nsad/a.jpg,NA,미상,-\nsad/b.jpg,None,,n/a\n")
    reading = read_folders(tmp_path, ["labels.csv", "sad/a.jpg", "sad/b.jpg"])
    for path in ("sad/a.jpg", "sad/b.jpg"):
        assert label(reading, path) == Label("sadness", "sad")


def test_composed_and_decomposed_names_are_one_person(tmp_path: Path) -> None:
    two = [unicodedata.normalize(form, "김하나") for form in ("NFC", "NFD")]
    write_csv(tmp_path, f"path,subject_id\nsad/a.jpg,{two[0]}\nsad/b.jpg,{two[1]}\u200b\n")
    reading = read_folders(tmp_path, ["labels.csv", "sad/a.jpg", "sad/b.jpg"])
    assert {label(reading, f"sad/{name}.jpg").subject for name in "ab"} == {"김하나"}


@pytest.mark.parametrize("name", INFO_NAMES)
def test_london_reads_names_and_people(tmp_path: Path, name: str) -> None:
    write_csv(tmp_path, HEADER + "001,24,female,white\n002,,male,east_asian/white\n", name)
    images = [f"neutral_front/00{face}_03.jpg" for face in (1, 2, 3)]
    sides = [name, "neutral_front/001_03.tem", "london_faces_ratings.csv"]
    reading = read_london(tmp_path, [*images, "smiling_front/001_08.jpg", *sides])
    assert reading.side_files == set(sides)
    assert label(reading, images[0]) == Label(
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
    without_age = label(reading, images[1])
    assert without_age.age_years is None and without_age.age_source is None
    unlisted = label(reading, images[2])
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
            "optional_datasets": [],
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
