"""Images given as paths: one folder, and one message for everything unreadable."""

import os

import pytest

from tasks.core.errors import ModelError
from tasks.core.imaging.decode import BadImageError
from tasks.register.pyfunc_model import read_below
from tasks.register.serve_settings import serve_settings


@pytest.fixture
def folder(tmp_path):
    """A served folder beside a secret, with links in, within and out of it."""
    served = (tmp_path / "served").resolve()
    (served / "site").mkdir(parents=True)
    (served / "site" / "face.jpg").write_bytes(b"face")
    (served / "link.jpg").symlink_to("site/face.jpg")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    (tmp_path / "served-too").mkdir()
    (tmp_path / "served-too" / "secret.txt").write_bytes(b"secret")
    (served / "out.jpg").symlink_to(tmp_path / "secret.txt")
    (served / "up").symlink_to(tmp_path)
    (served / "loop").symlink_to("loop")
    os.mkfifo(served / "pipe")
    return served


@pytest.mark.parametrize("given", ["site/face.jpg", "link.jpg", "{}/site/face.jpg", "./link.jpg"])
def test_files_inside_are_read(folder, given):
    assert read_below(folder, given.format(folder), 100) == b"face"


@pytest.mark.parametrize(
    "given",
    [
        "nowhere.jpg",
        "out.jpg",
        "up/secret.txt",
        "loop",
        "pipe",
        "site",
        "",
        ".",
        "../secret.txt",
        "site/../../secret.txt",
        "{}/../secret.txt",
        "{}-too/secret.txt",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "a\0b",
        "site/face.jpg/x",
        "x" * 4000,
    ],
)
def test_all_others_get_one_message_and_leave_nothing_open(folder, given):
    n_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(BadImageError) as error:
        read_below(folder, given.format(folder), 100)
    assert error.value.args == (
        "unreadable",
        "no image file of that path in the folder that is served",
    )
    assert len(os.listdir("/proc/self/fd")) == n_open


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AFFECTGAP_SERVE_FOLDER", "pictures"),
        ("AFFECTGAP_SERVE_FOLDER", "/nowhere/at/all"),
        ("AFFECTGAP_SERVE_MAX_ROWS", "0"),
        ("AFFECTGAP_SERVE_MAX_BODY_MB", "-1"),
        ("AFFECTGAP_SERVE_MAX_MEGAPIXELS", "many"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match=f"^{name}={value}: must be "):
        serve_settings()
