"""A plan's name, settings and dataset for MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

from harness.datasets import splits
from harness.engine.request import Plan


class MlflowFacts(NamedTuple):
    """A plan's facts for MLflow."""

    name: str
    parameters: Mapping[str, object]
    """The resolved settings, flat."""
    dataset: Mapping[str, object]
    """Its name and hashes, and the pairs of each part."""


def mlflow_facts(plan: Plan, repeated: str | None = None) -> MlflowFacts:
    """A plan's facts for MLflow; `repeated`: the key of the record of repeated splits whose first split it is."""
    card, identity = asdict(plan.card), plan.identity
    parameters = {"model": plan.card.name, "dataset": plan.data.name, "protocol": plan.protocol, "seed": plan.request.seed}
    parameters |= {"key": repeated or plan.key, "weights": plan.request.weights or "", "limit": plan.request.limit}
    for group in ("model", "protocol", "recipe") if plan.trained else ("model", "protocol"):
        parameters |= {f"{group}.{k}": v for k, v in (card[group] or {}).items()}
    sizes = {part: int((plan.parts == part).sum()) for part in splits.PARTS}
    dataset = {"name": plan.data.name, "hash": identity.table, "split": identity.split, **sizes}
    return MlflowFacts(f"{plan.card.name} on {plan.data.name}{', repeated' if repeated else ''}", parameters, dataset)
