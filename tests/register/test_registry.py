"""The registry: a model is registered once, and transitions survive a crash at any step."""

import functools
import json
import shutil
from dataclasses import asdict

import pytest
from mlflow import MlflowClient
from registered_project import write_small_model

from tasks.core.errors import AffectGapError, ModelError
from tasks.core.labels import DRAWN_NOTICE
from tasks.core.paths import Paths
from tasks.core.tracking.mlflow_runs import close_dead_runs, open_store
from tasks.register import registry
from tasks.register.alias_transitions import Move
from tasks.register.promotion_log import in_use, read_records
from tasks.register.versions import NAME

WRITES = (
    "set_registered_model_tag",
    "delete_registered_model_tag",
    "set_registered_model_alias",
    "delete_registered_model_alias",
    "set_model_version_tag",
)


class PowerCutError(BaseException):
    """Nothing in the code handles this."""


def one_line(call, *arguments):
    with pytest.raises(ModelError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def numbers(paths):
    """Numbers of champion and previous; None for none."""
    found = (registry.champion(paths), registry.previous(paths))
    return tuple(version and version.number for version in found)


def put_into_use(paths, number, **named):
    """Promote a version against the current champion."""
    return registry.promote(paths, number, numbers(paths)[0], **named)


def add_versions(paths, last):
    """Versions 2 to `last` with the files of the first."""
    client, _ = open_store(paths)
    first = client.get_model_version(NAME, "1")
    for _ in range(2, last + 1):
        client.create_model_version(NAME, first.source, first.run_id, dict(first.tags))


def cut_the_power(monkeypatch, step):
    """Make the process die instead of the store's write number `step`."""
    left = [step]

    def dying(name):
        real = getattr(MlflowClient, name)

        def call(self, *arguments, **named):
            left[0] -= 1
            if left[0] < 0:
                raise PowerCutError
            return real(self, *arguments, **named)

        return call

    for name in WRITES:
        monkeypatch.setattr(MlflowClient, name, dying(name))


def dies_at(monkeypatch, step, call, *arguments):
    """Whether a call is killed by a power cut at its write number `step`."""
    with monkeypatch.context() as patched:
        cut_the_power(patched, step)
        try:
            call(*arguments)
        except PowerCutError:
            return True
    return False


def test_a_version_says_what_it_is(registered):
    (version,) = registry.versions(registered)
    assert version.number == 1 and version.aliases == ("challenger",)
    assert version.tags["pass"] == "1" and version.tags["subjects_seen"] == "3"
    assert version.tags["batches"] == "spring" and version.tags["notice"] == DRAWN_NOTICE
    assert (version.tags["worst_n"], version.tags["worst_people"]) == ("70", "5")
    assert 0 < float(version.tags["worst_low"]) < float(version.tags["worst_high"]) <= 1
    assert (version.tags["worst_group"], version.tags["worst_recall"]) == ("child male", "0.9286")
    folder = registry.fetch(registered, 1)
    assert (folder / "model.safetensors").is_file() and (folder / "crop.json").is_file()
    tested = (folder / "test.csv").read_text().splitlines()
    assert len(tested) == 1 + 18 and tested[0].endswith("subject_known,emotion,age_band,gender")
    assert registry.champion(registered) is None and registry.previous(registered) is None


def test_the_same_model_is_registered_once_another_anew_and_a_lost_one_not_used(project):
    folder = project.model("finetuned")
    again = registry.register_challenger(project, folder, {"pass": "2"})
    assert again.number == 1 and again.tags["pass"] == "2"
    (folder / "seen.csv").write_text("image_id,subject_id,stage,role\n")
    other = registry.register_challenger(project, folder, {})
    assert other.number == 2 and other.digest == again.digest
    assert registry.challenger(project).number == 2
    assert [version.number for version in registry.versions(project)] == [1, 2]
    lose_weights_in_the_store(project, other)


def lose_weights_in_the_store(project, version):
    """A version whose files are lost is one line, and is not promoted."""
    client, _ = open_store(project)
    stored = client.get_run(version.run_id).info.artifact_uri.removeprefix("file://")
    weights = f"{stored}/model/artifacts/model/model.safetensors"
    shutil.copyfile(f"{stored}/model/MLmodel", weights)
    message = one_line(registry.promote, project, version.number, None)
    assert "model.safetensors is missing or another one" in message
    shutil.rmtree(f"{stored}/model/artifacts")
    assert f"version {version.number}" in one_line(registry.fetch, project, version.number)
    assert numbers(project) == (None, None)


@pytest.mark.slow
def test_a_kill_while_registering_leaves_no_half_version(project, monkeypatch):
    write_small_model(project.model("finetuned"), seed=2)
    asked = (project, project.model("finetuned"), {"pass": "2"})
    for name in ("create_model_version", "log_text", "set_registered_model_alias"):
        with monkeypatch.context() as patched:
            patched.setattr(MlflowClient, name, _cut)
            with pytest.raises(PowerCutError):
                registry.register_challenger(*asked)
        assert registry.challenger(project).number == 1
    assert registry.register_challenger(*asked).number == 2
    assert (project.registry / "cards" / "2.html").is_file()
    assert close_dead_runs(project) == 0 and not list(project.at("work/registry").glob(".ship*"))


def _cut(*arguments, **named):
    raise PowerCutError


def test_promotion_survives_a_crash_at_every_step(project, monkeypatch):
    add_versions(project, 3)
    put_into_use(project, 1)
    step, before = 0, (1, None)
    while dies_at(monkeypatch, step, registry.promote, project, 2, 1):
        assert registry.champion(project).number in (1, 2)
        put_into_use(project, 2)
        assert numbers(project) == (2, 1)
        registry.rollback(project)
        assert numbers(project) == before
        step += 1
    assert step >= 4 and numbers(project) == (2, 1)
    assert registry.finish_move(project) == ""


def test_rollback_survives_a_crash_at_every_step_and_is_recorded_once(project, monkeypatch):
    add_versions(project, 3)
    for number in (1, 2, 3):
        put_into_use(project, number)
    step = 0
    while dies_at(monkeypatch, step, registry.rollback, project, "why", "who"):
        rows = len(read_records(project))
        left, now = registry.rollback(project, "why", "who")
        assert (left.number, now.number) == (3, 2) and numbers(project) == (2, 1)
        assert len(read_records(project)) <= rows + 1
        put_into_use(project, 3)
        step += 1
    assert step >= 4 and numbers(project) == (2, 1)
    table = read_records(project)
    assert len(table) == step + 1 and not table["decision_id"].duplicated().any()
    assert set(zip(table["action"], table["version"], table["previous"], strict=True)) == {
        ("rolled_back", "2", "3")
    }
    assert set(table["by"]) == {"who"}


def test_rolling_back_twice_goes_further_back_and_then_says_that_nothing_is_left(project):
    add_versions(project, 3)
    assert one_line(registry.rollback, project).startswith("no model is in use")
    for number in (1, 2, 3):
        put_into_use(project, number)
    assert [registry.rollback(project)[1].number for _ in range(2)] == [2, 1]
    assert "no previous one" in one_line(registry.rollback, project)
    assert numbers(project) == (1, None)
    assert len(read_records(project)) == 2


def test_a_way_back_ends_before_what_was_deleted_in_the_store(project):
    add_versions(project, 3)
    for number in (1, 2, 3):
        put_into_use(project, number)
    open_store(project)[0].delete_model_version(NAME, "1")
    assert registry.rollback(project)[1].number == 2
    assert "no previous one" in one_line(registry.rollback, project)


def test_promoting_what_is_in_use_changes_nothing(project):
    add_versions(project, 2)
    put_into_use(project, 1)
    put_into_use(project, 2)
    put_into_use(project, 2)
    assert numbers(project) == (2, 1)
    assert "no version 7" in one_line(registry.promote, project, 7, 2)


def test_a_version_is_not_put_in_the_place_of_one_that_it_was_not_compared_with(project):
    """A person rolled back to version 1 while a run committed a decision against 2."""
    add_versions(project, 2)
    client, _ = open_store(project)
    client.set_registered_model_alias(NAME, "champion", "1")
    registry.assert_rival(project, 2, 1)
    registry.assert_rival(project, 1, 3)  # it is in use already
    with pytest.raises(AffectGapError, match="version 2 was compared with version 3"):
        registry.assert_rival(project, 2, 3)
    with pytest.raises(AffectGapError) as error:
        registry.promote(project, 2, 3)
    reason = "version 2 was compared with version 3, and version 1 is in use since"
    assert str(error.value).startswith(reason) and error.value.exit_code == 1  # tried again
    assert registry.champion(project).number == 1
    last = in_use(read_records(project))
    assert (last["action"], last["version"], last["previous"]) == ("not_made", "1", "2")
    assert last["why"] == reason


@pytest.fixture
def clones(project, tmp_path, monkeypatch):
    """Two clones that share one store, with versions 1 to 3 and version 1 in use."""
    add_versions(project, 3)
    put_into_use(project, 1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project.mlruns / 'mlflow.db'}")
    other = Paths(tmp_path / "other")
    shutil.copytree(project.at("work"), other.at("work"), ignore=shutil.ignore_patterns("*lock"))
    return project, other


def meanwhile(monkeypatch, write, action):
    """Call `action` once, right before a write of the store."""
    real, left = getattr(MlflowClient, write), [action]

    def call(self, *arguments, **named):
        while left:
            left.pop()()
        return real(self, *arguments, **named)

    monkeypatch.setattr(MlflowClient, write, call)


def notes(client):
    return client.get_registered_model(NAME).tags


def refused_for(paths, number, other):
    """Check that a promotion gives up in favor of another clone's, and logs that."""
    with pytest.raises(AffectGapError) as error:
        registry.promote(paths, number, 1)
    reason = f"version {number} was compared with version 1, and version {other} is in use since"
    assert str(error.value).startswith(reason)
    last = read_records(paths).iloc[-1]
    assert (last["action"], last["version"]) == ("not_made", str(other))
    assert "replaced" not in registry.find_version(paths, number).tags
    return True


def test_of_two_clones_that_promote_at_once_one_gives_up(clones, monkeypatch):
    """Both have read the champion; the other one is done before this one writes its note."""
    here, there = clones
    with monkeypatch.context() as during:
        meanwhile(during, "set_registered_model_tag", lambda: registry.promote(there, 2, 1))
        assert refused_for(here, 3, 2)
    assert numbers(here) == numbers(there) == (2, 1)
    assert notes(open_store(here)[0]) == {} and registry.finish_move(here) == ""
    assert registry.promote(here, 3, 2).number == 3  # judged anew
    assert numbers(there) == (3, 2)


def test_a_clone_whose_note_was_written_over_gives_up_and_the_other_goes_on(clones, monkeypatch):
    """The other one, too, asked before, and its note comes last: it is about to move."""
    here, there = clones
    client, _ = open_store(here)
    note = json.dumps(asdict(Move("promoted", 1, 2, 1, "decision-2")))
    with monkeypatch.context() as during:
        write = functools.partial(client.set_registered_model_tag, NAME, "affectgap.move", note)
        meanwhile(during, "set_model_version_tag", write)
        assert refused_for(here, 3, 2)
    assert numbers(here) == (1, None) and notes(client) == {"affectgap.move": note}
    assert registry.promote(there, 2, 1).number == 2
    assert numbers(here) == (2, 1) and notes(client) == {}


def test_a_rollback_that_meets_another_clones_promotion_says_so(clones, monkeypatch):
    here, there = clones
    put_into_use(here, 2)
    with monkeypatch.context() as during:
        meanwhile(during, "set_registered_model_tag", lambda: registry.promote(there, 3, 2))
        with pytest.raises(AffectGapError, match=r"another clone .* to version 3; look with"):
            registry.rollback(here, "why", "who")
    assert numbers(here) == (3, 2) and read_records(here).empty
    left, now = registry.rollback(here)
    assert (left.number, now.number) == (3, 2)


def test_a_damaged_copy_is_fetched_again(project):
    folder = registry.fetch(project, 1)
    (folder / "seen.csv").write_text("image_id,subject_id,stage,role\n")
    assert len((registry.fetch(project, 1) / "seen.csv").read_text().splitlines()) == 1 + 3
    shutil.rmtree(folder)
    assert (registry.fetch(project, 1) / "model.safetensors").is_file()


def test_no_model_or_half_a_model_is_one_line(project):
    folder = project.model("finetuned")
    (folder / "crop.json").unlink()
    assert "crop.json: missing" in one_line(registry.register_challenger, project, folder, {})
    shutil.rmtree(folder)
    assert "no model here" in one_line(registry.register_challenger, project, folder, {})
