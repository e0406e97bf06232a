"""Passes that are really killed or starved, and then simply run again (short form).

`benchmarks/faults.py --kills 50` is the full form, with more kinds of faults.
"""

import os
import shutil

import pytest
from fault_steps import MOVING, full_disk, killed, undisturbed
from pass_world import run, small_project, three_batches

from flows.ledger.ledger import Ledger

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A model in use, and three batches in the inbox."""
    paths = small_project(tmp_path_factory.mktemp("ready") / "clone")
    said = run(paths, "retrain", "--quiet")
    assert "version 1 passed the gate and is put into use" in said
    three_batches(paths)
    return paths


@pytest.fixture(scope="module")
def expected(ready, tmp_path_factory):
    """What one undisturbed pass makes of it."""
    found = undisturbed(ready, tmp_path_factory.mktemp("undisturbed") / "clone")
    states = {batch: state for batch, _, _, state, *_ in found.batches}
    assert states == {"good": "accepted", "other": "accepted", "broken": "quarantined"}
    assert (found.in_use, len(found.versions), found.untrained) == (2, 2, 0)
    assert [action for action, *_ in found.decisions] == ["promoted", "promoted"]
    return found


@pytest.mark.long  # kills of an intake, a run and a training are among the slow tests
def test_killed_at_random_moments_torn_and_begun_twice_a_plain_restart_ends_it(
    ready, expected, tmp_path
):
    killed(ready, expected, tmp_path, kills=5, longest_s=14, seed=11)


@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="needs the right to mount a tmpfs"
)
@pytest.mark.parametrize("at", [MOVING, "small_train.py"], ids=["moving", "writing weights"])
def test_a_full_disk_stops_with_a_line_and_more_room_ends_the_pass(ready, expected, tmp_path, at):
    full_disk(ready, expected, tmp_path / "disk", at=at)


@pytest.mark.long
def test_nothing_of_all_that_reached_the_project_it_was_copied_from(ready, expected):
    assert len(Ledger(ready.ledger).batches()) == 0
