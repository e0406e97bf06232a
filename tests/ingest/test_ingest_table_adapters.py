"""Adapters that need tables beside the pictures, on folders of gradients; some the whole way."""

import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tasks.core.errors import DataError, ParamsError
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.ingest import stage
from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import AdapterResult, Fault, Label
from tasks.ingest.list_files import list_files

BANDS = {"child": [0, 10], "adolescent": [10, 18], "adult": [18, 130]}


def gradient(seed: int, kind: str = "JPEG") -> bytes:
    """A picture of no face: two ramps whose slopes the seed sets."""
    across, down = np.meshgrid(np.arange(50), np.arange(60))
    gray = (across * (seed % 7 + 1) + down * (seed // 7 + 1)) % 256
    buffer = io.BytesIO()
    Image.fromarray(gray.astype(np.uint8)).convert("RGB").save(buffer, kind)
    return buffer.getvalue()


def fill(folder: Path, files: Mapping[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def read(adapter: str, folder: Path) -> AdapterResult:
    return ADAPTERS[adapter](folder, list_files(folder).files)


def seen(reading: AdapterResult, key: str = "emotion") -> dict[str, object]:
    return {
        path: f"!{label.reason}" if isinstance(label, Fault) else getattr(label, key)
        for path, label in reading.labels.items()
    }


def ingest(root: Path, monkeypatch: pytest.MonkeyPatch, **adapters: str):
    """Run the whole stage; the manifest by path, the rejects' reasons by path, and its summary."""
    monkeypatch.setattr(stage, "process_pool", lambda workers: ThreadPoolExecutor(2))
    content = {
        "datasets": {
            name.replace("_", "-"): {"adapter": adapter} for name, adapter in adapters.items()
        },
        "age_bands": BANDS,
        "optional_datasets": [],
        "max_pixels": 1_000_000,
        "workers": 1,
    }
    params = parse_section("ingest", {"ingest": content}, stage.Params, Path("params.yaml"))
    paths = Paths(root)
    result = stage.run(params, paths)
    manifest = pq.read_table(paths.manifest).to_pandas().set_index("path")
    rejects = pd.read_csv(paths.rejects("ingest"), dtype="str", keep_default_na=False)
    assert result.metrics["files"] == len(manifest) + len(rejects)
    return manifest, dict(zip(rejects["path"], rejects["reason"], strict=True)), result.summary


LANDMARKS = "1.5\t2.5\n" * 5


def raf_db(folder: Path) -> None:
    people = ("0\n0\n1\n", "1\n2\n2\n", "2\n1\n4\n", "0\n0\n0\n")
    files = {
        "EmoLabel/list_patition_label.txt": "train_00001.jpg 5\ntrain_00002.jpg 1\n"
        "train_00003.jpg 4\ntrain_00004.jpg 7\ntest_00009.jpg 6\n",
        "Annotation/auto/train_00001_auto_attri.txt": "not looked at",
        "Image/aligned/train_00001_aligned.jpg": gradient(90),
        "Image/aligned/train_00004_aligned.jpg": gradient(4),
        "Image/original/train_00008.jpg": gradient(8),
        "Image/original/._train_00001.jpg": bytes(217),
        "Image/original/portrait.jpg": gradient(9),
    }
    for number, person in enumerate(people, start=1):
        files[f"Annotation/manual/train_{number:05}_manu_attri.txt"] = LANDMARKS + person
        if number < 4:
            files[f"Image/original/train_{number:05}.jpg"] = gradient(number)
    fill(folder, files)


def test_raf_db_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raf_db(tmp_path / "data/raw/raf-db")
    manifest, rejects, _ = ingest(tmp_path, monkeypatch, raf_db="raf-db")
    assert manifest["emotion"].to_dict() == {
        "raf-db/Image/aligned/train_00004_aligned.jpg": "neutral",
        "raf-db/Image/original/train_00001.jpg": "sadness",
        "raf-db/Image/original/train_00002.jpg": "surprise",
        "raf-db/Image/original/train_00003.jpg": "happiness",
    }
    assert manifest["emotion_raw"].tolist() == ["7", "5", "1", "4"]
    assert manifest["gender"].tolist() == ["male", "male", "female", "unknown"]
    assert manifest["age_band"].tolist() == ["child", "unknown", "adult", "adult"]
    assert set(manifest["age_source"]) == {"estimated"} and manifest["age_years"].isna().all()
    assert manifest["ethnicity"].tolist() == [
        "Caucasian",
        "Caucasian",
        "Asian",
        "African-American",
    ]
    assert not manifest["subject_known"].any()
    assert rejects == {
        "raf-db/Image/aligned/train_00001_aligned.jpg": "other_version",
        "raf-db/Image/original/train_00008.jpg": "no_label",
        "raf-db/Image/original/portrait.jpg": "unreadable_name",
        "raf-db/Image/original/._train_00001.jpg": "hidden",
        "raf-db/test_00009.jpg": "missing_file",
    }


@pytest.mark.parametrize(
    ("path", "content", "named"),
    [
        ("EmoLabel/list_patition_label.txt", "train_00001 5\n", "line 1"),
        ("Annotation/manual/train_00001_manu_attri.txt", LANDMARKS + "0\n0\n9\n", "age class 0-4"),
        ("Annotation/manual/train_00001_manu_attri.txt", LANDMARKS + "0\n", "three lines"),
    ],
)
def test_raf_db_files_that_cannot_be_read(tmp_path: Path, path, content, named) -> None:
    raf_db(tmp_path)
    (tmp_path / path).write_text(content)
    with pytest.raises(DataError, match=named) as caught:
        read("raf-db", tmp_path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,"
    "valence,arousal\n"
)


def affectnet_row(path: str, code: int) -> str:
    return f"{path},0,0,9,9,1.5;2.5,{code},0.1,-0.2\n"


def test_affectnet_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "data/raw/affectnet"
    codes = dict(enumerate((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)))
    training = AFFECTNET_HEADER + "".join(
        affectnet_row(f"1/{name}.jpg", code) for name, code in codes.items()
    )
    fill(raw, {f"Manually_Annotated_Images/1/{name}.jpg": gradient(name) for name in codes})
    fill(
        raw,
        {
            "training.csv": training + affectnet_row("2/gone.jpg", 1),
            "validation.csv": affectnet_row("3/a.png", 1) + affectnet_row("3/b.png", 3),
            "automatically_annotated.csv": AFFECTNET_HEADER + affectnet_row("999/x.jpg", 1),
            "Manually_Annotated_Images/3/a.png": gradient(30, "PNG"),
            "Manually_Annotated_Images/3/b.png": gradient(31, "PNG"),
            "Manually_Annotated_Images/3/c.png": gradient(32, "PNG"),
        },
    )
    manifest, rejects, summary = ingest(tmp_path, monkeypatch, affectnet="affectnet")
    images = "affectnet/Manually_Annotated_Images"
    assert manifest["emotion"].to_dict() == {
        f"{images}/1/0.jpg": "neutral",
        f"{images}/1/1.jpg": "happiness",
        f"{images}/1/2.jpg": "sadness",
        f"{images}/1/3.jpg": "surprise",
        f"{images}/1/4.jpg": "fear",
        f"{images}/1/5.jpg": "disgust",
        f"{images}/1/6.jpg": "anger",
        f"{images}/1/7.jpg": "contempt",
        f"{images}/3/a.png": "happiness",
        f"{images}/3/b.png": "surprise",
    }
    assert rejects == {
        f"{images}/1/8.jpg": "no_emotion",
        f"{images}/1/9.jpg": "no_emotion",
        f"{images}/1/10.jpg": "no_emotion",
        f"{images}/1/11.jpg": "unknown_label",
        f"{images}/3/c.png": "no_label",
        "affectnet/2/gone.jpg": "missing_file",
    }
    assert "automatically_annotated.csv: none of its pictures is there" in summary


def test_affectnet_two_tables_that_contradict_each_other(tmp_path: Path) -> None:
    row = affectnet_row
    fill(tmp_path, {"a.csv": AFFECTNET_HEADER + row("1/x.jpg", 1), "1/x.jpg": gradient(1)})
    fill(tmp_path, {"b.csv": AFFECTNET_HEADER + row("1/x.jpg", 2)})
    assert seen(read("affectnet", tmp_path)) == {"1/x.jpg": "!conflicting_labels"}
    (tmp_path / "b.csv").write_text("picture,mood\n1,2\n")
    with pytest.raises(DataError, match=r"b\.csv: needs the columns subDirectory_filePath"):
        read("affectnet", tmp_path)


def test_affectnet_with_an_array_beside_each_image(tmp_path: Path) -> None:
    for number, code in enumerate((1, 7, 8)):
        fill(tmp_path, {f"val_set/images/{number}.jpg": gradient(number)})
        (tmp_path / "val_set/annotations").mkdir(exist_ok=True)
        np.save(tmp_path / f"val_set/annotations/{number}_exp.npy", np.array(str(code)))
        np.save(tmp_path / f"val_set/annotations/{number}_val.npy", np.array("0.5"))
    fill(tmp_path, {"val_set/images/9.jpg": gradient(9)})
    assert seen(read("affectnet", tmp_path)) == {
        "val_set/images/0.jpg": "happiness",
        "val_set/images/1.jpg": "contempt",
        "val_set/images/2.jpg": "!no_emotion",
        "val_set/images/9.jpg": "!no_label",
    }
    (tmp_path / "val_set/annotations/0_exp.npy").write_bytes(b"x")
    with pytest.raises(DataError, match=r"0_exp\.npy: is no NumPy array"):
        read("affectnet", tmp_path)


def test_ck_plus_takes_the_labelled_peak_and_the_first_frame(tmp_path: Path) -> None:
    sequence = "cohn-kanade-images/S005/001/S005_001_"
    files = {f"{sequence}{frame:08}.png": gradient(frame, "PNG") for frame in (1, 2, 11)}
    files |= {
        "cohn-kanade-images/S010/002/S010_002_00000001.png": gradient(20, "PNG"),
        "cohn-kanade-images/S010/002/odd.png": gradient(21, "PNG"),
        "Emotion/S005/001/S005_001_00000011_emotion.txt": "   3.0000000e+00\n",
        "Emotion/S099/001/S099_001_00000014_emotion.txt": "   7.0000000e+00\n",
        "Landmarks/S005/001/S005_001_00000001_landmarks.txt": "1 2",
    }
    fill(tmp_path, files)
    reading = read("ck-plus", tmp_path)
    assert seen(reading) == {
        f"{sequence}00000001.png": "neutral",
        f"{sequence}00000002.png": "!unlabelled_frame",
        f"{sequence}00000011.png": "disgust",
        "cohn-kanade-images/S010/002/S010_002_00000001.png": "!no_label",
        "cohn-kanade-images/S010/002/odd.png": "!unreadable_name",
    }
    assert list(reading.missing) == ["S099_001_00000014.png"]
    peak = reading.labels[f"{sequence}00000011.png"]
    assert (peak.subject, peak.age_range.words, peak.age_source) == ("S005", "18-50", "dataset")
    (tmp_path / "Emotion/S005/001/S005_001_00000011_emotion.txt").write_text("three")
    with pytest.raises(DataError, match="'three' is not an emotion's code"):
        read("ck-plus", tmp_path)


def test_fer_plus_takes_the_emotion_with_most_votes(tmp_path: Path) -> None:
    head = (
        "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,"
        "unknown,NF\n"
    )
    votes = {
        0: ("fer0000000.png", "4,0,0,1,3,2,0,0,0,0", "neutral"),
        1: ("fer0000001.png", "4,0,0,4,1,0,0,0,1,0", "!tied_votes"),
        2: ("fer0000002.png", "1,0,0,1,0,0,0,0,8,0", "!no_emotion"),
        3: ("", "0,0,0,0,0,0,0,0,0,10", "!no_emotion"),
        4: ("fer0000004.png", "0,0,0,0,1,0,0,9,0,0", "contempt"),
    }
    lines = [f"Training,{name},{cells}" for name, cells, _ in votes.values()]
    fill(tmp_path, {"fer2013new.csv": head + "\n".join(lines) + "\n"})
    # The labels of FER2013 itself lie there too; those of FER+ are used.
    fill(tmp_path, {"fer2013_labels.csv": "file,emotion,usage\nfer0000000.png,3,Training\n"})
    fill(tmp_path, {f"FER2013Train/fer{row:07}.png": gradient(row, "PNG") for row in (*votes, 7)})
    reading = read("fer2013", tmp_path)
    expected = {f"FER2013Train/fer{row:07}.png": label for row, (_, _, label) in votes.items()}
    assert seen(reading) == {**expected, "FER2013Train/fer0000007.png": "!no_label"}
    no_face = reading.labels["FER2013Train/fer0000003.png"]
    assert "no face" in no_face.detail
    (tmp_path / "fer2013new.csv").write_text(head + "Training,a.png,x,0,0,0,0,0,0,0,0,0\n")
    with pytest.raises(DataError, match="row 2: votes must be whole numbers"):
        read("fer2013", tmp_path)


def test_fer2013_images_with_the_table_of_pixels_beside_them(tmp_path: Path) -> None:
    fill(
        tmp_path, {"icml_face_data.csv": "emotion, Usage, pixels\n0,Training,1 2\n6,PublicTest,3\n"}
    )
    fill(tmp_path, {f"all/fer000000{row}.png": gradient(row, "PNG") for row in (0, 1)})
    assert seen(read("fer2013", tmp_path)) == {
        "all/fer0000000.png": "anger",
        "all/fer0000001.png": "neutral",
    }
    (tmp_path / "icml_face_data.csv").unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv"):
        read("fer2013", tmp_path)


FAIRFACE_HEADER = "file,age,gender,race,service_test\n"


def test_fairface_has_people_and_no_emotions(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {
            "fairface_label_train.csv": FAIRFACE_HEADER
            + "train/1.jpg,50-59,Male,East Asian,True\n"
            + "train/2.jpg,more than 70,Female,Latino_Hispanic,False\n"
            + "train/3.jpg,old,Female,Indian,False\n",
            "fairface-img/train/1.jpg": gradient(1),
            "fairface-img/train/2.jpg": gradient(2),
            "fairface-img/train/3.jpg": gradient(3),
            "fairface-img/train/4.jpg": gradient(4),
        },
    )
    reading = read("fairface", tmp_path)
    assert seen(reading, "gender") == {
        "fairface-img/train/1.jpg": "male",
        "fairface-img/train/2.jpg": "female",
        "fairface-img/train/3.jpg": "!unknown_label",
        "fairface-img/train/4.jpg": "!no_label",
    }
    first = reading.labels["fairface-img/train/1.jpg"]
    assert (first.emotion, first.age_range[:2], first.ethnicity) == (None, (50, 60), "East Asian")


@pytest.mark.parametrize("adapter", ["raf-db", "affectnet", "fer2013", "ck-plus", "fairface"])
def test_a_folder_without_its_tables_says_which_are_missing(tmp_path: Path, adapter: str) -> None:
    fill(tmp_path, {"train/1.jpg": gradient(1)})
    with pytest.raises(DataError) as caught:
        read(adapter, tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("adapter", ["fairface", "utkface"])
def test_sets_without_emotions_are_not_ingested(tmp_path, monkeypatch, adapter) -> None:
    with pytest.raises(ParamsError) as caught:
        ingest(tmp_path, monkeypatch, mine=adapter)
    text = str(caught.value)
    assert f"affectgap datasets count folder --adapter {adapter}" in text and "\n" not in text


CAFE = {
    "angry_F-EA-01.jpg": 7.0,
    "angry_F-EA-02.jpg": 4.5,
    "sadopen_M-AA-03.jpg": None,
}


def cafe_sheet(path: Path, rows: list[list[object]]) -> None:
    if path.suffix == ".csv":
        lines = (";".join("" if cell is None else str(cell) for cell in row) for row in rows)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


SHEETS = {
    "by child.csv": [["Model ID", "Age (years)"], ["F-EA-01", 7], ["F EA 2", 4.5]],
    "by picture.xlsx": [
        ["CAFE demographics"],
        [],
        ["Image Name", "Race", "Age"],
        ["12-angry_F-EA-01.jpg", "EA", 7],
        ["angry_F-EA-02", "EA", 4.5],
    ],
    "with numbered rows.csv": [
        ["ID", "Age", "Picture", "Rating"],
        [1, 7, "angry_F-EA-01.jpg", 0.9],
        [2, 4.5, "angry_F-EA-02.jpg", 0.8],
    ],
    "in months.xlsx": [["Subject #", "Age in months"], ["F-EA-01", 84], ["F-EA-02", 54]],
    "by columns.xlsx": [
        ["Subject number", "Sex", "Race/Ethnicity", "Age"],
        [1, "F", "Caucasian/European American", 7],
        [2, "female", "European American", 4.5],
        [3, "M", "African American", None],
    ],
}


@pytest.mark.parametrize("name", SHEETS)
def test_cafe_with_its_spreadsheet_the_whole_way(tmp_path, monkeypatch, name) -> None:
    raw = tmp_path / "data/raw/cafe"
    fill(raw, {f"세트/{path}": gradient(seed) for seed, path in enumerate(CAFE)})
    fill(raw, {"세트/._angry_F-EA-01.jpg": bytes(217)})
    cafe_sheet(raw / name, SHEETS[name])
    manifest, rejects, summary = ingest(tmp_path, monkeypatch, cafe="cafe")
    ages = manifest["age_years"].astype(object).where(manifest["age_years"].notna(), None)
    assert ages.to_dict() == {f"cafe/세트/{path}": age for path, age in CAFE.items()}
    assert manifest["age_source"].tolist() == ["recorded", "recorded", "dataset"]
    assert set(manifest["age_band"]) == {"child"}
    assert manifest["subject_id"].tolist() == ["cafe/F-EA-01", "cafe/F-EA-02", "cafe/M-AA-03"]
    assert manifest["mouth"].tolist() == ["closed", "closed", "open"]
    assert rejects == {"cafe/세트/._angry_F-EA-01.jpg": "hidden"}
    assert "not understood" not in summary


def test_cafe_rows_that_are_not_understood_are_said_in_one_line(tmp_path: Path) -> None:
    fill(tmp_path, {path: gradient(1) for path in CAFE})
    rows = [
        ["Subject", "Age"],
        ["F-EA-01", "64"],
        ["F-EA-02", "4.5"],
        ["X-12", "5"],
        ["M-AA-03", "5"],
        ["M-AA-03", "6"],
    ]
    cafe_sheet(tmp_path / "ages.csv", rows)
    reading = read("cafe", tmp_path)
    assert reading.side_files == {"ages.csv"}
    assert [label.age_years for label in reading.labels.values()] == [None, 4.5, None]
    assert reading.notes == (
        "ages.csv: 2 of 5 rows not understood (row 2: age '64', where the set states 2-8 years)",
        "ages.csv: 1 with several ages, taken as unknown (M-AA-03)",
    )


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([["Code", "Rating"], ["F-EA-01", 7]], "the first row is Code, Rating"),
        ([["Subject", "Age"], ["?", 7]], "none of its 1 rows"),
        ([["Subject", "Age"]], "none of its 0 rows"),
    ],
)
def test_cafe_sheets_of_which_nothing_is_understood(tmp_path: Path, rows, named) -> None:
    fill(tmp_path, {path: gradient(1) for path in CAFE})
    cafe_sheet(tmp_path / "ages.xlsx", rows)
    with pytest.raises(DataError) as caught:
        read("cafe", tmp_path)
    text = str(caught.value)
    assert named in text and "ages.xlsx" in text and "\n" not in text


def test_cafe_with_a_torn_sheet_and_with_several(tmp_path: Path) -> None:
    fill(tmp_path, {**{path: gradient(1) for path in CAFE}, "a.xlsx": b"PK torn"})
    with pytest.raises(DataError, match=r"a\.xlsx: cannot be read as a table"):
        read("cafe", tmp_path)
    cafe_sheet(tmp_path / "b.csv", SHEETS["by child.csv"])
    reading = read("cafe", tmp_path)
    assert reading.notes == ("a.xlsx: not used",)
    assert reading.labels["angry_F-EA-02.jpg"].age_years == 4.5
    cafe_sheet(tmp_path / "c.xlsx", SHEETS["by picture.xlsx"])
    with pytest.raises(DataError, match=r"b\.csv and c\.xlsx both have ages"):
        read("cafe", tmp_path)


SHEET_FORMS = {
    "semicolons and decimal commas": b"Subject;Age\nF-EA-01;7,0\nF-EA-02;4,5\n",
    "Korean Windows": "이름,Subject,Age\n하나,F-EA-01,7\n두나,F-EA-02,4.5\n".encode("cp949"),
    "UTF-16 and words for missing": "Subject\tAge\tSex\nF-EA-01\t7\t-\n\nF-EA-02\t4.5\tNA\n".encode(
        "utf-16"
    ),
    "a column twice": b"Subject,Age,Age\nF-EA-01,7,7\nF-EA-02,4.5,4.5\n",
}


@pytest.mark.parametrize("form", SHEET_FORMS)
def test_cafe_sheets_are_read_in_any_form(tmp_path: Path, form) -> None:
    fill(tmp_path, {path: gradient(1) for path in CAFE} | {"ages.csv": SHEET_FORMS[form]})
    ages = [label.age_years for label in read("cafe", tmp_path).labels.values()]
    assert ages == [7.0, 4.5, None]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("a.csv", b'Subject,Age\nF-EA-01,"7\nF-EA-02,5"\n', "a quote that opens in line 2"),
        ("a.csv", b"Subject,Age,Age\nF-EA-01,7,5\n", "two columns have the same header"),
        ("a.csv", b"Subject,Age\nF-EA-01,3-Sep\n", "'3-Sep' is a date"),
        ("a.csv", "Subject,Âge\nF-EA-01,7\n".encode("latin-1"), "is not UTF-8"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" * 99, "save it as .xlsx"),
    ],
)
def test_cafe_sheets_that_mislead_stop_with_one_line(tmp_path: Path, name, content, named) -> None:
    fill(tmp_path, {path: gradient(1) for path in CAFE} | {name: content})
    with pytest.raises(DataError) as caught:
        read("cafe", tmp_path)
    assert named in str(caught.value) and name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cafe_ages_on_the_second_sheet_of_a_workbook(tmp_path: Path) -> None:
    fill(tmp_path, {path: gradient(1) for path in CAFE})
    book = openpyxl.Workbook()
    book.active.append(["Ratings of 100 adults"])
    ages = book.create_sheet("Demographics")
    for row in SHEETS["by child.csv"]:
        ages.append(row)
    book.save(tmp_path / "CAFE.xlsx")
    assert read("cafe", tmp_path).labels["angry_F-EA-01.jpg"].age_years == 7.0


def test_liris_takes_age_and_gender_from_its_participants(tmp_path: Path) -> None:
    fill(tmp_path, {"S1_sad_f2.png": gradient(1, "PNG"), "S12_sad_f2.png": gradient(2, "PNG")})
    fill(tmp_path, {"participants.csv": "Participant,Gender,Age\nS01,Male,9\n12.0,n/a,미상\n"})
    reading = read("liris-cse", tmp_path)
    assert reading.notes == ()  # of the second it is known that nothing is known
    known, other = (reading.labels[f"{name}_sad_f2.png"] for name in ("S1", "S12"))
    assert (known.age_years, known.age_source, known.gender) == (9.0, "recorded", "male")
    assert isinstance(other, Label)
    assert (other.age_years, other.age_source, other.gender) == (None, "dataset", "unknown")


def test_data_sets_that_are_not_there_are_named_in_one_go(tmp_path, monkeypatch) -> None:
    with pytest.raises(DataError) as caught:
        ingest(tmp_path, monkeypatch, cafe="cafe", nimh_chefs="nimh-chefs")
    text = str(caught.value)
    assert "\n" not in text
    for name in ("cafe", "nimh-chefs"):
        assert f"affectgap intake PATH --dataset {name}" in text
        assert f"affectgap datasets show {name}" in text
