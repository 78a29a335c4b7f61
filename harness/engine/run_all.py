"""Running several requests of one command: several models, further test sets, repeated splits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness import datasets
from harness.datasets.overlap import independent_rows
from harness.engine.distributed.session import kept
from harness.engine.repeats import repeated
from harness.engine.request import Plan, Request, make_plan
from harness.engine.run import Outcome, execute
from harness.engine.scoring import Together
from harness.files.atomic import sha256_json
from harness.runtime.errors import HarnessError, UsageError

_log = logging.getLogger(__package__)

WEIGHTS = "weights.safetensors"


def run_all(
    requests: Sequence[Request],
    test_on: Sequence[str] = (),
    *,
    keep_shared: bool = False,
    loaded: Mapping[str, datasets.Dataset] | None = None,
) -> tuple[list[Outcome], list[HarnessError]]:
    """Every request in turn, each also on the datasets of `test_on`, without the references whose content is in its training
    data (unless `keep_shared`). `loaded`: datasets that are read already, by their name in the requests.

    All requests are checked before the first begins; after that, an error of one does not stop the others: errors are returned
    with the outcomes.
    """
    plans: list[Plan] = []
    problems: list[str] = []
    for request in requests:
        try:
            plans.append(make_plan(request, (loaded or {}).get(request.dataset)))
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
    plans = _without_idle_seeds(plans)
    several = len({plan.data.name for plan in plans}) > 1
    outcomes: list[Outcome] = []
    faults: dict[tuple[type[HarnessError], str], list[str]] = {}
    together = Together()
    with kept():
        for number, plan in enumerate(plans):
            together.coming = plans[number + 1 :]
            try:
                first = execute_plan(plan, together, first_split_only=bool(test_on))
                outcomes.append(first)
                for name in test_on:
                    outcomes.append(execute_plan(_further(plan, first, name, keep_shared=keep_shared)))  # noqa: PERF401 -- a fault must not lose those before
            except HarnessError as error:
                name = f"{plan.card.name}{f' on {plan.data.name}' if several else ''}"
                faults.setdefault((type(error), str(error)), []).append(name)
    # An error of several requests is reported once.
    return outcomes, [kind(f"{', '.join(dict.fromkeys(names))}: {text}") for (kind, text), names in faults.items()]


def of_seeds(request: Request, seeds: Sequence[int]) -> list[Request]:
    """The request once for each seed."""
    return [replace(request, seed=seed) for seed in dict.fromkeys(seeds)]


def _without_idle_seeds(plans: Sequence[Plan]) -> list[Plan]:
    """The plans without those that another seed repeats exactly, because nothing random is in them."""
    kept: dict[str, Plan] = {}
    for plan in plans:
        chance = plan.trained or plan.card.protocol.crops.startswith("random") or plan.found.random
        same = sha256_json({k: v for k, v in plan.facts.items() if k != "seed" or chance})
        if same in kept:
            _log.info(
                f"{plan.card.name}: seed {plan.request.seed} would give the results of seed {kept[same].request.seed}; left out"
            )
        else:
            kept[same] = plan
    return list(kept.values())


def execute_plan(plan: Plan, together: Together | None = None, *, first_split_only: bool = False) -> Outcome:
    """Execute a plan: one run, or a run for each split where the protocol has repeated splits.

    Args:
        plan: The resolved request.
        together: Further runs that score the same decoded images; None: this one only.
        first_split_only: Train on the first split only, for tests on further datasets.

    Returns:
        The run's folder and record; of repeated splits, the record of their medians and ranges.
    """
    protocol = plan.data.card.protocols[plan.protocol]
    repeats = min(protocol.repeats, plan.request.splits or protocol.repeats)
    if repeats > 1 and first_split_only and plan.trained:
        _log.info(f"{plan.card.name}: trained on the first of the {repeats} splits of {plan.protocol}, for the further test sets")
        return execute(plan, together)
    return execute(plan, together) if repeats == 1 else repeated(plan, repeats, together)


def _further(plan: Plan, first: Outcome, name: str, *, keep_shared: bool) -> Plan:
    """The plan of the same model, with the weights trained on the first dataset, on all of another dataset."""
    weights = str(first.folder / WEIGHTS) if plan.trained else plan.request.weights
    request = replace(plan.request, dataset=name, root=None, protocol=None, weights=weights, init=None)
    data = datasets.load_dataset(name, cards=request.cards)
    request = replace(request, protocol="full" if "full" in data.card.protocols else None)
    if plan.trained:
        independent = independent_rows(plan.data, plan.parts, data)
        if independent.shared:
            left_out = request.exclude if keep_shared else tuple(sorted(independent.shared))
            request = replace(request, exclude=left_out, remark=f"{'not ' if keep_shared else ''}{independent.note}")
            _log.info(f"{name}: {request.remark}")
    return make_plan(request, data)
