"""A search over the settings that a model's card declares tunable, by real training, judged on the validation part.

Ray Tune runs the trials, Optuna (a tree-structured Parzen estimator, seeded) proposes settings, ASHA (Li et al. 2020) stops
those that fall behind. A trial trains in the run's folder that its settings name, as `harness run` would: what is trained
already is found, what was cut off goes on from its checkpoint, and the best is tested from where its training ended. So the
same command goes on after a kill by asking for the same trials again; with one trial at a time they are the same.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import datasets
from harness.cards.schema import ModelCard, Tunable
from harness.engine.distributed.session import cores, session
from harness.engine.request import Plan, Request, plan
from harness.engine.run import Outcome, execute, train
from harness.ensembles import card as cards
from harness.ensembles.objective import Objective
from harness.ensembles.search import environment, silence
from harness.files.atomic import sha256_json, write_json, write_text
from harness.models import find_model
from harness.results import tables
from harness.results.run_folder import folder_of, locked
from harness.runtime.errors import RunError, UsageError, listed, near

if TYPE_CHECKING:
    from harness.datasets import Dataset

_log = logging.getLogger(__package__)

_RUNGS = 3
"""ASHA keeps one in so many at each of its rungs."""


@dataclass(frozen=True)
class Trial:
    """One setting's training: how far it went, and how it stood on the validation part there."""

    settings: Mapping[str, Any]
    epochs: int
    figure: float | None
    stopped: bool
    folder: str


@dataclass(frozen=True)
class Tuned:
    """What came out; `trials` in the order in which they were asked for, the first with the card's own settings."""

    card: Path
    model: str
    aim: Objective
    trials: list[Trial]
    best: Trial
    outcome: Outcome

    def json(self) -> dict[str, Any]:
        """The document of `harness ensemble --tune recipe --json`."""
        results = []
        for part in ("validation", "test"):
            row = tables.result(self.outcome.folder, self.outcome.record, part)
            results.append({"dataset": row["dataset"], "part": part, "member": self.card.stem} | {
                k: row[k] for k in ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "main", "ci")
            })  # fmt: skip
        return {"card": str(self.card), "trials": [asdict(t) for t in self.trials], "best": asdict(self.best), "results": results}

    def __str__(self) -> str:
        from tabulate import tabulate

        names = list(self.best.settings)
        rows = [
            [str(i), *(_shown(t.settings[n]) for n in names), str(t.epochs), tables.number(t.figure), _state(t, t is self.best)]
            for i, t in enumerate(self.trials)
        ]
        headers = ("trial", *names, "epochs", f"{self.aim} (validation)", "")
        tested = tables.run_table([tables.result(self.outcome.folder, self.outcome.record)])
        notes = [
            "trial 0 has the card's own settings; the best is the best of those that were trained to the end",
            "its validation figure is the best of several and flatters it; the test part was looked at once, for this table",
            f"{self.card}: {self.model} with the best settings; its run is {self.outcome.folder}",
        ]
        return "\n\n".join([tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True), tested, "\n".join(notes)])


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _state(trial: Trial, best: bool) -> str:
    return "best" if best else "stopped early" if trial.stopped else ""


def tune_recipe(
    words: Sequence[str],
    request: Request,
    out: str,
    *,
    trials: int = 8,
    aim: Objective = "main",
    concurrency: int = 1,
) -> Tuned:
    """Train the one model of `words` under `trials` settings, write the best's card to `out`, and test it.

    Only `concurrency` 1 repeats: side by side, what Optuna proposes depends on which trial is done first. Raises UsageError for
    a model that is not trained or whose card declares nothing tunable.
    """
    if len(words) != 1:
        raise UsageError(f"--tune recipe takes one model, not {len(words)}")
    request = replace(request, model=words[0])
    model = find_model(words[0], request.cards)
    space = _space(model)
    cards.refuse_place(out, {model.name: model.class_})
    data = datasets.load_dataset(request.dataset, request.root, cards=request.cards)
    first = plan(request, data)
    assert first.card.recipe is not None
    if not (first.parts == "validation").any() or not first.card.recipe.validate_every:
        raise UsageError(
            f"{model.name} on {data.name}: settings are judged on a validation part, and there is none ({first.protocol})"
        )
    tried = _tried(first, space, trials, aim, concurrency)
    whole = [t for t in tried if t.figure is not None and not t.stopped]
    if not whole:
        raise RunError("no trial was trained to the end; ask for more --trials")
    best = max(whole, key=lambda t: t.figure or 0.0)
    with _threads(concurrency):
        outcome = execute(_planned(request, best.settings, data))
    path = Path(out)
    write_text(path, f"# {model.name} with settings found by: {' '.join(_command(request, out, trials, aim, concurrency))}\n\n"
               + cards.toml(_table(path, outcome, model)))  # fmt: skip
    find_model(str(path))
    return Tuned(path, model.name, aim, tried, best, outcome)


def _planned(request: Request, settings: Mapping[str, Any], data: Dataset | None = None) -> Plan:
    return plan(replace(request, settings={**request.settings, **settings}), data)


def _space(model: ModelCard) -> dict[str, Tunable]:
    """The card's tunable settings, checked all at once."""
    if model.recipe is None:
        raise UsageError(f"{model.name} is not trained here (it has no recipe): there is nothing to tune")
    if not model.tunable:
        raise UsageError(f'{model.path}: no [tunable] table, such as "recipe.rate" = {{ low = 1e-4, high = 1e-2, log = true }}')
    problems = []
    known = _settings(model)
    for name, values in model.tunable.items():
        if name not in known:
            problems.append(f"{model.path}: tunable {name!r}: no such setting{near(name, known)} (it has {listed(list(known))})")
        elif bool(values.choices) == (values.low is not None and values.high is not None):
            problems.append(f"{model.path}: tunable {name!r}: give either low and high, or choices")
        elif (
            values.low is not None
            and values.high is not None
            and not (0 if values.log else -float("inf")) < values.low < values.high
        ):
            problems.append(f"{model.path}: tunable {name!r}: low should be below high{', and above 0' if values.log else ''}")
    if problems:
        raise UsageError("\n".join(problems))
    return dict(model.tunable)


def _settings(model: ModelCard) -> dict[str, Any]:
    groups = {
        "model": dict(model.model),
        "protocol": asdict(model.protocol),
        "recipe": asdict(model.recipe) if model.recipe else {},
    }
    return {f"{group}.{name}": value for group, table in groups.items() for name, value in table.items()}


def _tried(first: Plan, space: Mapping[str, Tunable], trials: int, aim: Objective, concurrency: int) -> list[Trial]:
    """Every trial, in the order in which they were asked for."""
    import optuna
    import torch
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe, request, here = first.card.recipe, first.request, os.getcwd()
    assert recipe is not None
    threads = min(torch.get_num_threads() if concurrency == 1 else max(1, cores() // concurrency), cores())
    own = {name: _settings(first.card)[name] for name in space}

    def one(config: dict[str, Any]) -> None:
        os.chdir(here)
        torch.set_num_threads(threads)
        todo, reported = _planned(request, config), 0

        def report(entry: Mapping[str, Any]) -> None:
            nonlocal reported
            if aim in entry and entry["epoch"] > reported:
                reported = entry["epoch"]
                tune.report({"epoch": reported, "figure": entry[aim]})

        for entry in _epochs(todo.folder):
            report(entry)
        if reported < recipe.epochs:
            train(todo, report)

    identity = {"first": first.key, "space": {k: asdict(v) for k, v in space.items()}, "trials": trials, "aim": aim}
    folder = folder_of(request.runs, first.data.name, "tuning", sha256_json(identity)[:16])
    every = recipe.validate_every
    _log.info(
        f"{first.card.name}: {trials} trials of {', '.join(space)}, {concurrency} at a time; what is trained already is found"
    )
    needs: dict[str, Any] = {"cpu": threads, **({"gpu": 1} if _on_gpu(request) else {})}
    with (
        locked(folder),
        session(cpus=threads * concurrency, gpus=needs.get("gpu"), folder=folder),
        environment(),
        silence(),
    ):
        shutil.rmtree(folder / "tune", ignore_errors=True)
        tuner = tune.Tuner(
            tune.with_resources(one, needs),
            param_space={name: _domain(values, own[name]) for name, values in space.items()},
            tune_config=tune.TuneConfig(
                metric="figure",
                mode="max",
                num_samples=trials,
                max_concurrent_trials=concurrency,
                search_alg=OptunaSearch(points_to_evaluate=[own], seed=request.seed),
                # One more than there are: at its last epoch ASHA would end a trial before it has written its checkpoint.
                scheduler=ASHAScheduler(time_attr="epoch", max_t=recipe.epochs + 1, grace_period=every, reduction_factor=_RUNGS),
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(folder.absolute()), verbose=0),
        )
        results = tuner.fit()
    each = [results[i] for i in range(len(results))]
    if results.errors:
        raise RunError(f"a trial failed: {str(results.errors[0]).strip().splitlines()[-1]} (what is trained is kept)")
    tried = []
    for result in each:
        settings, metrics = dict(result.config or {}), result.metrics or {}
        epochs = int(metrics.get("epoch", 0))
        place = str(_planned(request, settings, first.data).folder)
        tried.append(Trial(settings, epochs, metrics.get("figure"), epochs < recipe.epochs, place))
    write_json(folder / "trials.json", [asdict(t) for t in tried])
    shutil.rmtree(folder / "tune", ignore_errors=True)
    return tried


def _on_gpu(request: Request) -> bool:
    import torch

    return (request.device or ("cuda" if torch.cuda.is_available() else "cpu")).startswith("cuda")


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


class _threads:
    """Torch's threads as the trials had them, so that the best goes on under the same conditions."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency

    def __enter__(self) -> None:
        import torch

        self.before = torch.get_num_threads()
        if self.concurrency > 1:
            torch.set_num_threads(max(1, cores() // self.concurrency))

    def __exit__(self, *_: object) -> None:
        import torch

        torch.set_num_threads(self.before)


def _table(path: Path, outcome: Outcome, model: ModelCard) -> dict[str, Any]:
    """The model's card with the run's settings, as the table that its TOML holds; what others published is not of these."""
    card: dict[str, Any] = json.loads(json.dumps(asdict(outcome.record.cards.model)))
    card |= {"name": path.stem, "title": f"{model.title}, tuned on {outcome.record.dataset}", "class": card.pop("class_")}
    for key in ("path", "published", "program"):
        card.pop(key, None)
    return {k: _without_empty(v) for k, v in card.items() if v not in (None, "", [], {})}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v is not None}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _command(request: Request, out: str, trials: int, aim: Objective, concurrency: int) -> list[str]:
    line = ["harness", "ensemble", request.model, "--tune", "recipe", "--dataset", request.dataset]
    line += ["--protocol", request.protocol] if request.protocol else []
    return [
        *line,
        "--trials",
        str(trials),
        "--objective",
        aim,
        "--concurrency",
        str(concurrency),
        "--seed",
        str(request.seed),
        "--out",
        out,
    ]
