"""The store of earlier results: right or not there, whatever befalls its file."""

import resource
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tasks.core.cache import result_cache as kept_module
from tasks.core.cache.result_cache import (
    Kept,
    Where,
    kept_results,
    key_of,
    made_by,
    map_what_is_new,
)
from tasks.core.cache.source_files import imported_files, imported_libraries
from tasks.crop import crop_cache
from tasks.explain import parallel_explain
from tasks.ingest import scan

ROOT = Path(__file__).resolve().parents[2]
KEYS = [key_of(str(number)) for number in range(4)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A store with four entries."""
    file = tmp_path / "kept" / "stage.sqlite"
    with kept_results(file) as kept:
        for key in KEYS:
            kept.put(key, b"value of " + key)
    return file


def found(file: Path) -> set[bytes]:
    with kept_results(file) as kept:
        return {value.removeprefix(b"value of ") for value in kept.find(KEYS).values()}


def test_what_a_run_did_not_use_is_dropped(file):
    with kept_results(file) as kept:
        assert not kept.is_empty()
        assert kept.find(KEYS[:2]) == {key: b"value of " + key for key in KEYS[:2]}
        assert kept.has(KEYS) == set(KEYS)
        kept.put(KEYS[2], b"value of " + KEYS[2])
    assert found(file) == set(KEYS[:3])


def test_what_a_failed_run_made_stays_beside_all_that_was_there(file):
    with pytest.raises(KeyError), kept_results(file) as kept:
        kept.put(key_of("new"), b"made before the failure")
        raise KeyError
    with kept_results(file) as kept:
        assert kept.find([key_of("new")]) == {key_of("new"): b"made before the failure"}
        assert kept.has(KEYS) == set(KEYS)


def test_a_key_tells_its_parts_apart():
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("abc", "")}) == 4


def flip(file: Path, at: bytes) -> None:
    """Change a byte of a value in the file."""
    content = bytearray(file.read_bytes())
    content[content.index(at) + 10] ^= 1
    file.write_bytes(content)


def test_a_value_with_a_changed_byte_is_not_found(file):
    flip(file, b"value of " + KEYS[1])
    assert found(file) == {KEYS[0], KEYS[2], KEYS[3]}


@pytest.mark.parametrize(
    "content", [b"", b"no database" * 400, None], ids=["empty", "junk", "torn"]
)
def test_a_damaged_file_is_made_anew(file, content):
    file.write_bytes(file.read_bytes()[:5000] if content is None else content)
    assert found(file) == set()
    with kept_results(file) as kept:
        kept.put(KEYS[0], b"value of " + KEYS[0])
    assert found(file) == {KEYS[0]}


def test_a_file_of_another_layout_is_made_anew(tmp_path):
    file = tmp_path / "stage.sqlite"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE kept (key BLOB)")
    assert found(file) == set()
    with kept_results(file) as kept:
        kept.put(KEYS[0], b"value of " + KEYS[0])
    assert found(file) == {KEYS[0]}


def test_a_file_that_cannot_grow_stops_nothing(file):
    size, limits = file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        with kept_results(file) as kept:
            for number in range(200):
                kept.put(key_of("large", str(number)), bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert found(file) <= set(KEYS)


def test_a_place_that_is_no_folder_stops_nothing(tmp_path):
    (tmp_path / "work").write_text("a file")
    with kept_results(tmp_path / "work" / "stage.sqlite") as kept:
        kept.put(KEYS[0], b"x")
        assert kept.is_empty() and not kept.find(KEYS)


def test_a_file_that_another_process_holds_is_left_alone(file):
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    kept = Kept(file, busy_s=0.05)
    assert kept.is_empty()
    kept.close()
    holder.close()
    assert found(file) == set(KEYS)


def tens(numbers: list[int]) -> list[int]:
    worked_on.extend(numbers)
    return [10 * number for number in numbers]


worked_on: list[int] = []


@pytest.mark.parametrize("few", [0, 100], ids=["in threads", "here"])
@pytest.mark.parametrize("known", [range(0), range(50), range(0, 50, 3), range(20, 30)])
def test_only_new_items_are_worked_on_and_order_is_kept(known, few, monkeypatch):
    monkeypatch.setattr(kept_module, "_AT_ONCE", 16)
    worked_on.clear()
    told = {}
    with ThreadPoolExecutor(2) as threads:
        results = map_what_is_new(
            tens,
            range(50),
            lambda some: [10 * item if item in known else None for item in some],
            told.__setitem__,
            Where(threads, 4, 2, few),
        )
        assert list(results) == [10 * number for number in range(50)]
    new = [number for number in range(50) if number not in known]
    assert sorted(worked_on) == new
    assert told == {number: 10 * number for number in new}


NOT_IN_RESULTS = frozenset(  # they carry, store or start; no figure follows from them
    ["distributed", "filelock", "h5py", "onnx", "pandas", "psutil", "pyarrow", "pydantic"]
).union(["pyyaml", "requests", "rich", "safetensors"])


def test_a_key_covers_every_library_that_a_result_follows_from():
    homes = {**packages_distributions(), "dlib": ["dlib-bin"]}  # which does not say what it holds
    for module in (scan, crop_cache, parallel_explain):
        imported = imported_libraries(ROOT, imported_files(ROOT, module.__name__))
        packages = {homes[name][0].lower() for name in imported}
        assert packages - NOT_IN_RESULTS <= set(module.LIBRARIES), module.__name__


def test_a_change_of_the_code_is_another_maker(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    for name in ("maker", "helper"):
        (tmp_path / "tasks" / f"{name}.py").write_text("from tasks import helper\n")
    monkeypatch.setattr(kept_module, "_ROOT", tmp_path)
    first = made_by("tasks.maker", ["numpy"])
    assert made_by("tasks.maker", []) != first
    (tmp_path / "tasks" / "helper.py").write_text("# changed\n")
    assert made_by("tasks.maker", ["numpy"]) != first
