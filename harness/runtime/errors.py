"""The errors that a user sees: UsageError for a wrong request or unreadable input, RunError for work that failed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from harness.runtime.text import visible


class HarnessError(Exception):
    """Any failure with a message meant for the user. `exit_status` is the command line's."""

    exit_status = 1

    def __str__(self) -> str:
        # The message may quote names from other people's files: bytes that are not text, control codes of a terminal.
        return visible(super().__str__())


class RunError(HarnessError):
    """The command ran and failed: a failed run, a damaged dataset, a record that does not verify."""


class UsageError(HarnessError):
    """The request could not be understood, or its input not read."""

    exit_status = 2


class Unwritable(UsageError, RunError):
    """A file or folder that cannot be written: no permission, no space left. Exit status 2, as for a request to be changed."""


def near(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x' or 'y'?`, or an empty text when no known word is similar."""
    matches = difflib.get_close_matches(word, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, matches))}?" if matches else ""


def listed(items: Sequence[object], limit: int = 20) -> str:
    """`a, b, c and 5 more`: at most `limit` items and a count of the rest."""
    shown = ", ".join(str(item) for item in items[:limit])
    rest = len(items) - limit
    return f"{shown} and {rest} more" if rest > 0 else shown
