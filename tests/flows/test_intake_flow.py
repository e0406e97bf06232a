"""`affectgap intake` and `withdraw` as commands, with DVC, git and the checks for real."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from inbox_world import files_of, new_project, send, tree
from PIL import Image

from flows.doctor.image_checks import ledger_against_disk
from flows.intake import intake, recovery
from flows.intake.intake import withdraw
from flows.intake.place_images import require_within_project
from flows.ledger.ledger import Ledger
from flows.pipeline import dvc_repair
from flows.presets import preset_text
from tasks.core.errors import DataError, UserError
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[2]
MODULE = f"{sys.executable} -c 'from flows.cli import main; main()'"


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A project without DVC, and a folder of one picture beside it."""
    monkeypatch.setattr(intake, "add_to_dvc", lambda paths, dataset: None)
    paths = new_project(tmp_path / "project")
    (tmp_path / "given/happy").mkdir(parents=True)
    Image.new("RGB", (20, 20), "gray").save(tmp_path / "given/happy/a.png")
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
    given.params.write_text(preset_text(REPOSITORY, REPOSITORY / f"presets/{preset}.yaml"))
    line = intake.intake_dataset(given, tmp_path / "given", dataset)
    assert f"data/raw/{dataset}: 1 files" in line and "\n" not in line
    assert ("does not read it yet" in line) == (said is not None)
    assert said is None or said in line


@pytest.mark.parametrize("linked", ["data", "data/raw", "data/raw/arrived"])
def test_links_that_lead_out_of_the_project_are_refused(
    tmp_path: Path, given: Paths, linked: str
) -> None:
    send(given, "batch", files_of(1))
    (tmp_path / "elsewhere").mkdir()
    link = given.root / linked
    if link.exists():
        shutil.move(link, tmp_path / "elsewhere")
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    before = tree(tmp_path / "elsewhere")
    for call in (
        lambda: intake.intake_dataset(given, tmp_path / "given", "arrived"),
        lambda: intake.intake_inbox(given, print),
    ):
        with pytest.raises(DataError) as caught:
            call()
        assert "leads out of the project" in str(caught.value) and str(link) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert tree(tmp_path / "elsewhere") == before


def test_a_link_within_the_project_is_followed(tmp_path: Path, given: Paths) -> None:
    given.raw.mkdir(parents=True, exist_ok=True)
    (given.root / "kept").mkdir()
    (given.raw / "arrived").symlink_to(given.root / "kept")
    require_within_project(given)


def test_a_whole_data_set_is_in_the_ledger_once(tmp_path: Path, given: Paths) -> None:
    for _ in range(2):  # again after a crash, or by mistake
        intake.intake_dataset(given, tmp_path / "given", "arrived")
    ledger = Ledger(given.ledger)
    batches, images = ledger.batches(), ledger.images()
    assert batches[["batch", "dataset", "state", "n_pictures"]].to_numpy().tolist() == [
        ["arrived", "arrived", "accepted", 1]
    ]
    assert images[["path", "emotion"]].to_numpy().tolist() == [["arrived/happy/a.png", "happiness"]]
    assert ledger.places() == {"arrived": "data/raw/arrived"}
    line = intake.intake_dataset(given, tmp_path / "given", "affectnet")
    assert "the adapter affectnet cannot read it: " in line
    assert ledger.batches()["n_pictures"].tolist() == [1, 0]


def test_a_whole_data_set_that_was_removed_is_withdrawn_or_replaced(
    tmp_path: Path, given: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(recovery, "add_to_dvc")  # it would make the folder again
    intake.intake_dataset(given, tmp_path / "given", "mine")
    with pytest.raises(UserError, match="whole data set; remove data/raw/mine, then withdraw it"):
        withdraw(given, "mine", "no consent", "")
    shutil.rmtree(given.raw / "mine")
    assert "withdrawn, now in data/quarantine/mine" in withdraw(given, "mine", "no consent", "")
    assert not (given.raw / "mine").exists()
    shutil.rmtree(given.quarantine)  # on purpose
    ledger = Ledger(given.ledger)
    assert ledger.under_way() == [] and list(ledger_against_disk(given)) == []
    intake.intake_dataset(given, tmp_path / "given", "mine")
    shutil.rmtree(given.raw / "mine")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "given/happy/a.png")
    intake.intake_dataset(given, tmp_path / "given", "mine")
    states = ledger.batches()[["batch", "state"]].to_numpy().tolist()
    assert states == [["mine", "withdrawn"], ["mine.2", "withdrawn"], ["mine.3", "accepted"]]
    assert list(ledger_against_disk(given)) == []


def test_a_whole_data_set_of_links_into_the_cache_is_known(tmp_path: Path, given: Paths) -> None:
    intake.intake_dataset(given, tmp_path / "given", "arrived")
    image, cached = given.raw / "arrived/happy/a.png", given.at(".dvc/cache/a")
    cached.parent.mkdir(parents=True)
    image.rename(cached)
    image.symlink_to(cached)  # as DVC does it with `cache.type symlink`
    ledger = Ledger(given.ledger)
    for _ in range(2):
        intake.intake_dataset(given, tmp_path / "given", "arrived")
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


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with DVC and git in which the batch `good` was taken in, and committed."""
    root = tmp_path_factory.mktemp("ready") / "project"
    paths = new_project(root)
    (root / "tasks").mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    for name in (".dvcignore", ".gitignore"):
        shutil.copyfile(REPOSITORY / name, root / name)
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=root, check=True)
    send(paths, "good", files_of(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        assert run(root, "intake").returncode == 0
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    for command in (["add", "-A"], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    return root


@pytest.fixture
def arrived(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A copy of that project."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    shutil.copytree(ready, tmp_path / "project")
    return Paths(tmp_path / "project")


@pytest.mark.slow
def test_a_torn_file_of_a_data_set_is_made_again_by_intake_and_by_the_doctor(
    arrived: Paths,
) -> None:
    file = arrived.raw / "arrived.dvc"
    file.write_text("outs:\n- md5: 2ab")
    arrived.at("dvc.lock").write_text("schema: '2.0'\nstages:\n")
    send(arrived, "more", files_of(2))
    done = run(arrived.root, "intake")
    assert done.returncode == 0, done.stderr
    assert "data/raw/arrived.dvc was torn; it is saved as work/torn/arrived.dvc.torn" in done.stdout
    assert "more: accepted" in done.stdout and tracked(arrived) == 16
    whole = file.read_bytes()
    file.write_bytes(b"")
    done = run(arrived.root, "doctor")
    assert "mended  data/raw/arrived.dvc: was torn; it is saved as" in done.stdout
    assert file.read_bytes() == whole
    file.write_bytes(whole[:50])
    given = arrived.root / "given"
    shutil.copytree(arrived.raw / "arrived/good", given)
    done = run(arrived.root, "intake", str(given), "--dataset", "mine")
    assert "; mended: data/raw/arrived.dvc was torn" in done.stdout and file.read_bytes() == whole
    for path in (arrived.raw / "arrived", file):
        shutil.rmtree(path) if path.is_dir() else path.write_bytes(whole[:50])
    done = run(arrived.root, "intake")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "data/raw/arrived.dvc: is torn, and data/raw/arrived holds nothing; `git" in done.stderr


def told(paths: Paths) -> dict[str, str]:
    """What the doctor finds of the pictures, with what to do."""
    return {finding.what: finding.remedy for finding in ledger_against_disk(paths)}


def do(paths: Paths, remedy: str) -> str:
    """Carry out the command that a remedy begins with."""
    command = remedy.split("`")[1]
    subprocess.run(command, shell=True, cwd=paths.root, check=True, capture_output=True)
    return command


@pytest.mark.slow
def test_what_the_doctor_says_of_lost_images_brings_them_back(arrived: Paths) -> None:
    good = arrived.raw / "arrived/good"
    before = tree(good)
    images = sorted(good.glob("*.png"))
    assert told(arrived) == {}
    images[0].write_bytes(b"other")
    images[1].unlink()
    (good / "late.png").write_bytes(b"late")
    found = told(arrived)
    assert [what.split(" (")[0] for what in found] == [
        "1 of 6 pictures are not there",
        "1 of 6 pictures are not what was accepted",
        "1 more files than were accepted",
    ]
    missing, changed, late = found.values()
    assert do(arrived, missing) == f"dvc checkout data/raw/arrived/good/{images[1].name}"
    assert do(arrived, changed) == f"dvc checkout --force data/raw/arrived/good/{images[0].name}"
    assert "data/inbox" in late and (good / "late.png").read_bytes() == b"late"
    (good / "late.png").unlink()
    assert tree(good) == before and told(arrived) == {}
    for path in images[:4]:
        path.write_bytes(b"other")
    (remedy,) = told(arrived).values()
    assert do(arrived, remedy) == "dvc checkout --force data/raw/arrived/good"
    assert "removes what else was changed or added: copy away what is to stay" in remedy
    shutil.rmtree(good)
    (remedy,) = told(arrived).values()
    assert do(arrived, remedy) == "dvc checkout data/raw/arrived/good"
    assert tree(good) == before and told(arrived) == {}


@pytest.mark.slow
def test_no_checkout_is_advised_that_would_remove_what_is_there(arrived: Paths) -> None:
    good = arrived.raw / "arrived/good"
    images = sorted(good.glob("*.png"))
    lost = hashlib.md5(images[0].read_bytes()).hexdigest()
    kept = arrived.at(f".dvc/cache/files/md5/{lost[:2]}/{lost[2:]}")
    kept.chmod(0o644)
    kept.unlink()
    for path in images[:2]:
        path.unlink()
    (remedy,) = told(arrived).values()
    assert "`dvc fetch data/raw/arrived.dvc`" in remedy and "no `dvc checkout` before" in remedy
    dvc_repair.add_to_dvc(arrived, "arrived")  # as the next intake does
    (remedy,) = told(arrived).values()
    assert remedy.startswith("data/raw/arrived.dvc as it is now does not have them")
    assert "`affectgap withdraw good --why …`" in remedy


@pytest.mark.slow
def test_a_data_set_that_the_ledger_lacks_is_taken_in_as_it_lies_there(arrived: Paths) -> None:
    mine = arrived.raw / "mine"
    shutil.copytree(arrived.raw / "arrived/good", mine)
    (mine / "_READY").unlink()
    before = tree(mine)
    ((what, remedy),) = told(arrived).items()
    assert what == "the ledger does not know this data set"
    assert do(arrived, remedy.replace("affectgap", MODULE)).endswith("mine --dataset mine")
    assert told(arrived) == {} and tree(mine) == before
