"""The index of file hashes: never a wrong hash, also with a damaged index, and no file read twice without need."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from harness.files import hash_index
from harness.files.hash_index import derived, hash_file, hash_files
from harness.runtime.errors import UsageError


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "harness" / "hashes.sqlite"


@pytest.fixture
def old(tmp_path: Path) -> list[str]:
    """Five files of one size that were changed long ago by the clock that the index asks."""
    files = []
    for i in range(5):
        path = tmp_path / f"{i}.bmp"
        path.write_bytes(bytes([i]) * 1000)
        files.append(str(path))
    return files


def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the files had been left alone for an hour before they are hashed."""
    clock = hash_index._clock
    monkeypatch.setattr(hash_index, "_clock", lambda folder: clock(folder) + 3600 * 10**9)


def sha(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = hash_index._read

    def counted(paths):
        seen.extend(paths)
        return original(paths)

    monkeypatch.setattr(hash_index, "_read", counted)
    return seen


def test_files_left_alone_are_read_once_and_one_that_was_just_changed_is_read_again(old, monkeypatch):
    seen = reads(monkeypatch)
    assert hash_files(old) == {path: sha(path) for path in old}
    assert hash_files(old) == {path: sha(path) for path in old}
    assert len(seen) == 10, "changed within two seconds of being hashed: not trusted"
    settled(monkeypatch)
    hash_files(old)
    seen.clear()
    assert hash_files(old) == {path: sha(path) for path in old}
    assert seen == []
    assert hash_files(old, rehash=True) == {path: sha(path) for path in old}
    assert len(seen) == 5


def test_a_change_of_equal_size_with_the_old_modification_time_is_seen(old, monkeypatch):
    settled(monkeypatch)
    hash_files(old)
    before = os.stat(old[2])
    Path(old[2]).write_bytes(b"x" * 1000)
    os.utime(old[2], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hash_files(old)[old[2]] == hashlib.sha256(b"x" * 1000).hexdigest()


def test_two_files_that_change_places_are_seen(old, monkeypatch, tmp_path):
    settled(monkeypatch)
    hash_files(old)
    Path(old[0]).rename(tmp_path / "x")
    Path(old[1]).rename(old[0])
    (tmp_path / "x").rename(old[1])
    assert hash_files(old) == {path: sha(path) for path in old}


@pytest.mark.parametrize("content", [b"", b"not an index", b"SQLite format 3\0" + b"\xff" * 2000])
def test_a_damaged_index_costs_time_and_is_replaced(old, index, monkeypatch, content):
    settled(monkeypatch)
    hash_files(old)
    index.write_bytes(content)
    assert hash_files(old) == {path: sha(path) for path in old}
    hash_files(old)
    seen = reads(monkeypatch)
    assert hash_files(old) == {path: sha(path) for path in old}
    assert seen == []


def test_rows_that_were_altered_or_come_from_another_machine_are_not_believed(old, index, monkeypatch):
    settled(monkeypatch)
    hash_files(old)
    with sqlite3.connect(index) as connection:
        connection.execute("UPDATE files_1 SET sha256 = ?", ("0" * 64,))
    assert hash_files(old) == {path: sha(path) for path in old}
    monkeypatch.setattr(hash_index.platform, "node", lambda: "another")
    seen = reads(monkeypatch)
    assert hash_files(old) == {path: sha(path) for path in old}
    assert len(seen) == 5


def test_an_index_that_cannot_be_written_costs_time_alone(old, monkeypatch, tmp_path):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "a file"))
    assert hash_files(old) == {path: sha(path) for path in old}


def test_every_file_that_cannot_be_read_is_named(old, tmp_path):
    gone, folder = str(tmp_path / "gone.bmp"), str(tmp_path)
    with pytest.raises(UsageError) as error:
        hash_files([*old, gone])
    assert "gone.bmp" in str(error.value)
    with pytest.raises(UsageError) as error:
        hash_files([*old, folder, folder + "/."])
    assert "2 files cannot be read" in str(error.value)


def test_two_processes_use_one_index_at_once(old, tmp_path):
    code = f"import sys; from harness.files.hash_index import hash_files; print(sorted(hash_files({old!r}).values()))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    wanted = f"{sorted(sha(path) for path in old)}\n"
    assert [process.communicate(timeout=60)[0] for process in processes] == [wanted] * 4


def test_a_derived_value_is_computed_once_for_the_same_bytes(old):
    calls = []
    for _ in range(3):
        assert derived(hash_file(old[0]), "length 1", lambda: calls.append(1) or "1000") == "1000"
    assert len(calls) == 1
