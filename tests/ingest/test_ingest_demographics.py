"""Counting who is in a data set, for every adapter, without decoding."""

from pathlib import Path

import pytest

from flows.datasets.demographics import COLUMNS, Demographics, count_demographics
from tasks.core.errors import DataError, UserError
from tasks.ingest.adapters import ADAPTERS

BANDS = {"child": (0, 10), "adolescent": (10, 18), "adult": (18, 130)}
FAIRFACE = "file,age,gender,race,service_test\n" + "".join(
    f"train/{number}.jpg,{age},{gender},{race},True\n"
    for number, (age, gender, race) in enumerate(
        [
            ("0-2", "Male", "White"),
            ("3-9", "Female", "Black"),
            ("10-19", "Female", "Black"),
            ("20-29", "Female", "Black"),
            ("more than 70", "Male", "White"),
        ],
        start=1,
    )
)


def touch(folder: Path, *names: str) -> Path:
    """Files that are no pictures: nothing may decode them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture")
    return folder


def counts(found: Demographics, attribute: str) -> dict[str, int]:
    rows = found.table[found.table["attribute"] == attribute]
    assert rows["share"].sum() == pytest.approx(1)
    assert rows["n"].sum() == found.n
    return dict(zip(rows["group"], rows["n"], strict=True))


@pytest.mark.parametrize("with_images", [True, False])
def test_fairface_by_its_tables(tmp_path: Path, with_images: bool) -> None:
    (tmp_path / "fairface_label_val.csv").write_text(FAIRFACE)
    if with_images:
        touch(tmp_path, *(f"img/train/{number}.jpg" for number in (1, 2, 3, 4, 5)))
    found = count_demographics(tmp_path, "fairface", BANDS)
    assert list(found.table.columns) == list(COLUMNS)
    assert counts(found, "age_band") == {"adult": 2, "child": 2, "unknown": 1}
    assert counts(found, "age_group") == {
        "0-2": 1,
        "10-19": 1,
        "20-29": 1,
        "3-9": 1,
        "more than 70": 1,
    }
    assert counts(found, "gender") == {"female": 3, "male": 2}
    assert counts(found, "ethnicity") == {"Black": 3, "White": 2}
    assert found.summary() == "5 pictures counted"


def test_utkface_by_its_names_and_what_is_left_out(tmp_path: Path) -> None:
    names = ["5_1_0_20170116174525125.jpg", "40_0_4_20170116174525126.jpg", "61_1_2017.jpg"]
    found = count_demographics(touch(tmp_path, *names, "._x.jpg"), "utkface", BANDS)
    assert counts(found, "age_band") == {"adult": 1, "child": 1}
    assert counts(found, "gender") == {"female": 1, "male": 1}
    assert "age_group" not in set(found.table["attribute"])
    summary = found.summary()
    assert "2 pictures counted" in summary
    assert "1 unreadable_name" in summary and "1 hidden" in summary


def test_a_set_with_emotions_and_unknown_people(tmp_path: Path) -> None:
    touch(tmp_path, "Rafd090_39_Kid_male_sad_left.jpg")
    touch(tmp_path, "Rafd090_01_Moroccan_male_sad_left.jpg")
    found = count_demographics(tmp_path, "rafd", BANDS)
    assert counts(found, "age_band") == {"adult": 1, "unknown": 1}
    assert counts(found, "age_group") == {"Kid": 1, "adult": 1}


def test_ages_in_years_beside_a_range(tmp_path: Path) -> None:
    touch(tmp_path, "sad_F-EA-01.jpg", "sad_M-EA-02.jpg")
    (tmp_path / "ages.csv").write_text("subject,age\nF-EA-01,5.5\n")
    found = count_demographics(tmp_path, "cafe", BANDS)
    assert counts(found, "age_band") == {"child": 2}
    assert counts(found, "age_group") == {"2-8": 1, "recorded in years": 1}


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--adapter 'vggface2': use one of affectnet, cafe"):
        count_demographics(tmp_path, "vggface2", BANDS)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        count_demographics(tmp_path / "nowhere", "cafe", BANDS)
    for adapter in sorted(ADAPTERS):
        folder = touch(tmp_path / adapter, "portrait of someone.txt")
        with pytest.raises(DataError) as caught:
            count_demographics(folder, adapter, BANDS)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
