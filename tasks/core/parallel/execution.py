"""The one seam for work on many images: chunks through a `concurrent.futures.Executor`.

Results come back in the order of the items, so that outputs do not depend on the number of
workers. Workers are spawned (never forked from a process that holds threads) and die with their
parent. Memory is bounded: only a few chunks a worker are under way at once. With
`AFFECTGAP_DASK=tcp://…` the workers are those of a Dask cluster
(`tasks.core.parallel.dask_executor`).
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from tasks.core.parallel.process import die_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

CLUSTER_VARIABLE = "AFFECTGAP_DASK"
_CHUNKS_UNDER_WAY = 3  # a worker


class Here(Executor):
    """Runs everything at once in this process, as one worker."""

    workers = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a call and return its result as a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)
        return future


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Open a pool of `workers` processes (0: one per core) that die with this one.

    Where the environment names a Dask scheduler, its workers take their place. No process starts
    before the first call is submitted.

    Raises
    ------
    UserError
        One line where there is no such scheduler, or no worker.
    """
    if address := cluster_address():
        with _cluster(address) as cluster:
            yield cluster
        return
    pool = ProcessPoolExecutor(
        max_workers=workers or cpu_count(),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=die_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def one_process() -> Iterator[Executor]:
    """Open a place for work that fills all cores by itself: this process, or a Dask cluster."""
    if address := cluster_address():
        with _cluster(address) as cluster:
            yield cluster
    else:
        yield Here()


def cluster_address() -> str:
    """Return the address of the Dask scheduler that the environment names, or ""."""
    return os.environ.get(CLUSTER_VARIABLE, "").strip()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    from tasks.core.parallel.dask_executor import Cluster  # takes a second to import

    cluster = Cluster(address)
    try:
        yield cluster
    finally:
        cluster.shutdown(wait=False, cancel_futures=True)


def map_in_order(
    work: Callable[[list[Item]], list[Result]],
    items: Iterable[Item],
    executor: Executor,
    chunk_size: int,
    workers: int = 0,
) -> Iterator[Result]:
    """Apply `work` to chunks of items and yield its results in the order of the items.

    Parameters
    ----------
    work
        A function at module level (it travels to other processes) from a chunk to its results.
    items
        What to work on; read lazily.
    executor
        Where the work runs.
    chunk_size
        Items a chunk.
    workers
        How many workers the executor has (0: one per core), which bounds what is under way; one
        that knows the number better has it as its attribute `workers`.
    """
    source = iter(items)
    under_way: deque[Future[list[Result]]] = deque()
    while True:
        limit = (getattr(executor, "workers", workers) or cpu_count()) * _CHUNKS_UNDER_WAY
        while len(under_way) < limit and (chunk := list(islice(source, chunk_size))):
            under_way.append(executor.submit(work, chunk))
        if not under_way:
            return
        yield from under_way.popleft().result()
