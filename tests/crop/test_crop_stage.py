"""The stage on a small set: outputs, rejects by group, and the same bytes for any worker count."""

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import sha256_of
from tasks.core.imaging.decode import read_image
from tasks.core.imaging.shards import read_crops
from tasks.core.labels import DRAWN_NOTICE, credit_line
from tasks.core.params import parse_section
from tasks.core.paths import Paths
from tasks.core.tables import MANIFEST_SCHEMA, read_table, write_table
from tasks.crop import crop_cache
from tasks.crop.contact_sheet import _lay_out
from tasks.crop.crop_faces import brightness, sharpness
from tasks.crop.face_crop import cut
from tasks.crop.face_detector import detect_faces
from tasks.crop.settings import model_crop_settings
from tasks.crop.stage import Params, run

OUTPUTS = ("data/crops.parquet", "data/rejects/crop.csv", "reports/figures/crops.png")


def saved(rgb: np.ndarray, orientation: int = 1) -> bytes:
    """PNG with an EXIF flag: a viewer that obeys it sees `rgb`."""
    turns = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    image = Image.fromarray(rgb)
    if orientation in turns:  # what undoes the turn
        image = image.transpose(turns[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


def add_project(root: Path, images: dict[str, bytes], genders: dict[str, str]) -> Paths:
    """Write pictures below data/raw/drawn and a checked table that lists them."""
    paths = Paths(root)
    paths.drawn.mkdir(parents=True)
    rows = []
    for name, content in images.items():
        (paths.drawn / f"{name}.png").write_bytes(content)
        rgb = read_image(paths.drawn / f"{name}.png", 10_000_000).rgb
        rows.append(
            {
                "image_id": name.ljust(16, "0"),
                "path": f"drawn/{name}.png",
                "dataset": "drawn",
                "subject_id": f"drawn/{name}",
                "subject_known": True,
                "emotion": "neutral",
                "age_band": "child" if name.startswith("child") else "adult",
                "gender": genders.get(name, "male"),
                "width_px": rgb.shape[1],
                "height_px": rgb.shape[0],
                "warnings": "",
            }
        )
    table = pd.DataFrame(rows).reindex(columns=[*MANIFEST_SCHEMA.names, "warnings"])
    write_table(table, paths.checked, MANIFEST_SCHEMA)
    return paths


@pytest.fixture
def project(tmp_path, draw_face, noise) -> Paths:
    images = {f"adult{number}": saved(draw_face(number)) for number in range(3)}
    images["child-noise"] = saved(noise)
    images["child-face"] = saved(draw_face(3))
    images["adult-turned"] = saved(draw_face(0), orientation=6)
    lying = np.asarray(Image.fromarray(draw_face(0)).transpose(Image.Transpose.ROTATE_90))
    images["adult-lying"] = saved(lying, orientation=8)
    return add_project(tmp_path, images, {"child-noise": "female", "child-face": "female"})


@pytest.fixture
def quick(params) -> Params:
    return params.model_copy(
        update={"size_px": 64, "images_per_shard": 3, "workers": 1, "min_score": 0.1}
    )


def digests(paths: Paths) -> dict[str, str]:
    files = [*(paths.at(name) for name in OUTPUTS), *sorted(paths.crop_shards.iterdir())]
    return {str(path.relative_to(paths.root)): sha256_of(path) for path in files}


def test_rows_in_are_crops_and_rejects_counted_by_group(project, quick):
    result = run(quick, project)
    crops = read_table(project.crops)
    rejects = pd.read_csv(project.rejects("crop"))
    assert rejects[["image_id", "reason"]].to_numpy().tolist() == [["child-noise00000", "no_face"]]
    assert len(crops) == 6
    assert result.metrics["no_face"] == 1
    assert result.metrics["no_face_child_female"] == 1
    assert result.metrics["no_face_share_child_female"] == 0.5
    assert result.metrics["no_face_adult_male"] == 0
    assert "child female 1 of 2" in result.summary
    assert (crops["n_faces"] == 1).all()
    assert crops["landmarks_xy_px"].isna().all()
    assert len(list(project.crop_shards.glob("*.tar"))) == 2
    settings = model_crop_settings(project.crop_shards)
    assert (settings.size_px, settings.margin) == (quick.size_px, quick.margin)


def test_crops_are_what_predict_would_cut_from_the_same_image(project, quick):
    run(quick, project)
    crops = read_table(project.crops).set_index("image_id", drop=False)
    stored = dict(zip(crops["image_id"], read_crops(crops, project.crop_shards), strict=True))
    image = read_image(project.drawn / "adult1.png", 10_000_000)
    face = detect_faces(image.rgb, quick)[0]
    again = cut(image.rgb, face.box_xyxy_px, quick.size_px, quick.margin, quick.resample)
    assert np.array_equal(stored["adult10000000000"], again)
    assert crops.loc["adult10000000000", "box_xyxy_px"].tolist() == list(face.box_xyxy_px)
    for image_id, crop in stored.items():
        row = crops.loc[image_id]
        assert (row["sharpness"], row["brightness"]) == (sharpness(crop), brightness(crop))


def test_turned_images_give_the_upright_crop(project, quick):
    result = run(quick, project)
    crops = read_table(project.crops).set_index("image_id", drop=False)
    stored = dict(zip(crops["image_id"], read_crops(crops, project.crop_shards), strict=True))
    assert np.array_equal(stored["adult-turned0000"], stored["adult00000000000"])
    # The flag of this one lies: the turn is kept back in the crop, and the box is in the picture.
    assert np.array_equal(stored["adult-lying00000"], stored["adult00000000000"])
    assert result.metrics["exif_turns_taken_back"] == 1
    left, top, right, bottom = crops.loc["adult00000000000", "box_xyxy_px"]
    turned = crops.loc["adult-lying00000", "box_xyxy_px"].tolist()
    assert turned == [top, 256 - right, bottom, 256 - left]


def test_outputs_do_not_depend_on_the_number_of_workers(project, quick, monkeypatch):
    run(quick, project)  # in this process
    here = digests(project)
    monkeypatch.setattr(crop_cache, "_FEW", 0)
    for workers in (1, 2):
        shutil.rmtree(project.at("work/kept"))
        run(quick.model_copy(update={"workers": workers}), project)
        assert digests(project) == here


def test_a_shorter_run_leaves_nothing_of_a_longer_one(project, quick):
    run(quick, project)
    checked = read_table(project.checked)
    write_table(checked.head(2), project.checked, MANIFEST_SCHEMA)
    run(quick, project)
    assert [path.name for path in project.crop_shards.glob("*.tar")] == ["crops-00000.tar"]
    header = "image_id,path,reason,detail\n"
    assert project.rejects("crop").read_text(encoding="utf-8") == header


def test_a_image_that_changed_after_it_was_taken_in_is_left_out(project, quick, draw_face):
    (project.drawn / "adult1.png").unlink()
    (project.drawn / "adult2.png").write_bytes(saved(np.tile(draw_face(2), (3, 3, 1))))
    result = run(quick, project)
    rejects = pd.read_csv(project.rejects("crop")).set_index("image_id")["reason"]
    assert rejects["adult10000000000"] == "unreadable"
    assert rejects["adult20000000000"] == "too_large"
    assert result.metrics["no_face"] == 1


def test_no_face_in_any_image_stops_with_one_line(tmp_path, quick, noise):
    paths = add_project(tmp_path, {"adult": saved(noise)}, {})
    with pytest.raises(DataError, match="no face in 1 pictures") as caught:
        run(quick, paths)
    assert "\n" not in str(caught.value)
    assert len(pd.read_csv(paths.rejects("crop"))) == 1


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("margin", -0.1, "crop.margin"),
        ("resample", "nearest", "'bilinear' or 'lanczos'"),
        ("detector_side_px", 20, "crop.detector_side_px"),
        ("max_upsamples", 9, "crop.max_upsamples"),
        ("images_per_shard", 0, "crop.images_per_shard"),
        ("magin", 0.1, "crop.magin is not a parameter"),
    ],
)
def test_wrong_params_name_their_key(params, key, value, says):
    with pytest.raises(ParamsError, match=says):
        parse_section("crop", {"crop": {**params.model_dump(), key: value}}, Params, Path("p.yaml"))


def test_sheets_carry_the_notice_and_the_credits():
    both = credit_line(["london", "drawn", "folder-of-mine", "london"])
    assert DRAWN_NOTICE in both and "CC BY 4.0" in both
    assert credit_line(["folder-of-mine"]) == ""
    bare, marked = _lay_out([], ["caption"], ""), _lay_out([], ["caption"], both)
    assert marked.height > bare.height
