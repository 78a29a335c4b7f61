"""Work in other threads: ahead of whoever takes its results in order, or next to the caller's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], depth: int) -> Iterator[Result]:
    """`work` over `items` in order, at most `depth` of them in the air."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def meanwhile(work: Callable[[], Result]) -> Future[Result]:
    """Begin `work` in a thread of its own, which does not keep the process alive: who is stopped does not wait for it."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
