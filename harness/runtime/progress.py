"""Progress of long work on standard error: a bar on a terminal, plain lines in a log, both with the time left.

It is shown where the package's loggers show INFO: in the command line without `--quiet`, elsewhere where a program asks for it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from harness.runtime.logs import LOGGER

Step = Callable[..., None]
"""Called with the number of finished units and a short text (a loss, a name)."""

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(what: str, total: int, *, done: int = 0, unit: str = "") -> Iterator[Step]:
    """Show the progress of `what`; `done` units were finished before."""
    if total <= done or not logging.getLogger(LOGGER).isEnabledFor(logging.INFO):
        yield lambda count, text="": None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        far = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        columns = *far, TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[text]}")
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done, text="")
            yield lambda count, text="": bar.update(task, completed=count, text=text)
    else:
        yield _Lines(what, total, done, unit)


@contextmanager
def counted(what: str, *, unit: str = "", least: int = 1) -> Iterator[Callable[[int, int], None]]:
    """Progress of work whose total is known only when it begins: the callback takes (done, total).

    Nothing is shown for a total below `least`.
    """
    with ExitStack() as stack:
        opened: list[Step] = []

        def step(done: int, total: int) -> None:
            if total < least:
                return
            if not opened:
                opened.append(stack.enter_context(progress(what, total, unit=unit)))
            opened[0](done)

        yield step


@contextmanager
def downloads() -> Iterator[Callable[[str, int, int], None]]:
    """Progress of downloads, one after another: the callback takes a file's name, the bytes received, and the total bytes."""
    with ExitStack() as stack:
        current: list[str] = []
        opened: list[Step] = []

        def step(name: str, done: int, total: int) -> None:
            if current != [name]:
                stack.close()
                current[:], opened[:] = [name], []
                opened.append(stack.enter_context(progress(name, max(total, done + 1), done=done, unit="bytes")))
            opened[0](done)

        yield step


class _Lines:
    def __init__(self, what: str, total: int, done: int, unit: str) -> None:
        self.what, self.total, self.first, self.unit = what, total, done, unit
        self.begun = self.last = time.monotonic()

    def __call__(self, count: int, text: str = "") -> None:
        now = time.monotonic()
        if now - self.last < _SECONDS_BETWEEN_LINES and count < self.total:
            return
        unknown = count > self.total  # a server that did not send the size
        if count >= self.total and now - (self.last if unknown else self.begun) < _SECONDS_BETWEEN_LINES:
            return
        self.last = now
        rate = (count - self.first) / max(now - self.begun, 1e-9)
        left = f", {duration((self.total - count) / rate)} left" if rate and count < self.total else ""
        far = f"{count}{'' if unknown else f'/{self.total}'}{' ' + self.unit if self.unit else ''}"
        shown = f"{self.what}: {far}{left}{'; ' + text if text else ''}"
        print(shown, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `3 days 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"
