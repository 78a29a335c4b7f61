"""`harness tune`: a search over a card's tunable settings by trial trainings, selected on the validation part.

All checks of the request are made before Ray starts. The trials are trainings (`harness.ensembles.optuna_search`), each in the
run's folder of its settings, and the best is tested with its trained weights. So the same command continues after a kill; with
one trial at a time, the trials are the same.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from harness import datasets
from harness.cards.overrides import apply_set
from harness.cards.schema import ModelCard, Tunable
from harness.engine.distributed.allocation import divide
from harness.engine.distributed.session import cores, kept, session
from harness.engine.distributed.start_workers import start_workers
from harness.engine.request import Plan, Request, make_plan
from harness.engine.run import Outcome, execute
from harness.ensembles import card as cards
from harness.ensembles import tables
from harness.ensembles.objective import Objective
from harness.ensembles.trial_outcome import Task, Trial, planned
from harness.files.atomic import sha256_json, write_json, write_text
from harness.models import find_model
from harness.results import processes
from harness.results.mlflow_figures import FamilyRun
from harness.results.mlflow_mirror import Tracker
from harness.results.run_folder import finished, folder_of, locked
from harness.results.run_scores import csv_text
from harness.results.tables import number, result, with_interval
from harness.runtime.errors import RunError, UsageError, listed, near

_log = logging.getLogger(__package__)

DONE, CSV, PLOT = "trials.json", "trials.csv", "trials.png"
PARTS = ("validation", "test")


@dataclass(frozen=True)
class Tuned:
    """The result; `trials` in the order of the search, the first with the card's own settings."""

    card: Path
    folder: Path
    """The folder of the list and plot of the trials."""
    model: str
    objective: Objective
    trials: list[Trial]
    best: Trial
    outcome: Outcome

    def results(self) -> list[Mapping[str, Any]]:
        """The figures of the validation and the test part."""
        rows = [result(self.outcome.folder, self.outcome.record, part) for part in PARTS]
        kept = ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "main", "ci")
        return [
            {"dataset": row["dataset"], "part": part, "member": self.card.stem, **{k: row[k] for k in kept}}
            for part, row in zip(PARTS, rows, strict=True)
        ]

    def json(self) -> dict[str, object]:
        """The document of `harness tune --json`."""
        return {
            "card": str(self.card),
            "folder": str(self.folder),
            "trials": [asdict(t) for t in self.trials],
            "best": asdict(self.best),
            "results": self.results(),
        }

    def __str__(self) -> str:
        rows = [
            [str(i), _settings_text(t.settings), str(t.epochs), number(t.figure), _state(t, t is self.best)]
            for i, t in enumerate(self.trials)
        ]
        headers = ("trial", "settings", "epochs", self.objective, "")
        tried = tables.table(headers, rows, align=("right", "left", "right", "right", "left"), narrowed=1)
        figures = [
            [row["part"], *(with_interval(row[f], (row["ci"] or {}).get(f)) for f in ("srcc", "plcc")),
             *(number(row[f]) for f in ("plcc_fitted", "krcc", "main"))]
            for row in self.results()
        ]  # fmt: skip
        tested = tables.table((self.card.stem, "SRCC [95 %]", "PLCC [95 %]", "fitted", "KRCC", "main"), figures)
        notes = [
            f"{self.objective} is of the validation part; trial 0 has the card's own settings; the best is the best",
            "of those that were trained to the end. Its validation figure is the best of several and so",
            "optimistic; the test part was used once, for this table.",
            *(f"trial {i} failed: {t.problem}" for i, t in enumerate(self.trials) if t.problem),
            f"{self.card}: {self.model} with the best settings; its run is {self.outcome.folder}",
            f"{self.folder}: {CSV} and {PLOT} show every trial",
        ]
        return "\n\n".join([tried, tested, "\n".join(notes)])


def tune(
    model: str,
    request: Request,
    out: str,
    *,
    trials: int = 8,
    objective: Objective = "main",
) -> Tuned:
    """Train a model under `trials` settings, write the best's card to `out`, and test it.

    Args:
        model: A model's name or card, with a recipe and a `[tunable]` table.
        request: The dataset and the options of training. `workers`: trainings in parallel; 0: one, on a cluster one per
            device. Only one at a time is reproducible: in parallel, Optuna's proposals depend on which trial ends first.
        out: The file of the best settings' card.
        trials: The number of settings to try; the first ones are the card's own.
        objective: The figure of the validation part to maximize.

    Raises:
        UsageError: The request cannot be served; raised before Ray starts, with all problems of the card at once.
        RunError: No trial was trained to the end, or all would fail in the same way.
    """
    request = replace(request, model=model)
    _refuse(request, trials)
    if not request.ray:
        return _tune(model, request, out, trials, objective)
    # Connected first: problems of the cluster are reported before the images are read.
    with kept(), session(request.ray) as found:
        divide(found.nodes(), found.described(), request.workers, request.device)
        return _tune(model, request, out, trials, objective)


def _tune(model: str, request: Request, out: str, trials: int, objective: Objective) -> Tuned:
    chosen = find_model(model, request.cards)
    space = _space(chosen)
    _refuse_values(apply_set(chosen, request.settings), space)
    cards.refuse_place(out, {chosen.name: chosen.class_})
    data = datasets.load_dataset(request.dataset, request.root, cards=request.cards)
    first = make_plan(request, data)
    recipe = first.card.recipe
    assert recipe is not None
    if not (first.parts == "validation").any() or not recipe.validate_every:
        raise UsageError(f"{chosen.name} on {data.name}: settings are selected on a validation part; {first.protocol} has none")
    identity = {"first": first.key, "space": {k: asdict(v) for k, v in space.items()}, "trials": trials, "aim": objective}
    identity |= {"workers": request.workers} if request.workers > 1 or request.ray else {}
    folder = folder_of(request.runs, first.data.name, "tuning", sha256_json(identity)[:16])
    with locked(folder):
        processes.end_leftovers(folder)
        tried = _found(folder)
        if tried is None:
            tried = _tried(first, request, space, trials, objective, folder)
            write_json(folder / DONE, [asdict(t) for t in tried])
        _write_trials(folder, tried, objective)
        _plot(folder / PLOT, tried, objective)
    best = _best(tried)
    # Its record exists already: it is read here, and logged to MLflow.
    outcome = execute(planned(_alone(request), best.settings, data))
    path = Path(out)
    write_text(path, f"# {chosen.name} with settings found by: {shlex.join(_command(request, out, trials, objective))}\n\n"
               + cards.toml(_table(path, outcome, chosen)))  # fmt: skip
    find_model(str(path))
    tuned = Tuned(path, folder, chosen.name, objective, tried, best, outcome)
    _mirror(tuned, request)
    return tuned


def _tried(
    first: Plan,
    request: Request,
    space: Mapping[str, Tunable],
    count: int,
    objective: Objective,
    folder: Path,
) -> list[Trial]:
    """All trials, the best of them tested; on this machine's Ray or on the cluster's."""
    from harness.ensembles.optuna_search import finish_best, run_trials  # with Ray Tune, which takes a second

    recipe = first.card.recipe
    assert recipe is not None
    own = {name: _settings(first.card)[name] for name in space}
    workers = request.workers or (0 if request.ray else 1)
    importlib.import_module("torch")  # it gives the GPUs and threads
    with start_workers(None, request.ray, workers, request.device, folder=folder) as pool:
        share = pool.share
        task = Task(replace(_alone(request), device=share.device), objective, recipe.epochs, os.getcwd(), share.threads)
        many = f"{share.workers} at a time" if share.workers > 1 else "one at a time"
        _log.info(f"{first.card.name}: {count} trials of {', '.join(space)}, {many}; finished trainings are reused")
        tried = run_trials(task, first, space, own, count, pool, folder, lambda rows: _write_trials(folder, rows, objective))
        finish_best(task, _best(tried).settings, pool)
    return tried


def _alone(request: Request) -> Request:
    """The request of one training in one process."""
    return replace(request, workers=0, ray=None)


def _best(tried: Sequence[Trial]) -> Trial:
    """The best of those that were trained to the end, of equal ones the first."""
    whole = [t for t in tried if t.figure is not None and not t.stopped and not t.problem]
    if not whole:
        why = f" (trial 0: {tried[0].problem})" if tried and tried[0].problem else ""
        raise RunError(f"no trial was trained to the end{why}; try more --trials, or other settings")
    return max(whole, key=lambda t: t.figure or 0.0)


def _found(folder: Path) -> list[Trial] | None:
    """The trials of a finished tuning whose best is still recorded; None where there is none."""
    try:
        tried = msgspec.json.decode((folder / DONE).read_bytes(), type=list[Trial])
    except (OSError, msgspec.MsgspecError):
        return None
    whole = [t for t in tried if not t.stopped and not t.problem]
    return tried if whole and finished(Path(_best(tried).folder)) is not None else None


def _refuse(request: Request, trials: int) -> None:
    problems = []
    if trials < 1:
        problems.append("--trials: at least one")
    if request.weights is not None:
        problems.append("--weights means no training, so nothing can be tuned; to start training from a file: --init")
    if request.workers > cores() and not request.ray:
        problems.append(f"--workers {request.workers}: this machine has {cores()} cores")
    if problems:
        raise UsageError("\n".join(problems))


def _space(model: ModelCard) -> dict[str, Tunable]:
    """The card's tunable settings, checked all at once."""
    if model.recipe is None:
        raise UsageError(f"{model.name} is not trained here (it has no recipe), so nothing can be tuned")
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


def _refuse_values(model: ModelCard, space: Mapping[str, Tunable]) -> None:
    """Raise UsageError for every end of a range, and every choice, that is not a valid setting of the card."""
    problems = []
    own = _settings(model)
    for name, values in space.items():
        whole = isinstance(own[name], int) and not isinstance(own[name], bool)
        ends = [int(v) if whole else v for v in (values.low, values.high) if v is not None]
        for value in values.choices or ends:
            try:
                apply_set(model, {name: value})
            except UsageError as error:
                problems += [
                    f"{model.path}: tunable {name!r}: {value!r} cannot be set: {line}" for line in str(error).splitlines()
                ]
    if problems:
        raise UsageError("\n".join(problems))


def _settings(model: ModelCard) -> dict[str, object]:
    groups = {
        "model": dict(model.model),
        "protocol": asdict(model.protocol),
        "recipe": asdict(model.recipe) if model.recipe else {},
    }
    return {f"{group}.{name}": value for group, table in groups.items() for name, value in table.items()}


def _settings_text(settings: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in settings.items()}
    return ", ".join(f"{name.removeprefix('recipe.')} {value}" for name, value in shown.items())


def _state(trial: Trial, best: bool) -> str:
    return "best" if best else "failed" if trial.problem else "stopped early" if trial.stopped else ""


def _write_trials(folder: Path, tried: Sequence[Trial], objective: Objective) -> None:
    """trials.csv: a row for each trial so far, with the best figure up to it."""
    if not tried:
        return
    names = list(tried[0].settings)
    rows: list[tuple[str, ...]] = [("trial", *names, "epochs", objective, "best", "state", "run", "problem")]
    for number_, (trial, best) in enumerate(zip(tried, _best_so_far(tried), strict=True)):
        values = [repr(v) if isinstance(v, float) else str(v) for v in (trial.settings[name] for name in names)]
        figure = "" if trial.figure is None else repr(trial.figure)
        state = _state(trial, best=False) or ("trained" if trial.figure is not None else "begun")
        shown = repr(best) if best > -float("inf") else ""
        rows.append((str(number_), *values, str(trial.epochs), figure, shown, state, trial.folder, trial.problem))
    write_text(folder / CSV, csv_text(rows))


def _best_so_far(tried: Sequence[Trial]) -> list[float]:
    """The best figure up to each trial, of those that were trained to the end."""
    return list(accumulate((-float("inf") if t.figure is None or t.stopped else t.figure for t in tried), max))


def _plot(path: Path, tried: Sequence[Trial], objective: Objective) -> None:
    """trials.png: every trial's figure, and the best so far."""
    best = _best_so_far(tried)
    with tables.plotted(path, "trial", f"{objective} on the validation part") as axes:
        for label, marker, rows in (
            ("trained to the end", "o", [i for i, t in enumerate(tried) if t.figure is not None and not t.stopped]),
            ("stopped early", "x", [i for i, t in enumerate(tried) if t.figure is not None and t.stopped]),
        ):
            if rows:
                axes.plot(rows, [tried[i].figure for i in rows], marker, label=label)
        known = [i for i, figure in enumerate(best) if figure > -float("inf")]
        axes.step(known, [best[i] for i in known], where="post", label="best so far")


def _table(path: Path, outcome: Outcome, model: ModelCard) -> dict[str, object]:
    """The model's card with the run's settings as a TOML table, without published figures, which are of other settings."""
    card: dict[str, Any] = json.loads(json.dumps(asdict(outcome.record.cards.model)))
    card |= {"name": path.stem, "title": f"{model.title}, tuned on {outcome.record.dataset}", "class": card.pop("class_")}
    for key in ("path", "published", "program"):
        card.pop(key, None)
    return {k: _without_empty(v) for k, v in card.items() if v not in (None, "", [], {})}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_empty(v) for k, v in value.items() if v is not None}
    return [_without_empty(v) for v in value] if isinstance(value, list) else value


def _mirror(tuned: Tuned, request: Request) -> None:
    """Log to MLflow: a run for the tuning with the best's figures, and a child run for each trial."""
    rows = {row["part"]: row for row in tuned.results()}
    facts = {"model": tuned.model, "objective": tuned.objective, "trials": len(tuned.trials), "seed": request.seed}
    facts |= {f"best.{name}": value for name, value in tuned.best.settings.items()}
    children = [
        FamilyRun(
            f"trial {i}",
            {**t.settings, "state": _state(t, t is tuned.best) or "trained", "run": t.folder},
            {"validation": {tuned.objective: t.figure}, "training": {"epochs": t.epochs}},
        )
        for i, t in enumerate(tuned.trials)
    ]
    parent = FamilyRun(f"tune {tuned.card.stem}", facts, rows)
    files = [tuned.card, tuned.folder / CSV, tuned.folder / PLOT]
    with Tracker(request.mlflow_uri, request.runs, tuned.folder) as tracker:
        tracker.family(tuned.outcome.record.dataset, parent, children, files, "this tuning")


def _command(request: Request, out: str, trials: int, objective: Objective) -> list[str]:
    line = ["harness", "tune", request.model, "--dataset", request.dataset]
    line += ["--protocol", request.protocol] if request.protocol else []
    line += [word for name, value in request.settings.items() for word in ("--set", f"{name}={value}")]
    line += ["--init", str(request.init)] if request.init else []
    line += ["--workers", str(request.workers)] if request.workers > 1 else []
    return [*line, "--trials", str(trials), "--objective", objective, "--seed", str(request.seed), "--out", out]
