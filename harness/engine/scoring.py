"""Scoring a run's pairs; further runs of the same command on the same pairs may use the same decoded images.

A further run is left in the state of an interrupted run with some finished chunks; it continues from there later.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import models
from harness.datasets.table import has_images
from harness.engine import devices
from harness.engine.content import images_by_name, refuse_changed_images
from harness.engine.kernels import Conditions, as_begun, kernels_of
from harness.engine.request import SCORED_PARTS, Plan, make_plan
from harness.engine.scorer import Pair, Scorer, pairs_of, refuse_small
from harness.engine.training_threads import training_threads
from harness.engine.warm_time import WarmTime
from harness.files.atomic import writing
from harness.files.lock import held
from harness.imaging.remarks import Remark
from harness.imaging.remarks import lines as remark_lines
from harness.models.kernels.choice import imposed
from harness.results import processes
from harness.results.conditions import conditions
from harness.results.run_folder import prepare
from harness.results.run_scores import Scored, ScoreFile
from harness.runtime.errors import HarnessError
from harness.runtime.progress import progress
from harness.runtime.threads import ahead

if TYPE_CHECKING:
    from harness.engine.distributed.start_workers import Workers
    from harness.engine.distributed.worker_pool import WorkerPool
    from harness.models.weights import ResolvedWeights

_log = logging.getLogger(__package__)


class Scoring(NamedTuple):
    """The time of scoring, and counts."""

    seconds: float
    """Seconds of this call, scaled to all pairs."""
    identical: int
    runtime: float | None
    """Seconds per image, warm."""


@dataclass
class _Run:
    """The growing scores of one run, and the time and remarks of the pairs scored by this command."""

    plan: Plan
    scorer: Scorer | WorkerPool
    fresh: int = 0
    """Pairs that this command scored."""
    identical: int = 0
    seconds: float = 0.0
    remarks: dict[Remark, None] = field(default_factory=dict)
    runtime: float | None = None
    failed: bool = False

    def __post_init__(self) -> None:
        rows = self.plan.rows(*SCORED_PARTS)
        self.part_of = dict(zip(rows["name"], self.plan.parts[rows.index], strict=True))
        self.chunks: list[list[Pair]] = self.scorer.chunks(pairs_of(rows))
        self.names = [[pair.name for pair in chunk] for chunk in self.chunks]
        self.known = images_by_name(self.plan, rows)
        self.file = ScoreFile(self.plan.folder)
        self.done: set[int] = set()
        self.count = 0

    def resume(self, before: _Run | None) -> None:
        """Find the chunks scored already; `before`: the state of this run after another run's scoring in the same command."""
        self.done = self.file.resume(self.names, self.known)
        self.count = sum(len(self.names[number]) for number in self.done)
        if before is not None:
            self.fresh, self.identical, self.seconds = before.fresh, before.identical, before.seconds
            self.remarks, self.runtime = before.remarks, before.runtime

    def take(self, results: Sequence[Scored]) -> None:
        """Store a chunk's results."""
        self.file.append(results, [self.part_of[r.name] for r in results])
        self.count += len(results)
        self.fresh += len(results)
        self.identical += sum(r.identical for r in results)
        self.remarks |= dict.fromkeys(remark for r in results for remark in r.remarks)


class Together:
    """The later runs of a command: those that can, score from the images that the present run decodes.

    `coming`: the plans of the later runs. Their results are kept until they are executed themselves.
    """

    def __init__(self) -> None:
        self.coming: Sequence[Plan] = ()
        self._scored: dict[Path, _Run] = {}

    def open(self, first: _Run, stack: ExitStack) -> list[_Run]:
        """The runs that score together with `first`; their folders are locked until `stack` is closed."""
        if not isinstance(first.scorer, Scorer) or not first.scorer.on_uint8:
            return []
        opened = []
        for later in self.coming:
            # A run's error is reported when the run itself is executed.
            with suppress(HarnessError, OSError):
                if later.data.name == first.plan.data.name and _shareable(later):
                    plan = _scored_plan(later)
                    if (run := _opened(plan, first, stack)) is not None:
                        run.resume(self.taken(plan))
                        self._scored[plan.folder] = run
                        opened.append(run)
        return opened

    def taken(self, plan: Plan) -> _Run | None:
        """The state of `plan`'s run after another run's scoring, if any."""
        return self._scored.pop(plan.folder, None)


def _shareable(plan: Plan) -> bool:
    """Whether a plan scores a metric without weights in this process."""
    request, card = plan.request, plan.card
    here = not (request.scores or request.ray or request.force or request.workers > 1) and request.object is None
    return here and not (card.weights or card.recipe or card.program) and has_images(plan.data.table)


def _scored_plan(plan: Plan) -> Plan:
    """The plan whose run has the scores: with repeats and no training, the protocol `full` scores all images."""
    repeats = plan.data.card.protocols[plan.protocol].repeats
    # A limit applies to each split, so the splits are scored one by one (`harness.engine.repeats`).
    single = repeats == 1 or plan.request.splits == 1 or plan.request.limit is not None
    return plan if single else make_plan(replace(plan.request, protocol="full"), plan.data)


def _opened(plan: Plan, first: _Run, stack: ExitStack) -> _Run | None:
    model = models.build(plan.card, plan.found, plan.request.seed)
    refuse_small(model, plan.card.protocol, pairs_of(plan.rows(*SCORED_PARTS)))
    device = devices.choose(plan.request.device, model)
    with scorer_of(plan, model, device, None, plan.found) as scorer:
        run = _Run(plan, scorer)
    if plan.folder.is_symlink() or run.chunks != first.chunks or not (isinstance(scorer, Scorer) and scorer.on_uint8):
        return None
    with writing(plan.folder):
        plan.folder.mkdir(parents=True, exist_ok=True)
    if not stack.enter_context(held(plan.folder / "lock", wait=False)) or (plan.folder / "record.json").exists():
        return None
    processes.end_leftovers(plan.folder)
    with as_begun(plan.folder, lambda: conditions_of(plan, model, device, None)) as present:
        prepare(plan.folder, plan.facts, present, force=False)
    return run


def score(
    plan: Plan, model: Any, device: str, workers: Workers | None, weights: ResolvedWeights, together: Together | None = None
) -> Scoring:
    """Score the pairs that scores.csv does not have yet."""
    with scorer_of(plan, model, device, workers, weights) as scorer, ExitStack() as stack:
        run, before = _Run(plan, scorer), together.taken(plan) if together else None
        run.resume(before)
        if run.done and before is None:
            _log.info(f"{plan.card.name}: {run.count} of {len(run.part_of)} scores exist already")
        remaining = {number: chunk for number, chunk in enumerate(run.chunks) if number not in run.done}
        others = together.open(run, stack) if together and remaining else []
        title = ", ".join(one.plan.card.name for one in (run, *others))
        with progress(f"{title} on {plan.data.name}", len(run.part_of), done=run.count, unit="pairs") as step:
            begun = time.monotonic()
            for results in (
                _score_together(run, others, remaining) if others else (results for _, results in scorer.each(remaining))
            ):
                run.take(results)
                step(run.count)
            if not others:
                run.seconds += time.monotonic() - begun
        for line in remark_lines(run.remarks):
            _log.info(line)
        run.file.finish(run.names)
        refuse_changed_images(plan, run.file, run.known)
        seconds = run.seconds * len(run.part_of) / run.fresh if run.fresh else 0.0
        return Scoring(seconds, run.identical, run.runtime or scorer.seconds_per_image(run.chunks))


def _score_together(first: _Run, others: Sequence[_Run], remaining: Mapping[int, Sequence[Pair]]) -> Iterator[list[Scored]]:
    """The results of `first`, chunk by chunk; the other runs store theirs. Each image is decoded once.

    The total time is divided: each run counts the decoding and its own scoring, as if it had run alone.
    """
    runs = (first, *others)
    scorers = [run.scorer for run in runs if isinstance(run.scorer, Scorer)]
    spent = [0.0] * (1 + len(runs))

    def work(number: int) -> tuple[list[list[Scored] | None], list[float]]:
        clock = [time.perf_counter()]
        decoded = scorers[0].decoded(remaining[number])
        clock.append(time.perf_counter())
        each: list[list[Scored] | None] = []
        for run, scorer in zip(runs, scorers, strict=True):
            results: list[Scored] | None = None
            if not run.failed and number not in run.done:
                try:
                    results = scorer.score_decoded(decoded)
                except HarnessError:
                    if run is first:
                        raise
                    run.failed = True  # reported when this run itself is executed
            each.append(results)
            clock.append(time.perf_counter())
        return each, [after - before for before, after in itertools.pairwise(clock)]

    def divide_time() -> None:
        seconds = time.monotonic() - begun
        for run, scorer, own in zip(runs, scorers, spent[1:], strict=True):
            share = (spent[0] + own) / (sum(spent) or 1.0)
            run.seconds += seconds * share
            if (per_image := scorer.warm.measured()) is not None:
                run.runtime = per_image * share
            scorer.forget()

    begun = time.monotonic()
    for scorer in scorers:
        scorer.warm = WarmTime(scorers[0].threads + 1)
    with ExitStack() as stack:
        stack.callback(divide_time)
        pool = stack.enter_context(ThreadPoolExecutor(scorers[0].threads))
        for scorer in scorers:
            stack.enter_context(scorer.working())
        for each, seconds in ahead(pool, work, list(remaining), scorers[0].threads + 1):
            spent[:] = [before + more for before, more in zip(spent, seconds, strict=True)]
            for run, scorer, results in zip(runs, scorers, each, strict=True):
                if results is None:
                    continue
                scorer.warm.chunk(len(results))
                if run is first:
                    yield results
                    continue
                try:
                    run.take(results)
                except HarnessError:
                    run.failed = True


def conditions_of(plan: Plan, model: Any, device: str, workers: Workers | None) -> Conditions:
    """The conditions under which the request's results repeat bit for bit (`harness.results.conditions.conditions`)."""
    if workers is None:
        threads = devices.threads(model)
        kernels = kernels_of(model, device, threads) | (training_threads(plan, model, device) if plan.trained else {})
        return conditions(device, threads, plan.request.batch, kernels)
    return workers.conditions(plan.request.batch, model, plan.card.recipe if plan.trained else None)


@contextmanager
def scorer_of(
    plan: Plan, model: Any, device: str, workers: Workers | None, weights: ResolvedWeights
) -> Iterator[Scorer | WorkerPool]:
    """The plan's scorer, in this process or on workers, with the card's cropping and the request's seed and batch.

    `weights`: the files from which workers load the model.
    """
    card, request = plan.card, plan.request
    local = Scorer(model, card.protocol, card.identical, request.seed, device, request.batch, card_path=card.path)
    if workers is None:
        yield local
        return
    from harness.engine.distributed.inside_worker import Job

    with workers.pool(Job(card, weights, request.seed, request.batch, imposed())) as pool:
        yield pool
