"""Scoring a run's pairs: alone, or from one decoding with further runs of the same command over the same pairs.

A further run is left as if it had been cut off after the chunks that it got: its own turn goes on from there and finishes it.
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
    """What scoring cost and met."""

    seconds: float
    """Of this call, scaled to all pairs."""
    identical: int
    runtime: float | None
    """Seconds per image, warm."""


@dataclass
class _Run:
    """One run's scores as they grow, and what this command's share of them cost and met."""

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
        """Find what is scored already; `before`: what the same run got in another's turn, which counts as this command's."""
        self.done = self.file.resume(self.names, self.known)
        self.count = sum(len(self.names[number]) for number in self.done)
        if before is not None:
            self.fresh, self.identical, self.seconds = before.fresh, before.identical, before.seconds
            self.remarks, self.runtime = before.remarks, before.runtime

    def take(self, results: Sequence[Scored]) -> None:
        """Keep a chunk's results."""
        self.file.append(results, [self.part_of[r.name] for r in results])
        self.count += len(results)
        self.fresh += len(results)
        self.identical += sum(r.identical for r in results)
        self.remarks |= dict.fromkeys(remark for r in results for remark in r.remarks)


class Together:
    """The runs of a command that come after the one at work: those that can, score from the images that it decodes.

    `coming`: their plans. What a run got so is kept for its own turn.
    """

    def __init__(self) -> None:
        self.coming: Sequence[Plan] = ()
        self._scored: dict[Path, _Run] = {}

    def open(self, first: _Run, stack: ExitStack) -> list[_Run]:
        """The runs that score along with `first`, their folders held until `stack` is left."""
        if not isinstance(first.scorer, Scorer) or not first.scorer.on_uint8:
            return []
        opened = []
        for asked in self.coming:
            # What is wrong with a run is told in its own turn.
            with suppress(HarnessError, OSError):
                if asked.data.name == first.plan.data.name and _cheap(asked):
                    plan = _scored_plan(asked)
                    if (run := _opened(plan, first, stack)) is not None:
                        run.resume(self.taken(plan))
                        self._scored[plan.folder] = run
                        opened.append(run)
        return opened

    def taken(self, plan: Plan) -> _Run | None:
        """What the run of `plan` got in the turn of another."""
        return self._scored.pop(plan.folder, None)


def _cheap(plan: Plan) -> bool:
    """Whether a plan is of a metric without weights that this process scores."""
    request, card = plan.request, plan.card
    here = not (request.scores or request.ray or request.force or request.workers > 1) and request.object is None
    return here and not (card.weights or card.recipe or card.program) and has_images(plan.data.table)


def _scored_plan(plan: Plan) -> Plan:
    """The plan whose run holds the scores: of a protocol with repeats, where nothing is trained, all are scored by `full`."""
    repeats = plan.data.card.protocols[plan.protocol].repeats
    # A limit holds for each split, so that the splits are scored one by one (`harness.engine.repeats`).
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
    with as_begun(plan.folder, lambda: conditions_of(plan, model, device, None)) as now:
        prepare(plan.folder, plan.facts, now, force=False)
    return run


def score(
    plan: Plan, model: Any, device: str, workers: Workers | None, found: ResolvedWeights, together: Together | None = None
) -> Scoring:
    """Score what scores.csv lacks."""
    with scorer_of(plan, model, device, workers, found) as scorer, ExitStack() as stack:
        run, before = _Run(plan, scorer), together.taken(plan) if together else None
        run.resume(before)
        if run.done and before is None:
            _log.info(f"{plan.card.name}: {run.count} of {len(run.part_of)} scores are there already")
        left = {number: chunk for number, chunk in enumerate(run.chunks) if number not in run.done}
        others = together.open(run, stack) if together and left else []
        title = ", ".join(one.plan.card.name for one in (run, *others))
        with progress(f"{title} on {plan.data.name}", len(run.part_of), done=run.count, unit="pairs") as step:
            begun = time.monotonic()
            for results in _together(run, others, left) if others else (results for _, results in scorer.each(left)):
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


def _together(first: _Run, others: Sequence[_Run], left: Mapping[int, Sequence[Pair]]) -> Iterator[list[Scored]]:
    """The results of `first`, chunk by chunk; the other runs take theirs. Each image is decoded once.

    The time of it all is shared out: to each run decoding and its own scoring, as if it had been alone.
    """
    runs = (first, *others)
    scorers = [run.scorer for run in runs if isinstance(run.scorer, Scorer)]
    spent = [0.0] * (1 + len(runs))

    def work(number: int) -> tuple[list[list[Scored] | None], list[float]]:
        clock = [time.perf_counter()]
        decoded = scorers[0].decoded(left[number])
        clock.append(time.perf_counter())
        each: list[list[Scored] | None] = []
        for run, scorer in zip(runs, scorers, strict=True):
            found: list[Scored] | None = None
            if not run.failed and number not in run.done:
                try:
                    found = scorer.score_decoded(decoded)
                except HarnessError:
                    if run is first:
                        raise
                    run.failed = True  # its own turn says why
            each.append(found)
            clock.append(time.perf_counter())
        return each, [after - before for before, after in itertools.pairwise(clock)]

    def share_out() -> None:
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
        stack.callback(share_out)
        pool = stack.enter_context(ThreadPoolExecutor(scorers[0].threads))
        for scorer in scorers:
            stack.enter_context(scorer.working())
        for each, seconds in ahead(pool, work, list(left), scorers[0].threads + 1):
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
    """Under which conditions the request's bits repeat (`harness.results.conditions.conditions`)."""
    if workers is None:
        threads = devices.threads(model)
        ways = kernels_of(model, device, threads) | (training_threads(plan, model, device) if plan.trained else {})
        return conditions(device, threads, plan.request.batch, ways)
    return workers.conditions(plan.request.batch, model, plan.card.recipe if plan.trained else None)


@contextmanager
def scorer_of(
    plan: Plan, model: Any, device: str, workers: Workers | None, found: ResolvedWeights
) -> Iterator[Scorer | WorkerPool]:
    """The plan's scorer, here or by workers: the card's cropping, the request's seed and batch; `found` fills the model."""
    card, request = plan.card, plan.request
    here = Scorer(model, card.protocol, card.identical, request.seed, device, request.batch, card_path=card.path)
    if workers is None:
        yield here
        return
    from harness.engine.distributed.inside_worker import Job

    with workers.pool(Job(card, found, request.seed, request.batch, imposed())) as pool:
        yield pool
