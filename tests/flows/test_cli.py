import json
import os
import re
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml
from httpx import ConnectError

from flows import cli
from flows.outages import runs_location
from flows.pipeline import run_summary
from flows.presets import preset_names, use_preset
from flows.study import flow
from tasks.core import terminal
from tasks.core.errors import UserError
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[2]
COMMANDS = ["run", "study", "use", "intake", "predict", "audit", "datasets"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_with_an_example(affectgap, command):
    done = affectgap(REPOSITORY, command, "--help")
    assert done.returncode == 0
    assert f"Example: affectgap {command}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["use", "nowhere"], "no preset 'nowhere'; there are cafe-nimh, drawn, folder"),
        (["predict", "x.jpg", "--model", "nowhere"], "nowhere/model.json: no model here"),
        (["predict", "x.jpg", "--explain"], "--out DIR"),
        (["audit", "none.csv", "--out", "x"], "none.csv: no such file"),
        (["datasets", "show", "cifar"], "cifar"),
        (["datasets", "fetch", "drawn"], "cannot be fetched"),
        (["datasets", "count", "none", "--adapter", "cafe"], "none: no such folder"),
        (["intake", "none", "--dataset", "mine"], "none"),
        (["frobnicate"], "frobnicate"),
        (["run", "frobnicate"], "frobnicate"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(affectgap, arguments, said):
    done = affectgap(REPOSITORY, *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.lower().startswith("error")]) == 1


def test_a_store_that_is_away_is_one_line_whatever_wraps_it(monkeypatch, capsys):
    """MLflow's client for real, in a project's place: what its connection said is wrapped."""
    from mlflow import MlflowClient

    for name, value in {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_TRACKING_URI": "http://someone:secret@127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "app", lambda: MlflowClient().get_experiment_by_name("x"))
    with pytest.raises(SystemExit) as left:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 1
    assert line.startswith("error: http://127.0.0.1:9: MLflow does not answer (")
    assert line.endswith(
        "is MLFLOW_TRACKING_URI what it should be? then run the same command again"
    )
    assert "secret" not in line


def test_where_runs_are_is_told_without_a_password(monkeypatch, tmp_path, capsys):
    paths = Paths(tmp_path)
    paths.report.parent.mkdir(parents=True)
    paths.report.touch()
    monkeypatch.setattr(run_summary, "headline_table", lambda paths: "")
    for module in (run_summary, flow):
        monkeypatch.setattr(module, "notices", lambda paths: [])
    paths.at("study").mkdir()
    paths.at("study/test.csv").write_text("dimension,measure\n")
    state = Mock(progress=lambda: Mock(decisions=[]))
    for uri in ("http://someone:secret@127.0.0.1:5000", "http://127.0.0.1:5000"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        cli._print_headline(paths, terminal.Console())
        assert "runs:   http://127.0.0.1:5000\n" in capsys.readouterr().out
        assert "runs:   http://127.0.0.1:5000" in list(flow.study_lines(paths, state))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert runs_location(paths) == f"{tmp_path}/mlruns/mlflow.db (`make ui` shows them)"


def test_prefects_server_that_is_away_is_one_line_and_a_defect_is_seen_whole(monkeypatch, capsys):
    error: list[Exception] = [RuntimeError("Failed to reach API at http://127.0.0.1:9/api/")]

    def fail():
        raise error[0]

    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "9/api: Prefect does not answer (Failed to" in capsys.readouterr().err
    error[0] = KeyError("a defect")
    error[0].__context__ = ConnectError("met while the server was away")
    with pytest.raises(KeyError):
        cli.main()


def test_outside_a_project_it_says_where_to_go(affectgap, tmp_path):
    done = affectgap(tmp_path, "run")
    assert done.returncode == 2
    assert "cd into a clone" in done.stderr


def test_datasets_are_listed(affectgap):
    done = affectgap(REPOSITORY, "datasets")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("drawn", "folder", "london", "CC BY 4.0"))


DEFAULT = """\
# The default.

draw:
  name: drawn             # whose faces
  subjects:               # how many
    adult: 2              # of them grown up
    child: 3

split:
  parts: {train: 6, test: 2}  # relative sizes

report:
  seed: 4                 # of the examples
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "presets").mkdir()
    for name, text in {
        "default": DEFAULT,
        "drawn": "# Drawn.\n",
        "london": "# London.\n\ndraw:\n  name: london  # photographs\n",
    }.items():
        (tmp_path / "presets" / f"{name}.yaml").write_text(text)
    use_preset(tmp_path, "drawn")
    return tmp_path


def test_a_preset_is_completed_with_the_defaults_and_their_comments(project):
    assert preset_names(project) == ["drawn", "london"]
    assert "saved" not in use_preset(project, "london")
    written = (project / "params.yaml").read_text()
    assert written.startswith("# London.\n\ndraw:\n  name: london")
    assert "# photographs" in written and "whose faces" not in written
    assert "adult: 2              # of them grown up" in written
    assert "parts: {train: 6, test: 2}  # relative sizes" in written


def test_indentation_merges_and_braces_or_lists_replace(project):
    overlay = project / "overlay.yaml"
    overlay.write_text("draw:\n  subjects:\n    child: 9\nsplit:\n  parts: {train: 1}\n")
    use_preset(project, str(overlay))
    content = yaml.safe_load((project / "params.yaml").read_text())
    assert content["draw"]["subjects"] == {"adult": 2, "child": 9}
    assert content["split"]["parts"] == {"train": 1}
    overlay.write_text("draw:\n  subjects: {}\n")
    use_preset(project, str(overlay))
    assert yaml.safe_load((project / "params.yaml").read_text())["draw"]["subjects"] == {}


def test_edited_params_are_saved_before_a_preset_replaces_them(project):
    edited = (project / "params.yaml").read_text().replace("adult: 2", "adult: 7")
    (project / "params.yaml").write_text(edited)
    assert "params.saved-1.yaml" in use_preset(project, "drawn")
    assert (project / "params.saved-1.yaml").read_text() == edited
    (project / "params.yaml").write_text("draw: {name: mine too}\n")
    use_preset(project, "drawn")
    assert (project / "params.saved-2.yaml").read_text() == "draw: {name: mine too}\n"


def test_a_complete_file_is_used_as_it_is(project):
    complete = project / "own.yaml"
    complete.write_text(
        "draw:\n  subjects:\n    child: 1\nsplit: {parts: {train: 1}}\nreport: {}\n"
    )
    use_preset(project, str(complete))
    assert (project / "params.yaml").read_text() == complete.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("draw: [", r"own\.yaml: is not valid YAML"),
        ("draw:\n  nmae: x\n", r"own\.yaml: 'draw\.nmae' is not a key of presets/default\.yaml"),
        ("drow: {}\n", r"own\.yaml: 'drow' is not a key of presets/default\.yaml"),
    ],
)
def test_a_preset_that_cannot_be_used_leaves_the_params_alone(project, text, message):
    before = (project / "params.yaml").read_text()
    (project / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        use_preset(project, str(project / "own.yaml"))
    assert (project / "params.yaml").read_text() == before


def test_a_data_set_is_counted_by_its_names_alone(affectgap, tmp_path):
    for name in ("5_1_0_20170116174525125.jpg", "40_0_4_20170116174525126.jpg"):
        (tmp_path / name).write_text("nothing is decoded")
    out = tmp_path / "out" / "demographics.csv"
    arguments = ("datasets", "count", str(tmp_path), "--adapter", "utkface", "--out", str(out))
    done = affectgap(REPOSITORY, *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 pictures counted" in done.stdout
    assert out.read_text().splitlines() == [
        "attribute,group,n,share",
        "age_band,adult,1,0.5",
        "age_band,child,1,0.5",
        "gender,female,1,0.5",
        "gender,male,1,0.5",
        "ethnicity,Others,1,0.5",
        "ethnicity,White,1,0.5",
    ]


def test_an_audit_of_any_csv_gives_back_its_counts(affectgap, tmp_path):
    rows = ["emotion,y_pred,age_band,gender"]
    rows += ["happy,happiness,child,F"] * 12 + ["happy,sad,child,F"] * 8
    rows += ["happy,happy,adult,M"] * 19 + ["happy,sad,adult,M"]
    (tmp_path / "predictions.csv").write_text("\n".join(rows) + "\n")
    done = affectgap(REPOSITORY, "audit", str(tmp_path / "predictions.csv"), "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "groups.csv").read_text().splitlines()
    found = [
        line for line in lines if re.search(r",all,all,child,female,happiness,20,12,0\.6,", line)
    ]
    assert len(found) == 1


def london_model(root: Path) -> Path:
    from tasks.core.models.checkpoint import empty_seen_table, save_model
    from tasks.crop.settings import CropSettings
    from tasks.train.pretrained.catalog import load_pretrained

    module, spec = load_pretrained("fer2013/mini_xception", root)
    save_model(root / "model", module, spec, empty_seen_table())
    settings = CropSettings(224, 0.0, "bilinear", 320, 2, 0.0)
    (root / "model" / "crop.json").write_text(json.dumps(asdict(settings)))
    return root / "model"


@pytest.mark.skipif(not os.environ.get("AFFECTGAP_ASSETS"), reason="AFFECTGAP_ASSETS is unset")
def test_predict_answers_every_face_of_every_image(affectgap, tmp_path):
    from PIL import Image

    photos = Path(os.environ["AFFECTGAP_ASSETS"]) / "london" / "smiling_front"
    both = Image.new("RGB", (1600, 800), "white")
    for number, name in enumerate(("001_08.jpg", "003_08.jpg")):
        with Image.open(photos / name) as face:
            both.paste(face.resize((800, 800)), (800 * number, 0))
    both.save(tmp_path / "두 사람.png")
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (200, 200), "gray").save(tmp_path / "empty.png")
    model = str(london_model(tmp_path))
    images = [str(tmp_path / name) for name in ("두 사람.png", "text.jpg", "empty.png")]
    out = tmp_path / "out"
    sheet = tmp_path / "faces.png"
    options = ["--explain", "--out", str(out), "--figure", str(sheet)]
    done = affectgap(REPOSITORY, "predict", *images, "--model", model, *options)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    faces = [line for line in lines if line.get("face") is not None]
    assert len(faces) == 2
    for face in faces:
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert face["emotion"] == max(face["probabilities"], key=face["probabilities"].get)
        assert len(face["box_xyxy_px"]) == 4
        assert face["model_version"]
        assert Image.open(face["drawn"]).size == (1600, 800)
        assert Path(face["explained"]).is_file()
    assert {line["figure"] for line in lines} == {str(sheet)} and Image.open(sheet).width == 1800
    assert [line["error"].split(":")[0] for line in lines if "error" in line] == ["not_an_image"]
    assert [line["note"] for line in lines if "note" in line] == ["no face found"]
    assert done.returncode == 2
    assert "1 of 3 pictures could not be read" in done.stderr
