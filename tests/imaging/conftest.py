"""A fixture that shows log messages of commands called by click's runner, like `main`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.cli.options import show_message
from harness.runtime import logs


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    with logs.handled(show_message):
        yield
