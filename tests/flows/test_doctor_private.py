"""What the doctor says of files that other accounts of the machine can reach."""

import os
import stat
import subprocess
import sys

import pytest

from flows.doctor import file_checks
from flows.doctor.file_checks import git_locks, open_folders, readable_inbox, site_caches_elsewhere
from tasks.core.paths import Paths


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(file_checks, "_SYSTEM_SITE_CACHES", (tmp_path / "system/dvc",))
    before = os.umask(0o022)
    (tmp_path / "project/.dvc/tmp").mkdir(parents=True)
    (tmp_path / "project/data/inbox").mkdir(parents=True)
    yield Paths(tmp_path / "project")
    os.umask(before)


def test_an_open_project_of_an_earlier_version_is_closed_and_said(paths):
    said = [str(finding) for finding in open_folders(paths)]
    assert said == [
        "mended  .dvc: other accounts had access (mode 755); closed",
        "mended  data: other accounts had access (mode 755); closed",
    ]
    assert list(open_folders(paths)) == []


def test_an_inbox_that_everybody_reads_is_said_and_left(paths):
    (finding,) = readable_inbox(paths)
    assert not finding.mended and "`chmod o-r data/inbox`" in finding.remedy
    assert stat.S_IMODE(paths.inbox.stat().st_mode) == 0o755
    paths.inbox.chmod(0o1733)  # a drop box: sites write, and see nothing
    assert list(readable_inbox(paths)) == []
    paths.inbox.chmod(0o755)
    paths.inbox.parent.chmod(0o700)  # nobody else comes as far as the inbox
    assert list(readable_inbox(paths)) == []


def test_a_site_cache_in_the_systems_place_is_found_by_dvcs_own_name(paths, monkeypatch):
    """DVC itself makes it, as before it had one below the project."""
    root, system = paths.root, file_checks._SYSTEM_SITE_CACHES[0]
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    made = "import os, sys; from dvc.repo import Repo; print(Repo(sys.argv[1]).site_cache_dir)"
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": str(system), "DVC_NO_ANALYTICS": "1"}
    (root / ".dvc/config").touch()
    done = subprocess.run(
        [sys.executable, "-c", made, str(root)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    folder = done.stdout.strip()
    assert stat.S_IMODE((system / "repo").stat().st_mode) == 0o777  # the fault that is avoided
    (system / "repo" / "another-projects").mkdir()
    (finding,) = site_caches_elsewhere(paths)
    assert finding.where == folder and finding.remedy == f"remove it: `rm -r {folder}`"
    monkeypatch.setattr(os, "geteuid", lambda: 54321)  # somebody else's is not ours to remove
    assert list(site_caches_elsewhere(paths)) == []


def test_a_stray_site_cache_of_a_subfolder_is_removed(paths):
    stray = paths.root / "data/.cache/dvc/repo"
    stray.mkdir(parents=True)
    (finding,) = site_caches_elsewhere(paths)
    assert finding.mended and not stray.exists()


def test_a_project_of_another_account_is_named_as_such(paths, monkeypatch):
    subprocess.run(["git", "init", "-q", str(paths.root)], check=True)
    assert list(git_locks(paths)) == []
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own, for its tests
    (finding,) = git_locks(paths)
    assert "belongs to another account" in finding.what
    assert "git config --global --add safe.directory" in finding.remedy
