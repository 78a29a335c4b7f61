"""Leave-one-out figures of a model, for paired comparisons: small enough to be kept in a record.

Two records on the same images can then be compared without scores or labels: a leaderboard is a function of records, and labels,
which most datasets do not allow to redistribute, are not needed.
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
    """Values of several figures, one for each reference: the figure on all images except that reference's."""

    references: tuple[str, ...]
    """In the order of names; `group 1`, ... where there are too many references and groups are left out."""
    figures: Mapping[str, tuple[float, ...]]
    """By figure, finite values only: a figure that is undefined without some reference is absent."""

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
        """From the document that `json` gave; None for None."""
        if not document:
            return None
        figures = {name: tuple(map(float, values)) for name, values in document.items() if name != "references"}
        return cls(tuple(map(str, document["references"])), figures)


def groups(cluster: Ints, ids: Sequence[Hashable]) -> tuple[Ints, list[str]]:
    """The groups to leave out: each image's group, numbered in the order of names, and the groups' names.

    `cluster` (n,) numbers each image's reference, `ids` names them. The result does not depend on the images' order. Very many
    references are combined into as many groups as `cluster_limit` allows, at most a thousand.
    """
    order = sorted(range(len(ids)), key=lambda i: str(ids[i]))
    place = np.empty(len(ids), np.int64)
    place[order] = np.arange(len(ids))
    pooled, count = pooled_clusters(place[cluster], len(ids), min(cluster_limit(len(cluster)), _MOST))
    return pooled, [str(ids[i]) for i in order] if count == len(ids) else [f"group {g + 1}" for g in range(count)]
