"""`affectgap intake` and `withdraw` as commands, with DVC, git and the checks for real."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from inbox_world import files_of, new_project, send, tree
from PIL import Image

from flows import inbox_steps, intake
from flows.doctor_state import ledger_against_disk
from flows.intake import withdraw
from tasks.core.errors import UserError
from tasks.core.ledger import Ledger
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project without DVC, and a folder of one picture beside it."""
    monkeypatch.setattr(intake, "add_to_dvc", lambda paths, dataset: None)
    paths = new_project(tmp_path / "project")
    (tmp_path / "given/happy").mkdir(parents=True)
    Image.new("RGB", (20, 20), "grey").save(tmp_path / "given/happy/a.png")
    return paths


@pytest.mark.parametrize(
    ("dataset", "preset", "said"),
    [
        ("cafe", "cafe-nimh", None),
        ("cafe", "drawn", "does not read it yet: `affectgap use cafe-nimh`"),
        ("kdef", "drawn", "add it to ingest.datasets with the adapter kdef"),
        ("holidays", "drawn", "add it to ingest.datasets with the adapter folder"),
    ],
)
def test_the_next_step_is_said_where_params_lack_the_data_set(
    tmp_path: Path, given: Paths, dataset: str, preset: str, said: str | None
) -> None:
    shutil.copyfile(REPOSITORY / f"presets/{preset}.yaml", given.params)
    line = intake.take_in(given, tmp_path / "given", dataset)
    assert f"data/raw/{dataset}: 1 files" in line and "\n" not in line
    assert ("does not read it yet" in line) == (said is not None)
    assert said is None or said in line


def test_a_whole_data_set_is_in_the_ledger_once(tmp_path: Path, given: Paths) -> None:
    for _ in range(2):  # again after a crash, or by mistake
        intake.take_in(given, tmp_path / "given", "arrived")
    ledger = Ledger(given.ledger)
    batches, pictures = ledger.batches(), ledger.pictures()
    assert batches[["batch", "dataset", "state", "n_pictures"]].to_numpy().tolist() == [
        ["arrived", "arrived", "accepted", 1]
    ]
    assert pictures[["path", "emotion"]].to_numpy().tolist() == [
        ["arrived/happy/a.png", "happiness"]
    ]
    assert ledger.places() == {"arrived": "data/raw/arrived"}
    line = intake.take_in(given, tmp_path / "given", "affectnet")
    assert "the adapter affectnet cannot read it: " in line
    assert ledger.batches()["n_pictures"].tolist() == [1, 0]


def test_a_whole_data_set_that_was_removed_is_withdrawn_or_replaced(
    tmp_path: Path, given: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(inbox_steps, "add_to_dvc")  # it would make the folder again
    intake.take_in(given, tmp_path / "given", "mine")
    with pytest.raises(UserError, match="whole data set; remove data/raw/mine, then withdraw it"):
        withdraw(given, "mine", "no consent", "")
    shutil.rmtree(given.raw / "mine")
    assert "withdrawn, now in data/quarantine/mine" in withdraw(given, "mine", "no consent", "")
    assert not (given.raw / "mine").exists()
    shutil.rmtree(given.quarantine)  # on purpose
    ledger = Ledger(given.ledger)
    assert ledger.under_way() == [] and list(ledger_against_disk(given)) == []
    intake.take_in(given, tmp_path / "given", "mine")
    shutil.rmtree(given.raw / "mine")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "given/happy/a.png")
    intake.take_in(given, tmp_path / "given", "mine")
    states = ledger.batches()[["batch", "state"]].to_numpy().tolist()
    assert states == [["mine", "withdrawn"], ["mine.2", "withdrawn"], ["mine.3", "accepted"]]
    assert list(ledger_against_disk(given)) == []


def test_a_whole_data_set_of_links_into_the_cache_is_known(tmp_path: Path, given: Paths) -> None:
    intake.take_in(given, tmp_path / "given", "arrived")
    picture, cached = given.raw / "arrived/happy/a.png", given.at(".dvc/cache/a")
    cached.parent.mkdir(parents=True)
    picture.rename(cached)
    picture.symlink_to(cached)  # as DVC does it with `cache.type symlink`
    ledger = Ledger(given.ledger)
    for _ in range(2):
        intake.take_in(given, tmp_path / "given", "arrived")
        assert ledger.batches()[["batch", "n_pictures"]].to_numpy().tolist() == [["arrived", 1]]
        given.ledger.unlink()


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def tracked(paths: Paths) -> int:
    """How many files of the data set DVC knows of."""
    told = yaml.safe_load((paths.raw / "arrived.dvc").read_text())
    return int(told["outs"][0]["nfiles"])


@pytest.mark.slow
def test_the_commands_with_dvc_and_the_checks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    paths = new_project(tmp_path)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    shutil.copyfile(REPOSITORY / ".dvcignore", tmp_path / ".dvcignore")
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    nothing = run(tmp_path, "intake")
    assert nothing.returncode == 0 and "holds no batch" in nothing.stdout
    send(paths, "good", files_of(1))
    send(paths, "broken", {**files_of(2), "x.png": b"x"})
    done = run(tmp_path, "intake")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("broken: quarantined: now in data/quarantine")
    assert "good: accepted: 6 pictures of 2 people, now in data/raw/arrived/good" in done.stdout
    assert "faulty: expected at most 0%" in done.stdout and "1 not_an_image" in done.stdout
    assert tracked(paths) == 8 == len(tree(paths.raw / "arrived"))
    assert Ledger(paths.ledger).untracked().empty
    out = run(tmp_path, "withdraw", "good", "--why", "labels mixed up", "--by", "A. Weber")
    assert out.returncode == 0 and tracked(paths) == 0
    again = run(tmp_path, "withdraw", "good", "--why", "again")
    assert again.returncode == 2 and again.stderr.count("\n") == 1
    half = run(tmp_path, "intake", str(paths.quarantine / "good"))
    assert half.returncode == 2 and "--dataset" in half.stderr
    states = Ledger(paths.ledger).batches().set_index("batch")["state"]
    assert isinstance(states, pd.Series) and states.to_dict() == {
        "broken": "quarantined",
        "good": "withdrawn",
    }
