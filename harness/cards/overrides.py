"""`--set`: values of a model's card replaced by dotted paths such as `recipe.rate`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

from harness.cards.schema import Cropping, ModelCard, Recipe
from harness.cards.tables import build_dataclass, described
from harness.runtime.errors import UsageError, listed, near

_CODE = ("class", "reader", "members", "command", "program", "executable", "script", "module")
"""Keys that name code or a program: only the card itself may set them, because the caller can read it."""


def names_code(path: str) -> bool:
    """Whether a dotted path leads to a key that names code or a program."""
    return any(word in _CODE for word in path.lower().split("."))


def apply_set(card: ModelCard, settings: Mapping[str, Any]) -> ModelCard:
    """The card with `--set` values put in: dotted paths into `model.*`, `recipe.*` and `protocol.*`.

    Text values are converted to the type of the card's value; keys that name code cannot be set. Raises UsageError naming every
    bad path or value.
    """
    tables = {"model": dict(card.model), "protocol": dataclasses.asdict(card.protocol)}
    if card.recipe is not None:
        tables["recipe"] = dataclasses.asdict(card.recipe)
    problems: list[str] = []
    for path, value in settings.items():
        head, _, key = path.partition(".")
        table = tables.get(head)
        if names_code(path) or (path == "recipe.loss" and ":" in str(value)):
            problems.append(f"--set {path}: names code or a program, which only the card itself may: write it into {card.path}")
            continue
        if head == "recipe" and card.recipe is None:
            problems.append(f"--set {path}: {card.name} has no recipe (it is not trained)")
        elif table is None or not key or key not in table:
            known = [f"{h}.{k}" for h, t in tables.items() for k in t]
            problems.append(f"--set {path}: {card.name} has no such setting{near(path, known)} (it has {listed(known)})")
        else:
            try:
                table[key] = _as_like(value, table[key])
            except ValueError:
                problems.append(f"--set {path}={value}: should be {described(type(table[key]))}, like {table[key]!r}")
    if not problems:
        where, recipe = f"{card.path} with --set", None
        protocol = build_dataclass(Cropping, tables["protocol"], where, "protocol.", problems)
        if card.recipe is not None:
            recipe = build_dataclass(Recipe, tables["recipe"], where, "recipe.", problems)
            problems += [f"{where}: recipe.{problem}" for problem in recipe.problems] if recipe is not None else []
        if not problems:
            return dataclasses.replace(card, model=tables["model"], protocol=protocol, recipe=recipe)
    raise UsageError("\n".join(problems))


def _as_like(value: Any, current: Any) -> Any:
    if not isinstance(value, str) or isinstance(current, str):
        if isinstance(current, str) and not isinstance(value, str | os.PathLike):
            raise ValueError
        return str(value) if isinstance(current, str) else value
    if isinstance(current, bool):
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if value.lower() not in words:
            raise ValueError
        return words[value.lower()]
    if isinstance(current, tuple | list):
        items = [item.strip() for item in value.strip("[]").split(",") if item.strip()]
        return type(current)(_as_like(item.strip("\"'"), current[0] if current else "") for item in items)
    if isinstance(current, int):
        return int(value)
    return float(value) if isinstance(current, float) else value
