"""The same work over a real Ray: one cluster of two nodes for all of these tests, and local Rays that are killed.

All are in one file, so that a single test process starts the cluster (pytest --dist loadfile).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from PIL import Image
from small import write_network, write_scores, write_table

from harness.engine.distributed.session import kept, session
from harness.engine.request import Request
from harness.engine.run import run
from harness.engine.run_all import run_all
from harness.engine.trainer import WEIGHTS
from harness.engine.verify import verify
from harness.ensembles.build import EnsembleRequest, ensemble
from harness.ensembles.tune import tune
from harness.models.weights.checkpoint import read_state
from harness.results.record import read_record
from harness.runtime import logs
from harness.runtime.errors import RunError, UsageError

HARNESS = [sys.executable, "-m", "harness"]

SLOW = '''
import os
import time

import torch

from harness.models.base import Model


class Slow(Model):
    """Takes its time, and writes down the process that scored: (process, images) a line."""

    crop_size = 32

    def __init__(self, log="", delay=0.0, hold=""):
        self.log, self.delay, self.hold = log, delay, hold

    def score(self, reference, distorted):
        if self.log:
            with open(self.log, "a") as stream:
                stream.write(f"{os.getpid()} {len(distorted)}\\n")
        time.sleep(self.delay)
        while self.hold and os.path.exists(self.hold):
            time.sleep(0.02)
        if float(reference.max()) == 0:
            os._exit(7)
        if float(reference.min()) == 1:
            raise OSError("the disk is on fire")
        return -(reference - distorted).abs().mean((1, 2, 3))
'''

SLOW_CARD = """
name = "slow"
title = "A slow model of the tests"
class = "slow_model:Slow"
higher_is_better = true

[model]
log = ""
delay = 0.0
hold = ""

[protocol]
crops = "random1"
"""


class World:
    """Tables, a folder of cards with classes next to them, and runs made by one process to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table = write_table(folder / "data", levels=2)
        self.cards = write_network(folder / "cards")
        (self.cards / "slow_model.py").write_text(SLOW, encoding="utf-8")
        (self.cards / "slow.toml").write_text(SLOW_CARD, encoding="utf-8")
        self.said: list[str] = []

    def request(self, model: str, runs: str, **options: object) -> Request:
        given = {"dataset": str(self.table), "batch": 2, **options}
        return Request(model, cards=(str(self.cards),), runs=str(self.folder / runs), mlflow_uri="off", **given)

    def run(self, model: str, runs: str, **options: object) -> Path:
        return run(self.request(model, runs, **options)).folder


def same_bytes(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("scores.csv", "pictures.csv"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("cluster"))
    with logs.handled(lambda level, text: made.said.append(text)):
        yield made


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Workers on one CPU have one thread; bits repeat only under the same number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def nodes() -> Iterator[subprocess.Popen[str]]:
    place = f"/tmp/harness-test-{os.getpid()}"
    # Ray notes a cluster's address where its own clusters are kept, which on a new machine is not there yet.
    Path(place, "ray").mkdir(parents=True)
    environment = {
        **os.environ,
        "RAY_TMPDIR": place,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parents[1] / "support" / "two_nodes.py"), place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    process.token = environment["RAY_AUTH_TOKEN"]  # type: ignore[attr-defined]
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(60)
    subprocess.run(["rm", "-rf", place], check=False)


@pytest.fixture(scope="module")
def address(nodes: subprocess.Popen[str], one_thread: None) -> Iterator[str]:
    """The cluster's address, joined once for all tests of this module that use it."""
    assert nodes.stdout is not None
    found = nodes.stdout.readline().strip()
    before = {k: os.environ.get(k) for k in ("RAY_AUTH_TOKEN", "GLOO_SOCKET_IFNAME")}
    os.environ["RAY_AUTH_TOKEN"] = nodes.token  # type: ignore[attr-defined]
    with kept(), session(found):
        yield found
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def test_an_own_ray_is_quiet_guarded_removed_and_serves_several_requests(
    world: World, one_thread: None, capfd: pytest.CaptureFixture[str]
):
    """It runs first, because the other tests keep this process joined to their cluster."""
    before, handlers = dict(os.environ), [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    table = write_table(world.folder / "half-broken", references=2, levels=2)
    (table.parent / "r1_fade_2.png").write_bytes(b"nothing")
    with kept(), session() as ray:
        everyone = ours(psutil.Process())
        assert ray.place is not None
        assert stat.S_IMODE(os.stat(ray.place).st_mode) == 0o700, "others could reach Ray's sockets"
        assert {p.name() for p in everyone} >= {"raylet", "gcs_server"}
        ports = [c for p in everyone for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        assert ports
        assert {c.laddr.ip.removeprefix("::ffff:") for c in ports} == {"127.0.0.1"}
        assert os.environ["RAY_AUTH_MODE"] == "token"
        requests = [
            world.request("slow", "local", workers=2),
            world.request("psnr", "local", workers=2, dataset=str(table)),
            world.request("ssim", "local", workers=2),
        ]
        outcomes, faults = run_all(requests)
        assert [o.record.model for o in outcomes] == ["slow", "ssim"]
        assert "r1_fade_2.png" in str(faults[0])
        assert isinstance(faults[0], UsageError)
        with session() as again:
            assert again is ray
        everyone = list({*everyone, *ours(psutil.Process())})
    assert gone(everyone) == []
    assert dict(os.environ) == before
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert not list(world.folder.rglob("processes.json"))
    for outcome in outcomes:
        assert same_bytes(outcome.folder, world.run(outcome.record.model, "here"))
    assert capfd.readouterr().err == ""


def test_scores_over_two_nodes_are_those_of_one_process_and_verify(world: World, address: str):
    for model in ("psnr", "ssim", "slow"):
        here, there = world.run(model, "here"), world.run(model, "there", ray=address)
        assert same_bytes(here, there), model
        conditions = [read_record(folder).conditions for folder in (here, there)]
        assert conditions[0] == conditions[1]
    assert verify(there, cards=[str(world.cards)], ray=address).ok


def test_training_over_two_nodes_follows_one_process_within_the_tolerance(world: World, address: str):
    """It leaves the same files too.

    docs/scale.md derives the tolerance from fp32 rounding; a wrong weight of a member costs 2.7e-4 in the first step.
    """
    settings = {"recipe.epochs": "20", "recipe.steps_per_epoch": "1", "recipe.validate_every": "10"}
    options = {"protocol": "parts", "settings": settings}
    here, there = world.run("ahiq-tiny", "here", **options), world.run("ahiq-tiny", "there", ray=address, **options)
    one, many = (read_record(folder) for folder in (here, there))
    losses = [[entry["loss"] for entry in record.history] for record in (one, many)]
    assert len(losses[0]) == 20
    assert losses[0] != losses[1]
    assert losses[1][:3] == pytest.approx(losses[0][:3], abs=1e-6)
    assert losses[1] == pytest.approx(losses[0], abs=5e-4)
    assert many.conditions["training"] == {"workers": 2, "threads": 1}
    assert one.key == many.key
    tensors = [read_state(folder / WEIGHTS) for folder in (here, there)]
    assert tensors[0].keys() == tensors[1].keys()
    assert [record.training.steps for record in (one, many)] == [20, 20]
    assert verify(there, cards=[str(world.cards)]).ok


def test_a_killed_training_worker_costs_no_bits(world: World, address: str):
    """All members begin again from the last checkpoint. Their process group listens at the node's own address alone."""
    settings = {"recipe.epochs": "20", "recipe.steps_per_epoch": "1", "recipe.validate_every": "10"}
    options = {"protocol": "parts", "settings": settings, "ray": address}
    undisturbed, runs = world.run("ahiq-tiny", "there", **options), world.folder / "struck"
    killed: list[int] = []
    ports: set[str] = set()

    def strike() -> None:
        soon(lambda: list(runs.rglob("checkpoint.safetensors")))
        members = [p for p in psutil.process_iter(["cmdline"]) if "Worker.train" in " ".join(p.info["cmdline"] or ())]
        assert len(members) == 2
        ports.update(c.laddr.ip for p in members for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN)
        members[-1].kill()
        killed.append(members[-1].pid)

    striker = threading.Thread(target=strike)
    striker.start()
    struck = world.run("ahiq-tiny", "struck", **options)
    striker.join(60)
    assert len(killed) == 1
    assert any("a training worker was lost (its process ended)" in text for text in world.said)
    assert any("continuing the training at step" in text for text in world.said)
    assert same_bytes(struck, undisturbed)
    assert (struck / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    assert {ip.removeprefix("::ffff:") for ip in ports} == {"127.0.0.1"}


def test_a_model_whose_images_depend_on_their_batch_is_trained_by_one_member(world: World, address: str):
    settings = {"recipe.epochs": "2", "recipe.steps_per_epoch": "2"}
    options = {"protocol": "parts", "settings": settings}
    here, there = world.run("small", "here", **options), world.run("small", "there", ray=address, **options)
    assert read_record(there).conditions["training"] == {"workers": 1, "threads": 1}
    assert same_bytes(here, there)
    assert (here / "weights.safetensors").read_bytes() == (there / "weights.safetensors").read_bytes()


def test_what_a_model_or_a_trainer_refuses_reaches_the_driver(world: World, address: str):
    """What a model or a trainer refuses reaches the driver with its words and type."""
    table = write_table(world.folder / "broken", references=4, levels=2)
    victim = table.parent / "r3_fade_2.png"
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"r3_fade_2\.png"):
        world.run("slow", "broken", ray=address, dataset=str(table))
    (scores,) = (world.folder / "broken").rglob("scores.csv")
    # What had come back is kept, a header and whole chunks of two: how much that is depends on who was quicker.
    assert len(scores.read_text().splitlines()) % 2 == 1
    with pytest.raises(RunError, match="try a lower learning rate"):
        world.run(
            "ahiq-tiny", "broken", ray=address, protocol="parts",
            settings={"recipe.rate": "1e30", "recipe.optimizer": "sgd", "recipe.clip": "0", "recipe.warmup": "0"},
        )  # fmt: skip
    with pytest.raises(UsageError, match=r"3 workers.*2 nodes with 2 CPUs.*use --workers 2 or fewer"):
        world.run("psnr", "broken", ray=address, workers=3)
    with pytest.raises(UsageError, match="no GPU"):
        world.run("slow", "broken", ray=address, device="cuda")


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, on one thread as the nodes have it; an empty variable is not set."""
    given = {k: v for k, v in {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **environment}.items() if v}
    return subprocess.run([*HARNESS, *words], capture_output=True, text=True, env=given, timeout=600, check=False)


def scores_line(folder: Path, runs: str) -> list[str]:
    line = ["ensemble", str(folder / "quick.csv"), str(folder / "slow.csv"), "--lower-is-better", "slow", "--trials", "200"]
    line += ["--dataset", str(folder / "people.csv"), "--protocol", "parts", "--out", str(folder / "card.toml")]
    return [*line, "--runs", str(folder / runs), "--mlflow-uri", "off"]


def test_a_search_over_two_nodes_writes_the_card_of_one_machine(world: World, address: str):
    folder = write_scores(world.folder / "ensemble")
    request = Request("", str(folder / "people.csv"), protocol="parts", runs=str(folder / "there"), mlflow_uri="off")
    wanted = EnsembleRequest(str(folder / "card.toml"), trials=200, lower=("slow",))
    members = [str(folder / "quick.csv"), str(folder / "slow.csv")]
    with pytest.raises(UsageError, match="no GPU"):
        ensemble(members, replace(request, ray=address, device="cuda"), wanted)
    with pytest.raises(UsageError, match=r"--concurrency 3: there is 2 nodes with 2 CPUs"):
        ensemble(members, replace(request, ray=address), replace(wanted, concurrency=3))
    assert not (folder / "card.toml").exists()
    ensemble(members, replace(request, ray=address), wanted)
    there = (folder / "card.toml").read_bytes()
    done = command(*scores_line(folder, "here"))
    assert done.returncode == 0, done.stderr
    assert (folder / "card.toml").read_bytes() == there


def test_a_tuning_over_two_nodes_writes_the_card_of_one_machine(world: World, address: str):
    cards = world.folder / "tuned"
    write_network(cards)
    text = (cards / "small.toml").read_text(encoding="utf-8").replace("epochs = 6", "epochs = 2")
    text += '[tunable]\n"recipe.rate" = { low = 1e-3, high = 1e-1, log = true }\n'
    (cards / "small.toml").write_text(text, encoding="utf-8")
    request = replace(world.request("small", "tuned-there"), protocol="parts", cards=(str(cards),), ray=address, batch=8)
    with pytest.raises(UsageError, match="no GPU"):
        tune("small", replace(request, device="cuda"), str(cards / "best.toml"))
    with pytest.raises(UsageError, match="use --workers 2 or fewer"):
        tune("small", replace(request, workers=3), str(cards / "best.toml"))
    done = tune("small", replace(request, workers=1), str(cards / "best.toml"), trials=2)
    there = (cards / "best.toml").read_bytes()
    line = ["tune", "small", "--dataset", str(world.table), "--protocol", "parts", "--cards", str(cards), "--trials", "2"]
    line += ["--out", str(cards / "best.toml"), "--runs", str(world.folder / "tuned-here"), "--mlflow-uri", "off"]
    here = command(*line, "--json")
    assert here.returncode == 0, here.stderr
    assert (cards / "best.toml").read_bytes() == there
    figures = [trial["figure"] for trial in json.loads(here.stdout)["trials"]]
    assert [trial.figure for trial in done.trials] == figures
    # Two at a time, one on each node: what is trained is found there as well; which one ASHA stops depends on who is first.
    both = tune("small", replace(request, workers=2), str(cards / "two.toml"), trials=2)
    assert both.trials[0].folder == done.trials[0].folder
    assert both.best.epochs == 2


def test_a_cluster_that_refuses_the_token_is_reported_in_one_line_that_says_why(world: World, address: str):
    folder = write_scores(world.folder / "refused")
    wrong = command(*scores_line(folder, "runs"), "--ray", address, RAY_AUTH_TOKEN=secrets.token_hex(16))
    assert wrong.returncode == 2
    why = "the cluster rejects the token of RAY_AUTH_TOKEN; set the token of this cluster there"
    assert wrong.stderr == f"harness: --ray {address}: {why}\n"
    for mode, reason in (
        ("", "the cluster requires a token, and none is set"),
        ("token", "RAY_AUTH_MODE is token, and no token"),
    ):
        missing = command(*scores_line(folder, "runs"), "--ray", address, RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN="", HOME=str(folder))
        assert missing.returncode == 2
        (line,) = missing.stderr.splitlines()
        assert line.startswith(f"harness: --ray {address}: {reason}")


@pytest.mark.parametrize(("colour", "words"), [(0, "its process ended"), (255, "OSError: the disk is on fire")])
def test_images_that_no_worker_survives_end_the_run_and_keep_the_others(world: World, address: str, colour: int, words: str):
    """Images that no worker survives end the run with the reason and keep the others."""
    table = write_table(world.folder / f"poison-{colour}", references=3, levels=1)
    Image.new("RGB", (80, 64), (colour,) * 3).save(table.parent / "r2.png")
    with pytest.raises(RunError, match=rf"3 workers failed on the same images \(r2_noise_1\.png.*{words}"):
        world.run("slow", f"poison-{colour}", ray=address, dataset=str(table))
    (scores,) = (world.folder / f"poison-{colour}").rglob("scores.csv")
    # In whatever order they came back.
    assert sorted(line.split(",")[0][:2] for line in scores.read_text().splitlines()[1:]) == ["r0", "r0", "r1", "r1"]


def ours(process: psutil.Process) -> list[psutil.Process]:
    return process.children(recursive=True)


def gone(processes: Sequence[psutil.Process], seconds: float = 10.0) -> list[str]:
    """The names of those that are still there after so many seconds."""
    deadline = time.monotonic() + seconds
    alive = list(processes)
    while alive and time.monotonic() < deadline:
        alive = [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        time.sleep(0.1)
    return [p.name() for p in alive]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def soon(there: Callable[[], object], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_after_a_killed_worker_or_node_only_unfinished_chunks_are_redone(
    world: World, nodes: subprocess.Popen[str], address: str
):
    """The worker is replaced, the node is not. The last test with the cluster: the second node stays dead."""
    log, hold = world.folder / "slow.log", world.folder / "hold"
    settings = {"model.log": str(log), "model.hold": str(hold)}
    here = world.run("slow", "here", settings=settings)
    alone = lines(log)
    log.unlink()
    hold.touch()

    def strike() -> None:
        soon(lambda: len({line.split()[0] for line in lines(log)}) == 2)
        first = int(lines(log)[0].split()[0])
        os.kill(first, signal.SIGKILL)
        killed.append(first)
        soon(lambda: len({line.split()[0] for line in lines(log)}) == 3)
        assert nodes.stdin is not None
        assert nodes.stdout is not None
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        killed.append(nodes.stdout.readline().strip())
        hold.unlink()

    killed: list[object] = []
    striker = threading.Thread(target=strike)
    striker.start()
    there = world.run("slow", "there", ray=address, settings=settings)
    striker.join(60)
    assert killed[1] == "killed"
    assert same_bytes(here, there)
    assert len({line.split()[0] for line in lines(log)}) >= 3
    assert len(lines(log)) <= len(alone) + 6
    assert any("other workers score its" in text for text in world.said)


def test_no_process_outlives_ctrl_c_sigterm_or_a_kill(world: World):
    """The next start ends what a kill left. Three runs at once, each in its own process, cut off while both workers score."""
    cut: dict[signal.Signals, subprocess.Popen[str]] = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        log, hold = (world.folder / f"{number.name}.{what}" for what in ("log", "hold"))
        hold.touch()
        words = ["run", "slow", "--dataset", str(world.table), "--runs", str(world.folder / number.name), "--batch", "2"]
        words += ["--cards", str(world.cards), "--mlflow-uri", "off", "--workers", "2"]
        words += ["--set", f"model.log={log}", "--set", f"model.hold={hold}"]
        cut[number] = subprocess.Popen([*HARNESS, *words], stderr=subprocess.PIPE, text=True)
    for number, process in cut.items():
        log, hold = (world.folder / f"{number.name}.{what}" for what in ("log", "hold"))
        soon(lambda log=log: len(lines(log)) == 2)
        family = ours(psutil.Process(process.pid))
        workers = {line.split()[0] for line in lines(log)}
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        (record,) = [path.with_name("processes.json") for path in (world.folder / number.name).rglob("scores.csv")]
        if number is signal.SIGKILL:
            assert gone([p for p in family if str(p.pid) in workers]) == []
            assert record.exists()
        else:
            assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
            assert gone(family) == []
            assert not record.exists()
        hold.unlink()
        time.sleep(0.3)
        assert len(lines(log)) == 2, "somebody computes on"
    request = world.request("slow", "SIGKILL", settings={"model.log": str(log), "model.hold": str(hold)})
    outcome = run(request)
    assert gone(family) == []
    assert not record.exists()
    assert same_bytes(outcome.folder, world.run("slow", "here"))
