"""Alternating cold rounds of a benchmark.

Stages cache results between runs (`tasks.core.cache.result_cache`), so that a second round would
time the reading of a cache. It is removed before each measurement. A ratio to the bare work that no
machine can reach fails the benchmark instead of being printed as a success.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median

from tasks.core.paths import Paths

MAX_OF_LIMIT = 1.1  # of the bare work; beyond it is not noise but work that was not done

Rates = dict[str, float]  # side: items per second


def remove_results(paths: Paths) -> None:
    """Remove what earlier runs of the stages worked out."""
    shutil.rmtree(paths.at("work"), ignore_errors=True)


def read_files(files: Iterable[Path]) -> None:
    """Read files once, so that no side waits for the disk on behalf of the other."""
    for file in files:
        file.read_bytes()


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    items: Mapping[str, int],
    rounds: int,
    before: Callable[[], None],
) -> list[Rates]:
    """Measure every side once per round, in an order that is reversed from round to round.

    `sides` maps a name to the timed function, which works on `items` items. `before` is called
    before each measurement, outside the time, so that the side starts cold.
    """
    measured = []
    for number in range(rounds):
        rates = {}
        for name in list(sides)[:: -1 if number % 2 else 1]:
            before()
            started = time.perf_counter()
            sides[name]()
            rates[name] = items[name] / (time.perf_counter() - started)
        measured.append(rates)
    return measured


def ratio(measured: Sequence[Rates], side: str, other: str) -> float:
    """Return how many times as fast one side is: the median over rounds."""
    return median(rates[side] / rates[other] for rates in measured)


def rate(measured: Sequence[Rates], side: str) -> float:
    """Return a side's items per second: the median over rounds."""
    return median(rates[side] for rates in measured)


def require_possible(claim: str, over_limit: float) -> float:
    """Return a ratio to the bare work; end the benchmark where it is beyond what is possible."""
    if over_limit > MAX_OF_LIMIT:
        sys.exit(
            f"{claim}: {over_limit:.2f} times the bare work is impossible (at most "
            f"{MAX_OF_LIMIT}): something was not worked out in the round that was timed"
        )
    return over_limit
