"""Figures with each reference left out: small enough for a record, and all that a paired comparison needs of a model.

Two records on the same images can then be compared without scores or labels: a leaderboard is a function of records, and
people's labels, which most datasets do not allow to pass on, stay where they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from harness.statistics.correlations import Ints
from harness.statistics.intervals import cluster_limit, pooled_clusters

_MOST = 1000


@dataclass(frozen=True)
class LeaveOneOut:
    """Values of several figures, one for each reference: the figure on all images but that reference's."""

    references: tuple[str, ...]
    """In the order of names; `group 1`, ... where references were too many and are left out in groups."""
    figures: Mapping[str, tuple[float, ...]]
    """By figure, finite values alone: a figure that is undefined without some reference is not here."""

    @classmethod
    def of(cls, references: Sequence[str], deleted: Mapping[str, ArrayLike]) -> LeaveOneOut:
        """From values (references,), which may hold NaN."""
        defined = {
            name: np.asarray(values, dtype=np.float64)
            for name, values in deleted.items()
            if np.isfinite(np.asarray(values)).all()
        }
        return cls(tuple(references), {name: tuple(map(float, values)) for name, values in defined.items()})

    def json(self) -> dict[str, object]:
        """Plain values: `references`, and a list by figure."""
        return {"references": list(self.references), **{name: list(values) for name, values in self.figures.items()}}

    @classmethod
    def read(cls, document: Mapping[str, Any] | None) -> LeaveOneOut | None:
        """What `json` gave; None for nothing."""
        if not document:
            return None
        figures = {name: tuple(map(float, values)) for name, values in document.items() if name != "references"}
        return cls(tuple(map(str, document["references"])), figures)


def groups(cluster: Ints, ids: Sequence[Hashable]) -> tuple[Ints, list[str]]:
    """What is left out in turn: each image's group, numbered in the order of names, and the groups' names.

    `cluster` (n,) numbers each image's reference, `ids` names them. The result does not depend on the images' order. Very many
    references are thrown into as many groups as `cluster_limit` allows, at most a thousand.
    """
    order = sorted(range(len(ids)), key=lambda i: str(ids[i]))
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    pooled, count = pooled_clusters(place[cluster], len(ids), min(cluster_limit(len(cluster)), _MOST))
    return pooled, [str(ids[i]) for i in order] if count == len(ids) else [f"group {g + 1}" for g in range(count)]
