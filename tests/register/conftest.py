"""A registered version, made once, and copies of its project that a test may change."""

import shutil
import sys

import pytest
from registered_project import make_project

from tasks.core.paths import Paths
from tasks.register.registry import register_challenger


@pytest.fixture(autouse=True, scope="module")
def path_of_imports():
    """MLflow puts a shipped model's own copy of `tasks` first on the path, for good."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.fixture(scope="session")
def registered(tmp_path_factory) -> Paths:
    """A project with version 1 registered; not to be changed."""
    paths = make_project(tmp_path_factory.mktemp("registered"))
    register_challenger(paths, paths.model("finetuned"), {"pass": "1"})
    return paths


@pytest.fixture
def project(registered, tmp_path) -> Paths:
    """A copy of the store with one version, for a single test (artifacts are not copied)."""
    skipped = shutil.ignore_patterns("artifacts", "*.lock")
    shutil.copytree(registered.root, tmp_path, dirs_exist_ok=True, ignore=skipped)
    return Paths(tmp_path)
