import threading
import time

import pytest

from tasks.core.training.data.loader import prefetch


def threads() -> int:
    return sum(thread.name.startswith("prefetch") for thread in threading.enumerate())


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_items_come_whole_and_in_order(ahead):
    assert list(prefetch(iter(range(20)), ahead)) == list(range(20))
    assert list(prefetch(iter([]), ahead)) == []
    assert not threads()


def test_the_next_items_are_made_while_this_one_is_used():
    made = []

    def items():
        for number in range(9):
            made.append(number)
            yield number

    coming = prefetch(items(), 2)
    assert next(coming) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert made == [0, 1, 2]  # two ahead, and not more
    coming.close()


def test_an_error_comes_in_its_place_and_ends_the_thread():
    def items():
        yield 1
        yield 2
        raise OSError("no such picture")

    coming = prefetch(items(), 2)
    assert [next(coming), next(coming)] == [1, 2]
    with pytest.raises(OSError, match="no such picture"):
        next(coming)
    assert not threads()


def test_stopping_early_ends_the_thread_and_makes_no_more():
    made = []

    def endless():
        while True:
            made.append(len(made))
            yield len(made)

    coming = prefetch(endless(), 2)
    next(coming)
    coming.close()
    assert not threads()
    count = len(made)
    time.sleep(0.02)
    assert len(made) == count <= 3
