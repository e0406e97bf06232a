"""What a pass commits and tags, beside whatever state the user's repository is in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_up_model import compact_spec

from flows.registry import git_commits
from flows.retraining.trigger_policy import Params
from tasks.core.models.backbones import build_module
from tasks.core.models.checkpoint import SEEN_COLUMNS, save_model
from tasks.core.paths import Paths

REPOSITORY = Path(__file__).parents[2]
SECTION = yaml.safe_load((REPOSITORY / "params.yaml").read_text())["retrain"]


def policy(**changed) -> Params:
    return Params(**{**SECTION, **changed})


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.rstrip("\n")


@pytest.fixture(autouse=True)
def no_identity(tmp_path, monkeypatch):
    """Git as on a bare machine: no settings of the user's."""
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    for name in ("GIT_COMMITTER_EMAIL", "GIT_COMMITTER_NAME", "GIT_AUTHOR_EMAIL", "EMAIL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def project(tmp_path):
    """A repository with one commit, and then the changes that a pass makes."""
    root = tmp_path / "project"
    (root / "data/raw").mkdir(parents=True)
    (root / "registry").mkdir()
    for name in ("dvc.lock", "params.yaml", "data/raw/arrived.dvc", "notes.txt", "dvc.yaml"):
        (root / name).write_text("first\n")
    git(tmp_path, "init", "-q", "-b", "main", str(root))
    git(root, "add", ".")
    git(root, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "first")
    (root / "dvc.lock").write_text("second\n")
    (root / "data/raw/arrived.dvc").unlink()
    (root / "data/raw/other.dvc").write_text("second\n")
    (root / "registry/promotions.csv").write_text("second\n")
    (root / "registry/.torn.12.csv").write_text("half")
    return Paths(root)


def files_of(root: Path, commit: str) -> set[str]:
    return set(git(root, "show", "--name-only", "--format=", "-m", commit).splitlines())


def test_only_what_belongs_together_is_committed_and_other_staged_work_stays(project):
    root = project.root
    (root / "notes.txt").write_text("staged\n")
    git(root, "add", "notes.txt")
    (root / "notes.txt").write_text("and changed again\n")
    (line,) = git_commits.commit_results(project, policy(author="A B <a@b>"), "Retrained\n\nwhy")
    assert line.startswith("committed to git: ") and line.endswith(" on main")
    kept = {"dvc.lock", "data/raw/arrived.dvc", "data/raw/other.dvc", "registry/promotions.csv"}
    assert files_of(root, "HEAD") == kept
    assert git(root, "log", "-1", "--format=%an %ae %cn %s") == "A B a@b A B Retrained"
    assert git(root, "diff", "--cached", "--name-only") == "notes.txt"
    assert git(root, "show", ":notes.txt") == "staged"
    assert (root / "notes.txt").read_text() == "and changed again\n"
    assert git_commits.commit_results(project, policy(), "again") == []


def test_uncommitted_code_is_said(project):
    (project.root / "dvc.yaml").write_text("other\n")
    _, line = git_commits.commit_results(project, policy(), "x")
    assert line == "code that made this is in no commit: dvc.yaml"


def test_a_branch_that_is_not_checked_out_gets_the_code_that_made_it(project):
    root = project.root
    git_commits.commit_results(project, policy(branch="passes"), "first pass")
    assert git(root, "show", "passes:dvc.lock") == "second"
    assert git(root, "rev-parse", "passes^") == git(root, "rev-parse", "main")
    assert git(root, "show", "main:dvc.lock") == "first"
    git(root, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qam", "user's own")
    (root / "dvc.lock").write_text("third\n")
    git_commits.commit_results(project, policy(branch="passes"), "second pass")
    assert git(root, "log", "--format=%s", "--first-parent", "passes").splitlines() == [
        "second pass",
        "first pass",
        "first",
    ]
    assert git(root, "merge-base", "--is-ancestor", "main", "passes") == ""
    lines = git_commits.tag_version(project, policy(branch="passes"), 3, "promoted")
    assert lines[0].startswith("tag in git: affectgap-3 (`git checkout")
    assert git(root, "rev-parse", "affectgap-3^{commit}") == git(root, "rev-parse", "passes")


def test_a_tag_is_made_once_and_only_where_the_branch_holds_what_is_on_disk(project):
    (line,) = git_commits.tag_version(project, policy(), 1, "promoted")
    assert line == "not tagged in git: what is on disk is not what the branch main holds"
    git_commits.commit_results(project, policy(), "x")
    git_commits.tag_version(project, policy(), 1, "promoted")
    first = git(project.root, "rev-parse", "affectgap-1")
    assert git(project.root, "cat-file", "-t", "affectgap-1") == "tag"
    (line,) = git_commits.tag_version(project, policy(), 1, "promoted")
    assert line.endswith("(exists already)")
    assert git(project.root, "rev-parse", "affectgap-1") == first
    (line,) = git_commits.tag_version(project, policy(), 1, "promoted\n\nWeights abc\n")
    assert line.startswith("not tagged in git: the tag affectgap-1 is there already, and is of oth")


def test_a_version_that_waited_is_tagged_where_it_was_made(project):
    def told(version, how):
        return f"affectgap: version {version} {how}\n\nPass {version}\nWeights of-{version}\n"

    git_commits.commit_results(project, policy(), told(4, "waiting"))
    (project.root / "dvc.lock").write_text("of version 5\n")
    git_commits.commit_results(project, policy(), told(5, "refused"))
    (project.root / "registry/promotions.csv").write_text("4 approved\n")
    git_commits.commit_results(project, policy(), told(4, "approved"))
    git_commits.tag_version(project, policy(), 4, told(4, "approved"))
    assert git(project.root, "show", "affectgap-4:dvc.lock") == "second"
    git_commits.tag_version(project, policy(), 5, told(5, "approved"))
    assert git(project.root, "show", "affectgap-5:dvc.lock") == "of version 5"


def test_a_version_of_no_commit_is_tagged_only_where_its_model_is(project):
    git_commits.commit_results(project, policy(), "x")
    spec = compact_spec(("anger", "fear"))
    seen = pd.DataFrame({name: [] for name in SEEN_COLUMNS})
    module = build_module("compact", 2, 3, 32)
    made = save_model(project.model("finetuned"), module, spec, seen).version
    (line,) = git_commits.tag_version(project, policy(), 1, "promoted\n\nWeights abc\n")
    assert line == f"not tagged in git: models/finetuned holds other weights now ({made})"
    (line,) = git_commits.tag_version(project, policy(), 1, f"promoted\n\nWeights {made}\n")
    assert line.startswith("tag in git: affectgap-1")


def detach(root: Path) -> None:
    git(root, "checkout", "-q", "--detach")


def start_a_rebase(root: Path) -> None:
    (root / ".git/rebase-merge").mkdir()


def take_git_away(root: Path) -> None:
    (root / ".git").rename(root / "git-is-elsewhere")


def hold_the_index(root: Path) -> None:
    (root / ".git/index.lock").touch()


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (detach, "HEAD is detached, and retrain.branch names no branch"),
        (start_a_rebase, "a rebase is going on"),
        (take_git_away, "no git repository; run `git init`"),
        (hold_the_index, "index.lock"),
    ],
)
def test_a_state_in_which_nothing_can_be_committed_is_one_line(project, monkeypatch, state, said):
    monkeypatch.setattr(git_commits, "_INDEX_WAIT_S", 0.3)
    state(project.root)
    (line,) = git_commits.commit_results(project, policy(), "x")
    assert line.startswith("not committed to git: ") and said in line and "\n" not in line
    assert not list(project.root.glob(".git/affectgap.*"))


def test_no_commit_yet_and_a_wrong_branch_are_lines(project, tmp_path):
    git(tmp_path, "init", "-q", str(tmp_path / "new"))
    (line,) = git_commits.commit_results(Paths(tmp_path / "new"), policy(), "x")
    assert "has no commit yet" in line
    (line,) = git_commits.commit_results(project, policy(branch="no..name"), "x")
    assert "retrain.branch" in line
    assert git_commits.commit_results(project, policy(commit=False), "x") == []


def test_git_that_is_not_installed_is_one_line(project, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    (line,) = git_commits.commit_results(project, policy(), "x")
    assert line.startswith("not committed to git: ")


def test_killed_between_the_files_and_the_branch_the_next_call_ends_the_same(project, monkeypatch):
    root = project.root
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):

        def killed(*arguments):
            raise KeyboardInterrupt

        patched.setattr(git_commits, "_commit", killed)
        git_commits.commit_results(project, policy(), "x")
    assert git(root, "log", "--format=%s") == "first"
    git_commits.commit_results(project, policy(), "x")
    assert git(root, "log", "--format=%s").splitlines() == ["x", "first"]
    assert git(root, "status", "--porcelain", "--untracked-files=no") == ""


@pytest.fixture
def tracked(project):
    """The project under DVC: pictures as given, and a stage that makes a model and a report."""
    root = project.root
    code = "import pathlib as p; t = p.Path('data/raw/arrived/a.png').read_text(); "
    code += "[p.Path(n).mkdir(exist_ok=True) for n in ('models', 'reports')]; "
    code += "[p.Path(n).write_text('of ' + t) for n in ('models/weights', 'reports/report.html')]"
    outs = ["models/weights", "reports/report.html"]
    stage = {"cmd": f'{sys.executable} -c "{code}"', "deps": ["data/raw/arrived"], "outs": outs}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    shutil.copy(REPOSITORY / ".gitignore", root)  # with a wrong one DVC sees no .dvc file
    (root / "params.yaml").write_text("a: 1\n")
    for name in ("dvc.lock", "data/raw/other.dvc", "registry/.torn.12.csv"):
        (root / name).unlink()
    dvc(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "with DVC")
    return project


def dvc(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def a_pass(paths: Paths, version: int) -> None:
    image = paths.raw / "arrived" / "a.png"
    image.parent.mkdir(exist_ok=True)
    image.unlink(missing_ok=True)
    image.write_text(f"picture {version}")
    dvc(paths.root, "add", "data/raw/arrived")
    dvc(paths.root, "repro", "-q")
    paths.promotions.write_text(f"promoted {version}\n")
    git_commits.commit_results(paths, policy(), f"version {version}")
    git_commits.tag_version(paths, policy(), version, "promoted")


def test_a_tag_brings_back_the_data_the_model_and_the_report(tracked):
    root = tracked.root
    a_pass(tracked, 1)
    a_pass(tracked, 2)
    made = ("models/weights", "reports/report.html")
    assert [(root / name).read_text() for name in made] == ["of picture 2"] * 2
    git(root, "checkout", "-q", "affectgap-1")
    dvc(root, "checkout", "-q")
    assert (root / "data/raw/arrived/a.png").read_text() == "picture 1"
    assert [(root / name).read_text() for name in made] == ["of picture 1"] * 2
    assert tracked.promotions.read_text() == "promoted 1\n"
