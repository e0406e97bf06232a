"""Benchmarks run without caches, and impossible ratios fail."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tasks.core.paths import Paths

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
COPIES = 150  # more than `ingest` decodes without a pool


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    loaded: list[str] = []

    def module(name: str) -> ModuleType:
        loaded.append(name)
        return importlib.import_module(name)

    yield module
    for name in {*loaded, "rounds"}:
        sys.modules.pop(name, None)


def test_sides_take_turns_and_each_begins_cold(load):
    rounds = load("rounds")
    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name)) for name in ("stage", "bare")}
    items = {"stage": 10, "bare": 10}
    measured = rounds.take_turns(sides, items, 2, lambda: calls.append("cold"))
    assert calls == ["cold", "stage", "cold", "bare", "cold", "bare", "cold", "stage"]
    assert [rates.keys() for rates in measured] == [{"stage", "bare"}] * 2


def test_a_ratio_that_no_machine_can_reach_ends_the_benchmark(load):
    rounds = load("rounds")
    measured = [{"stage": 14.0, "bare": 1.0}, {"stage": 1.0, "bare": 1.0}]
    measured.append({"stage": 13.0, "bare": 1.0})
    assert rounds.ratio(measured, "stage", "bare") == 13.0
    with pytest.raises(SystemExit) as caught:
        rounds.require_possible("crop", rounds.ratio(measured, "stage", "bare"))
    assert str(caught.value) == (
        "crop: 13.00 times the bare work is impossible (at most 1.1): something was not worked "
        "out in the round that was timed"
    )
    assert rounds.require_possible("crop", 1.02) == 1.02


@pytest.mark.parametrize("name", ["crop", "ingest"])
def test_a_benchmark_removes_what_a_stage_keeps(load, name, tmp_path, monkeypatch):
    benchmark = load(name)
    paths = Paths(tmp_path)
    seen: list[bool] = []
    store = paths.at("work/kept/store.sqlite")

    def stage(*_: object) -> None:
        seen.append(store.exists())
        store.parent.mkdir(parents=True)  # fails where what it kept is still there
        store.touch()

    monkeypatch.setattr(benchmark, "run", stage)
    monkeypatch.setattr(benchmark, "bare", lambda *_: None)
    files = ([], []) if name == "crop" else ([],)
    benchmark.measure(*files, None, paths, 3)
    assert seen == [False] * 3


@pytest.mark.slow
def test_a_store_left_in_place_is_refused(load, tmp_path, monkeypatch):
    benchmark = load("ingest")
    monkeypatch.setenv("AFFECTGAP_PROGRESS", "off")
    paths = Paths(tmp_path)
    files = benchmark.add_copies(paths.raw / "many", benchmark.drawn_images()[:3], COPIES)
    params = benchmark.ingest_params().model_copy(update={"workers": 2})
    assert len(files) == COPIES
    benchmark.run(params, paths)
    monkeypatch.setattr(benchmark, "remove_results", lambda paths: None)
    warm = benchmark.measure(files, params, paths, 1)
    with pytest.raises(SystemExit, match="is impossible"):
        benchmark.require_possible("ingest", benchmark.ratio(warm, "stage", "bare"))
