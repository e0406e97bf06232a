"""What other accounts of the machine may read: nothing that holds images, names or ids."""

import os
import stat

import pytest

from tasks.core.files import close_folders, open_to_others, prepare_site_cache, restrict_umask


@pytest.fixture
def root(tmp_path):
    """A project as an earlier version left it, with the usual umask."""
    before = os.umask(0o022)
    try:
        for name in (".dvc/cache/files", "data/raw/mine", "data/inbox", "models", "study/results"):
            (tmp_path / name).mkdir(parents=True)
        (tmp_path / "data/ledger.db").write_text("ids")
        (tmp_path / "params.yaml").write_text("draw: {}\n")
        yield tmp_path
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def closed(root):
    return {str(path.relative_to(root)) for path, _ in close_folders(root)}


def test_what_is_open_is_closed_once_and_the_rest_is_left(root):
    expected = {".dvc", "models", "study/results", "data", "data/raw", "data/ledger.db"}
    assert closed(root) == expected
    assert closed(root) == set() and list(open_to_others(root)) == []
    assert mode(root / ".dvc") == mode(root / "data/raw") == 0o700
    assert mode(root / "data/ledger.db") == 0o600
    assert mode(root / "params.yaml") == 0o644  # git's own, and nobody is in it


def test_an_inbox_stays_as_its_operator_set_it_and_reachable(root):
    (root / "data/inbox").chmod(0o2770)
    close_folders(root)
    assert mode(root / "data/inbox") == 0o2770
    assert mode(root / "data") == 0o711  # sites pass through, and cannot list it
    (root / "data/inbox").chmod(0o700)
    close_folders(root)
    assert mode(root / "data") == 0o700


def test_a_folder_shared_with_its_group_on_purpose_is_closed_to_others_only(root):
    (root / "models").chmod(0o2775)
    close_folders(root)
    assert mode(root / "models") == 0o2770


def test_a_link_is_not_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    elsewhere.chmod(0o755)
    (root / "reports").symlink_to(elsewhere)
    assert "reports" not in closed(root) and mode(elsewhere) == 0o755


def test_new_files_are_for_this_account_alone_and_a_stricter_umask_stays():
    before = os.umask(0o222)
    try:
        restrict_umask()
        assert os.umask(0o022) == 0o277
    finally:
        os.umask(before)


def test_dvcs_site_cache_is_private_and_what_another_account_put_there_goes(root, monkeypatch):
    repositories = root / ".cache/dvc/repo"
    repositories.mkdir(parents=True)
    for path in (root / ".cache", root / ".cache/dvc", repositories):
        path.chmod(0o777)  # as DVC itself makes them
    (repositories / "planted").mkdir()
    (repositories / "own").mkdir()
    if os.geteuid() == 0:
        os.chown(repositories / "planted", 12345, 12345)
    assert prepare_site_cache(root) == root / ".cache/dvc"
    modes = [mode(path) for path in (root / ".cache", root / ".cache/dvc", repositories)]
    assert modes == [0o700] * 3
    assert (repositories / "own").is_dir()
    assert (repositories / "planted").is_dir() == (os.geteuid() != 0)


def test_nothing_is_made_where_there_is_no_dvc(tmp_path):
    prepare_site_cache(tmp_path)
    assert list(tmp_path.iterdir()) == []
