"""The search as Ray Tune runs it: a trial is a chain of batches, an actor takes chain after chain, the arrays are put once.

Killed and asked again, the search goes on from the last step of every chain: Tune's own state lies in the search's folder.
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

from harness.cluster.session import cores, session
from harness.ensembling.blends import Blend
from harness.ensembling.candidates import Plan, as_blend
from harness.ensembling.chains import Chain, Sample
from harness.ensembling.figures import Objective
from harness.errors import Fault
from harness.files import write_json

NAME, DONE = "tune", "search.json"
_ENVIRONMENT = {
    # Ctrl-C is the harness's: Tune would go on for the rest of its trials' steps.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Its loggers bring TensorBoard in, which takes longer than the search.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


class Found(NamedTuple):
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
) -> Found:
    """The best blend of `plan.total` candidates on each of `samples`, a function of the seed alone.

    `folder` keeps Tune's state; a search that was cut off there goes on, a finished one is found. `concurrency`: chains side by
    side; None: one per core. Raises Fault where a chain failed.
    """
    states = _finished(folder / DONE)
    if states is None:
        cpus = min(len(plan.sizes), concurrency or cores())
        with session(cpus=cpus, folder=folder), environment():
            states = _run(samples, plan, seed, aim, folder, cpus, say)
        write_json(folder / DONE, states)
        shutil.rmtree(folder / NAME, ignore_errors=True)
    walked = []
    for number, state in enumerate(states):
        chain = Chain(seed, number, plan.sizes[number], samples, aim)
        chain.take_up(state)
        walked.append(chain)
    best = []
    for place, sample in enumerate(samples):
        top = max(walked, key=lambda chain: chain.figures[place])  # of equal ones the first
        best.append(as_blend(top.best[place], sample.columns))
    return Found(best, [chain.trace for chain in walked])


def _finished(path: Path) -> list[dict[str, Any]] | None:
    with contextlib.suppress(OSError, ValueError):
        states: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return states
    return None


def _run(
    samples: Sequence[Sample], plan: Plan, seed: int, aim: Objective, folder: Path, cpus: int, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Each chain's last state, by number."""
    from ray import tune

    class Batches(tune.Trainable):
        """A chain as Tune sees it: a step judges a batch, a checkpoint is the chain's state."""

        def setup(self, config: dict[str, Any], shared: Any = None) -> None:
            if shared is not None:
                self.shared = shared
            self.chain = Chain(seed, config["chain"], plan.sizes[config["chain"]], self.shared, aim)

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self.chain.advance()
            # Tune's own state is JSON; text keeps it from flattening a thousand numbers into columns.
            return {"state": json.dumps(self.chain.state()), "best": self.chain.figures[0], "done": self.chain.done}

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            Path(checkpoint_dir, "chain.json").write_text(json.dumps(self.chain.state()), encoding="utf-8")

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.chain.take_up(json.loads(Path(checkpoint, "chain.json").read_text(encoding="utf-8")))

    place = folder.absolute() / NAME  # Ray takes a relative path for an address without a scheme
    with quiet():
        trainable = tune.with_parameters(Batches, shared=list(samples))
        trainable = tune.with_resources(trainable, {"cpu": 1})
        tuner = None
        if tune.Tuner.can_restore(str(place)):
            try:
                tuner = tune.Tuner.restore(str(place), trainable, resume_unfinished=True, restart_errored=True)
                say("the search goes on where it was cut off")
            except Exception as error:
                why = (str(error).splitlines() or [type(error).__name__])[0]
                say(f"{place}: an earlier search cannot be taken up ({why}); starting it anew")
        if tuner is None:
            shutil.rmtree(place, ignore_errors=True)
            tuner = tune.Tuner(
                trainable,
                param_space={"chain": tune.grid_search(list(range(len(plan.sizes))))},
                tune_config=tune.TuneConfig(metric="best", mode="max", reuse_actors=True, max_concurrent_trials=cpus),
                run_config=tune.RunConfig(
                    name=NAME,
                    storage_path=str(place.parent),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=1, num_to_keep=1),
                ),
            )
        results = tuner.fit()
    if results.errors:
        raise Fault(f"the search failed: {str(results.errors[0]).strip().splitlines()[-1]} (what is finished is kept in {place})")
    each = [results[i] for i in range(len(results))]
    states = {(r.config or {})["chain"]: json.loads((r.metrics or {})["state"]) for r in each}
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
