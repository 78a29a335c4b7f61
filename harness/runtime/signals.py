"""Ctrl-C, SIGTERM and SIGHUP end the work by an exception, so that `finally` blocks run; the exception cannot be lost.

Python raises it at any place in the main thread. In a destructor or a weak reference's callback the interpreter would only
print it and continue; during an import, a library may turn it into another error.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

_HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""A terminal that was closed; Windows has no such signal."""
STOPS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP is not None else []))
_received: list[int] = []
_SECONDS = 0.05
"""Seconds after which a signal whose exception was lost is sent again."""


def received() -> int | None:
    """The number of the first signal that asked the work to end, since `handled` began; None where none did."""
    return _received[0] if _received else None


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Inside the block, SIGINT raises KeyboardInterrupt, SIGTERM SystemExit(143) and SIGHUP SystemExit(129).

    After it, the caller's handlers are restored.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can they be set
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    unraisable = sys.unraisablehook
    if before[signal.SIGTERM] is not _stop:  # else this block is inside another one
        _received.clear()
        sys.unraisablehook = _lost(unraisable)
    install()
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def install() -> None:
    """Install the handlers, also where a library has installed its own.

    An interrupt that the shell made the process ignore stays ignored; a caller's own handler (a notebook's) stays installed.
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)
        # Under nohup a closed terminal is ignored.
        if _HANGUP is not None and signal.getsignal(_HANGUP) == signal.SIG_DFL:
            signal.signal(_HANGUP, _stop)


def _stop(number: int, frame: Any) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _lost(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook for exceptions that no code can catch: a stop signal is sent again, other exceptions go to `otherwise`."""

    def again(known: int) -> None:
        if len(_received) == known:  # else another signal has arrived meanwhile
            if hasattr(signal, "pthread_kill"):  # wakes a main thread that waits, too
                signal.pthread_kill(cast("int", threading.main_thread().ident), _received[0])
            else:
                signal.raise_signal(_received[0])

    def hook(given: Any) -> None:
        if not _received or not issubclass(given.exc_type, KeyboardInterrupt | SystemExit):
            otherwise(given)
            return
        timer = threading.Timer(_SECONDS, again, (len(_received),))
        timer.daemon = True
        timer.start()

    return hook
