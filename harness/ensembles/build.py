"""`harness ensemble` from members to card: read scores, scale, search, assess, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.engine.distributed.allocation import divide
from harness.engine.distributed.session import cores, kept, session
from harness.engine.distributed.start_workers import node_facts
from harness.engine.request import Request
from harness.ensembles import card, sparsity, tables
from harness.ensembles.assess import METHODS, Row, assess, baseline, best_member, out_of_fold, rescaled_member, scored, simpler
from harness.ensembles.blends import Blend
from harness.ensembles.members import Gathered, fitting_hash, gather
from harness.ensembles.objective import Objective
from harness.ensembles.weight_candidates import Sample, folds, planned, sample
from harness.files.atomic import sha256_json, write_json
from harness.models.score_scaling import KINDS
from harness.results import processes
from harness.results.mlflow_figures import FamilyRun
from harness.results.mlflow_mirror import Tracker
from harness.results.run_folder import folder_of, locked
from harness.runtime.errors import UsageError, listed
from harness.runtime.threads import meanwhile
from harness.statistics.correlations import Ints

if TYPE_CHECKING:
    from harness.ensembles.weight_search import SearchResult

_log = logging.getLogger(__package__)

VERSION = 3
"""To be raised whenever the search gives other blends for the same request."""


@dataclass(frozen=True)
class EnsembleRequest:
    """The options of the search; a `harness.engine.request.Request` has those for running members."""

    out: str
    test_on: tuple[str, ...] = ()
    trials: int = 1000
    objective: Objective = "main"
    method: str = "searched"
    """Which of the four blends becomes the card."""
    scalings: tuple[str, ...] = KINDS
    crops: tuple[str, ...] = ()
    lower: tuple[str, ...] = ()
    concurrency: int | None = None
    one_scaling: bool = False
    """Whether least squares and the search from it use only one scaling per member."""


@dataclass(frozen=True)
class Ensemble:
    """The result: the card, the blends by method, and every row of the tables."""

    card: Path
    folder: Path
    """The folder of the search, its trace and the results."""
    names: list[str]
    best: str
    """The member that was best on the fitting images."""
    blends: dict[str, Blend]
    rows: list[Row]
    notes: list[str]
    objective: Objective
    method: str
    """The blend that became the card: least squares where the search has no significant gain over it."""
    sizes: list[sparsity.Size]

    def json(self) -> dict[str, object]:
        """The document of `harness ensemble --json`."""
        return {
            "card": str(self.card),
            "best_member": self.best,
            "folder": str(self.folder),
            "method": self.method,
            "sparsity": [size.json(self.names) for size in self.sizes],
            "results": [row.json() for row in self.rows],
        }

    def __str__(self) -> str:
        return f"{tables.text(self.rows, self.best, self.notes)}\n\n{sparsity.text(self.sizes, self.names, self.objective)}"


def ensemble(words: Sequence[str], request: Request, wanted: EnsembleRequest) -> Ensemble:
    """Find the ensemble of members `words`, write its card to `wanted.out`, and report its gains.

    Args:
        words: Models' names, runs' folders, CSV files of name,score.
        request: Options for running members, and the machines for all work.
        wanted: The options of the search.

    Raises:
        UsageError: The request cannot be served; raised before any work.
        RunError: A member's run or the search failed; finished work is kept.
    """
    problems = []
    if twice := [word for word in dict.fromkeys(words) if words.count(word) > 1]:
        problems.append(f"members given twice: {listed(twice)}")
    for option, count in (("--concurrency", wanted.concurrency or 0), ("--workers", request.workers)):
        if count > cores() and not request.ray:
            problems.append(f"{option} {count}: this machine has {cores()} cores")
    if wanted.trials < 1:
        problems.append("--trials: at least one")
    if unknown := [k for k in wanted.scalings if k not in KINDS]:
        problems.append(f"--scalings {','.join(unknown)}: known are {', '.join(KINDS)}")
    if wanted.method not in METHODS:
        problems.append(f"--method {wanted.method}: known are {', '.join(METHODS)}")
    if problems:
        raise UsageError("\n".join(problems))
    if not request.ray:
        return _ensemble(words, request, wanted)
    # One connection serves the members' runs and the search, and the cluster's limits are checked first.
    with kept(), session(request.ray) as found:
        divide(found.nodes(), found.described(), request.workers, request.device)
        if wanted.concurrency is not None and wanted.concurrency > sum(node.cpus for node in found.nodes()):
            raise UsageError(f"--concurrency {wanted.concurrency}: there is {found.described()}")
        node_facts(found)
        return _ensemble(words, request, wanted)


def _ensemble(words: Sequence[str], request: Request, wanted: EnsembleRequest) -> Ensemble:
    gathered = gather(words, request, test_on=wanted.test_on, crops=wanted.crops, lower=wanted.lower)
    card.refuse_place(wanted.out, {s.name: s.facts["class"] for s in gathered.sources if "class" in s.facts})
    names = [source.name for source in gathered.sources]
    images = gathered.fitting
    held_out = folds(images.references, request.seed)
    _remark(gathered)

    # Scalings and closed forms are fitted while Ray starts.
    given = meanwhile(lambda: _samples(gathered, held_out, wanted)).result
    found, folder = _search(gathered, given, request, wanted)
    samples = given()
    blends = {**samples[0].simple, "searched": found.blends[0].calibrated(images.scores, images.labels)}

    best = best_member(gathered, wanted.objective)
    # The better of the best member and its rescaling is chosen on the fitting images, for every table.
    alone = rescaled_member(best, images, held_out, _outside(held_out))
    base = baseline(images, best, alone.fitting)
    rows = []
    method, why = wanted.method, ""
    if held_out:
        # The methods' blends of each fold, in the labels' units, so that folds can be combined.
        folded = {m: [s.simple[m] for s in samples[1:]] for m in METHODS if m != "searched"}
        folded["searched"] = [
            blend.calibrated(images.scores[:, rows], images.labels[rows])
            for blend, rows in zip(found.blends[1:], _outside(held_out), strict=True)
        ]
        blended = {m: out_of_fold(folded[m], held_out, images.scores) for m in METHODS}
        if method == "searched":
            method, why = simpler(blended, images.labels, images.references, wanted.objective)
        rows += assess(images, names, blended, base)
    for tested in gathered.tests:
        blended = {method: scored(blends[method], tested.scores) for method in METHODS}
        rows += assess(tested, names, blended, replace(base, scaled=scored(alone.blend, tested.scores)))

    facts = {"method": method, "objective": wanted.objective, "trials": wanted.trials, "seed": request.seed, "search": VERSION}
    facts |= {"asked": wanted.method} if method != wanted.method else {}
    facts |= {"one_scaling": True} if wanted.one_scaling else {}
    card.write(wanted.out, blends[method], gathered, facts, command(words, request, wanted))
    notes = [
        f"{wanted.out}: {method}: {tables.blend_text(blends[method], names, images.scores)}",
        *([why] if why else []),
        *(f"{tested.dataset}: {tested.note}" for tested in gathered.tests if tested.note),
        *gathered.notes,
    ]
    own = [gathered.member_of.index(m) for m in range(max(gathered.member_of) + 1)]
    sizes = sparsity.prices(samples, held_out, images.scores, images.labels, own, wanted.objective)
    made = Ensemble(Path(wanted.out), folder, names, names[best], blends, rows, notes, wanted.objective, method, sizes)
    files = tables.write_trace(folder, found.trace, wanted.objective)
    write_json(folder / "ensemble.json", made.json() | {"request": facts, "members": names})
    _mirror(made, {**facts, "members": ", ".join(names), "best_member": made.best}, gathered, [made.card, *files], request)
    return made


def _mirror(made: Ensemble, facts: Mapping[str, Any], gathered: Gathered, files: Sequence[Path], request: Request) -> None:
    """Log to MLflow: a run for the ensemble with the figures of the blend in its card, and a child run for each method."""
    figures: dict[str, dict[str, Mapping[str, Any]]] = {method: {} for method in METHODS}
    for row in made.rows:
        if row.kind == "blend":
            part = row.part if row.dataset == made.rows[0].dataset else f"{row.dataset}.{row.part}"
            figures[row.member][part] = row.figures.json()
    children = []
    for method in METHODS:
        blend, shown = made.blends[method], dict[str, str | float]()
        for source, scaling, weight in zip(blend.sources, blend.scalings, blend.weights, strict=True):
            name = gathered.sources[source].name
            crops = gathered.sources[source].facts.get("protocol", {}).get("crops", "")
            shown |= {f"weight.{name}": weight, f"scaling.{name}": tables.kind(scaling)}
            shown |= {f"crops.{name}": crops} if crops else {}
        children.append(FamilyRun(method, {"members": len(blend.sources), **shown}, figures[method]))
    parent = FamilyRun(f"ensemble {made.card.stem}", facts, figures[made.method])
    with Tracker(request.mlflow_uri, request.runs, made.folder) as tracker:
        tracker.family(made.folder.parent.parent.name, parent, children, files, "this ensemble")


def command(words: Sequence[str], request: Request, wanted: EnsembleRequest) -> list[str]:
    """The command line of this ensemble."""
    line = ["harness", "ensemble", *words, "--dataset", request.dataset]
    for option, value, usual in (
        ("--protocol", request.protocol, None),
        ("--trials", wanted.trials, 1000),
        ("--objective", wanted.objective, "main"),
        ("--method", wanted.method, "searched"),
        ("--scalings", ",".join(wanted.scalings), ",".join(KINDS)),
        ("--crops", ",".join(wanted.crops), ""),
        ("--seed", request.seed, 0),
    ):
        line += [option, str(value)] if value != usual else []
    line += ["--one-scaling"] if wanted.one_scaling else []
    for option, values in (("--lower-is-better", wanted.lower), ("--cards", request.cards)):
        for value in values:
            line += [option, value]
    return [*line, "--out", wanted.out]


def _remark(gathered: Gathered) -> None:
    images = gathered.fitting
    if not images.names:
        raise UsageError(f"{images.dataset}: no labelled image to fit on under {gathered.protocol}")
    for source, row in zip(gathered.sources, images.scores, strict=True):
        if np.ptp(row) > 0 and np.corrcoef(row, images.labels)[0, 1] < -0.2:
            _log.warning(f"{source.name} decreases with the labels; if lower is better: --lower-is-better {source.name}")
    known = len(set(images.references))
    if known == 1:
        _log.warning("one reference to fit on: the gains of blends cannot be estimated there, and are not shown")
    elif known < 10:
        _log.info(f"{images.dataset}: only {known} references to fit on: the blend may not generalise")


def _samples(gathered: Gathered, held_out: Sequence[Ints], wanted: EnsembleRequest) -> list[Sample]:
    """All fitting images, and for each fold those outside it."""
    images, members, kinds = gathered.fitting, gathered.member_of, wanted.scalings
    return [
        sample(images.scores[:, rows], images.labels[rows], members, kinds, wanted.objective, one_scaling=wanted.one_scaling)
        for rows in (np.arange(len(images.names)), *_outside(held_out))
    ]


def _search(
    gathered: Gathered, given: Callable[[], list[Sample]], request: Request, wanted: EnsembleRequest
) -> tuple[SearchResult, Path]:
    """The result of the search, read if finished, or resumed, in the folder named by its content's hash."""
    from harness.ensembles.weight_search import search  # with Ray Tune, which takes a second

    identity = {
        "fitting": fitting_hash(gathered),
        "member_of": gathered.member_of,
        "aim": wanted.objective,
        "trials": wanted.trials,
        "scalings": list(wanted.scalings),
        "seed": request.seed,
        "version": VERSION,
        "one_scaling": wanted.one_scaling,
    }
    folder = folder_of(request.runs, gathered.fitting.dataset, "ensembles", sha256_json(identity)[:16])
    plan, concurrency = planned(wanted.trials), wanted.concurrency or request.workers or None
    with locked(folder):
        processes.end_leftovers(folder)
        found = search(given, plan, request.seed, wanted.objective, folder, address=request.ray, concurrency=concurrency)
    return found, folder


def _outside(held_out: Sequence[Ints]) -> list[Ints]:
    """For each fold, the images that it does not hold out."""
    return [np.sort(np.concatenate([other for other in held_out if other is not fold])) for fold in held_out]
