"""Standard output and standard error that may be closed, on a full disk, or on a closed terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class _Stream:
    """A stream that keeps its first error; with `raises` off, it ignores errors and continues."""

    def __init__(self, stream: TextIO, *, raises: bool) -> None:
        self._stream, self._raises = stream, raises
        self.refused: OSError | None = None

    def write(self, text: str) -> int:
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    def refusal(self) -> OSError | None:
        """Why the stream did not take all that was written to it; None where it did."""
        with contextlib.suppress(OSError, ValueError):
            self.flush()
        return self.refused

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.refused = self.refused or error
            # The buffered text and all later output are dropped: else Python fails again at exit.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
                self._stream.flush()
            if self._raises:
                raise
        except ValueError:  # already closed
            if self._raises:
                raise


@contextlib.contextmanager
def guarded() -> Iterator[_Stream | None]:
    """Inside the block, a failing standard error ends nothing, and no opened file gets the number of a closed stream.

    Yields standard output, whose `refusal` is its first error; None where it is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    before = sys.stdout, sys.stderr
    out = None if sys.stdout is None else _Stream(sys.stdout, raises=True)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = cast("TextIO", out)
        sys.stderr = cast("TextIO", _Stream(sys.stderr or nowhere, raises=False))
        try:
            yield out
        finally:
            sys.stdout, sys.stderr = before
