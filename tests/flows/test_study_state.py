"""What of a study is asked again: by DVC's word, by the runs' files, by what came before."""

import pytest
import yaml
from study_world import TRAIN, World, settings, write_results

from flows.study import device_pool
from flows.study import state as state_module
from flows.study.device_pool import DevicePool, DeviceSlot, divide_devices, find_slots, usable_gpus
from flows.study.dvc_stages import FILE, run_stage, target_of
from flows.study.flow import check
from flows.study.state import StudyState
from tasks.core.errors import ParamsError, UserError
from tasks.core.params import load_yaml
from tasks.core.paths import STUDY_OUTS, Paths


@pytest.fixture
def changed(monkeypatch):
    """What DVC calls changed: empty until a test says otherwise."""
    names: set[str] = set()
    monkeypatch.setattr(
        state_module, "changed_stages", lambda root, target, file: dict.fromkeys(names)
    )
    return names


@pytest.fixture
def paths(tmp_path):
    write_params(tmp_path, TRAIN, small())
    return Paths(tmp_path)


def small(**changed):
    """A section `study` that is quickly decided."""
    return settings(seeds=[1, 2], resamples=100, **changed)


def write_params(root, train, study):
    content = {"train": train, "study": study.model_dump()}
    (root / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def finish(paths, world) -> list[list[str]]:
    """Carry a study out as the flow does; returns the keys that were trained, by batch."""
    state = StudyState(paths)
    state.look()
    batches = []
    while (found := state.progress()).wanted:
        state.write(found)
        write_results(world.results(found.wanted).values(), paths.at("study/results"))
        for run in found.wanted:
            state.accept(run.key, trained=True)
        batches.append([run.key for run in found.wanted])
    state.write(found)
    return batches


def test_a_finished_study_is_up_to_date(paths, changed):
    trained = finish(paths, World({"compact": 0.8}))
    assert len(trained) > 3
    state = StudyState(paths)
    state.look()
    assert state.is_up_to_date(state.progress())
    assert finish(paths, World({})) == []
    for name in STUDY_OUTS:
        changed.add(target_of(name))
        state.look()
        assert not state.is_up_to_date(state.progress()), name
        changed.clear()


def test_what_dvc_calls_changed_is_asked_again_and_nothing_else(paths, changed):
    world = World({"compact": 0.8})
    first, *_ = finish(paths, world)
    changed.add(target_of(run_stage(first[1])))
    assert finish(paths, world)[0] == [first[1]]


def test_one_changed_arm_reruns_only_what_depends_on_it(paths, changed):
    world = World({"compact": 0.8})
    before = {key for batch in finish(paths, world) for key in batch}
    rates = {**settings().learning_rates, "sgd": [0.02]}
    write_params(paths.root, TRAIN, small(learning_rates=rates))
    again = {key for batch in finish(paths, world) for key in batch}
    assert again
    assert all("sgd_0.02" in key for key in again - before)
    assert again - before == again  # of the old runs none is trained again


def test_another_recipe_under_the_same_key_is_another_run(paths, changed):
    world = World({"compact": 0.8})
    before = finish(paths, world)
    write_params(paths.root, {**TRAIN, "batch_size": 8}, small())
    assert finish(paths, world) == before


def test_a_study_whose_trainings_all_failed_is_mended_by_params(paths, changed):
    with pytest.raises(UserError, match="no training went to the end"):
        finish(paths, World({}, failing=small().backbones))
    with pytest.raises(UserError, match="no training went to the end"):
        finish(paths, World({}))  # the same params: the same end
    write_params(paths.root, {**TRAIN, "learning_rate": 0.0001}, small())
    assert len(finish(paths, World({"compact": 0.8}))) > 3


def test_an_old_result_is_not_taken_for_the_run_whose_file_was_written(paths, changed):
    finish(paths, World({"compact": 0.8}))
    write_params(paths.root, {**TRAIN, "batch_size": 8}, small())
    state = StudyState(paths)
    state.look()
    found = state.progress()
    state.write(found)
    assert found.wanted and state.progress().wanted == found.wanted


def test_results_that_no_stage_stands_for_are_not_believed(paths, changed):
    world = World({"compact": 0.8})
    first, *_ = finish(paths, world)
    stages = load_yaml(paths.at(FILE))
    del stages["stages"]["study_run"]["foreach"][first[0]]
    paths.at(FILE).write_text(yaml.safe_dump(stages))
    assert finish(paths, world)[0] == [first[0]]


def test_a_rung_is_looked_at_again_when_the_one_before_was_trained_anew(paths, changed):
    world = World({"compact": 0.8})
    finish(paths, world)
    state = StudyState(paths)
    state.look()
    later = next(run for run in state.progress().runs if run.before)
    changed.add(target_of(run_stage(later.before)))
    again = {key for batch in finish(paths, world) for key in batch}
    assert {later.before, later.key} <= again


@pytest.mark.parametrize(
    ("study", "train", "said"),
    [
        ({"losses": ["cross_entropy", "focal"]}, {}, r"study\.losses: there is no 'focal'"),
        ({}, {"epochs": 0}, r"train\."),
        ({"published": "nobody"}, {}, r"study\.published: no study 'nobody'"),
        ({}, {"loss": "cross_entropy"}, r"train\.loss"),
    ],
)
def test_faults_in_params_are_found_before_anything_is_trained(paths, study, train, said):
    write_params(paths.root, {**TRAIN, **train}, small(**study))
    with pytest.raises(ParamsError, match=said):
        check(StudyState(paths))


def test_a_machine_is_shared_out():
    assert divide_devices(0, [], 4) == [DeviceSlot(None, 1)] * 4
    assert divide_devices(0, ["0", "3"], 16) == [DeviceSlot("0", 8), DeviceSlot("3", 8)]
    assert [place.gpu for place in divide_devices(3, ["0", "1"], 2)] == ["0", "1", "0"]
    assert divide_devices(1, [], 8) == [DeviceSlot(None, 8)]
    assert DeviceSlot("3", 8).environment() == {"CUDA_VISIBLE_DEVICES": "3", "OMP_NUM_THREADS": "8"}
    assert DeviceSlot(None, 1).environment() == {"OMP_NUM_THREADS": "1"}
    assert usable_gpus("cpu") == usable_gpus("cuda:1") == []


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_a_certain_accelerator_is_one_place(monkeypatch, device):
    monkeypatch.setattr(device_pool, "cpu_count", lambda: 8)
    assert find_slots(0, device) == [DeviceSlot(None, 8)]
    assert len(find_slots(2, device)) == 2  # who asks for more gets more
    assert len(find_slots(0, "cpu")) == 8


def test_torchrun_shares_devices_and_cores_out_itself(monkeypatch):
    monkeypatch.setenv("AFFECTGAP_TORCHRUN", "--nproc-per-node 2")
    (alone,) = find_slots(0, "auto")
    assert alone.environment() == {}
    assert len(find_slots(2, "auto")) == 2


def test_a_place_is_held_by_one_at_a_time():
    places = DevicePool([DeviceSlot("0", 1), DeviceSlot("1", 1)])
    with places.one() as first, places.one() as second:
        assert {first.gpu, second.gpu} == {"0", "1"}
    with places.one(), places.one():
        pass
