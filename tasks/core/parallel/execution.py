"""Parallel work on many images: chunks of items on a `concurrent.futures.Executor`.

Results are in the order of the items, so that outputs do not depend on the number of workers.
Workers are spawned, since forking a process with threads is unsafe, and die with their parent.
Memory is bounded, since only a few chunks per worker are in progress. With `AFFECTGAP_DASK=tcp://…`
the work runs on a Dask cluster (`tasks.core.parallel.dask_executor`).
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
_CHUNKS_PER_WORKER = 3  # in progress


class Here(Executor):
    """Executor that runs each call immediately in this process."""

    workers = 1

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Run a call and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - raised by `result`
            future.set_exception(error)
        return future


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """Open a pool of `workers` processes (0: one per core) that die with this one.

    If the environment names a Dask scheduler, its cluster is used instead; raises UserError if that
    is not available. Processes start with the first call.
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
    """Open an executor for work that uses all cores itself: this process, or a Dask cluster."""
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
    from tasks.core.parallel.dask_executor import Cluster  # the import takes a second

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
    """Apply `work` to chunks of items and yield the results in the order of the items.

    `work` must be a function at module level, since it is pickled. Items are read lazily: the
    number of workers (0: one per core; an attribute `workers` of the executor takes precedence)
    limits the chunks in progress.
    """
    source = iter(items)
    futures: deque[Future[list[Result]]] = deque()
    while True:
        limit = (getattr(executor, "workers", workers) or cpu_count()) * _CHUNKS_PER_WORKER
        while len(futures) < limit and (chunk := list(islice(source, chunk_size))):
            futures.append(executor.submit(work, chunk))
        if not futures:
            return
        yield from futures.popleft().result()
