"""What MLflow shows of a plan: its name, settings and dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.datasets import splits
from harness.engine.request import Plan

if TYPE_CHECKING:
    pass


def mlflow_facts(plan: Plan) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What MLflow shows of a plan: the run's name, its parameters, its dataset."""
    return f"{plan.card.name} on {plan.data.name}", _parameters(plan), _dataset_facts(plan)


def _parameters(plan: Plan) -> dict[str, Any]:
    """What MLflow shows as parameters: the resolved settings, flat."""
    card = asdict(plan.card)
    flat: dict[str, Any] = {
        "model": plan.card.name,
        "dataset": plan.data.name,
        "protocol": plan.protocol,
        "seed": plan.request.seed,
    }
    flat |= {"key": plan.key, "weights": plan.request.weights or "", "limit": plan.request.limit}
    for group in ("model", "protocol", "recipe") if plan.trained else ("model", "protocol"):
        flat |= {f"{group}.{k}": v for k, v in (card[group] or {}).items()}
    return flat


def _dataset_facts(plan: Plan) -> dict[str, Any]:
    sizes = {part: int((plan.parts == part).sum()) for part in splits.PARTS}
    return {"name": plan.data.name, "hash": plan.identity.table, "split": plan.identity.split, **sizes}
