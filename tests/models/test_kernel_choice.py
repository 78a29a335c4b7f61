"""The kernel of a product: chosen by one trial, kept, recorded in a run's conditions, the same when resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small import write_table

from harness.challenges.factsheet import _flop
from harness.engine.distributed.inside_worker import Job, Worker
from harness.engine.kernels import kernels_of
from harness.engine.request import Request
from harness.engine.run import Outcome, run
from harness.engine.verify import verify
from harness.models import find_model
from harness.models.ahiq import AHIQ
from harness.models.kernels import choice, linear, onednn
from harness.models.weights import ResolvedWeights
from harness.results.run_scores import ScoreFile
from harness.runtime.errors import UsageError

NAME = "linear 128x128"
needs_operators = pytest.mark.skipif(not linear.available(), reason="this torch lacks oneDNN's packed products")


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of one's own, no choice made in this process, and none forced."""
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "_known", {})
    monkeypatch.setattr(choice, "_imposed", [])


def never() -> dict[str, Callable[[], torch.Tensor]]:
    raise AssertionError("a trial was made")


class Clock:
    """A clock that goes on by what each way is said to take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, 0
        monkeypatch.setattr(choice, "time", SimpleNamespace(thread_time=lambda: self.now, perf_counter=lambda: self.now))

    def way(self, *seconds: float, error: float = 0.0) -> Callable[[], torch.Tensor]:
        """A way that takes these seconds in turn."""
        turn = 0

        def compute() -> torch.Tensor:
            nonlocal turn
            self.now += seconds[turn % len(seconds)]
            turn, self.calls = turn + 1, self.calls + 1
            out = torch.linspace(-1, 1, 1000)
            out[0] += error
            return out

        return compute


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(
    ("packed", "fused", "best"),
    [(0.9, 0.8, "fused"), (0.8, 0.9, "packed"), (0.98, 0.99, "plain"), (1.2, 1.1, "plain")],
)
def test_the_fastest_way_wins_and_only_by_a_clear_margin(clock: Clock, packed: float, fused: float, best: str):
    assert choice.trial({"plain": clock.way(1), "packed": clock.way(packed), "fused": clock.way(fused)})[0] == best


def test_one_disturbed_round_decides_nothing(clock: Clock):
    rounds = [1.0] * 5 + [50.0] + [1.0] * 4
    assert choice.trial({"plain": clock.way(*rounds), "packed": clock.way(1.0)}) == ("plain", {"packed": 1.0})


def test_a_fast_way_with_other_numbers_is_not_taken(clock: Clock):
    wrong = {"one entry": clock.way(0.1, error=0.01), "none": clock.way(0.1, error=float("nan"))}
    assert choice.trial({"plain": clock.way(1), "fused": clock.way(0.9, error=1e-7), **wrong}) == ("fused", {"fused": 1.111})


def test_clear_differences_need_few_rounds(clock: Clock):
    choice.trial({"plain": clock.way(1), "packed": clock.way(0.5)})
    few, clock.calls = clock.calls, 0
    choice.trial({"plain": clock.way(1), "packed": clock.way(0.95)})
    assert few < clock.calls


@pytest.mark.slow
def test_a_choice_is_made_once_and_read_by_every_later_process(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    assert choice.way_of(NAME, lambda: {"plain": clock.way(1), "packed": clock.way(0.9)}) == "packed"
    monkeypatch.setattr(choice, "_known", {})
    assert choice.way_of(NAME, never) == "packed"
    program = (
        "import torch; from harness.models.kernels import choice\n"
        f"torch.set_num_threads({torch.get_num_threads()}); print(choice.way_of({NAME!r}, lambda: 1 / 0))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.strip() == "packed"


def test_of_two_processes_that_try_at_once_the_first_decides_for_both(clock: Clock):
    def ways() -> dict[str, Callable[[], torch.Tensor]]:
        other = json.dumps({"kernel": NAME, "way": "plain"})
        choice.kept_in().write_text(choice.kept_in().read_text() + other + "\n")
        return {"plain": clock.way(1), "packed": clock.way(0.5)}

    assert choice.way_of(NAME, ways) == "plain"


def test_a_choice_holds_for_one_number_of_threads_and_one_limit(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    places = {choice.kept_in()}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    places.add(choice.kept_in())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    places.add(choice.kept_in())
    assert len(places) == 3


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "7",
        '{"kernel": 3, "way": []}',
        '{"kernel": "linear 128x128", "way": "sideways"}',
        '{"way": "packed"}',
        "[" * 9999,
    ],
)
def test_a_damaged_line_is_passed_over_and_what_follows_it_is_read(tmp_path: Path, line: str):
    (tmp_path / "kept").write_text(f'{line}\n{{"kernel": "{NAME}", "way": "packed"}}\n', encoding="utf-8")
    assert choice.read(tmp_path / "kept") == {NAME: "packed"}


def test_a_line_that_a_killed_process_left_unfinished_spoils_no_other(clock: Clock, monkeypatch: pytest.MonkeyPatch):
    choice.kept_in().parent.mkdir(parents=True)
    choice.kept_in().write_text('{"kernel": "linear 9', encoding="utf-8")
    assert choice.way_of(NAME, lambda: {"plain": clock.way(1), "packed": clock.way(0.5)}) == "packed"
    monkeypatch.setattr(choice, "_known", {})
    assert choice.way_of(NAME, never) == "packed"


def test_where_nothing_can_be_kept_there_is_no_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    found = {}
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(choice, "_known", {})
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        found[capability] = [choice.way_of(name, never) for name in (NAME, "linear-gelu 128x512", "winograd 128x128")]
    assert found == {"AVX512": ["packed", "fused", "winograd"], "AVX2": ["plain", "plain", "winograd"]}


def test_the_environment_may_decide(monkeypatch: pytest.MonkeyPatch):
    for word, ways in (("plain", ["plain", "plain"]), ("fast", ["packed", "fused"])):
        monkeypatch.setenv(choice.VARIABLE, word)
        with choice.using({NAME: "packed"}):
            assert [choice.way_of(name, never) for name in (NAME, "linear-gelu 128x512")] == ways
    with choice.using(choice.PLAINLY):
        assert choice.way_of(NAME, never) == "plain"
    monkeypatch.setenv(choice.VARIABLE, "fats")
    with pytest.raises(UsageError, match=r"HARNESS_KERNELS = 'fats' is not one of auto, plain, fast; did you mean 'fast'"):
        choice.way_of(NAME, never)


def test_the_ways_of_a_record_hold_inside_and_nonsense_in_it_does_nothing(clock: Clock):
    with choice.using({NAME: "plain", "linear 1x1": "sideways", "nothing": "packed", "winograd 1x1": ["winograd"]}):
        assert choice.imposed() == {NAME: "plain"}
        assert choice.way_of(NAME, never) == "plain"
    with choice.using(None):
        assert choice.way_of(NAME, never) == "packed"
        assert choice.way_of("composed 128x128", never) == "plain"
    with choice.using("packed"):
        assert choice.imposed() == {}
        assert choice.way_of(NAME, lambda: {"plain": clock.way(1), "packed": clock.way(2)}) == "plain"


def test_the_released_networks_products_are_all_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(choice.VARIABLE, "fast")
    monkeypatch.setattr(linear, "available", lambda: True)
    monkeypatch.setattr(onednn, "worthwhile", lambda: False)
    with torch.device("meta"):
        model = AHIQ()
    assert kernels_of(model, "cuda", 1) == {}
    before = torch.get_num_threads()
    assert kernels_of(model, "cpu", before + 1) == {
        "composed 768x512": "composed",
        "linear 3072x768": "packed",
        "linear 6912x768": "packed",
        "linear 768x2304": "packed",
        "linear 768x768": "packed",
        "linear-gelu 768x3072": "fused",
        "onednn": "plain",
        "winograd 1024x512": "winograd",
        "winograd 256x1024": "winograd",
        "winograd 512x256": "winograd",
        "winograd 512x768": "winograd",
    }
    assert torch.get_num_threads() == before


def test_a_fact_sheet_counts_the_same_operations_whatever_is_chosen(monkeypatch: pytest.MonkeyPatch):
    model = AHIQ(crop_size=64, vit_width=128, vit_depth=1, vit_heads=2, cnn_depth=1, fusion_width=128, head_widths=(128,) * 4)
    counts = set()
    for word in ("plain", "fast"):
        monkeypatch.setenv(choice.VARIABLE, word)
        counts.add(_flop(model.eval(), 64, 64))
    assert len(counts) == 1


@pytest.mark.parametrize("gelu", [False, True])
@needs_operators
def test_every_way_of_a_linear_layer_gives_its_numbers(gelu: bool):
    layer, x = linear.Linear(128, 144, gelu), torch.randn(6, 128)
    kernel = linear.name_of(128, 144, gelu)
    out = {}
    for way in choice.WAYS[kernel.partition(" ")[0]]:
        with torch.inference_mode(), choice.using({kernel: way}):
            out[way] = layer(x)
    assert all(torch.allclose(one, out["plain"], atol=1e-5) for one in out.values())


WIDE = '''
import torch
from harness.models.base import Model
from harness.models.kernels.linear import Linear


class Wide(Model, torch.nn.Module):
    """One wide layer with fixed weights."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = Linear(128, 128)

    def score(self, reference, distorted):
        with torch.inference_mode():
            rows = (reference - distorted).abs().flatten(1)[:, : 128 * 64].reshape(len(reference), 64, 128)
            return self.layer(rows).mean((1, 2))
'''


class World:
    """A network with one wide product, a table of pairs, and a machine on which a trial would give `faster`."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.taken: list[int] = []
        self.cards = folder / "cards"
        self.cards.mkdir()
        (self.cards / "wide.py").write_text(WIDE, encoding="utf-8")
        (self.cards / "wide.toml").write_text('name = "wide"\ntitle = "w"\nclass = "wide:Wide"\nhigher_is_better = true\n')
        self.table = write_table(folder / "data", references=4)
        own = linear.multiply
        monkeypatch.setattr(linear, "multiply", lambda *given: self.taken.append(1) or own(*given))

    def machine(self, cache: str, faster: str) -> None:
        """From here on a cache without choices, and trials that end like this."""
        self.patch.setenv("HARNESS_CACHE", str(self.folder / cache))
        self.patch.setattr(choice, "trial", lambda ways: (faster, {}))
        self.taken.clear()

    def run(self, runs: str) -> Outcome:
        places = {"cards": (str(self.cards),), "runs": str(self.folder / runs), "mlflow_uri": "off"}
        return run(Request("wide", str(self.table), protocol="parts", **places))

    def verify(self, folder: Path):
        return verify(folder, cards=[str(self.cards)])


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    if not linear.available():
        pytest.skip("this torch lacks oneDNN's packed products")
    return World(tmp_path, monkeypatch)


class Stopped(BaseException):
    pass


@pytest.mark.slow
def test_a_cut_off_run_goes_on_in_the_ways_it_was_begun_with(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    world.machine("one", "packed")
    whole = world.run("whole")
    assert whole.record.conditions["kernels"] == {NAME: "packed"}
    assert world.taken
    append = ScoreFile.append

    def once(self, *given):
        append(self, *given)
        raise Stopped

    monkeypatch.setattr(ScoreFile, "append", once)
    with pytest.raises(Stopped):
        world.run("cut")
    monkeypatch.setattr(ScoreFile, "append", append)
    world.machine("two", "plain")
    caplog.set_level("INFO", "harness")
    again = world.run("cut")
    assert any("scores exist already" in line for line in caplog.messages)
    assert again.record.conditions == whole.record.conditions
    assert (again.folder / "scores.csv").read_bytes() == (whole.folder / "scores.csv").read_bytes()
    assert world.taken


@pytest.mark.slow
def test_a_new_run_where_a_trial_ends_otherwise_says_so_in_its_conditions(world: World):
    world.machine("one", "packed")
    one = world.run("one").record
    world.machine("two", "plain")
    two = world.run("two").record
    assert not world.taken
    assert two.conditions == {**one.conditions, "kernels": {NAME: "plain"}}
    assert two.key == one.key


@pytest.mark.slow
def test_a_record_is_verified_in_its_own_ways_bit_for_bit(world: World):
    world.machine("one", "packed")
    folder = world.run("runs").folder
    world.machine("two", "plain")
    found = world.verify(folder)
    assert (found.findings, found.remarks) == ((), ())
    assert world.taken


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [None, {NAME: "sideways"}, ["packed"]])
def test_a_record_without_ways_is_of_the_time_when_all_were_fast(world: World, kernels: object):
    world.machine("one", "packed")
    folder = world.run("runs").folder
    record = json.loads((folder / "record.json").read_text())
    record["conditions"].pop("kernels")
    if kernels is not None:
        record["conditions"]["kernels"] = kernels
    (folder / "record.json").write_text(json.dumps(record))
    world.machine("two", "plain")
    if isinstance(kernels, list):
        with pytest.raises(UsageError, match=r"conditions"):
            world.verify(folder)
        return
    found = world.verify(folder)
    assert found.ok
    assert bool(found.remarks) == (kernels is not None)
    assert bool(world.taken) == (kernels is None)


@pytest.mark.slow
def test_where_the_environment_decides_a_run_begun_otherwise_starts_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    world.machine("one", "packed")
    folder = world.run("runs").folder
    (folder / "record.json").unlink()
    monkeypatch.setenv(choice.VARIABLE, "plain")
    caplog.set_level("INFO", "harness")
    assert world.run("runs").record.conditions["kernels"] == {NAME: "plain"}
    assert any("starting again" in line and f"kernels.{NAME} was packed, is plain" in line for line in caplog.messages)


def test_a_worker_computes_in_its_drivers_ways(world: World):
    job = Job(find_model("wide", [str(world.cards)]), ResolvedWeights({}, None, {}, (), False), 0, 8, {NAME: "plain"})
    Worker("cpu", 1).build(job)
    assert choice.imposed() == {NAME: "plain"}
    assert choice.way_of(NAME, never) == "plain"
