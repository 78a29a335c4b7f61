"""A challenge's score: the figures (SRCC, PLCC, ...) of its card from scores and labels, and their weighted sum.

A challenge's scoring program runs this file unchanged on its server (`harness.challenges.bundle`): it needs numpy and scipy
only and runs on Python 3.7 too (`harness.runtime.python37`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.cards.challenge import ChallengeCard, Scoring, Term
from harness.challenges.image_names import parts_of
from harness.runtime.errors import listed
from harness.statistics.correlations import Floats, Ints, kendall, numbered, pearson, spearman
from harness.statistics.curve_fitting import fit_curve
from harness.statistics.intervals import Interval, fisher_interval, jackknife
from harness.statistics.pair_accuracy import listed_pairs, ordered_pairs
from harness.statistics.reference_resampling import ClusteredPairs

CONFIDENCE = 0.95
FIT_WORDS = {"raw": "raw", "poly3": "after a third-order polynomial"}
FIT_WORDS.update({fit: f"after a {fit}" for fit in ("logistic4", "logistic5")})


@dataclass(frozen=True)
class Truth:
    """The labels by image, and further data that a card's terms need."""

    scores: Mapping[str, float]
    deviations: Mapping[str, float] = field(default_factory=dict)
    """Standard deviation of each image's ratings."""
    raters: Mapping[str, float] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    """Each image's reference, where the labels give it; otherwise it follows from the name."""
    pairs: Mapping[str, Sequence[tuple[str, str, float]]] = field(default_factory=dict)
    """Lists of pairs: first, second, the share of raters in [0, 1] who preferred the first."""


@dataclass(frozen=True)
class Figures:
    """The challenge's score of a set of images. Undefined figures are None, and `note` says why."""

    n: int
    main: float | None
    terms: Mapping[str, float | None]
    """The terms' figures, not weighted, by `term_names`."""
    ci: Mapping[str, Interval | None]
    """Intervals of main and of the terms by delete-one-reference jackknife, 95 %; empty where references are not known."""
    note: str = ""

    @property
    def srcc(self) -> float | None:
        """The SRCC, where it is a term of the score."""
        return self.terms.get("srcc")

    @property
    def plcc(self) -> float | None:
        """The PLCC with the score's fit, where it is a term."""
        return self.terms.get("plcc")

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        ci = {name: None if ends is None else list(ends) for name, ends in self.ci.items()}
        figures = {"n": self.n, "main": self.main, "plcc": self.plcc, "srcc": self.srcc}
        return {**figures, "terms": dict(self.terms), "ci": ci, "note": self.note}


class Measured:
    """One term's figure, also with references left out or resampled; the fit to all images is kept."""

    def __init__(self, term: Term, value: float, under: Callable[[Floats], Floats], without_each: Callable[[], Floats]):
        self.term = term
        self.natural = value
        """With its own sign."""
        self.sign = -1.0 if term.absolute and value < 0 else 1.0
        self.value = self.sign * value
        self._under, self._without_each = under, without_each

    def without_each(self) -> Floats:
        """(units,): the figure without each unit in turn."""
        return np.asarray(self.sign * self._without_each())

    def under(self, weights: Floats) -> Floats:
        """(k,): the figure under each row of `weights` (k, units), the number of times that each unit is drawn."""
        drawn = self._under(weights)
        return np.abs(drawn) if self.term.absolute else drawn

    def interval(self) -> Interval | None:
        """95 % interval over references."""
        deleted = self.without_each()
        if self.term.figure in ("srcc", "plcc", "krcc"):
            return fisher_interval(self.value, deleted, CONFIDENCE)
        interval = _plain_interval(self.value, deleted)
        if interval is None or self.term.figure == "rmse":
            return interval
        return max(interval[0], 0.0), min(interval[1], 1.0)


def term_names(scoring: Scoring) -> list[str]:
    """Names of the terms: the figure where it is the only one of its kind, otherwise the server's key."""
    counts = Counter(term.figure for term in scoring.terms)
    return [term.figure if counts[term.figure] == 1 else term.name for term in scoring.terms]


def unmet(scoring: Scoring, truth: Truth, names: Sequence[str]) -> list[str]:
    """Why terms cannot be computed from these labels of the images `names`; one line for each missing item."""
    found = []
    for term in scoring.terms:
        if term.figure == "pairs" and term.pairs == "different":
            for what, values in (("std", truth.deviations), ("raters", truth.raters)):
                absent = [name for name in names if name not in values]
                if absent:
                    lacking = f"{len(absent):,} of {len(names):,} images have none: {listed(absent, 3)}"
                    found.append(f"{term.name}: pairs = 'different' needs a column {what}; {lacking}")
        if term.pair_list:
            pairs = truth.pairs.get(term.pair_list)
            if pairs is None:
                give = f"give a folder of labels with pairs-{term.pair_list}.csv"
                found.append(f"{term.name}: no list of pairs {term.pair_list!r}: {give}")
            elif not _of(pairs, set(names)):
                found.append(f"{term.name}: none of the {len(pairs):,} pairs of {term.pair_list!r} is between these images")
    return found


def references_of(card: ChallengeCard, truth: Truth, names: Sequence[str]) -> list[str]:
    """Each image's reference, from its name, else from the labels; empty where neither gives it."""
    return [parts_of(card, name).reference or truth.references.get(name, "") for name in names]


def server_scores(card: ChallengeCard, figures: Figures) -> dict[str, float | None]:
    """The content of a server's file of scores, by its keys."""
    terms = zip(card.scoring.terms, figures.terms.values())
    return {card.scoring.main_key: figures.main, **{term.name: value for term, value in terms}}


def _of(pairs: Sequence[tuple[str, str, float]], names: set[str]) -> list[tuple[str, str, float]]:
    return [pair for pair in pairs if pair[0] in names and pair[1] in names]


def measure(
    scoring: Scoring, scores: Floats, truth: Truth, names: Sequence[str], cluster: Ints, clusters: int
) -> list[Measured] | str:
    """Every term's figure of the images `names` with their `scores` (n,), or one line that says why there is none.

    `cluster` (n,) numbers each image's reference, from 0; there are `clusters`.
    """
    labels = np.array([truth.scores[name] for name in names], dtype=np.float64)
    if len(names) < 2:
        return "needs two images"
    if scores.min() == scores.max() or labels.min() == labels.max():
        return "scores or labels are constant: correlations are not defined"
    whole = ClusteredPairs(scores, labels, cluster, clusters)
    found = []
    for term in scoring.terms:
        measured = _term(term, whole, truth, names)
        if isinstance(measured, str):
            return measured
        if not np.isfinite(measured.value):
            return f"{term.name} is not defined for these images"
        found.append(measured)
    return found


def _term(term: Term, whole: ClusteredPairs, truth: Truth, names: Sequence[str]) -> Measured | str:
    x, y, cluster, clusters = whole.x, whole.y, whole.cluster, whole.clusters
    if term.figure == "srcc":
        return Measured(term, spearman(x, y), whole.srcc, whole.srcc_without_each)
    if term.figure == "krcc":
        return Measured(term, kendall(x, y), whole.krcc_resampled, whole.krcc_without_each)
    if term.figure in ("plcc", "rmse"):
        fitted = x
        if term.fit != "raw":
            curve = fit_curve(x, y, term.fit)
            if isinstance(curve, str):
                return curve
            fitted = curve.values
        if term.figure == "plcc":
            pairs = ClusteredPairs(fitted, y, cluster, clusters)
            return Measured(term, pearson(fitted, y), pairs.plcc, pairs.plcc_without_each)
        squares = np.bincount(cluster, (fitted - y) ** 2, clusters)

        def rmse(weights: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                return np.sqrt((weights @ squares) / (weights @ whole.size))

        value = float(np.sqrt(np.mean((fitted - y) ** 2)))
        return Measured(term, value, rmse, lambda: rmse(1.0 - np.eye(clusters)))
    if term.pair_list:
        place = {name: i for i, name in enumerate(names)}
        listed_here = _of(truth.pairs.get(term.pair_list, ()), set(names))
        first = np.array([place[pair[0]] for pair in listed_here], dtype=np.int64)
        second = np.array([place[pair[1]] for pair in listed_here], dtype=np.int64)
        share = np.array([pair[2] for pair in listed_here], dtype=np.float64)
        counts = listed_pairs(x, first, second, share, cluster, clusters, term.ties)
    else:
        squared = None
        if term.pairs == "different":
            squared = np.array([truth.deviations[name] ** 2 / truth.raters[name] for name in names], dtype=np.float64)
        counts = ordered_pairs(x, y, cluster, clusters, squared, term.ties)
    return Measured(term, counts.accuracy, counts.under, lambda: counts.under(1.0 - np.eye(clusters)))


def main_score(measured: Sequence[Measured]) -> float:
    """The weighted sum of the terms."""
    return float(sum(each.term.weight * each.value for each in measured))


def main_without_each(measured: Sequence[Measured]) -> Floats:
    """(units,): the main score without each unit in turn."""
    return np.asarray(sum(each.term.weight * each.without_each() for each in measured))


def figures(
    scoring: Scoring, scores: Floats, truth: Truth, names: Sequence[str], references: Sequence[str], intervals: bool = True
) -> Figures:
    """The challenge's score of the images `names` with `scores` (n,), higher is better.

    Args:
        scoring: the card's terms.
        scores: (n,) one for each name.
        truth: labels of all these images, and what the terms need (`unmet`).
        names: (n,) the images.
        references: (n,) the references for the intervals; no intervals where one is empty.
        intervals: whether they are computed.
    """
    cluster, ids = numbered(references)
    measured = measure(scoring, scores, truth, names, cluster, len(ids))
    called = term_names(scoring)
    if isinstance(measured, str):
        return Figures(len(names), None, dict.fromkeys(called), {}, measured)
    ci: dict[str, Interval | None] = {}
    main = main_score(measured)
    if intervals and all(references) and len(ids) >= 2:
        ci = {name: each.interval() for name, each in zip(called, measured)}
        # The largest possible main score; none if a term has no bound.
        bounded, reach = all(term.figure != "rmse" for term in scoring.terms), sum(abs(term.weight) for term in scoring.terms)
        deleted = main_without_each(measured)
        fisher = bounded and reach
        ci["main"] = fisher_interval(main, deleted, CONFIDENCE, float(reach)) if fisher else _plain_interval(main, deleted)
    note = ""
    for each in measured:
        if each.term.figure == "srcc" and each.natural < 0:
            note = "SRCC is negative: higher seems to be worse in this submission"
            note += "; the challenge takes absolute values" if each.term.absolute else ""
    return Figures(len(names), main, {name: each.value for name, each in zip(called, measured)}, ci, note)


def _plain_interval(estimate: float, deleted: Floats) -> Interval | None:
    if len(deleted) < 2 or not np.isfinite(deleted).all():
        return None
    return jackknife(estimate, deleted).interval(CONFIDENCE)
