"""The threads of training: chosen by a trial, kept in the run's conditions, the same when resumed or verified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small import write_network, write_table

from harness.engine.request import Request
from harness.engine.run import Outcome, run
from harness.engine.trainer import CHECKPOINT, Trainer
from harness.engine.verify import verify
from harness.models.kernels import choice

KERNEL = "training Small 317 2x3x32"


@pytest.fixture(autouse=True)
def two_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads, a cache of one's own, no choice made in this process, and none forced."""
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    monkeypatch.setattr(choice, "_imposed", [])
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


class World:
    """A small network and its data, on a machine whose trials end as they are reported to."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, monkeypatch
        self.cards = write_network(folder / "cards")
        self.table = write_table(folder / "data")
        self.threads: list[int] = []
        step = Trainer._step

        def watched(*given: object) -> object:
            self.threads.append(torch.get_num_threads())
            return step(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(Trainer, "_step", watched)

    def machine(self, cache: str, way: str) -> None:
        """From here on a cache without choices, and trials that end like this, after every way was tried."""
        self.patch.setenv("HARNESS_CACHE", str(self.folder / cache))
        self.patch.setattr(choice, "_known", {})
        self.patch.setattr(choice, "trial", lambda ways: (way, {name: float(made().norm()) for name, made in ways.items()}))
        self.threads.clear()

    def run(self, runs: str, **changed: object) -> Outcome:
        places = {"cards": (str(self.cards),), "runs": str(self.folder / runs), "mlflow_uri": "off"}
        return run(Request("small", str(self.table), protocol="parts", **{"settings": {"recipe.epochs": 2}, **places, **changed}))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "threads"), [("one", 1), ("plain", 2)])
def test_training_takes_the_threads_that_the_trial_found_and_says_so(world: World, way: str, threads: int):
    world.machine("cache", way)
    record = world.run("runs").record
    assert set(world.threads) == {threads}
    assert record.conditions["kernels"] == {KERNEL: way}
    assert record.conditions["threads"] == 2
    kept = [json.loads(line) for line in choice.kept_in().read_text().splitlines() if line]
    # Both ways give the same gradient.
    assert kept[1]["times_faster"]["one"] == pytest.approx(kept[1]["times_faster"]["plain"], rel=1e-4)
    assert kept[1]["times_faster"]["one"] > 0


@pytest.mark.slow
def test_a_training_that_was_cut_off_goes_on_with_the_threads_it_was_begun_with(world: World, monkeypatch: pytest.MonkeyPatch):
    world.machine("one", "one")
    whole = world.run("whole")
    look, seen = Trainer._add_losses, 0

    def stopped(self: Trainer, *given: object) -> None:
        nonlocal seen
        look(self, *given)  # type: ignore[arg-type]
        seen += 1
        if seen == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_add_losses", stopped)
    with pytest.raises(KeyboardInterrupt):
        world.run("cut")
    monkeypatch.setattr(Trainer, "_add_losses", look)
    assert next((world.folder / "cut").rglob(CHECKPOINT)).is_file()
    world.machine("two", "plain")
    again = world.run("cut")
    assert set(world.threads) == {1}
    assert len(world.threads) == 10
    assert again.record.conditions == whole.record.conditions
    assert again.record.hashes.scores == whole.record.hashes.scores


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_a_record_is_verified_on_its_own_threads(world: World, kept: bool):
    """A record from before there was a choice (`kept` False) was trained on all of them."""
    world.machine("one", "one" if kept else "plain")
    folder = world.run("runs").folder
    record = json.loads((folder / "record.json").read_text())
    if not kept:
        del record["conditions"]["kernels"]
        (folder / "record.json").write_text(json.dumps(record))
    (folder / "weights.safetensors").unlink()
    world.machine("two", "plain" if kept else "one")
    found = verify(folder, cards=[str(world.cards)], train=True)
    assert (found.findings, found.remarks) == ((), ())
    assert set(world.threads) == {1 if kept else 2}


@pytest.mark.slow
def test_the_environment_may_decide_and_one_thread_has_no_choice(world: World, monkeypatch: pytest.MonkeyPatch):
    world.machine("cache", "one")
    monkeypatch.setenv(choice.VARIABLE, "fast")
    assert world.run("a").record.conditions["kernels"] == {KERNEL: "plain"}
    monkeypatch.delenv(choice.VARIABLE)
    torch.set_num_threads(1)
    assert "kernels" not in world.run("b").record.conditions
    torch.set_num_threads(2)


@pytest.mark.slow
def test_frozen_parts_are_tried_frozen_and_a_large_network_is_not_tried(world: World, monkeypatch: pytest.MonkeyPatch):
    world.machine("cache", "one")
    tried: dict[str, int] = {}
    monkeypatch.setattr(choice, "trial", lambda ways: ("one", tried.update({n: len(way()) for n, way in ways.items()}) or {}))
    record = world.run("frozen", settings={"recipe.epochs": 1, "recipe.frozen": ["filter"]}).record
    assert record.conditions["kernels"] == {f"{KERNEL} without filter": "one"}
    # The gradient is of the 13 parameters that are trained, not of the filter's 304.
    assert tried == {"plain": 13, "one": 13}
    monkeypatch.setattr("harness.engine.training_threads._MOST_PARAMETERS", 316)
    assert "kernels" not in world.run("large").record.conditions
