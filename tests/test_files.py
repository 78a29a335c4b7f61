from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import files
from harness.errors import Fault


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path):
    target = tmp_path / "x.json"
    files.write_text(target, "old")

    def cut_short() -> None:
        with files.atomic(target, "w") as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        cut_short()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_folder_that_cannot_be_written_is_named_with_advice(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Fault, match="cannot be written"):
        files.write_text(tmp_path / "file" / "x", "text")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_left_is_said_in_plain_words():
    with pytest.raises(Fault, match="no space left"):
        files.append_lines("/dev/full", "x\n")


def test_only_whole_lines_are_appended(tmp_path: Path):
    files.append_lines(tmp_path / "x", "a\nb\n")
    files.append_lines(tmp_path / "x", "c\n")
    assert (tmp_path / "x").read_text() == "a\nb\nc\n"
    with pytest.raises(ValueError, match="whole lines"):
        files.append_lines(tmp_path / "x", "d")


def test_json_with_nan_is_refused_rather_than_written(tmp_path: Path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_equal_documents_have_equal_hashes_whatever_the_order():
    assert files.sha256_json({"a": 1, "b": [1.5, None]}) == files.sha256_json({"b": [1.5, None], "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})
