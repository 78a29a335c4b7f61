"""How Ctrl-C, SIGTERM and SIGHUP end the work: by an exception that runs its finally blocks, and that cannot be lost on its way.

Python raises it wherever the main thread stands. Inside a destructor or a weak reference's callback the interpreter would only
print it and go on; inside an import, a library may turn it into an error of its own.
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
"""After which a signal whose exception was lost is sent again."""


def received() -> int | None:
    """The number of the first signal that asked the work to end, since `heard` began; None where none did."""
    return _received[0] if _received else None


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, SIGTERM SystemExit(143) and SIGHUP SystemExit(129) inside.

    Afterwards the handlers are the caller's again.
    """
    if threading.current_thread() is not threading.main_thread():  # only there can they be set
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    unraisable = sys.unraisablehook
    if before[signal.SIGTERM] is not _stop:  # else one is inside another
        _received.clear()
        sys.unraisablehook = _lost(unraisable)
    listen()
    try:
        yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def listen() -> None:
    """Put the handlers in place, also where a library has put its own.

    An interrupt that a shell told the process to ignore stays ignored, and one with a handler of the caller's (a notebook's) his.
    """
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _stop)
        signal.signal(signal.SIGTERM, _stop)
        # Under nohup a closed terminal is to be passed over.
        if _HANGUP is not None and signal.getsignal(_HANGUP) == signal.SIG_DFL:
            signal.signal(_HANGUP, _stop)


def _stop(number: int, frame: Any) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def _lost(otherwise: Callable[[Any], Any]) -> Callable[[Any], None]:
    """A hook for exceptions that nobody can catch: a stop is sent again, the others go to `otherwise`."""

    def again(known: int) -> None:
        if len(_received) == known:  # else another signal has come through meanwhile
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
