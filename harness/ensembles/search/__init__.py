"""The search as Ray Tune runs it: a trial is a chain of batches, an actor takes chain after chain, the arrays are put once.

Killed and asked again, the search goes on from the last step of every chain, which the harness keeps itself: Tune's own state is
not written atomically, and a kill at the wrong moment leaves one that Tune cannot take up.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.engine.distributed.session import cores, session
from harness.ensembles.blends import Blend
from harness.ensembles.objective import Objective
from harness.ensembles.search.candidates import Plan, as_blend
from harness.ensembles.search.chains import Chain, Sample
from harness.files.atomic import write_json
from harness.runtime.errors import RunError

NAME, DONE, CHAINS = "tune", "search.json", "chains"
_ENVIRONMENT = {
    # Ctrl-C is the harness's: Tune would go on for the rest of its trials' steps.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers bring TensorBoard in, which takes longer than the search.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class SearchResult(NamedTuple):
    """What the search found: the best blend on every sample, and each candidate's figure on the first, by chain and step."""

    blends: list[Blend]
    trace: list[list[list[float]]]


def search(
    samples: Sequence[Sample],
    plan: Plan,
    seed: int,
    aim: Objective,
    folder: Path,
    *,
    concurrency: int | None = None,
    say: Callable[[str], None] = print,
) -> SearchResult:
    """The best blend of `plan.total` candidates on each of `samples`, a function of the seed alone.

    `folder` keeps each chain's last step; a search that was cut off there goes on, a finished one is found. `concurrency`: chains
    side by side; None: one per core. Raises RunError where a chain failed.
    """
    states = _finished(folder / DONE)
    if states is None:
        cpus = min(len(plan.sizes), concurrency or cores())
        with session(cpus=cpus, folder=folder), environment():
            states = _run(samples, plan, seed, aim, folder, cpus, say)
        write_json(folder / DONE, states)
        shutil.rmtree(folder / CHAINS, ignore_errors=True)
    walked = []
    for number, state in enumerate(states):
        chain = Chain(seed, number, plan.sizes[number], samples, aim)
        chain.take_up(state)
        walked.append(chain)
    best = []
    for place, sample in enumerate(samples):
        top = max(walked, key=lambda chain: chain.figures[place])  # of equal ones the first
        best.append(as_blend(top.best[place], sample.columns))
    return SearchResult(best, [chain.trace for chain in walked])


def _finished(path: Path) -> list[dict[str, Any]] | None:
    with contextlib.suppress(OSError, ValueError):
        states: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return states
    return None


def _kept(folder: Path, plan: Plan) -> dict[int, dict[str, Any]]:
    """Where each chain stood when the search was cut off, by number."""
    kept = {}
    for number in range(len(plan.sizes)):
        with contextlib.suppress(OSError, ValueError):
            kept[number] = json.loads((folder / CHAINS / f"{number}.json").read_text(encoding="utf-8"))
    return kept


def _run(
    samples: Sequence[Sample], plan: Plan, seed: int, aim: Objective, folder: Path, cpus: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Each chain's last state, by number."""
    from ray import tune

    states = _kept(folder, plan)
    if states:
        say("the search goes on where it was cut off")
    left = [number for number, sizes in enumerate(plan.sizes) if states.get(number, {}).get("step") != len(sizes)]

    class Batches(tune.Trainable):
        """A chain as Tune sees it: a step judges a batch."""

        def setup(self, config: dict[str, Any], given: Any = None) -> None:
            if given is not None:
                self.samples, self.begun = given
            number = config["chain"]
            self.chain = Chain(seed, number, plan.sizes[number], self.samples, aim)
            if number in self.begun:
                self.chain.take_up(self.begun[number])

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self.chain.advance()
            # Tune's own state is JSON; text keeps it from flattening a thousand numbers into columns.
            return {"state": json.dumps(self.chain.state()), "best": self.chain.figures[0], "done": self.chain.done}

    class Keeper(tune.Callback):
        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
            number = trial.config["chain"]
            states[number] = json.loads(result["state"])
            write_json(folder / CHAINS / f"{number}.json", states[number])

    place = folder.absolute() / NAME  # Ray takes a relative path for an address without a scheme
    (folder / CHAINS).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    if left:
        with quiet():
            trainable = tune.with_parameters(Batches, given=(list(samples), dict(states)))
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                param_space={"chain": tune.grid_search(left)},
                tune_config=tune.TuneConfig(metric="best", mode="max", reuse_actors=True, max_concurrent_trials=cpus),
                run_config=tune.RunConfig(
                    name=NAME,
                    storage_path=str(place.parent),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[Keeper()],
                ),
            )
            results = tuner.fit()
        shutil.rmtree(place, ignore_errors=True)
        if results.errors:
            why = str(results.errors[0]).strip().splitlines()[-1]
            raise RunError(f"the search failed: {why} (what is finished is kept in {folder / CHAINS})")
    return [states[number] for number in sorted(states)]


@contextlib.contextmanager
def environment() -> Iterator[None]:
    """Tune's settings inside, the caller's environment afterwards; what the user set holds."""
    added = [name for name in _ENVIRONMENT if name not in os.environ]
    os.environ.update({name: _ENVIRONMENT[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No talk of Tune's beside the harness's own."""
    loggers = [logging.getLogger(name) for name in ("ray.tune", "ray.train", "ray.air")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
