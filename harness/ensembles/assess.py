"""What was gained, told honestly: on the fitting images out of fold, on the test images with what was frozen before.

Out of fold means that scalings, selection and weights were fitted again without the references that they then score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.ensembles.blends import Blend
from harness.ensembles.members import Gathered, Images
from harness.ensembles.objective import Objective
from harness.models import score_scaling
from harness.models.score_scaling import Scaling
from harness.statistics.agreement import Agreement, agreement
from harness.statistics.comparison import Difference, compare
from harness.statistics.correlations import Floats, Ints
from harness.statistics.intervals import holm

METHODS = ("mean", "greedy", "least-squares", "searched")
GAINS = ("main", "srcc", "plcc", "plcc_scaled")
LEVEL = 0.05


@dataclass(frozen=True)
class Row:
    """A member or a blend on the images of one dataset and part."""

    dataset: str
    part: str
    member: str
    kind: str
    """member, control, or blend"""
    figures: Agreement
    versus: Mapping[str, Difference]
    """Of a blend: its gain over the member that was best on the fitting images, by figure; `plcc_scaled` is over that member
    after its own fitted scaling, which is what blending alone brings."""
    p_holm: Mapping[str, float]
    """The gains' p-values after Holm's correction over the blends."""

    def verdict(self, figure: str) -> str:
        """Whether there is a gain in a figure."""
        gain = self.versus.get(figure)
        if gain is None or gain.difference is None or figure not in self.p_holm:
            return ""
        if self.p_holm[figure] > LEVEL:
            return "not significant"
        return "gain" if gain.difference > 0 else "loss"

    def json(self) -> dict[str, Any]:
        """One object of `harness ensemble --json`."""
        figures = self.figures.json()
        versus = {
            name: {
                "difference": d.difference,
                "ci": d.ci and list(d.ci),
                "p_value": d.p_value,
                "p_holm": self.p_holm.get(name),
                "verdict": self.verdict(name),
            }
            for name, d in self.versus.items()
        }
        return {
            "dataset": self.dataset,
            "part": self.part,
            "member": self.member,
            "kind": self.kind,
            **{k: figures[k] for k in ("n", "references", "srcc", "plcc", "plcc_fitted", "krcc", "main", "ci")},
            "gain": versus or None,
        }


def scaled_alone(source: int, scores: Floats, labels: Floats) -> Blend:
    """The blend of one member, through its fitted logistic (or as it is, where there is none)."""
    fitted = score_scaling.fit("logistic", scores[source], labels) or Scaling("raw")
    return Blend((source,), (fitted,), (1.0,)).calibrated(scores, labels)


def best_member(gathered: Gathered, aim: Objective) -> int:
    """The source that agrees best with the fitting labels, among the members under their own croppings."""
    images = gathered.fitting
    own = [gathered.member_of.index(m) for m in range(max(gathered.member_of) + 1)]
    each = {s: _aimed(images, images.scores[s], aim) for s in own}
    return max(each, key=lambda s: each[s])


def _aimed(images: Images, scores: Floats, aim: Objective) -> float:
    figure = getattr(agreement(scores, images.labels, intervals=False), aim)
    return -np.inf if figure is None else float(figure)


def out_of_fold(blends: Sequence[Blend], held_out: Sequence[Ints], scores: Floats) -> Floats:
    """Scores (n,) of each image by the blend of the fold that holds it out."""
    values = np.empty(scores.shape[1])
    for blend, rows in zip(blends, held_out, strict=True):
        values[rows] = blend(scores[:, rows])
    return values


def assess(images: Images, names: Sequence[str], blended: Mapping[str, Floats], best: int, scaled: Floats) -> list[Row]:
    """Members (`names`, by source), then `blended` scores by method, on the same images; blends against source `best`.

    `scaled`: the best member's scores through its fitted logistic, a control that shows what scaling alone does to PLCC.
    """
    rows = [_row(images, name, "member", images.scores[s]) for s, name in enumerate(names)]
    rows.append(_row(images, f"{names[best]}, scaled", "control", scaled))
    tests: dict[str, dict[str, Difference]] = {}
    for method, values in blended.items():
        tests[method] = {}
        if len(set(images.references)) > 1:
            gains, beyond = (
                compare(values, other, images.labels, images.references, top=0).differences
                for other in (images.scores[best], scaled)
            )
            tests[method] = {figure: gains[figure] for figure in GAINS[:-1]} | {GAINS[-1]: beyond["plcc"]}
    for method, values in blended.items():
        rows.append(_row(images, method, "blend", values, tests[method], _corrected(tests, method)))
    return rows


def _row(
    images: Images,
    name: str,
    kind: str,
    values: Floats,
    versus: Mapping[str, Difference] | None = None,
    p_holm: Mapping[str, float] | None = None,
) -> Row:
    figures = agreement(values, images.labels, images.references)
    return Row(images.dataset, images.part, name, kind, figures, versus or {}, p_holm or {})


def _corrected(tests: Mapping[str, Mapping[str, Difference]], method: str) -> dict[str, float]:
    corrected = {}
    for figure in GAINS:
        known = {m: d[figure].p_value for m, d in tests.items() if figure in d and d[figure].p_value is not None}
        if method in known:
            corrected[figure] = dict(zip(known, holm([p or 0.0 for p in known.values()]), strict=True))[method]
    return corrected
