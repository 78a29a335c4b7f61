from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.files import atomic
from harness.runtime.errors import RunError


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path):
    target = tmp_path / "x.json"
    atomic.write_text(target, "old")

    def cut_short() -> None:
        with atomic.atomic(target, "w") as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cut_short()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_folder_that_cannot_be_written_is_named_with_advice(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        atomic.write_text(tmp_path / "file" / "x", "text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left_is_said_in_plain_words():
    with pytest.raises(RunError, match="no space left"):
        atomic.append_lines("/dev/full", "x\n")


def test_only_whole_lines_are_appended(tmp_path: Path):
    (tmp_path / "x").touch()
    atomic.append_lines(tmp_path / "x", "a\nb\n")
    atomic.append_lines(tmp_path / "x", "c\n")
    assert (tmp_path / "x").read_text() == "a\nb\nc\n"
    with pytest.raises(ValueError, match="whole lines"):
        atomic.append_lines(tmp_path / "x", "d")


def test_json_with_nan_is_refused_rather_than_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json(tmp_path / "x", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_equal_documents_have_equal_hashes_whatever_the_order():
    assert atomic.sha256_json({"a": 1, "b": [1.5, None]}) == atomic.sha256_json({"b": [1.5, None], "a": 1})
    assert atomic.sha256_json({"a": 1}) != atomic.sha256_json({"a": 2})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(rows=st.lists(json_values, max_size=9), around=json_values, at_once=st.integers(2, 4))
def test_rows_of_an_iterator_are_hashed_as_a_list(rows: list[object], around: object, at_once: int):
    def whole(document: object) -> str:
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_ROWS_AT_ONCE", at_once)
        assert atomic.sha256_json(iter(rows)) == atomic.sha256_json(rows) == whole(rows)
        nested = [{"rows": iter(rows), "around": around, 'é"': [around]}, around]
        assert atomic.sha256_json(nested) == whole([{"rows": rows, "around": around, 'é"': [around]}, around])


def left_over(folder: Path, name: str, process: int, place: str | None = None) -> Path:
    path = folder / f".{name}.{place or atomic._place()}-{process}-0123abcd.tmp"
    path.write_text("half")
    return path


def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path):
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    dead, alive = left_over(tmp_path, "x.json", ended.pid), left_over(tmp_path, "x.json", os.getpid())
    elsewhere, old = left_over(tmp_path, "y", ended.pid, "0" * 8), left_over(tmp_path, "z", os.getpid(), "1" * 8)
    os.utime(old, (1e9, 1e9))
    other = tmp_path / ".somebody.elses.tmp"
    other.write_text("")
    atomic.write_text(tmp_path / "x.json", "new")
    assert not dead.exists()
    assert not old.exists()
    assert {alive, elsewhere, other, tmp_path / "x.json"} == set(tmp_path.iterdir())


def test_a_file_that_is_gone_is_not_begun_again_without_its_first_lines(tmp_path: Path):
    with pytest.raises(RunError, match="the folder is gone"):
        atomic.append_lines(tmp_path / "x", "a\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_a_write_that_the_system_refuses_leaves_the_earlier_file_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    target = tmp_path / "scores.csv"
    atomic.write_text(target, "old\n")

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(RunError, match="cannot be written"):
            atomic.write_text(target, "new\n")
        patch.setattr(os, "write", refuse)
        with pytest.raises(RunError, match="cannot be written"):
            atomic.append_lines(target, "more\n")
    assert target.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_disk_that_takes_half_of_a_line_takes_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x").write_text("a\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[: len(data) // 2]))
    with pytest.raises(RunError, match="no space left"):
        atomic.append_lines(tmp_path / "x", "a whole line\n")
    assert (tmp_path / "x").read_text() == "a\n"
