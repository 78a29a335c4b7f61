"""The trials of `harness tune`: trainings run by Ray Tune, settings proposed by Optuna, early stopping by ASHA.

A trial trains in the run's folder of its settings, like `harness run`: finished trainings are reused, and interrupted ones
resume from their checkpoints. A trial returns its failure as plain values, so that the command can report it in one line and
distinguish failures of all trials from those of a trial's own settings.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from harness.cards.schema import Tunable
from harness.engine.distributed.inside_worker import share_threads
from harness.engine.request import Plan
from harness.engine.run import execute, train
from harness.ensembles.ray_tune import environment, silence
from harness.ensembles.trial_outcome import Failure, Task, Trial, planned
from harness.runtime import logs
from harness.runtime.errors import HarnessError, RunError, UsageError
from harness.runtime.progress import Step, progress
from harness.runtime.text import one_line

if TYPE_CHECKING:
    from harness.engine.distributed.start_workers import Workers

_log = logging.getLogger(__package__)

_RUNGS = 3
"""ASHA's reduction factor: the share of trials that is kept at each rung is one in this number."""
_WORST = -2.0
"""The figure of a trial that failed: no main score, SRCC or PLCC is lower."""
NAME = "tune"


class _Keeper(tune.Callback):
    """Collects the outcomes of the trials and shows progress; `fatal` is a failure that all trials would have."""

    def __init__(
        self,
        task: Task,
        own: Mapping[str, Any],
        count: int,
        pool: Workers,
        keep: Callable[[Sequence[Trial]], None],
        shown: Step,
    ) -> None:
        self.task, self.own, self.count, self.pool, self.keep, self.shown = task, own, count, pool, keep, shown
        self.known: list[Any] = []
        self.died: dict[str, str] = {}
        self.fatal: Failure | None = None

    def so_far(self) -> list[Trial]:
        """The present state of all trials."""
        rows = []
        for trial in self.known:
            settings, result = dict(trial.config), trial.last_result or {}
            epochs, problem = int(result.get("epoch", 0)), str(self.died.get(trial.trial_id) or result.get("problem", ""))
            figure = None if problem or "figure" not in result else float(result["figure"])
            stopped = trial.is_finished() and not problem and epochs < self.task.epochs
            rows.append(Trial(settings, epochs, figure, stopped, str(result.get("folder", "")), problem))
        return rows

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        # Record the trial's worker, so that after a kill the next start ends it.
        self.pool.session.record()

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Mapping[str, Any], **_: Any) -> None:
        self.known = list(trials)
        if result.get("problem") and _shared(result, trial.config, self.own):
            self.fatal = self.fatal or Failure(result["problem"], usage=bool(result["usage"]))
        ended = [t for t in trials if t.is_finished()]
        epochs = sum(self.task.epochs if t in ended else int((t.last_result or {}).get("epoch", 0)) for t in trials)
        figures = [f for t in trials if (f := (t.last_result or {}).get("figure")) is not None and f > _WORST]
        best = f", best {self.task.objective} {max(figures):.4f}" if figures else ""
        self.shown(epochs, f"{len(ended)} of {self.count} trials{best}")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.known = list(trials)
        self.keep(self.so_far())

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.known = list(trials)
        self.died[trial.trial_id] = _death(trial.get_pickled_error())
        if dict(trial.config) == dict(self.own):
            self.fatal = self.fatal or Failure(self.died[trial.trial_id], usage=False)
        self.keep(self.so_far())


class _EndAll(tune.Stopper):
    """Stops all trials after a failure that all would have."""

    def __init__(self, keeper: _Keeper) -> None:
        self.keeper = keeper

    def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.keeper.fatal is not None


def run_trials(
    task: Task,
    first: Plan,
    space: Mapping[str, Tunable],
    own: Mapping[str, Any],
    count: int,
    pool: Workers,
    folder: Path,
    keep: Callable[[Sequence[Trial]], None],
) -> list[Trial]:
    """Train with `count` settings, one trial for each worker of `pool` at a time.

    Args:
        task: The input of every trial.
        first: The plan with the card's own settings.
        space: The possible values, by setting.
        own: The card's own values, for the first trial.
        count: The number of trials.
        pool: The workers, and the devices and threads of each.
        folder: The folder of Ray Tune's files during the search.
        keep: Called with all trials so far after each trial.

    Returns:
        The trials in the order of the search.

    Raises:
        UsageError, RunError: The first trial failed for a reason other than its own settings, or a later one for a reason that
            all trials share.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe, length = first.card.recipe, task.epochs
    assert recipe is not None
    needs: dict[str, float] = {"cpu": pool.share.threads, **({"gpu": pool.share.gpus} if pool.share.gpus else {})}
    what, total = f"tuning {first.card.name}", count * length
    shutil.rmtree(folder / NAME, ignore_errors=True)
    try:
        with environment(), silence(), progress(what, total, unit="epochs") as step:
            keeper = _Keeper(task, own, count, pool, keep, step)
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(_trial, task=task), needs),
                param_space={name: _domain(values, own[name]) for name, values in space.items()},
                tune_config=tune.TuneConfig(
                    metric="figure",
                    mode="max",
                    num_samples=count,
                    max_concurrent_trials=pool.share.workers,
                    search_alg=OptunaSearch(points_to_evaluate=[dict(own)], seed=task.request.seed),
                    # One more than there are: ASHA would end a trial at its last epoch before it has written its checkpoint.
                    scheduler=ASHAScheduler(
                        time_attr="epoch",
                        max_t=length + 1,
                        grace_period=recipe.validate_every,
                        reduction_factor=_RUNGS,
                    ),
                ),
                run_config=tune.RunConfig(
                    name=NAME, storage_path=str(folder.absolute()), verbose=0, callbacks=[keeper], stop=_EndAll(keeper)
                ),
            )
            tuner.fit()
    finally:
        shutil.rmtree(folder / NAME, ignore_errors=True)
    tried = keeper.so_far()
    keep(tried)
    if keeper.fatal:
        kind = UsageError if keeper.fatal.usage else RunError
        raise kind(f"{first.card.name}: {keeper.fatal.text} (no further trial was started; finished trainings are kept)")
    return tried


def _shared(result: Mapping[str, Any], settings: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether all trials would fail like this one.

    That holds for failures with the card's own settings, except divergence and lack of memory, and for images or disks that
    cannot be read or written.
    """
    return not result["own"] and (bool(result["input"]) or dict(settings) == dict(own))


def _death(error: Exception | None) -> str:
    """Why a trial's process ended."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return one_line(f"{type(cause).__name__}: {cause}")[:1000]
    return "its process died (perhaps too little memory)"


def _trial(config: Mapping[str, Any], task: Task) -> None:
    """One training, in a worker of Tune; errors are reported, not raised."""
    os.chdir(task.here)
    importlib.import_module("torch")  # before its threads are set
    share_threads(task.threads)
    reported, place = 0, ""

    def report(entry: Mapping[str, Any]) -> None:
        nonlocal reported
        if task.objective in entry and entry["epoch"] > reported:
            figure = float(entry[task.objective])
            reported = entry["epoch"]
            tune.report({"epoch": reported, "figure": figure if math.isfinite(figure) else _WORST, "folder": place})

    begun = False
    try:
        plan = planned(task.request, config)
        begun, place = True, str(plan.folder)
        for entry in _epochs(plan.folder):
            report(entry)
        if reported < task.epochs:
            train(plan, report)
    except Exception as error:
        tune.report({"epoch": reported, "figure": _WORST, "folder": place} | _fault(error, begun=begun)._asdict())


class _Fault(NamedTuple):
    """A trial's failure as plain values."""

    problem: str
    own: bool
    """Whether other settings may work: it diverged, or needed too much memory."""
    usage: bool
    input: bool
    """Whether an image or a disk could not be read or written."""


def _fault(error: Exception, *, begun: bool) -> _Fault:
    """`begun`: whether its training had begun, so that its settings are valid together."""
    from harness.engine.trainer import Diverged

    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    causes = [e for e in (error, error.__cause__) if e is not None]
    memory = any(isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" for e in causes)
    return _Fault(
        one_line(text)[:1000],
        own=memory or isinstance(error, Diverged),
        usage=isinstance(error, UsageError),
        input=(begun and isinstance(error, UsageError)) or any(isinstance(e, OSError) for e in causes),
    )


def finish_best(task: Task, settings: Mapping[str, Any], pool: Workers) -> None:
    """Test the best trial's trained network in a worker, under the conditions of its training.

    The record is then in the run's folder.
    """
    options = {"num_cpus": pool.share.threads, "num_gpus": pool.share.gpus, "max_retries": 0}
    try:
        messages: list[tuple[int, str]] = ray.get(ray.remote(_test).options(**options).remote(task, dict(settings)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HarnessError):
            raise error.cause from None
        raise RunError(f"the best could not be tested: {type(error.cause).__name__}: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise RunError("the best could not be tested: its process died; the same command continues from here") from error
    for level, text in messages:
        _log.log(level, text)


def _test(task: Task, settings: Mapping[str, Any]) -> list[tuple[int, str]]:
    os.chdir(task.here)
    importlib.import_module("torch")  # before its threads are set
    share_threads(task.threads)
    messages: list[tuple[int, str]] = []
    logs.handle(lambda level, text: messages.append((level, text)))
    # Only the command itself logs to MLflow.
    execute(planned(replace(task.request, mlflow_uri="off"), settings))
    return messages


def _domain(values: Tunable, own: Any) -> Any:
    """The setting's values as a domain of Tune; whole numbers where the card's own value `own` is one."""
    if values.choices:
        return tune.choice(list(values.choices))
    assert values.low is not None
    assert values.high is not None
    if isinstance(own, int):
        low, high = int(values.low), int(values.high) + 1
        return tune.lograndint(low, high) if values.log else tune.randint(low, high)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


def _epochs(folder: Path) -> list[Mapping[str, Any]]:
    """The epochs trained by an earlier call."""
    try:
        return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
