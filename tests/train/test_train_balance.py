"""Balanced epochs: cells equally often, and nothing drawn anew before all came."""

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import DataError, ParamsError
from tasks.core.tables import read_table, write_table
from tasks.core.training.data.balanced_sampling import cells_of, sample_balanced
from tasks.core.training.strategy import Strategy
from tasks.finetune.strategies import Replay
from tasks.train import stage

CELLS = np.array([2] * 11 + [0] * 3 + [1] * 6)


def drawn(n, seed=0):
    return sample_balanced(np.arange(100, 120), CELLS, n, np.random.default_rng(seed))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7, 20, 33, 61])
def test_cells_come_equally_often_and_their_images_too(n):
    found = drawn(n)
    assert len(found) == n
    often = np.bincount(found - 100, minlength=20)
    by_cell = np.bincount(CELLS, weights=often)
    assert by_cell.max() - by_cell.min() <= 1
    for cell in range(3):
        own = often[cell == CELLS]
        assert own.max() - own.min() <= 1


def test_which_cell_and_which_images_come_once_more_is_drawn():
    assert np.array_equal(drawn(20, 1), drawn(20, 1))
    more = {int(np.bincount(CELLS[drawn(4, seed) - 100]).argmax()) for seed in range(30)}
    assert more == {0, 1, 2}
    assert len({tuple(np.sort(drawn(20, seed))) for seed in range(5)}) == 5


@pytest.fixture
def images(images_of):
    """Pictures by their cells."""
    return lambda cells: images_of(np.zeros((len(cells), 2, 2, 3), np.uint8), cells, cells)


def test_an_unbalanced_epoch_is_the_permutation_that_it_always_was(images):
    order = Strategy().order(images([0] * 30), np.random.default_rng(5))
    assert np.array_equal(order, np.random.default_rng(5).permutation(30))


def test_an_unbalanced_replay_draws_what_it_always_drew(images):
    order = Replay(n_own=10, share=0.75).order(images([0] * 30), np.random.default_rng(5))
    rng = np.random.default_rng(5)
    pool = [rng.permutation(np.arange(10, 30)) for _ in range(2)]
    replayed = np.concatenate(pool)[:30]
    assert np.array_equal(order, rng.permutation(np.concatenate([np.arange(10), replayed])))


def test_a_balanced_epoch_has_as_many_images_and_is_shuffled(images):
    order = Strategy().order(images(CELLS), np.random.default_rng(0))
    assert len(order) == len(CELLS)
    assert sorted(np.bincount(CELLS[order])) == [6, 7, 7]
    assert (np.diff(CELLS[order]) != 0).sum() > 5  # not cell by cell


def test_own_and_replayed_images_are_balanced_each_among_themselves(images):
    cells = np.array([0] * 8 + [1] * 2 + [0] * 4 + [1] * 30 + [2] * 6)
    way = Replay(n_own=10, share=0.75)
    order = way.order(images(cells), np.random.default_rng(0))
    assert len(order) == way.shown(50) == 40
    own, replayed = order[order < 10], order[order >= 10]
    assert np.bincount(cells[own]).tolist() == [5, 5]
    assert np.bincount(cells[replayed]).tolist() == [10, 10, 10]


ROWS = pd.DataFrame(
    {
        "emotion": ["anger", "pain", "anger", "pain", "anger"],
        "gender": ["male", "male", "female", None, "male"],
        "ethnicity": [None] * 5,
        "age_band": ["unknown"] * 5,
    },
    index=[7, 3, 9, 1, 4],
)


def test_a_cell_is_a_combination_of_values_and_unknown_is_one():
    assert cells_of(ROWS, []).tolist() == [0] * 5
    assert cells_of(ROWS, ["emotion"]).tolist() == [0, 1, 0, 1, 0]
    both = cells_of(ROWS, ["gender", "emotion"])
    assert both.dtype == np.int64
    assert both.tolist() == [1, 2, 0, 3, 1]  # female anger, male anger, male pain, unknown pain


@pytest.mark.parametrize("columns", [["ethnicity"], ["emotion", "age_band"]])
def test_a_column_that_is_unknown_for_everyone_is_one_line(columns):
    with pytest.raises(DataError, match=f"balance: {columns[-1]} is unknown for all 5") as error:
        cells_of(ROWS, columns)
    assert "\n" not in str(error.value)


def test_a_column_that_there_is_not_is_one_line_that_names_those_there_are():
    with pytest.raises(
        ParamsError, match=r"balance: .*no column emotoin; .*emotion, gender"
    ) as error:
        cells_of(ROWS, ["emotoin"])
    assert "\n" not in str(error.value)


def test_training_shows_every_cell_equally_often(cohort, train_params, monkeypatch):
    """From params to batches: men are rare, and come as often as women."""
    table = read_table(cohort.split)
    rare = (
        (table["gender"] == "male") & (table["age_band"] == "adult") & (table["split"] == "train")
    )
    write_table(table.drop(table.index[rare][:-1]), cohort.split)
    orders = []
    real = Strategy.order

    def order(way, images, rng):
        orders.append(images.cells[real(way, images, rng)])
        return real(way, images, rng)

    monkeypatch.setattr(Strategy, "order", order)
    stage.run(train_params(epochs=1, balance_by=["gender"]), cohort)
    stage.run(train_params(epochs=1), cohort)
    balanced, plain = (np.bincount(cells) for cells in orders)
    assert balanced.tolist() == [5, 5]
    assert plain.tolist() == [10]
    with pytest.raises(ParamsError, match="no column genders"):
        stage.run(train_params(balance_by=["genders"]), cohort)
