"""The trainings of `harness tune`: Ray Tune runs them, Optuna proposes their settings, ASHA stops those that fall behind.

A trial trains in the run's folder that its settings name, as `harness run` would: what is trained already is found, and what
was cut off goes on from its checkpoint. What a trial meets comes back as plain values, so that the command can tell it in one
line, and can tell a failure that all trials will share from one of a trial's own settings.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cards.schema import Tunable
from harness.engine.distributed.worker import share_threads
from harness.engine.request import Plan, Request, make_plan
from harness.engine.run import execute, train
from harness.ensembles.objective import Objective
from harness.ensembles.tune_session import environment, silence
from harness.runtime import logs
from harness.runtime.errors import HarnessError, RunError, UsageError
from harness.runtime.progress import progress
from harness.runtime.text import one_line

if TYPE_CHECKING:
    from harness.datasets import Dataset
    from harness.engine.distributed.workers import Workers

_log = logging.getLogger(__package__)

_RUNGS = 3
"""ASHA keeps one in so many at each of its rungs."""
_WORST = -2.0
"""The figure of a trial that failed: no main score, SRCC or PLCC is lower."""
NAME = "tune"


@dataclass(frozen=True)
class Trial:
    """One setting's training: how far it went, and how it stood on the validation part there."""

    settings: Mapping[str, Any]
    epochs: int
    figure: float | None
    stopped: bool
    folder: str
    problem: str = ""
    """Why it failed; empty where it did not."""


@dataclass(frozen=True)
class Task:
    """What every trial is told besides its settings."""

    request: Request
    """Of one training in one process."""
    objective: Objective
    epochs: int
    here: str
    """The folder that relative paths start from."""
    threads: int


@dataclass(frozen=True)
class Failure:
    """What all trials will meet."""

    text: str
    usage: bool
    """Whether the request cannot be served, so that the command's exit status is 2."""


def planned(request: Request, settings: Mapping[str, Any], data: Dataset | None = None) -> Plan:
    """The plan of the request under a trial's settings."""
    return make_plan(replace(request, settings={**request.settings, **settings}), data)


def run_trials(
    task: Task,
    first: Plan,
    space: Mapping[str, Tunable],
    own: Mapping[str, Any],
    count: int,
    team: Workers,
    folder: Path,
    keep: Callable[[Sequence[Trial]], None],
) -> list[Trial]:
    """Train under `count` settings, one trial for each worker of `team` at a time.

    Args:
        task: What every trial is told.
        first: The plan with the card's own settings.
        space: The values that may be tried, by setting.
        own: The card's own values, which the first trial has.
        count: How many settings are tried.
        team: The machines, and what each trial has of them.
        folder: Where Ray Tune keeps its files while it works.
        keep: Called with all trials so far whenever one has ended.

    Returns:
        The trials in the order in which they were asked for.

    Raises:
        UsageError, RunError: The first trial failed other than by its own settings, or a later one met what all will meet.
    """
    import optuna
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe, length = first.card.recipe, task.epochs
    assert recipe is not None
    known: list[Any] = []
    """Tune's own trials, as its callbacks hand them over."""
    died: dict[str, str] = {}
    fatal: list[Failure] = []

    def so_far() -> list[Trial]:
        rows = []
        for trial in known:
            settings, result = dict(trial.config), trial.last_result or {}
            epochs, problem = int(result.get("epoch", 0)), str(died.get(trial.trial_id) or result.get("problem", ""))
            figure = None if problem or "figure" not in result else float(result["figure"])
            stopped = trial.is_finished() and not problem and epochs < length
            rows.append(Trial(settings, epochs, figure, stopped, str(result.get("folder", "")), problem))
        return rows

    class Keeper(tune.Callback):
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            # The trial's worker is there now: what a kill leaves is ended at the next start.
            team.session.record()

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
            known[:] = trials
            if result.get("problem") and _shared(result, trial.config, own):
                fatal.append(Failure(result["problem"], usage=bool(result["usage"])))
            ended = [t for t in trials if t.is_finished()]
            epochs = sum(length if t in ended else int((t.last_result or {}).get("epoch", 0)) for t in trials)
            figures = [f for t in trials if (f := (t.last_result or {}).get("figure")) is not None and f > _WORST]
            best = f", best {task.objective} {max(figures):.4f}" if figures else ""
            step(epochs, f"{len(ended)} of {count} trials{best}")

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            known[:] = trials
            keep(so_far())

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            known[:] = trials
            died[trial.trial_id] = _death(trial.get_pickled_error())
            if dict(trial.config) == dict(own):
                fatal.append(Failure(died[trial.trial_id], usage=False))
            keep(so_far())

    class EndAll(tune.Stopper):
        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            return False

        def stop_all(self) -> bool:
            return bool(fatal)

    needs: dict[str, Any] = {"cpu": team.share.threads, **({"gpu": team.share.gpus} if team.share.gpus else {})}
    what, total = f"tuning {first.card.name}", count * length
    shutil.rmtree(folder / NAME, ignore_errors=True)
    try:
        with environment(), silence(), progress(what, total, unit="epochs") as step:
            tuner = tune.Tuner(
                tune.with_resources(tune.with_parameters(_trial, task=task), needs),
                param_space={name: _domain(values, own[name]) for name, values in space.items()},
                tune_config=tune.TuneConfig(
                    metric="figure",
                    mode="max",
                    num_samples=count,
                    max_concurrent_trials=team.share.workers,
                    search_alg=OptunaSearch(points_to_evaluate=[dict(own)], seed=task.request.seed),
                    # One more than there are: at its last epoch ASHA would end a trial before it has written its checkpoint.
                    scheduler=ASHAScheduler(
                        time_attr="epoch",
                        max_t=length + 1,
                        grace_period=recipe.validate_every,
                        reduction_factor=_RUNGS,
                    ),
                ),
                run_config=tune.RunConfig(
                    name=NAME, storage_path=str(folder.absolute()), verbose=0, callbacks=[Keeper()], stop=EndAll()
                ),
            )
            tuner.fit()
    finally:
        shutil.rmtree(folder / NAME, ignore_errors=True)
    tried = so_far()
    keep(tried)
    if fatal:
        kind = UsageError if fatal[0].usage else RunError
        raise kind(f"{first.card.name}: {fatal[0].text} (no further trial was begun; what is trained is kept)")
    return tried


def _shared(result: Mapping[str, Any], settings: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Whether a trial's failure is one that all will share.

    That is what the card's own settings meet, unless they diverge or want too much memory, and an image or a disk that cannot
    be read or written, whatever the settings.
    """
    return not result["own"] and (bool(result["input"]) or dict(settings) == dict(own))


def _death(error: Exception | None) -> str:
    """What ended a trial's process."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, Exception):
        return one_line(f"{type(cause).__name__}: {cause}")[:1000]
    return "its process is gone (perhaps too little memory)"


def _trial(config: dict[str, Any], task: Task) -> None:
    """One training, in a worker of Tune's; what it meets is reported, not raised."""
    from ray import tune

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
        tune.report({"epoch": reported, "figure": _WORST, "folder": place} | _facts(error, begun=begun))


def _facts(error: Exception, *, begun: bool) -> dict[str, Any]:
    """A trial's failure as plain values. `begun`: whether its training had begun, so that its settings fit together."""
    from harness.engine.trainer import Diverged

    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    causes = [e for e in (error, error.__cause__) if e is not None]
    memory = any(isinstance(e, MemoryError) or type(e).__name__ == "OutOfMemoryError" for e in causes)
    return {
        "problem": one_line(text)[:1000],
        "own": memory or isinstance(error, Diverged),
        "usage": isinstance(error, UsageError),
        "input": (begun and isinstance(error, UsageError)) or any(isinstance(e, OSError) for e in causes),
    }


def finish_best(task: Task, settings: Mapping[str, Any], team: Workers) -> None:
    """Test the best trial's network where it was trained, under the same conditions, from where its training ended.

    The record lies in the run's folder afterwards.
    """
    import ray

    options = {"num_cpus": team.share.threads, "num_gpus": team.share.gpus, "max_retries": 0}
    try:
        messages: list[tuple[int, str]] = ray.get(ray.remote(_test).options(**options).remote(task, dict(settings)))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HarnessError):
            raise error.cause from None
        raise RunError(f"the best could not be tested: {type(error.cause).__name__}: {error.cause}") from error
    except ray.exceptions.RayError as error:
        raise RunError("the best could not be tested: its process is gone; the same command goes on from here") from error
    for level, text in messages:
        _log.log(level, text)


def _test(task: Task, settings: Mapping[str, Any]) -> list[tuple[int, str]]:
    os.chdir(task.here)
    importlib.import_module("torch")  # before its threads are set
    share_threads(task.threads)
    messages: list[tuple[int, str]] = []
    logs.handle(lambda level, text: messages.append((level, text)))
    # Only the command itself speaks to MLflow.
    execute(planned(replace(task.request, mlflow_uri="off"), settings))
    return messages


def _domain(values: Tunable, now: Any) -> Any:
    """The setting's values as Tune knows them; whole numbers where the card has one."""
    from ray import tune

    if values.choices:
        return tune.choice(list(values.choices))
    assert values.low is not None
    assert values.high is not None
    if isinstance(now, int):
        low, high = int(values.low), int(values.high) + 1
        return tune.lograndint(low, high) if values.log else tune.randint(low, high)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


def _epochs(folder: Path) -> list[dict[str, Any]]:
    """The epochs that an earlier call has trained."""
    try:
        return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []
