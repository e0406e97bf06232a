"""The packaged model: same answers as in training, self-contained, no pickle, JSON."""

import base64
import importlib.metadata
import io
import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server import predictions_to_json
from PIL import Image
from registered_project import CROP, LABELS, draw_faces
from serving_load import SIDES_PX, of_side

from tasks.core.imaging.decode import decode
from tasks.core.models.predictor import EmotionClassifier
from tasks.core.tracking.mlflow_runs import open_store
from tasks.crop.crop_all_faces import crop_all_faces
from tasks.register import registry
from tasks.register.version_artifacts import ARTEFACT


@pytest.fixture(scope="module")
def faces():
    return draw_faces(3)


@pytest.fixture(scope="module")
def stored(registered):
    """The folder of MLflow's model, as a server gets it."""
    client, _ = open_store(registered)
    run = client.get_run(registry.challenger(registered).run_id)
    from pathlib import Path

    return Path(run.info.artifact_uri.removeprefix("file://")) / ARTEFACT


@pytest.fixture(scope="module")
def served(stored):
    return mlflow.pyfunc.load_model(str(stored))


def ask(served, *images):
    return served.predict(pd.DataFrame({"image": list(images)}))


def probabilities(rows):
    return rows[[f"p_{label}" for label in LABELS]].to_numpy(float)


def test_probabilities_are_those_of_the_training_code(registered, served, faces):
    recognizer = EmotionClassifier.load(registered.model("finetuned"), "cpu")
    cuts = [crop_all_faces(decode(face, 10**7), CROP) for face in faces]
    wanted = np.concatenate([recognizer.predict(cut.crops) for cut in cuts])
    rows = ask(served, *faces)
    assert len(rows) == len(wanted) == 3
    np.testing.assert_allclose(probabilities(rows), wanted, atol=1e-5)
    assert np.ptp(wanted, axis=0).max() > 1e-4  # the pictures are told apart
    assert list(rows["emotion"]) == [LABELS[row.argmax()] for row in wanted]
    assert list(rows["box_xyxy_px"]) == [list(cut.boxes_xyxy_px[0]) for cut in cuts]
    assert set(rows["model_version"]) == {recognizer.spec.version}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder from which images may be served."""
    served_from = tmp_path / "served"
    served_from.mkdir()
    monkeypatch.setenv("AFFECTGAP_SERVE_FOLDER", str(served_from))
    return served_from


def test_bytes_base64_and_paths_are_the_same_image(stored, faces, folder):
    served = mlflow.pyfunc.load_model(str(stored))
    (folder / "face.jpg").write_bytes(faces[0])
    text = base64.b64encode(faces[0]).decode()
    lines = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    given = [faces[0], text, lines, f"data:image/jpeg;base64,{text}", str(folder / "face.jpg")]
    rows = ask(served, *given)
    assert list(rows["row"]) == [0, 1, 2, 3, 4]
    assert np.ptp(probabilities(rows), axis=0).max() == 0
    assert len(set(rows["image"][:4])) == 1 and rows["image"][4] == given[4]


def test_two_faces_are_two_rows_and_a_turned_image_is_turned(served, faces):
    left, right = (Image.open(io.BytesIO(face)) for face in faces[:2])
    both = Image.new("RGB", (512, 256))
    both.paste(left, (0, 0))
    both.paste(right, (256, 0))
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 8  # stored as if turned by 90° to the right
    both.rotate(-90, expand=True).save(turned, "PNG", exif=exif)
    upright = io.BytesIO()
    both.save(upright, "PNG")
    rows = ask(served, upright.getvalue(), turned.getvalue())
    assert list(rows["row"]) == [0, 0, 1, 1] and list(rows["face"]) == [0, 1, 0, 1]
    np.testing.assert_array_equal(probabilities(rows[:2]), probabilities(rows[2:]))


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (b"", "empty: "),
        (b"no picture at all", "not_an_image: "),
        ("nowhere/face.jpg", "unreadable: no image in base64"),
        ("/etc/passwd", "unreadable: no image in base64"),
        ("", "unreadable: no image in base64"),
        ("a\0b", "unreadable: no image in base64"),
        ("x" * 5000, "unreadable: no image in base64"),
        ("bild-ä.jpg", "unreadable: no image in base64"),
        ("data:image/png;base64,%%%", "empty: "),
        (7, "unreadable: neither"),
        (None, "unreadable: neither"),
    ],
)
def test_what_is_no_image_gets_a_note_and_the_others_their_answers(served, faces, given, note):
    rows = ask(served, given, faces[0]).to_dict(orient="records")
    assert rows[0]["note"].startswith(note) and rows[0]["emotion"] is None
    assert rows[1]["note"] == "" and rows[1]["face"] == 0


def test_threads_get_the_answers_that_one_gets(served):
    drawn = draw_faces(len(SIDES_PX), 480)
    images = [of_side(image, side_px) for image, side_px in zip(drawn, SIDES_PX, strict=True)]
    serial = [ask(served, image).to_json() for image in images]
    order = list(range(len(images))) * 4
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda at: ask(served, images[at]).to_json(), order))
    assert together == [serial[at] for at in order]
    assert len(set(serial)) == len(serial)


def test_warnings_come_back_when_threads_have_decoded(faces):
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: decode(faces[0], 10**7), range(64)))
    assert warnings.filters == before


def test_an_image_of_many_pixels_is_refused_by_its_header(served):
    content = io.BytesIO()
    Image.new("1", (6000, 5000)).save(content, "PNG")
    (note,) = ask(served, content.getvalue())["note"]
    assert note == "too_large: 6000 x 5000 px, more than 25000000 pixels"


def test_a_image_without_a_face_says_so_in_json_without_nan(served):
    gray = io.BytesIO()
    Image.new("RGB", (200, 200), "gray").save(gray, "PNG")
    text = io.StringIO()
    predictions_to_json(ask(served, gray.getvalue()), text)
    (row,) = json.loads(text.getvalue(), parse_constant=pytest.fail)["predictions"]
    assert row["note"] == "no face found" and row["face"] is None and row["p_anger"] is None


def test_the_artefact_holds_code_and_exact_requirements_and_no_pickle(stored):
    names = {path.name for path in stored.rglob("*") if path.is_file()}
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    assert "cloudpickle" not in (stored / "requirements.txt").read_text()
    assert not names & {"uv.lock", "pyproject.toml"}  # those of whoever registers
    assert {"model.safetensors", "card.md", "card.html", "model.onnx"} <= names
    files = {str(path.relative_to(stored / "code")) for path in (stored / "code").rglob("*.py")}
    assert {"tasks/crop/face_detector.py", "tasks/core/models/predictor.py"} <= files
    assert not [file for file in files if file.startswith(("tasks/train", "tasks/ingest"))]
    lines = (stored / "requirements.txt").read_text().split()
    assert all(importlib.metadata.version(line.split("==")[0]) for line in lines)
    needed = {"dlib-bin", "mlflow", "numpy", "pandas", "pillow", "pydantic", "safetensors", "torch"}
    assert needed <= {line.split("==")[0] for line in lines}
    assert not {"torchvision", "timm", "onnx", "onnxruntime"} & {
        line.split("==")[0] for line in lines
    }


def test_the_signature_names_what_goes_in_and_comes_out(served, faces):
    signature = served.metadata.signature
    assert signature.inputs.input_names() == ["image"]
    assert signature.outputs.input_names() == list(ask(served, faces[0]).columns)
    with pytest.raises(mlflow.MlflowException, match="image"):
        served.predict(pd.DataFrame({"picture": [b""]}))
