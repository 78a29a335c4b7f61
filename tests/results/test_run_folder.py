"""Run folders: interrupted runs, damaged files, locks, and how a run resumes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import leaderboard
from harness.files.table_rows import rows_of
from harness.results import run_scores
from harness.results.conditions import conditions
from harness.results.record import read_record
from harness.results.run_folder import locked, prepare, require_there
from harness.results.run_scores import Scored, ScoreFile
from harness.runtime import logs
from harness.runtime.errors import RunError, UsageError

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


def scored(name: str, score: float = 0.1) -> Scored:
    return Scored(name, score, False, "d" * 64, "r" * 64, ())


@pytest.mark.slow
@given(st.lists(NAMES, min_size=1, max_size=6, unique=True), st.floats(allow_nan=False, allow_infinity=False))
def test_whatever_an_image_is_called_its_score_is_read_back_and_resumed(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], score: float
):
    file = ScoreFile(tmp_path_factory.mktemp("run"))
    assert file.resume([names]) == set()
    file.append([scored(n, score) for n in names], ["test"] * len(names))
    assert file.read() == [(n, score, "test") for n in names]
    assert [row[0] for row in file.picture_hashes()] == names
    assert file.resume([names, ["another"]]) == {0}


@given(
    rows=st.dictionaries(NAMES, st.tuples(st.floats(), st.sampled_from(["test", "validation"])), max_size=5),
    at_once=st.integers(1, 3),
)
def test_given_scores_written_in_pieces_are_read_back_as_rows_and_columns(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[float, str]], at_once: int
):
    file, names = ScoreFile(tmp_path_factory.mktemp("run")), list(rows)
    file.resume([])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_scores, "_ROWS_AT_ONCE", at_once)
        file.append_given(names, [score for score, _ in rows.values()], [part for _, part in rows.values()])
        table, pictures = file.table(), file.picture_table()
    wanted = [(name, repr(score), part) for name, (score, part) in rows.items()]
    assert [(name, repr(score), part) for name, score, part in file.read()] == wanted
    assert [(name, repr(score), part) for name, score, part in rows_of(table)] == wanted
    assert list(table.columns) == list(file.HEADER)
    assert list(rows_of(pictures)) == file.picture_hashes() == [(name, "", "") for name in names]


def test_columns_of_a_damaged_file_are_refused_or_left_out_as_its_rows(tmp_path: Path):
    file = ScoreFile(tmp_path)
    file.path.write_bytes(b"name,score,part\na,0.5,test\nb,?,test\n")
    for read in (file.read, file.table):
        with pytest.raises(RunError, match="damaged score file"):
            read()
    for path in (file.path, file.pictures):
        path.write_bytes(b"name,score,part\na,0.5,test\n\xff,0.5,test\n")
    assert file.read() == file.picture_hashes() == []
    assert file.table().empty
    assert file.picture_table().empty


def test_a_folder_whose_clearing_was_cut_off_never_looks_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a.png", "record.json", "scores.csv", "state.json", "weights.safetensors"):
        (tmp_path / name).write_text("{}")
    unlink, removed = Path.unlink, []

    def counted(path: Path, missing_ok: bool = False) -> None:
        removed.append(path.name)
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", counted)
    prepare(tmp_path, {"a": 1}, {}, force=True)
    assert removed[:2] == ["record.json", "state.json"]
    assert sorted(removed) == ["a.png", "record.json", "scores.csv", "state.json", "weights.safetensors"]
    assert os.listdir(tmp_path) == ["state.json"]


def test_a_committed_record_never_lies_there_without_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from record_factory import make, typed

    folder, record = make(tmp_path / "runs")
    copied = []

    class Stop(BaseException):
        pass

    replace = os.replace

    def cut_off(source: str, target: Path) -> None:
        replace(source, target)
        copied.append(Path(target).name)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_off)
        with pytest.raises(Stop):
            leaderboard.add([folder], tmp_path / "boards")
    assert copied == ["scores.csv"]
    assert leaderboard.check(tmp_path / "boards") == []
    (place,) = leaderboard.add([folder], tmp_path / "boards")
    assert read_record(place).to_json() == typed(record).to_json()


def test_the_holder_of_a_run_is_named_and_a_dead_holders_lock_is_free(tmp_path: Path):
    if os.name != "posix":
        pytest.skip("locks that die with their holder are POSIX's")
    hold = (
        "import sys, pathlib; from harness.results import run_folder\n"
        "with run_folder.locked(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    said: list[str] = []

    def say(level: int, text: str) -> None:
        said.append(text)
        holder.kill()

    with logs.handled(say), locked(tmp_path):
        assert said == [f"{tmp_path}: process {holder.pid} on {os.uname().nodename} works on this run; waiting for it"]
    holder.wait()


def test_a_folder_that_was_removed_under_its_run_is_an_error_that_says_so(tmp_path: Path):
    file = ScoreFile(tmp_path / "run")
    (tmp_path / "run").mkdir()
    file.resume([["a"]])
    file.path.unlink()
    with pytest.raises(RunError, match="gone"):
        file.append([scored("a")], ["test"])
    with pytest.raises(RunError, match=r"gone.*starts it again"):
        require_there(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1', "\xff", "[" * 100_000, '{"format": 7}', '{"format": 1}'])
def test_a_damaged_record_is_named_and_never_a_traceback(tmp_path: Path, text: str):
    (tmp_path / "record.json").write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"record\.json"):
        read_record(tmp_path)


@pytest.mark.parametrize("number", ["1e999", "NaN", "-Infinity"])
def test_a_record_with_a_number_that_is_none_is_refused(tmp_path: Path, number: str):
    (tmp_path / "record.json").write_text(f'{{"format": 1, "identity": {{"rate": {number}}}}}', encoding="utf-8")
    with pytest.raises(UsageError, match="not a finite number"):
        read_record(tmp_path)


def test_libraries_that_changed_start_a_run_again_and_say_which(tmp_path: Path, logged: list[str]):
    now = conditions("cpu", 1, 8)
    before = json.loads(json.dumps(now))
    before["libraries"]["torch"] = "0.0.1"
    prepare(tmp_path, {"a": 1}, before, force=False)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"of the old library")
    prepare(tmp_path, {"a": 1}, before, force=False)
    assert not logged
    assert (tmp_path / "checkpoint.safetensors").exists()
    prepare(tmp_path, {"a": 1}, now, force=False)
    assert not (tmp_path / "checkpoint.safetensors").exists()
    assert "libraries.torch was 0.0.1" in logged[0]
