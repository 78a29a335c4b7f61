"""`harness challenge board`: ranks many submissions: scores, intervals, group of the best, ties, stability of each rank."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from harness.cards.challenge import ChallengeCard, Ranking, Standing
from harness.challenges.codabench import rises
from harness.challenges.figures import (
    Figures,
    Measured,
    figures,
    main_score,
    main_without_each,
    measure,
    references_of,
    term_names,
)
from harness.challenges.labels import read_truth
from harness.challenges.score import require_labels
from harness.challenges.submission_check import Report, check
from harness.files.leftovers import without_leftovers
from harness.results.tables import number, with_interval
from harness.runtime.errors import HarnessError, RunError, UsageError
from harness.runtime.findings import errors
from harness.runtime.terminal_columns import text_table
from harness.statistics.best_group import FEWEST_REFERENCES, standings
from harness.statistics.correlations import Floats, numbered
from harness.statistics.intervals import cluster_draws

_log = logging.getLogger(__name__)

DRAWS = 1000
_MOST = 1000
_LIKELY = 0.95


@dataclass(frozen=True)
class Place:
    """One submission's rank and scores."""

    name: str
    place: float
    figures: Figures
    mean_rank: float | None = None
    """The mean of its ranks by each term, where the challenge ranks by it."""
    best: bool | None = None
    """Whether it is not significantly worse than the best; None with fewer than six references, or with unknown ones."""
    p_adjusted: float | None = None
    kept: float | None = None
    """The share of resampled sets of references in which it has this rank."""
    places: tuple[float, float] | None = None
    """The range of its ranks in 95 % of these sets."""

    def json(self) -> dict[str, object]:
        """Plain values for JSON."""
        own = {"name": self.name, "place": self.place, **self.figures.json(), "mean_rank": self.mean_rank}
        firm = {"kept": self.kept, "places": None if self.places is None else list(self.places)}
        return {**own, "best_group": self.best, "p": self.p_adjusted, **firm}


@dataclass(frozen=True)
class Board:
    """All submissions of a folder to one phase."""

    card: ChallengeCard
    phase: str
    images: int
    references: int | None
    draws: int
    rows: tuple[Place, ...]
    """Best first."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Files without a score, and why."""
    notes: tuple[str, ...] = ()

    @property
    def reported(self) -> list[Standing]:
        """The challenge's published figures of this phase."""
        return [entry for entry in self.card.board if entry.phase == self.phase]

    def json(self) -> dict[str, object]:
        """One object of `harness challenge board --json`."""
        return {
            "challenge": self.card.name,
            "phase": self.phase,
            "images": self.images,
            "references": self.references,
            "ranking": asdict(self.card.ranking),
            "draws": self.draws,
            "rows": [row.json() for row in self.rows],
            "refused": dict(self.refused),
            "reported": [asdict(entry) for entry in self.reported],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        called = dict(zip(term_names(self.card.scoring), self.card.scoring.terms, strict=True))
        by_rank = self.card.ranking.by == "mean-rank"
        headers = ["place", "name", self.card.scoring.main_key, *(["mean rank"] if by_rank else [])]
        headers += [*(term.name for term in called.values()), "best", "keeps place", "places"]
        rows = []
        for row in self.rows:
            shown = row.figures
            cells = [f"{row.place:g}", row.name, with_interval(shown.main, shown.ci.get("main"))]
            cells += [number(row.mean_rank, 2)] if by_rank else []
            cells += [number(shown.terms.get(key)) for key in called]
            cells += ["" if row.best is None else "yes" if row.best else "", "" if row.kept is None else f"{row.kept:.0%}"]
            rows.append([*cells, "" if row.places is None else "{:g} to {:g}".format(*row.places)])
        about = f"{self.card.name}, phase {self.phase}: {len(self.rows)} submissions, {self.images:,} images"
        about += f", {self.references} references" if self.references else ""
        parts = [about, text_table(headers, rows).text]
        if self.refused:
            parts.append("without a score:\n" + "\n".join(f"{name}: {why}" for name, why in self.refused.items()))
        if self.reported:
            lines = [[each.team, *map(number, (each.main, each.plcc, each.srcc)), each.source] for each in self.reported]
            heads = ["reported", "main", "PLCC", "SRCC", "source"]
            parts.append(text_table(heads, lines).text)
            parts.append("Reported figures are comparable only where these labels are the challenge's own.")
        return "\n\n".join([*parts, "\n".join(self.notes)]).rstrip()


def board(
    folder: str | Path,
    labels: str | Path,
    *,
    challenge: str | None = None,
    phase: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    cards: Sequence[str] = (),
) -> Board:
    """The board of the zips in `folder`; a defective one gets no rank and does not stop the others.

    Args:
        folder: the folder of the submissions, `<name>.zip` each.
        labels: a file or a folder (`harness.challenges.labels`).
        challenge, phase: by default those that match the names in the first readable submission.
        draws: number of resampled sets of references for the stability of the ranks.
        seed: seed of the resampling.
        cards: folders of the caller's own cards.

    Raises:
        UsageError: for a folder without zips, and for labels from which the score cannot be computed.
        RunError: where no submission has a score.
    """
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: no such folder of submissions")
    files = without_leftovers(sorted(Path(folder).glob("*.zip")))
    if not files or len(files) > _MOST:
        raise UsageError(f"{folder}: {len(files):,} zips; expected 1 to {_MOST:,}")
    reports, refused = _checked(files, challenge, phase, cards)
    if not reports:
        raise RunError("\n".join([f"{folder}: no submission can be scored", *(f"{n}: {why}" for n, why in refused.items())]))
    first = next(iter(reports.values()))
    card, chosen = first.card, first.phase or first.card.default_phase
    names = sorted(first.scores)
    truth, _ = read_truth(Path(labels), names)
    require_labels(card.scoring, truth, names, str(labels))
    references = references_of(card, truth, names)
    known = all(references)
    cluster, ids = numbered(references)
    measured: dict[str, list[Measured]] = {}
    shown: dict[str, Figures] = {}
    for name, report in reports.items():
        _log.info(f"{name}: scored")
        scores = np.array([report.scores[image] for image in names], dtype=np.float64)
        found = measure(card.scoring, scores, truth, names, cluster, len(ids))
        if isinstance(found, str):
            refused[name] = found
        else:
            measured[name], shown[name] = found, figures(card.scoring, scores, truth, names, references)
    if not measured:
        raise RunError("\n".join([f"{folder}: no submission has a score", *(f"{n}: {why}" for n, why in refused.items())]))
    clusters = len(ids) if known else 0
    rows, notes = _placed(card, measured, shown, clusters, draws, seed), _notes(card, clusters, draws)
    return Board(card, chosen, len(names), clusters or None, draws if clusters > 1 else 0, rows, refused, notes)


def _checked(
    files: Sequence[Path], challenge: str | None, phase: str | None, cards: Sequence[str]
) -> tuple[dict[str, Report], dict[str, str]]:
    reports: dict[str, Report] = {}
    refused: dict[str, str] = {}
    for file in files:
        try:
            report = check(file, challenge=challenge, phase=phase, cards=cards)
        except HarnessError as error:
            refused[file.stem] = str(error).splitlines()[0]
            continue
        if defects := errors(report.findings):
            more = f" (and {len(defects) - 1} more defects)" if len(defects) > 1 else ""
            refused[file.stem] = f"{defects[0].where}: {defects[0].what}{more}"
            continue
        # Where no card lists the names, they are those of the first submission.
        first = next(iter(reports.values()), report)
        if (report.card.name, report.phase) != (first.card.name, first.phase) or report.scores.keys() != first.scores.keys():
            refused[file.stem] = (
                f"its images differ from those of {next(iter(reports))} ({report.card.name}, phase {report.phase})"
            )
            continue
        reports[file.stem] = report
        challenge, phase = challenge or report.card.path, phase or report.phase
    return reports, refused


def _placed(
    card: ChallengeCard,
    measured: Mapping[str, Sequence[Measured]],
    shown: Mapping[str, Figures],
    clusters: int,
    draws: int,
    seed: int,
) -> tuple[Place, ...]:
    place, mean_rank = _places(card, [np.array([[each.value for each in found]]) for found in measured.values()])
    best: dict[str, tuple[bool, float | None]] = {}
    kept = low = high = None
    if clusters >= FEWEST_REFERENCES:
        groups = {name: (main_score(found), main_without_each(found)) for name, found in measured.items()}
        best = {entry.name: (entry.best, entry.p_adjusted) for entry in standings(groups, "main")}
    if clusters > 1:
        weights = cluster_draws(clusters, draws, seed) if draws else np.ones((1, clusters))
        drawn = [np.stack([each.under(weights) for each in found], axis=1) for found in measured.values()]
        resampled, _ = _places(card, drawn)
        kept = (resampled == place[0]).mean(axis=0)
        low, high = np.quantile(resampled, [(1 - _LIKELY) / 2, (1 + _LIKELY) / 2], axis=0, method="nearest")
    rows = [
        Place(
            name,
            float(place[0, i]),
            shown[name],
            mean_rank=None if mean_rank is None else float(mean_rank[0, i]),
            best=best[name][0] if best else None,
            p_adjusted=best[name][1] if best else None,
            kept=None if kept is None else float(kept[i]),
            places=None if low is None or high is None else (float(low[i]), float(high[i])),
        )
        for i, name in enumerate(measured)
    ]
    return tuple(sorted(rows, key=lambda row: (row.place, row.name)))


def _places(card: ChallengeCard, terms: Sequence[Floats]) -> tuple[Floats, Floats | None]:
    """Ranks (k, m) of m submissions in k sets of images, from the terms (k, t) of each, and mean ranks if the card uses them."""
    weights = np.array([term.weight for term in card.scoring.terms])
    stacked = np.stack(terms, axis=1)
    if card.ranking.by == "score":
        return ranked(stacked @ weights, card.ranking), None
    turned = np.array([1.0 if rises(term) else -1.0 for term in card.scoring.terms])
    each = [ranked(stacked[:, :, t] * turned[t], Ranking(decimals=card.ranking.decimals)) for t in range(len(weights))]
    mean = np.mean(each, axis=0)
    return ranked(-mean, Ranking(ties=card.ranking.ties)), mean


def ranked(values: Floats, ranking: Ranking) -> Floats:
    """Ranks (k, m), from 1, of `values` (k, m) in each row, the highest first; ties as `ranking.ties` says.

    An undefined value comes last.
    """
    compared = np.where(np.isfinite(values), values, -np.inf)
    if ranking.decimals >= 0:
        compared = np.round(compared, ranking.decimals)
    places = np.empty(compared.shape)
    # The first column of each distinct value in a row.
    first = np.array([[value not in row[:i] for i, value in enumerate(row)] for row in compared.tolist()])
    for i in range(compared.shape[1]):
        above = compared > compared[:, [i]]
        if ranking.ties == "dense":
            places[:, i] = 1 + (above & first).sum(axis=1)
        else:
            equal = (compared == compared[:, [i]]).sum(axis=1)
            places[:, i] = 1 + above.sum(axis=1) + ((equal - 1) / 2 if ranking.ties == "mean" else 0)
    return places


def _notes(card: ChallengeCard, clusters: int, draws: int) -> tuple[str, ...]:
    if not clusters:
        why = "each image's reference is needed (a column `reference` of the labels)"
        return (f"no intervals, groups or stability of ranks: {why}",)
    notes = ["intervals: 95 %, leaving out one reference at a time"]
    if clusters >= FEWEST_REFERENCES:
        notes.append("best: not significantly below a better one over the references (5 % for all submissions together)")
    else:
        notes.append(f"no group of the best: {clusters} references, {FEWEST_REFERENCES} are needed")
    if clusters > 1:
        notes.append(f"keeps place, places (95 %): bootstrap over {draws:,} sets of as many references, drawn with replacement")
    if any(term.fit != "raw" for term in card.scoring.terms):
        notes.append("all sets use the fits to all images")
    if card.ranking.by == "mean-rank":
        notes.append(
            f"ranked by mean rank; the group of the best is by {card.scoring.main_key}, because ranks are not continuous"
        )
    return tuple(notes)
