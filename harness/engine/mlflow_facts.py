"""What MLflow shows of a plan: its name, settings and dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from harness.datasets import splits
from harness.engine.request import Plan

if TYPE_CHECKING:
    pass


def mlflow_facts(todo: Plan) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What MLflow shows of a plan: the run's name, its parameters, its dataset."""
    return f"{todo.card.name} on {todo.data.name}", _parameters(todo), _dataset_facts(todo)


def _parameters(todo: Plan) -> dict[str, Any]:
    """What MLflow shows as parameters: the resolved settings, flat."""
    card = asdict(todo.card)
    flat: dict[str, Any] = {
        "model": todo.card.name,
        "dataset": todo.data.name,
        "protocol": todo.protocol,
        "seed": todo.request.seed,
    }
    flat |= {"key": todo.key, "weights": todo.request.weights or "", "limit": todo.request.limit}
    for group in ("model", "protocol", "recipe") if todo.trained else ("model", "protocol"):
        flat |= {f"{group}.{k}": v for k, v in (card[group] or {}).items()}
    return flat


def _dataset_facts(todo: Plan) -> dict[str, Any]:
    sizes = {part: int((todo.parts == part).sum()) for part in splits.PARTS}
    return {"name": todo.data.name, "hash": todo.identity.table, "split": todo.identity.split, **sizes}
