"""Seconds per image of a warm model, taken from the very chunks that are scored."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.engine.scorer import Pair, Scorer


class WarmTime:
    """Wall time per image after the first chunk: that one pays for imports, caches and compiled kernels."""

    def __init__(self) -> None:
        self._first = self._last = 0.0
        self._images = -1
        self.last: float | None = None
        """Seconds from the chunk before the last to the last."""

    def chunk(self, images: int) -> None:
        """A chunk of so many images has just been finished."""
        now = time.monotonic()
        if self._images < 0:
            self._first, self._images = now, 0
        else:
            self._images += images
            self.last = now - self._last
        self._last = now

    def measured(self) -> float | None:
        """Seconds per image, decoding included, of the chunks after the first; None where there was only one."""
        return (self._last - self._first) / self._images if self._images > 0 else None

    def per_image(self, scorer: Scorer, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Seconds per image, decoding included; where fewer than two chunks were scored, of one image scored once more."""
        if (measured := self.measured()) is not None:
            return measured
        if not chunks:
            return None
        one = [chunks[-1][:1]]
        if self._images < 0:
            next(scorer.score(one))
        begun = time.monotonic()
        next(scorer.score(one))
        return time.monotonic() - begun
