"""Ensembles with fewer members: backward elimination by non-negative least squares, in sample and out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from harness.ensembles import tables
from harness.ensembles.blends import Columns
from harness.ensembles.objective import Objective, objective_values
from harness.ensembles.weight_candidates import Sample
from harness.statistics.correlations import Floats, Ints


@dataclass(frozen=True)
class Size:
    """A least-squares blend of some of the members."""

    members: tuple[int, ...]
    """Positions of the members that it may use."""
    in_sample: float
    """The objective on the images that it was fitted on."""
    out_of_fold: float | None
    """The objective where each fold's elimination was done without it; None where there is one reference."""

    def json(self, names: Sequence[str]) -> dict[str, object]:
        """One object of `sparsity` in `harness ensemble --json`."""
        return asdict(self) | {"members": [names[m] for m in self.members]}


def eliminated(columns: Columns, labels: Floats, sources: Sequence[int]) -> list[tuple[tuple[int, ...], Floats]]:
    """Least squares on all members, then without the member whose removal increases the squared error least, down to one member.

    Args:
        columns: Scaled sources, fitted on these images.
        labels: (n,)
        sources: Each member's own source.

    Returns:
        For each size, the largest first: the members, and the weights (columns,).
    """
    from scipy.optimize import nnls

    inside = [[c for c in own if columns.source[c] == s] for own, s in zip(columns.by_member, sources, strict=True)]
    spread = columns.values.std(axis=1)
    centred = (columns.values - columns.values.mean(axis=1)[:, None]) / spread[:, None]
    # The R factor of a QR factorisation has the same least-squares solutions as all images, with few rows.
    triangle = np.asarray(np.linalg.qr(np.vstack([centred, labels - labels.mean()]).T, mode="r"))

    def fitted(members: Sequence[int]) -> tuple[float, Floats]:
        kept = [c for m in members for c in inside[m]]
        weights = np.zeros(len(columns.source))
        solved, residual = nnls(triangle[:, kept], triangle[:, -1])
        weights[kept] = solved
        return float(residual), weights / spread

    members = [m for m, own in enumerate(inside) if own]
    sizes = [(tuple(members), fitted(members)[1])]
    while len(members) > 1:
        each = {m: fitted([other for other in members if other != m]) for m in members}
        out = min(each, key=lambda m: each[m][0])
        members = [m for m in members if m != out]
        sizes.append((tuple(members), each[out][1]))
    return sizes


def prices(samples: Sequence[Sample], held_out: Sequence[Ints], scores: Floats, labels: Floats, sources: Sequence[int],
           name: Objective) -> list[Size]:  # fmt: skip
    """The objective for each number of members, the largest first.

    Args:
        samples: All fitting images, then those outside each fold.
        held_out: Positions that each fold holds out.
        scores: (sources, n) of all fitting images, higher-is-better.
        labels: (n,)
        sources: Each member's own source.
        name: The objective.
    """
    paths = [eliminated(s.columns, s.labels, sources) for s in samples]
    sizes = []
    for place, (members, weights) in enumerate(paths[0]):
        within = float(objective_values(name, (weights @ samples[0].columns.values)[None], labels)[0])
        outside = np.full(len(labels), np.nan)
        for path, part, rows in zip(paths[1:], samples[1:], held_out, strict=True):
            own = path[min(place, len(path) - 1)][1]
            blended = np.zeros(len(rows))
            for column in np.flatnonzero(own):
                blended += own[column] * part.columns.scalings[column](scores[part.columns.source[column], rows])
            # With the intercept of least squares, so that all folds are on the same scale.
            outside[rows] = blended + float(part.labels.mean()) - float((own @ part.columns.values).mean())
        beyond = float(objective_values(name, outside[None], labels)[0]) if held_out else None
        sizes.append(Size(members, within, beyond))
    return sizes


def text(sizes: Sequence[Size], names: Sequence[str], name: Objective) -> str:
    """The table of sizes; each line names the member that was left out in this step."""
    rows = []
    for before, size in zip([None, *sizes], sizes, strict=False):
        gone = set(before.members) - set(size.members) if before else set()
        left_out = names[gone.pop()] if gone else ""
        beyond = "" if size.out_of_fold is None else f"{size.out_of_fold:.4f}"
        rows.append([str(len(size.members)), f"{size.in_sample:.4f}", beyond, left_out])
    headers = ("members", f"{name} in sample", "out of fold", "left out")
    shown = tables.table(headers, rows, align=("right", "right", "right", "left"), narrowed=3)
    return f"least squares with fewer members\n\n{shown}\nwith one member: {', '.join(names[m] for m in sizes[-1].members)}"
