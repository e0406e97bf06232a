"""Adapters of sets whose file names say all: made-up names, and names that no rule may read."""

from dataclasses import asdict
from pathlib import Path

import pytest

from tasks.ingest.adapters import ADAPTERS
from tasks.ingest.label import Fault, Label, age_range
from tasks.ingest.manifest import make_row
from tasks.ingest.scan import Scan

NOWHERE = Path("none")
BANDS = {"child": (0, 10), "adolescent": (10, 18), "adult": (18, 130)}

READ = {
    ("cafe", "angryopen_F-EA-19b.jpg"): {
        "emotion": "anger",
        "emotion_raw": "angryopen",
        "subject": "F-EA-19",
        "gender": "female",
        "ethnicity": "European American",
        "mouth": "open",
        "age_source": "dataset",
    },
    ("cafe", "deep/10021-disgustwithtongue_M-PI-01-2.JPG"): {
        "emotion": "disgust",
        "subject": "M-PI-01",
        "gender": "male",
        "mouth": "open",
    },
    ("cafe", "surprise_F-AA-02.jpg"): {"emotion": "surprise", "mouth": "open"},
    ("cafe", "neutral_F-AA-02.jpeg"): {"emotion": "neutral", "mouth": "closed"},
    ("nimh-chefs", "F10FA_4434.jpg"): {
        "emotion": "fear",
        "emotion_raw": "F",
        "subject": "F10",
        "gender": "female",
        "gaze": "averted",
        "age_source": "dataset",
        "age_years": None,
    },
    ("nimh-chefs", "집/Sad_direct/M7SS_0001.JPG"): {"emotion": "sadness", "gaze": "direct"},
    ("nimh-chefs", "F38HA_1_9330.jpg"): {"subject": "F38", "emotion": "happiness"},
    ("nimh-chefs", "F6_1_AS_3929.jpg"): {"subject": "F6", "emotion": "anger", "gaze": "direct"},
    ("nimh-chefs", "M10_4FS_6817.jpg"): {"subject": "M10", "emotion": "fear", "gaze": "direct"},
    ("nimh-chefs", "M3-2SA_4764.jpg"): {"subject": "M3", "emotion": "sadness", "gaze": "averted"},
    ("nimh-chefs", "F1H1A_3424.jpg"): {"subject": "F1", "emotion": "happiness", "gaze": "averted"},
    ("nimh-chefs", "F6_2FA_5449.jpg"): {"subject": "M6", "gender": "male", "emotion": "fear"},
    ("nimh-chefs", "DSC_4644.jpg"): {"subject": "M2", "gender": "male", "emotion": "fear"},
    ("ddcf", "S04_13yoM_Afraid_far left 1.jpg"): {
        "emotion": "fear",
        "subject": "S04",
        "age_years": 13.0,
        "age_source": "recorded",
        "gender": "male",
        "pose": "far left",
    },
    ("ddcf", "S87_9yoM_Digust_far left 1.jpg"): {"emotion": "disgust", "emotion_raw": "Digust"},
    ("ddcf", "S51_11yoM_HappyTeeth_leftg 2.jpg"): {"emotion": "happiness", "pose": "left"},
    ("ddcf", "S52_9yoF_Angry_far right_2066a.JPG"): {"emotion": "anger", "pose": "far right"},
    ("ddcf", "S98_9yoF_Sad_Front_01.jpg"): {"emotion": "sadness", "pose": "front"},
    ("defss", "1_F8_Sad.jpg"): {
        "emotion": "sadness",
        "subject": "1",
        "age_years": 8.0,
        "age_source": "recorded",
        "gender": "female",
    },
    ("defss", "6_8M_Fear.jpg"): {"subject": "6", "age_years": 8.0, "gender": "male"},
    ("defss", "94_M21_Happy_s.jpg"): {"subject": "94", "age_years": 21.0, "gender": "male"},
    ("rafd", "Rafd090_01_Caucasian_female_contemptuous_frontal.jpg"): {
        "emotion": "contempt",
        "emotion_raw": "contemptuous",
        "subject": "01",
        "gender": "female",
        "ethnicity": "Caucasian",
        "gaze": "frontal",
        "pose": "090",
        "age_years": None,
        "age_source": "dataset",
    },
    ("rafd", "Rafd000_39_Kid_male_sad_left.jpg"): {"ethnicity": "Caucasian", "gaze": "left"},
    ("kdef", "AF01/AF01AFFL.JPG"): {
        "emotion": "fear",
        "subject": "F01",
        "gender": "female",
        "pose": "full left",
        "age_source": "dataset",
    },
    ("kdef", "BF01SUS.jpg"): {"emotion": "surprise", "subject": "F01", "pose": "straight"},
    ("jaffe", "KA.AN1.39.tiff"): {
        "emotion": "anger",
        "subject": "KA",
        "gender": "female",
        "ethnicity": "Japanese",
        "age_source": None,
    },
    ("jaffe", "KA_NE3_3.png"): {"emotion": "neutral", "subject": "KA"},
    ("faces", "004_o_m_a_b.jpg"): {
        "emotion": "anger",
        "subject": "004",
        "gender": "male",
        "age_source": "dataset",
    },
    ("liris-cse", "S10_fear_1_f3.png"): {
        "emotion": "fear",
        "emotion_raw": "fear_1",
        "subject": "S10",
        "gender": "unknown",
        "age_source": "dataset",
    },
    ("liris-cse", "S8_suprise_f2.png"): {"emotion": "surprise", "subject": "S8"},
    ("liris-cse", "S9_happy_5_aloud_f4.png"): {"emotion": "happiness", "subject": "S9"},
    ("liris-cse", "clips/S2_sad/frame_0012.jpg"): {"emotion": "sadness", "subject": "S2"},
    ("six-emotions", "6 Emotions/Pain/whatever 피.jpg"): {
        "emotion": "pain",
        "subject": None,
        "gender": "unknown",
        "age_source": None,
    },
    ("utkface", "part1/26_1_2_20170116174525125.jpg.chip.jpg"): {
        "emotion": None,
        "age_years": 26.0,
        "age_source": "estimated",
        "gender": "female",
        "ethnicity": "Asian",
    },
}

REFUSED = {
    ("cafe", "angry_F-EA-1.jpg"): "unreadable_name",
    ("cafe", "angry_X-EA-01.jpg"): "unreadable_name",
    ("cafe", "angry_F-XX-01.jpg"): "unreadable_name",
    ("cafe", "angry_F-EA-01.png"): "unreadable_name",
    ("cafe", "angry_F-EA-٠١.jpg"): "unreadable_name",
    ("cafe", "copy of angry_F-EA-01.jpg"): "unreadable_name",
    ("cafe", "bored_F-EA-01.jpg"): "unknown_label",
    ("nimh-chefs", "F10XA_4434.jpg"): "unreadable_name",
    ("nimh-chefs", "F10FA.jpg"): "unreadable_name",
    ("nimh-chefs", "Fear_direct/DSC_0001.jpg"): "unreadable_name",
    ("nimh-chefs", "Happy_direct/F10FA_4434.jpg"): "conflicting_labels",
    ("nimh-chefs", "Afraid_direct/F10FA_4434.jpg"): "conflicting_labels",
    ("nimh-chefs", "Thumbs.db"): "unreadable_name",
    ("ddcf", "S04_13yoM_Pleased_left 1.jpg"): "unknown_label",
    ("ddcf", "S111_13yoF_HappyNoTeeth_front1.JPG"): "unknown_label",
    ("ddcf", "S111_13yoF_far left_01.JPG"): "unreadable_name",
    ("ddcf", "S99_7yoF_exp_left_4108.JPG"): "unreadable_name",
    ("defss", "1_F8_Surprise.jpg"): "unreadable_name",
    ("defss", "1_8_Sad.jpg"): "unreadable_name",
    ("rafd", "Rafd010_01_Caucasian_female_angry_frontal.jpg"): "unreadable_name",
    ("rafd", "Rafd090_01_Kid_angry_frontal.jpg"): "unreadable_name",
    ("kdef", "AF31.JPG"): "unreadable_name",
    ("kdef", "CF01AFS.JPG"): "unreadable_name",
    ("jaffe", "KA.XX1.39.tiff"): "unreadable_name",
    ("faces", "004_x_m_a_a.jpg"): "unreadable_name",
    ("liris-cse", "S10_fear_1_f1.png"): "unlabelled_frame",
    ("liris-cse", "S10_fear_surprise_2_f3.png"): "two_labels",
    ("liris-cse", "S12_fear_surpsrise_f2.png"): "two_labels",
    ("liris-cse", "S10_bored_f3.png"): "unreadable_name",
    ("liris-cse", "S10_f3.png"): "unreadable_name",
    ("six-emotions", "loose.jpg"): "no_label",
    ("six-emotions", "surprise/a.jpg"): "unknown_label",
    ("utkface", "61_1_20170109142408075.jpg"): "unreadable_name",
    ("utkface", "53__0_20170116184028385.jpg"): "unreadable_name",
}


def read_one(adapter: str, path: str) -> Label | Fault:
    reading = ADAPTERS[adapter](NOWHERE, [path])
    assert list(reading.labels) == [path] and not reading.side_files and not reading.missing
    return reading.labels[path]


@pytest.mark.parametrize(("adapter", "path"), READ)
def test_names_are_read(adapter: str, path: str) -> None:
    label = read_one(adapter, path)
    assert isinstance(label, Label), label
    expected = READ[adapter, path]
    assert {key: value for key, value in asdict(label).items() if key in expected} == expected


@pytest.mark.parametrize(("adapter", "path"), READ)
def test_folders_around_and_the_case_of_the_suffix_say_nothing(adapter: str, path: str) -> None:
    stem, _, suffix = path.rpartition(".")
    moved = f"아이들/deep er/{stem}.{suffix.swapcase()}"
    assert read_one(adapter, moved) == read_one(adapter, path)


@pytest.mark.parametrize(("adapter", "path"), REFUSED)
def test_names_that_no_rule_reads_are_refused(adapter: str, path: str) -> None:
    fault = read_one(adapter, path)
    assert isinstance(fault, Fault), fault
    assert fault.reason == REFUSED[adapter, path] and fault.detail and "\n" not in fault.detail


def test_a_image_of_nimh_under_two_names_is_kept_once() -> None:
    paths = ["a/DSC_4644.jpg", "a/M2FA_4644.jpg", "F6_2FA_5449.jpg"]
    labels = ADAPTERS["nimh-chefs"](NOWHERE, paths).labels
    assert labels["a/DSC_4644.jpg"].reason == "duplicate"
    assert "M2FA_4644" in labels["a/DSC_4644.jpg"].detail
    assert labels["a/M2FA_4644.jpg"].subject == "M2"
    assert labels["F6_2FA_5449.jpg"].subject == "M6"


@pytest.mark.parametrize(
    ("adapter", "path", "bands", "band"),
    [
        ("cafe", "sad_F-EA-01.jpg", BANDS, "child"),
        ("cafe", "sad_F-EA-01.jpg", {"toddler": (0, 4), "child": (4, 10)}, "unknown"),
        ("nimh-chefs", "F10FA_4434.jpg", BANDS, "adolescent"),
        ("nimh-chefs", "F10FA_4434.jpg", {"child": (0, 12), "teen": (12, 18)}, "unknown"),
        ("kdef", "AF01AFFL.JPG", BANDS, "adult"),
        ("faces", "004_y_m_a_a.jpg", {"adult": (18, 60), "old": (60, 130)}, "adult"),
        ("faces", "004_o_m_a_a.jpg", {"adult": (18, 60), "old": (60, 130)}, "old"),
        ("faces", "004_m_m_a_a.jpg", {"young": (18, 40), "old": (40, 130)}, "unknown"),
        ("rafd", "Rafd090_01_Kid_male_sad_left.jpg", BANDS, "unknown"),
        ("rafd", "Rafd090_01_Kid_male_sad_left.jpg", {"minor": (0, 18)}, "minor"),
        ("rafd", "Rafd090_01_Moroccan_male_sad_left.jpg", BANDS, "adult"),
        ("liris-cse", "S10_fear_1_f3.png", BANDS, "unknown"),
        ("jaffe", "KA.AN1.39.tiff", BANDS, "unknown"),
    ],
)
def test_a_range_becomes_a_band_only_as_a_whole(adapter, path, bands, band) -> None:
    row = make_row("set", path, read_one(adapter, path), Scan("ab" * 32, 40, 30), bands)
    assert row.age_band == band and row.age_years is None
    assert row.age_source == (None if adapter == "jaffe" else "dataset")


def test_an_open_range_ends_with_the_longest_life() -> None:
    label = Label("fear", "fear", age_range=age_range(70, None), age_source="estimated")
    scan = Scan("ab" * 32, 40, 30)
    assert make_row("set", "a.jpg", label, scan, BANDS).age_band == "adult"
    assert make_row("set", "a.jpg", label, scan, {"adult": (18, 100)}).age_band == "unknown"


def test_a_label_without_emotion_is_no_row() -> None:
    fault = make_row("set", "a.jpg", Label(None, ""), Scan("ab" * 32, 40, 30), BANDS)
    assert isinstance(fault, Fault) and fault.reason == "no_label"
