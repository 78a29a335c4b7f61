"""A file of scores is parsed once while its content is the same, and again after it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.files import score_table
from harness.files.score_table import read_scores


def test_a_changed_file_is_read_again_whatever_its_size_and_time_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parsed: list[str] = []
    read = score_table._read
    monkeypatch.setattr(score_table, "_read", lambda path: parsed.append(str(path)) or read(path))
    path = tmp_path / "scores.csv"
    path.write_text("name,score\na.png,1\n")
    facts = path.stat()
    first = read_scores(path)
    assert read_scores(path).equals(first)
    assert len(parsed) == 1
    path.write_text("name,score\na.png,2\n")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == facts.st_size
    assert list(read_scores(path)["score"]) == [2.0]
    assert len(parsed) == 2


def test_what_a_caller_does_to_a_table_stays_with_the_caller(tmp_path: Path):
    path = tmp_path / "scores.csv"
    path.write_text("name,score\na.png,1\nb.png,2\n")
    frame = read_scores(path)
    frame.loc[frame.index[0], "score"] = 99.0
    frame["other"] = 0
    again = read_scores(path)
    assert list(again["score"]) == [1.0, 2.0]
    assert list(again) == ["name", "score"]
