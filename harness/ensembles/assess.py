"""Assessing ensembles: gains over the best member, out of fold on the fitting images, and on the test images.

Out of fold means that scalings, selection and weights were fitted again without the references that they then score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.ensembles.blends import Blend, Fits, least_squares
from harness.ensembles.members import Gathered, Images
from harness.ensembles.objective import Objective, objective_values
from harness.models import score_scaling
from harness.models.score_scaling import Scaling
from harness.statistics.agreement import Agreement, agreement
from harness.statistics.comparison import Difference, compare
from harness.statistics.correlations import Floats, Ints, pearson
from harness.statistics.intervals import fisher_interval, holm

METHODS = ("mean", "greedy", "least-squares", "searched")
GAINS = ("main", "srcc", "plcc")
LEVEL = 0.05
_RESCALINGS = ("logistic", "ecdf", "raw", "sum")
"""Scalings of a single member. `raw` is put into the labels' units by a line, fitted in each fold; `sum` is the least-squares
sum of all its scalings, which a blend may use too."""


@dataclass(frozen=True)
class Scored:
    """Scores (n,) of a blend or a rescaled member, and the scores that give its ranks."""

    values: Floats
    order: Floats
    """The member's own scores where the blend is an increasing rescaling of one member, which keeps its SRCC (plateaus of the
    scaling would tie images, and folds scale differently); else `values`."""


@dataclass(frozen=True)
class Baseline:
    """The reference for gains: the member that was best on the fitting images, unchanged and rescaled."""

    source: int
    scaled: Scored
    rescaled: frozenset[str]
    """The figures in which the rescaled member was the better one on the fitting images."""

    def of(self, figure: str, images: Images) -> Scored:
        """The better of the two in `figure`; in SRCC the two are the same."""
        raw = images.scores[self.source]
        return self.scaled if figure in self.rescaled else Scored(raw, raw)


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
    """For a blend: its gain, by figure, over the better of the best member and that member rescaled."""
    p_holm: Mapping[str, float]
    """The gains' p-values after Holm's correction over the blends."""
    rescaled: frozenset[str] = frozenset()
    """The figures for which the gain is over the rescaled member."""

    def verdict(self, figure: str) -> str:
        """Whether there is a gain in a figure."""
        gain = self.versus.get(figure)
        if gain is None or gain.difference is None or figure not in self.p_holm:
            return ""
        if self.p_holm[figure] > LEVEL:
            return "not significant"
        return "gain" if gain.difference > 0 else "loss"

    def json(self) -> dict[str, object]:
        """One object of `harness ensemble --json`."""
        figures = self.figures.json()
        versus = {
            name: {
                "difference": d.difference,
                "ci": d.ci and list(d.ci),
                "p_value": d.p_value,
                "p_holm": self.p_holm.get(name),
                "verdict": self.verdict(name),
                "over": "rescaled member" if name in self.rescaled else "member",
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


@dataclass(frozen=True)
class RescaledMember:
    """One member with a scaling: fitted to all fitting images, and its out-of-fold scores of them."""

    blend: Blend
    fitting: Scored


def rescaled_member(source: int, images: Images, held_out: Sequence[Ints], outside: Sequence[Ints]) -> RescaledMember:
    """The member with the scaling of highest PLCC on the fitting images, out of fold where there are folds.

    `held_out` are the rows of each fold and `outside` those that it is fitted to.
    """
    known = []
    for kind in _RESCALINGS:
        blend = _alone(kind, source, images.scores, images.labels)
        blends = [_alone(kind, source, images.scores[:, rows], images.labels[rows]) for rows in outside if held_out]
        fitting = out_of_fold(blends, held_out, images.scores) if held_out else scored(blend, images.scores)
        known.append(RescaledMember(blend, fitting))
    return max(known, key=lambda found: _or_lowest(pearson(found.fitting.values, images.labels)))


def _or_lowest(value: float) -> float:
    return value if np.isfinite(value) else -np.inf


def _alone(kind: str, source: int, scores: Floats, labels: Floats) -> Blend:
    if kind == "sum":
        found = least_squares(Fits(scores, labels), [source], score_scaling.KINDS)
    else:
        fitted = score_scaling.fit(kind, scores[source], labels) or Scaling("raw")
        found = Blend((source,), (fitted,), (1.0,))
    return found.calibrated(scores, labels)


def baseline(images: Images, source: int, scaled: Scored) -> Baseline:
    """The baseline from the fitting images: per figure, the better of the unchanged member and the rescaled one (`scaled`)."""
    raw, rescaled = (_or_lowest(pearson(values, images.labels)) for values in (images.scores[source], scaled.values))
    # A rescaling keeps SRCC, so main changes by as much as PLCC.
    return Baseline(source, scaled, frozenset({"main", "plcc"}) if rescaled > raw else frozenset())


def best_member(gathered: Gathered, objective: Objective) -> int:
    """The source that agrees best with the fitting labels, among the members under their own croppings."""
    images = gathered.fitting
    own = [gathered.member_of.index(m) for m in range(max(gathered.member_of) + 1)]
    return own[int(objective_values(objective, images.scores[own], images.labels).argmax())]


def out_of_fold(blends: Sequence[Blend], held_out: Sequence[Ints], scores: Floats) -> Scored:
    """Scores of each image by the blend of the fold that holds it out."""
    values = np.empty(scores.shape[1])
    for blend, rows in zip(blends, held_out, strict=True):
        values[rows] = blend(scores[:, rows])
    return Scored(values, _order(blends, values, scores))


def scored(blend: Blend, scores: Floats) -> Scored:
    """A blend's scores of `scores` (sources, n)."""
    values = blend(scores)
    return Scored(values, _order([blend], values, scores))


def _order(blends: Sequence[Blend], values: Floats, scores: Floats) -> Floats:
    """For increasing rescalings of one member its own scores, else `values`."""
    sources = {blend.sources for blend in blends}
    source = next(iter(sources))
    if len(sources) > 1 or len(source) > 1:
        return values
    for blend in blends:
        for part, share in score_scaling.weighted(blend.scalings[0]):
            slope = 1.0
            if part.kind == "logistic":
                high, low, _, width = part.parameters
                slope = (high - low) / width
            if not blend.weights[0] * share * slope > 0:
                return values
    own: Floats = scores[source[0]]
    return own


def assess(images: Images, names: Sequence[str], blended: Mapping[str, Scored], base: Baseline) -> list[Row]:
    """Members (`names`, by source), then `blended` scores by method, on the same images, against the best member.

    That member rescaled is a control row: it shows the effect of scaling on PLCC.
    """
    # One object for both fields, because a matrix gives a new object for its row each time.
    rows = [_row(images, name, "member", Scored(own, own)) for name, own in zip(names, images.scores, strict=True)]
    rows.append(_row(images, f"{names[base.source]}, scaled", "control", base.scaled))
    tests = gains(images, blended, base)
    for method, values in blended.items():
        rows.append(_row(images, method, "blend", values, tests[method], corrected(tests, method), base.rescaled))
    return rows


def gains(images: Images, blended: Mapping[str, Scored], base: Baseline) -> dict[str, dict[str, Difference]]:
    """By method and figure: the gain over the baseline, paired by reference; none where there is one reference."""
    if len(set(images.references)) < 2:
        return {method: {} for method in blended}
    tests: dict[str, dict[str, Difference]] = {method: {} for method in blended}
    for others in ({f for f in GAINS if f in base.rescaled}, {f for f in GAINS if f not in base.rescaled}):
        if others:
            other = base.of(next(iter(others)), images)
            for method, own in blended.items():
                on = (own.values, other.values, images.labels, images.references)
                found = compare(*on, top=0, orders=(own.order, other.order), statistics=GAINS).differences
                tests[method] |= {figure: found[figure] for figure in others}
    return tests


def simpler(blended: Mapping[str, Scored], labels: Floats, references: Sequence[str], name: Objective) -> tuple[str, str]:
    """`searched`, or `least-squares` and why, where the search has no significant gain over it out of fold."""
    compared = compare(blended["searched"].values, blended["least-squares"].values, labels, references, top=0)
    gain = compared.differences[name]
    if gain.difference is not None and gain.difference > 0 and gain.p_value is not None and gain.p_value <= LEVEL:
        return "searched", ""
    size = "not defined" if gain.difference is None else f"{gain.difference:+.4f}"
    p = "" if gain.p_value is None else f", p = {gain.p_value:.3f}"
    why = f"the search has no significant gain over least squares out of fold ({name} {size}{p}): the card has least squares"
    return "least-squares", why


def _row(
    images: Images,
    name: str,
    kind: str,
    own: Scored,
    versus: Mapping[str, Difference] | None = None,
    p_holm: Mapping[str, float] | None = None,
    rescaled: frozenset[str] = frozenset(),
) -> Row:
    figures = agreement(own.values, images.labels, images.references)
    if own.order is not own.values:
        # Rank figures come from `order`.
        ordered = agreement(own.order, images.labels, images.references)
        main = None if ordered.srcc is None or figures.plcc is None else ordered.srcc + figures.plcc
        ci = {**figures.ci, "srcc": ordered.ci["srcc"], "krcc": ordered.ci["krcc"], "main": None}
        ranked = ordered.left_out.figures.get("srcc") if ordered.left_out else None
        plain = figures.left_out.figures.get("plcc") if figures.left_out else None
        if main is not None and ranked is not None and plain is not None:
            ci["main"] = fisher_interval(main, np.add(ranked, plain), figures.confidence, reach=2.0)
        srcc, krcc, within = ordered.srcc, ordered.krcc, ordered.srcc_within
        figures = replace(figures, srcc=srcc, krcc=krcc, srcc_within=within, main=main, ci=ci, left_out=None)
    return Row(images.dataset, images.part, name, kind, figures, versus or {}, p_holm or {}, rescaled)


def corrected(tests: Mapping[str, Mapping[str, Difference]], method: str) -> dict[str, float]:
    """By figure: the p-value of a method's gain after Holm's correction over the methods."""
    corrected = {}
    for figure in GAINS:
        known = {m: d[figure].p_value for m, d in tests.items() if figure in d and d[figure].p_value is not None}
        if method in known:
            corrected[figure] = dict(zip(known, holm([p or 0.0 for p in known.values()]), strict=True))[method]
    return corrected
