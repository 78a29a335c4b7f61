"""The two kinds of failure a user meets: a request we cannot serve, and work that went wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from harness.runtime.text import visible


class HarnessError(Exception):
    """Any failure with a message meant for the user. `exit_status` is the command line's."""

    exit_status = 1

    def __str__(self) -> str:
        # It may quote names from archives and files of others: bytes that are no text, codes that would steer a terminal.
        return visible(super().__str__())


class RunError(HarnessError):
    """The command ran and met a fault: a failed run, a broken tree, a record that does not verify."""


class UsageError(HarnessError):
    """The request could not be understood, or its input not read."""

    exit_status = 2


class Unwritable(UsageError, RunError):
    """A place that cannot be written: no permission, no space left. Both a fault met and a request to be changed: status 2."""


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or nothing when no known word is near."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def listed(items: Sequence[object], limit: int = 20) -> str:
    """`a, b, c and 5 more`: at most `limit` items and a count of the rest."""
    shown = ", ".join(str(item) for item in items[:limit])
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
