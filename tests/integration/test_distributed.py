"""Parts of distributed work that need no Ray: sharing of devices, results in any order, ending of processes after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import write_table

from harness.engine.distributed.allocation import Share, divide
from harness.engine.distributed.session import Node, cores
from harness.engine.distributed.worker_pool import _shards
from harness.engine.scorer import Pair
from harness.results import processes
from harness.results.run_scores import Scored, ScoreFile
from harness.runtime.errors import UsageError

HARNESS = [sys.executable, "-m", "harness"]
GPUS = [Node("a", 32, 4), Node("b", 16, 1)]


@pytest.mark.parametrize(
    ("nodes", "wanted", "device", "share"),
    [
        ([Node("a", 8, 0)], 2, None, Share(2, "cpu", 4)),
        ([Node("a", 8, 0)], 3, None, Share(3, "cpu", 2)),
        ([Node("a", 3, 0), Node("b", 2, 0)], 2, None, Share(2, "cpu", 2)),
        ([Node("a", 3, 0), Node("b", 2, 0)], 0, None, Share(5, "cpu", 1)),
        (GPUS, 0, None, Share(5, "cuda", 8)),
        (GPUS, 2, "cuda", Share(2, "cuda", 8)),
        (GPUS, 6, "cpu", Share(6, "cpu", 8)),
    ],
)
def test_devices_are_shared_out_one_each_and_cpus_evenly_inside_nodes(nodes, wanted: int, device: str | None, share: Share):
    assert divide(nodes, "", wanted, device) == share


@given(st.lists(st.integers(1, 64), min_size=1, max_size=6), st.data())
def test_every_worker_fits_into_a_node_and_one_thread_more_would_not(cpus: list[int], data: st.DataObject):
    nodes = [Node(str(i), n, 0) for i, n in enumerate(cpus)]
    wanted = data.draw(st.integers(1, sum(cpus)))
    share = divide(nodes, "", wanted)
    assert sum(n // share.threads for n in cpus) >= wanted
    assert sum(n // (share.threads + 1) for n in cpus) < wanted


@pytest.mark.parametrize(
    ("nodes", "wanted", "device", "words"),
    [
        ([Node("a", 2, 0)], 3, None, "3 workers.*2 CPUs.*use --workers 2 or fewer"),
        ([Node("a", 2, 0)], 1, "cuda", "no GPU"),
        (GPUS, 6, None, "one per GPU.*use --workers 5 or fewer"),
        (GPUS, 1, "cuda:1", "cpu or cuda"),
    ],
)
def test_more_than_there_is_is_refused_with_what_there_is(nodes, wanted: int, device: str | None, words: str):
    with pytest.raises(UsageError, match=words):
        divide(nodes, "a machine with 2 CPUs", wanted, device)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 40))
def test_shards_are_whole_references_in_order_and_lose_nothing(sizes: list[int], about: int):
    chunks, number = {}, 0
    for reference, size in enumerate(sizes):
        for _ in range(size):
            chunks[number] = [Pair(f"{number}", "", f"r{reference}", "")]
            number += 1
    shards = _shards(chunks, about)
    assert [n for shard in shards for n in shard] == list(chunks)
    homes = [{chunks[n][0].reference for n in shard} for shard in shards]
    assert all(not a & b for i, a in enumerate(homes) for b in homes[i + 1 :])
    assert len(shards) <= about + 1 or all(len(home) == 1 for home in homes)


def scored(name: str) -> Scored:
    return Scored(name, int(name) / 7, False, f"d{name}", f"r{name}", ())


CHUNKS = [[str(10 * c + i) for i in range(3)] for c in range(6)]


@settings(deadline=None, max_examples=40)
@given(st.permutations(range(6)), st.integers(0, 6), st.integers(0, 40))
def test_chunks_in_any_order_survive_a_kill_whole_and_end_in_the_tables_order(order: list[int], finished: int, torn: int):
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        whole, cut = (ScoreFile(Path(place) / name) for name in ("whole", "cut"))
        for file in (whole, cut):
            file.path.parent.mkdir()
            assert file.resume(CHUNKS) == set()
        for chunk in CHUNKS:
            whole.append([scored(n) for n in chunk], ["test"] * 3)
        whole.finish(CHUNKS)
        for number in order[:finished]:
            cut.append([scored(n) for n in CHUNKS[number]], ["test"] * 3)
        text = cut.path.read_bytes()
        cut.path.write_bytes(text[: max(len("name,score,part\n"), len(text) - torn)])
        done = cut.resume(CHUNKS)
        lost = set(order[:finished]) - done
        assert lost <= set(order[max(0, finished - 1 - torn // 15) : finished])
        assert done == cut.resume(CHUNKS)
        for number in order:
            if number not in done:
                cut.append([scored(n) for n in CHUNKS[number]], ["test"] * 3)
        cut.finish(CHUNKS)
        assert cut.path.read_bytes() == whole.path.read_bytes()
        assert cut.pictures.read_bytes() == whole.pictures.read_bytes()


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_what_a_kill_left_behind_is_named_and_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes], logged: list[str]):
    place = tmp_path / "ray"
    place.mkdir()
    processes.record(tmp_path, str(place))
    processes.end_leftovers(tmp_path)
    sleeper.wait(5)
    assert f"({sleeper.pid})" in logged[0]
    assert not (tmp_path / processes.FILE).exists()
    assert not place.exists()


@pytest.mark.parametrize("change", ["started", "host", "boot"])
def test_a_process_that_only_has_the_number_of_ours_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], change: str, logged: list[str]
):
    processes.record(tmp_path)
    document = json.loads((tmp_path / processes.FILE).read_text())
    assert sleeper.pid in [row["pid"] for row in document["processes"]]
    if change == "started":
        for row in document["processes"]:
            row["started"] -= 100
    else:
        document[change] = {"host": "another", "boot": 0}[change]
    (tmp_path / processes.FILE).write_text(json.dumps(document))
    processes.end_leftovers(tmp_path)
    assert not logged
    assert psutil.pid_exists(sleeper.pid)
    assert sleeper.poll() is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", str(cores() + 1)], f"use --workers {cores()} or fewer"),
        (["--ray", "127.0.0.1:1"], "no answer"),
        (["--ray", "somewhere"], "expected host:port"),
    ],
)
def test_a_request_that_cannot_be_met_fails_at_once_and_starts_nothing(tmp_path: Path, words: list[str], message: str):
    table = write_table(tmp_path / "data", references=1, levels=1)
    done = subprocess.run(
        [*HARNESS, "run", "psnr", "--dataset", str(table), "--runs", str(tmp_path / "runs"), "--mlflow-uri", "off", *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "runs").rglob("processes.json"))
