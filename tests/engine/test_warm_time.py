"""The runtime per image in records and submissions' readmes: wall time of a warm model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from harness.engine import warm_time
from harness.engine.warm_time import WarmTime


class Clock:
    """Time that passes only where it is reported to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Slow:
    """A scorer that needs two seconds for each image, and four more for its first."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.scored = clock, 0

    def score(self, chunks: Sequence[Sequence[Any]]) -> Iterator[Sequence[Any]]:
        for chunk in chunks:
            self.clock.now += 2.0 * len(chunk) + (0.0 if self.scored else 4.0)
            self.scored += len(chunk)
            yield chunk


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(warm_time, "time", made)
    return made


def _measured(clock: Clock, chunks: Sequence[Sequence[int]]) -> tuple[float | None, int]:
    scorer, timer = Slow(clock), WarmTime()
    for chunk in scorer.score(chunks):
        timer.chunk(len(chunk))
    return timer.per_image(scorer, chunks), scorer.scored  # type: ignore[arg-type]


def test_the_first_chunk_pays_for_the_warming_and_does_not_count(clock: Clock):
    assert _measured(clock, [[1, 2, 3], [4, 5], [6]]) == (2.0, 6)


def test_of_a_single_chunk_one_image_is_scored_once_more(clock: Clock):
    assert _measured(clock, [[1, 2, 3]]) == (2.0, 4)


def test_a_resumed_run_with_nothing_left_warms_up_first(clock: Clock):
    scorer = Slow(clock)
    assert WarmTime().per_image(scorer, [[1, 2]]) == 2.0  # type: ignore[arg-type, list-item]
    assert scorer.scored == 2


def test_without_any_image_there_is_no_runtime(clock: Clock):
    assert WarmTime().per_image(Slow(clock), []) is None  # type: ignore[arg-type]
