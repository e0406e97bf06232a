"""The champion, served by MLflow's server from the registry in a separate process."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from registered_project import CROP, LABELS, draw_faces, write_small_model
from serving_load import (
    ask,
    ask_at_once,
    asking,
    hostile_requests,
    images_of_mixed_sizes,
    malformed_requests,
    model_server,
    ordinary_requests,
    peak_bytes,
    serial_answers,
)

from tasks.core.imaging.decode import decode
from tasks.core.models.predictor import EmotionClassifier
from tasks.crop.crop_all_faces import crop_all_faces
from tasks.register import registry

REPOSITORY = Path(__file__).parents[2]
CLI = [sys.executable, "-c", "from flows.cli import main; main()"]
pytestmark = pytest.mark.slow


def post(port, content):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(content).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read(), parse_constant=pytest.fail)["predictions"]


@pytest.fixture
def second(project):
    """A second version; the first is in use."""
    registry.promote(project, 1, None)
    write_small_model(project.model("finetuned"), seed=2)
    return registry.register_challenger(project, project.model("finetuned"), {})


def test_what_is_in_use_answers_over_http(second, project, tmp_path):
    registry.promote(project, 2, 1)
    faces = draw_faces(2)
    (tmp_path / "face.jpg").write_bytes(faces[1])
    text = base64.b64encode(faces[0]).decode()
    given = [text, str(tmp_path / "face.jpg"), "nowhere.jpg", str(REPOSITORY / "README.md")]
    with model_server(project, tmp_path, AFFECTGAP_SERVE_FOLDER=str(tmp_path)) as (port, _):
        rows = post(port, {"dataframe_records": [{"image": image} for image in given]})
        again = post(port, {"inputs": {"image": [text, text]}})
        with pytest.raises(HTTPError) as error:
            post(port, {"dataframe_records": [{"picture": text}]})
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert {row["model_version"] for row in rows} == {second.digest}
    assert abs(sum(rows[0][f"p_{label}"] for label in LABELS) - 1) < 1e-5
    assert rows[1]["emotion"] in LABELS
    assert rows[2]["emotion"] is None and rows[2]["note"].startswith("unreadable")
    assert rows[3]["note"] == rows[2]["note"]
    assert again[1]["emotion"] == rows[0]["emotion"] and error.value.code == 400
    recognizer = EmotionClassifier.load(registry.fetch(project, 2), "cpu")
    wanted = recognizer.predict(crop_all_faces(decode(faces[0], 10**7), CROP).crops)[0]
    assert all(abs(rows[0][f"p_{k}"] - p) < 1e-5 for k, p in zip(LABELS, wanted, strict=True))


def test_many_clients_get_the_serial_answers_and_hostile_ones_no_memory(project, tmp_path):
    registry.promote(project, 1, None)
    images = images_of_mixed_sizes(5, None)
    requests = [*ordinary_requests(images), *malformed_requests(images[0])]
    with model_server(project, tmp_path) as (port, pid):
        answers = serial_answers(port, requests)
        outcome = ask_at_once(port, answers, n=300, clients=30)
        assert outcome.wrong == [] and outcome.n_images > 100
        before = peak_bytes(pid)
        statuses = [ask(port, request)[0] for request in hostile_requests()]
        assert peak_bytes(pid) - before < 400 << 20
        assert ask(port, asking(images[0])) == answers[0][1]
    assert statuses == [200, 415, 413, 400, 400, 400]


def test_the_commands_list_and_roll_back(second, project):
    project.at("dvc.yaml").write_text("stages: {}\n")
    project.at("tasks").mkdir()
    registry.promote(project, 2, 1)

    def call(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
        return subprocess.run(
            [*CLI, *arguments], cwd=project.root, env=environment, capture_output=True, text=True
        )

    newest = call("models").stdout.splitlines()[1].split()
    assert newest[0] == "2" and newest[1].startswith("champion") and second.digest in newest
    done = call("rollback", "--why", "complaints", "--by", "A. Weber")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("version 1") and "is in use again; version 2" in done.stdout
    assert registry.champion(project).number == 1
    again = call("rollback", "--why", "more")
    assert again.returncode == 2 and again.stderr.startswith("error: version 1 is in use and there")
    assert len(again.stderr.splitlines()) == 1
