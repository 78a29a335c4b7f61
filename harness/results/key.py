"""A run's identity and its key: what determines a result, hashed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from harness.cards.schema import ModelCard
from harness.files.atomic import sha256_json

_PROSE = (
    "title",
    "description",
    "paper",
    "code",
    "licence",
    "extra_data",
    "trained_on",
    "trained_split",
    "tunable",
    "requires",
    "extra",
    "published",
    "path",
    "weights",
)


def identity(
    card: ModelCard,
    *,
    version: int,
    weights: Mapping[str, str],
    trained: bool,
    table: str,
    split: str,
    protocol: str,
    seed: int,
    limit: int | None = None,
    source: str = "",
) -> dict[str, Any]:
    """What determines a result. `weights`: sha256 by part; `table`, `split`: hashes; `source`: the key of the run that
    trained the weights, where they are not a file yet."""
    facts = {k: v for k, v in asdict(card).items() if k not in _PROSE}
    if not trained:
        facts.pop("recipe")
    facts["model"] = {k: v for k, v in facts["model"].items() if k != "backbone" or v in ("", "random")}
    # A setting younger than the keys there are: where it is off, they stay what they were.
    facts["protocol"] = {k: v for k, v in facts["protocol"].items() if k != "mirrored" or v}
    return {
        "card": facts,
        "version": version,
        "weights": dict(sorted(weights.items())),
        "table": table,
        "split": split,
        "protocol": protocol,
        "seed": seed,
        "limit": limit,
        "source": source,
    }


def key_of(facts: Mapping[str, Any]) -> str:
    """The run's key: 16 hexadecimal digits over its identity."""
    return sha256_json(facts)[:16]
