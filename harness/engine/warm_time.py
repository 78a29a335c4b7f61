"""Measuring the seconds per image of a warm model from the scored chunks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.engine.scorer import Pair, Scorer


_ENOUGH = 3
"""The time is measured over this many times the number of chunks in progress."""


class WarmTime:
    """Wall time per image after the first chunks: the first pays for imports, caches and compiled kernels.

    Args:
        ahead: Chunks that may be in progress or finished when the first one is. They are left out with it, because the time
            between them is not the time of the work.
    """

    def __init__(self, ahead: int = 1) -> None:
        self._ahead = max(1, ahead)
        self._start = self._last = 0.0
        self._chunks = self._images = 0
        self.last: float | None = None
        """Seconds between the last two chunks."""

    def chunk(self, images: int) -> None:
        """Count a finished chunk of `images` images."""
        now = time.monotonic()
        if self._chunks:
            self.last = now - self._last
        self._chunks += 1
        if self._chunks <= self._ahead:
            self._start = now
        else:
            self._images += images
        self._last = now

    def measured(self) -> float | None:
        """Seconds per image, decoding included, of the chunks after the first ones; None where too few were scored."""
        enough = self._chunks >= _ENOUGH * self._ahead and self._images
        return (self._last - self._start) / self._images if enough else None

    def per_image(self, scorer: Scorer, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Seconds per image, decoding included; where too few chunks were scored, one image is scored again for it."""
        if (measured := self.measured()) is not None:
            return measured
        if not chunks:
            return None
        one = [chunks[-1][:1]]
        if not self._chunks:
            next(scorer.score(one))
        begun = time.monotonic()
        next(scorer.score(one))
        return time.monotonic() - begun
