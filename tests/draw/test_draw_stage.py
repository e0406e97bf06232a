"""The drawn cohort as files: same bytes every time, names that read back, truth that fits."""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.errors import ParamsError
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.core.tables import read_table
from tasks.draw.plan import ImageName
from tasks.draw.stage import Params, run
from tasks.ingest.adapters.drawn import read_name
from tasks.ingest.label import Fault, Label

EMOTIONS = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
STYLE = {"intensity_mean": 0.6, "intensity_sd": 0.2, "unit_mixing": 0.2}
SECTION: dict[str, Any] = {
    "seed": 3,
    "size_px": 256,
    "subjects": {"adult": 2, "child": 2, "adolescent": 1},
    "images_per_emotion": 1,
    "emotions": EMOTIONS,
    "expression": {"adult": STYLE, "adolescent": STYLE, "child": STYLE},
    "workers": 1,
}


def params(**changes: Any) -> Params:
    return parse_section("draw", {"draw": {**SECTION, **changes}}, Params, Path("params.yaml"))


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    run(params(), Paths(folder))
    return folder


@pytest.fixture(scope="module")
def truth(root: Path) -> pd.DataFrame:
    return read_table(Paths(root).truth / "truth.parquet")


def mask_of(root: Path, row: pd.Series) -> np.ndarray:
    with (Paths(root).truth / "masks" / row["shard"]).open("rb") as handle:
        handle.seek(row["offset_bytes"])
        return np.asarray(Image.open(io.BytesIO(handle.read(row["size_bytes"]))))


def test_two_workers_draw_the_same_bytes(root: Path, tmp_path: Path) -> None:
    run(params(workers=2), Paths(tmp_path))
    assert len(digests(root)) == 5 * 7 + 2
    assert digests(tmp_path) == digests(root)


def test_more_subjects_leave_the_others_as_they_are(root: Path, tmp_path: Path) -> None:
    run(params(subjects={"adult": 3, "child": 1}, emotions=["fear", "anger"]), Paths(tmp_path))
    before, after = digests(Paths(root).drawn), digests(Paths(tmp_path).drawn)
    shared = before.keys() & after.keys()
    assert len(shared) == 3 * 2
    assert all(before[name] == after[name] for name in shared)


def test_another_seed_draws_other_people(root: Path, tmp_path: Path) -> None:
    run(params(seed=4, subjects={"adult": 1}, emotions=["anger"]), Paths(tmp_path))
    (name, digest), *rest = digests(Paths(tmp_path).drawn).items()
    assert not rest
    assert digests(Paths(root).drawn)[name] != digest


def test_every_image_has_a_name_that_reads_back_as_its_truth(
    root: Path, truth: pd.DataFrame
) -> None:
    files = sorted(path.name for path in Paths(root).drawn.iterdir())
    assert files == sorted(truth["image"])
    for row in truth.itertuples():
        name = ImageName(row.subject, row.age_years, row.gender, row.emotion, row.take)
        assert name.file_name == row.image
        label = read_name(row.image)
        assert isinstance(label, Label)
        assert (label.subject, label.age_years) == (row.subject, row.age_years)
        assert (label.gender, label.emotion) == (row.gender, row.emotion)


def test_a_subject_keeps_age_gender_and_cohort(truth: pd.DataFrame) -> None:
    assert (truth.groupby("subject")[["age_years", "gender", "cohort"]].nunique() == 1).all(
        axis=None
    )
    ages = truth.groupby("cohort")["age_years"].agg(["min", "max"])
    assert 3 <= ages.loc["child", "min"] <= ages.loc["child", "max"] <= 9
    assert 10 <= ages.loc["adolescent", "min"] <= ages.loc["adolescent", "max"] <= 17
    assert 18 <= ages.loc["adult", "min"] <= ages.loc["adult", "max"] <= 60
    assert set(truth.loc[truth["cohort"] == "adult", "gender"]) == {"female", "male"}


@pytest.mark.parametrize(
    "name",
    [
        "D42_a05_f_happiness_1.jpg",
        "D0042_a5_f_happiness_1.jpg",
        "D0042_a05_x_happiness_1.jpg",
        "D0042_a05_f_joy_1.jpg",
        "D0042_a05_f_happiness_0.jpg",
        "D0042_a05_f_happiness_1.png",
        "D0042_a05_f_happiness_1.jpg.jpg",
    ],
)
def test_names_of_other_conventions_are_refused(name: str) -> None:
    assert isinstance(read_name(name), Fault)


def test_masks_are_a_web_dataset_beside_the_table(root: Path, truth: pd.DataFrame) -> None:
    with tarfile.open(Paths(root).truth / "masks" / "masks-00000.tar") as archive:
        names = archive.getnames()
    assert names == [image.removesuffix(".jpg") + ".png" for image in truth["image"]]
    for _, row in truth.iterrows():
        mask = mask_of(root, row)
        assert mask.shape == (256, 256)
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}


def test_only_neutral_faces_are_at_rest(root: Path, truth: pd.DataFrame) -> None:
    units = [column for column in truth if column.startswith("au_")]
    for _, row in truth.iterrows():
        at_rest = row["emotion"] == "neutral"
        assert (row[units] == 0).all() == at_rest
        assert (mask_of(root, row).max() == 0) == at_rest
        assert (len(row["moved"]) == 0) == at_rest
        assert row[units].between(0, 1).all()


def test_landmarks_are_in_the_image_in_ibug_order(truth: pd.DataFrame) -> None:
    for flat in truth["landmarks_xy_px"]:
        points = np.asarray(flat).reshape(68, 2)
        assert points.min() > 0
        assert points.max() < 256
        assert points[0, 0] < points[8, 0] < points[16, 0]  # jaw
        brows, nose = points[17:27].mean(axis=0), points[27:36].mean(axis=0)
        eyes, mouth = points[36:48].mean(axis=0), points[48:68].mean(axis=0)
        assert brows[1] < eyes[1] < nose[1] < mouth[1] < points[8, 1]
        assert points[36:42, 0].max() < points[42:48, 0].min()


def test_no_subjects_leave_empty_folders_and_an_empty_table(root: Path, tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    run(params(), paths)  # what an earlier run drew must go
    result = run(params(subjects={}, expression={}), paths)
    assert list(paths.drawn.iterdir()) == []
    empty = read_table(paths.truth / "truth.parquet")
    assert len(empty) == 0
    assert list(empty) == list(read_table(Paths(root).truth / "truth.parquet"))
    assert result.metrics["pictures"] == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"emotions": ["joy"]}, "draw.emotions.0"),
        ({"emotions": ["fear", "fear"]}, "listed twice"),
        ({"subjects": {"toddler": 3}}, "draw.subjects.toddler"),
        ({"subjects": {"adult": -1}}, "draw.subjects.adult"),
        ({"expression": {"adult": STYLE}}, "draw.expression: value error, lacks child, adolescent"),
        ({"expression": {"adult": {**STYLE, "unit_mixing": 1.5}}}, "expression.adult.unit_mixing"),
        ({"sizepx": 3}, "draw.sizepx is not a parameter"),
    ],
)
def test_a_bad_param_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ParamsError, match=named.replace(".", r"\.")):
        params(**changes)
