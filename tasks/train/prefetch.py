"""The next batches are prepared by a thread while the present one trains."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def prefetched(items: Iterator[Item], ahead: int) -> Iterator[Item]:
    """Pass items on in their order, while a thread of its own makes the next ones.

    Parameters
    ----------
    items
        What makes them; only that thread runs it, one item at a time.
    ahead
        How many items may be ready or under way before they are asked for; 0: none, and no thread.

    Notes
    -----
    What making an item raises is raised where that item would have come. The thread ends with the
    last item, after an error, and when the caller stops early (closes the generator), at the
    latest when the item under way is made.
    """
    if ahead == 0:
        yield from items
        return
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        coming: deque[Future[Item | object]] = deque()
        try:
            for _ in range(ahead):
                coming.append(pool.submit(next, items, _END))
            while (item := coming.popleft().result()) is not _END:
                coming.append(pool.submit(next, items, _END))
                yield item  # type: ignore[misc]  # whatever is not the end is an item
        finally:
            for future in coming:
                future.cancel()
