"""The search for a blend's weights: Ray Tune runs the chains of `harness.ensembles.weight_candidates`.

Tune runs one trial for each chain, an actor runs one chain after another, the arrays are put into Ray's store once. After a kill
the search continues from the last step of every chain, which the harness saves itself: Tune does not write its own state
atomically, and after a kill it may be unreadable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from ray import tune

from harness.engine.distributed.session import Session, cores, session
from harness.ensembles.blends import Blend
from harness.ensembles.objective import Objective
from harness.ensembles.ray_tune import environment, silence
from harness.ensembles.weight_candidates import Chain, ChainState, Plan, Sample, as_blend
from harness.files.atomic import write_json
from harness.runtime.errors import RunError
from harness.runtime.progress import Step, progress

_log = logging.getLogger(__package__)

NAME, DONE, CHAINS = "tune", "search.json", "chains"


class SearchResult(NamedTuple):
    """The result: the best blend on every sample, and each candidate's figure on the first, by chain and step."""

    blends: list[Blend]
    trace: list[list[list[float]]]


@dataclass(frozen=True)
class _Given:
    """The data of every chain, and the states of chains that were begun before."""

    samples: Sequence[Sample]
    plan: Plan
    seed: int
    objective: Objective
    begun: Mapping[int, ChainState]

    def chain(self, number: int, state: ChainState | None = None) -> Chain:
        """The chain of this number, at `state`, or at its saved state."""
        chain = Chain(self.seed, number, self.plan, self.samples, self.objective)
        if state := state or self.begun.get(number):
            chain.take_up(state)
        return chain


class _Batches(tune.Trainable):
    """A chain as a trial of Tune: each step evaluates a batch."""

    def setup(self, config: Mapping[str, Any], given: _Given | None = None) -> None:
        if given is not None:
            self.given = given
        self.chain = self.given.chain(config["chain"])

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, object]:
        self.chain.advance()
        # As text, so that Tune does not flatten a thousand numbers into columns of its result.
        return {"state": json.dumps(asdict(self.chain.state())), "best": self.chain.figures[0], "done": self.chain.done}


class _Keeper(tune.Callback):
    """Saves the state of each chain, and shows progress."""

    def __init__(self, folder: Path, found: Session, states: dict[int, ChainState], objective: Objective, shown: Step) -> None:
        self.folder, self.found, self.states, self.objective, self.shown = folder, found, states, objective, shown
        self.recorded: set[int] = set()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        number = trial.config["chain"]
        self.states[number] = msgspec.convert(json.loads(result["state"]), ChainState)
        write_json(self.folder / CHAINS / f"{number}.json", asdict(self.states[number]))
        if number not in self.recorded:
            # Record the chain's worker, so that after a kill the next start ends it.
            self.recorded.add(number)
            self.found.record()
        best = max(figure for state in self.states.values() for figure in state.figures[:1])
        self.shown(_judged(self.states), f"best {self.objective} {best:.5f}")


def search(
    given: Callable[[], Sequence[Sample]],
    plan: Plan,
    seed: int,
    name: Objective,
    folder: Path,
    *,
    address: str | None = None,
    concurrency: int | None = None,
) -> SearchResult:
    """The best blend of `plan.total` candidates on each sample, a function of the seed only.

    Args:
        given: Returns the samples, all fitting images first; called when Ray has started, or the search is finished already.
        plan: The number of candidates in each chain and step.
        seed: The seed of all draws.
        name: The objective.
        folder: Holds each chain's last step: an interrupted search continues there, a finished one is read.
        address: A running Ray cluster for the work; None: one is started here.
        concurrency: Number of parallel chains; None: one per CPU.

    Raises:
        RunError: A chain failed.
        UsageError: The cluster has fewer CPUs than `concurrency`.
    """
    states: list[ChainState] | None = None
    with contextlib.suppress(OSError, ValueError):
        states = msgspec.convert(json.loads((folder / DONE).read_text(encoding="utf-8")), list[ChainState])
    if states is None:
        most = len(plan.sizes) if concurrency is None else min(len(plan.sizes), concurrency)
        with session(address, cpus=min(most, cores()) if address is None else 1, folder=folder) as found, environment():
            there = cores() if address is None else sum(node.cpus for node in found.nodes())
            states = _run(_Given(given(), plan, seed, name, _kept(folder, plan)), folder, found, min(most, there))
        write_json(folder / DONE, [asdict(state) for state in states])
        shutil.rmtree(folder / CHAINS, ignore_errors=True)
    samples = given()
    known = _Given(samples, plan, seed, name, {})
    walked = [known.chain(number, state) for number, state in enumerate(states)]
    best = []
    for place, sample in enumerate(samples):
        top = max(walked, key=lambda chain: chain.figures[place])  # of equal ones the first
        best.append(as_blend(top.best[place], sample.columns))
    return SearchResult(best, [chain.trace for chain in walked])


def _kept(folder: Path, plan: Plan) -> dict[int, ChainState]:
    """The saved state of each chain of an interrupted search, by number."""
    kept = {}
    for number in range(len(plan.sizes)):
        with contextlib.suppress(OSError, ValueError):
            text = (folder / CHAINS / f"{number}.json").read_text(encoding="utf-8")
            kept[number] = msgspec.convert(json.loads(text), ChainState)
    return kept


def _judged(states: Mapping[int, ChainState]) -> int:
    """The number of evaluated candidates."""
    return sum(len(figures) for state in states.values() for figures in state.trace)


def _run(given: _Given, folder: Path, found: Session, side_by_side: int) -> list[ChainState]:
    """Each chain's last state, by number."""
    states = dict(given.begun)
    if states:
        _log.info("continuing the interrupted search")
    left = [n for n, sizes in enumerate(given.plan.sizes) if n not in states or states[n].step != len(sizes)]
    place = folder.absolute() / NAME  # Ray reads a relative path as an address without a scheme
    (folder / CHAINS).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    if left:
        with silence(), progress("search", given.plan.total, done=_judged(states), unit="candidates") as step:
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(_Batches, given=given), {"cpu": 1}),
                param_space={"chain": tune.grid_search(left)},
                tune_config=tune.TuneConfig(metric="best", mode="max", reuse_actors=True, max_concurrent_trials=side_by_side),
                run_config=tune.RunConfig(
                    name=NAME,
                    storage_path=str(place.parent),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[_Keeper(folder, found, states, given.objective, step)],
                ),
            )
            results = tuner.fit()
        shutil.rmtree(place, ignore_errors=True)
        if results.errors:
            why = str(results.errors[0]).strip().splitlines()[-1]
            raise RunError(f"the search failed: {why} (finished steps are kept in {folder / CHAINS})")
    return [states[number] for number in sorted(states)]
