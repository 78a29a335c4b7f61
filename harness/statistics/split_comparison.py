"""Comparison of two models over repeated splits: differences on the same test parts, by the corrected resampled t test.

A model's figures are those of each split's test part. Tested is the mean over splits of the difference of two models' figures on
the same part; both models' medians are given, too.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.statistics.agreement import FEW_REFERENCES
from harness.statistics.comparison import STATISTICS, Difference, Disagreement, Group, PairedComparison, natural
from harness.statistics.correlations import Floats, Ints, kendall, midranks, numbered, pearson, spearman, spearman_within
from harness.statistics.intervals import holm
from harness.statistics.resampled_t_test import METHOD, corrected_resampled, median


@dataclass(frozen=True)
class SplitScores:
    """The labelled images of one split's test part with both models' scores, higher is better; all arrays (n,)."""

    images: Ints
    """Each image's number among all images of the comparison."""
    a: Floats
    b: Floats
    labels: Floats


def compare_over_splits(
    splits: Sequence[SplitScores],
    reference_ids: Sequence[Hashable],
    ratio: float | None,
    *,
    distortions: Sequence[Hashable] | None = None,
    levels: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    top: int = 20,
) -> PairedComparison:
    """Models a and b over several splits.

    Args:
        splits: one entry for each split.
        reference_ids: of every image of the comparison, by its number.
        ratio: the number of test references divided by the number of training references of a split; None where it is not
            known, and nothing is tested then.
        distortions: of every image; None where they are not known.
        levels: of every image; None where they are not known.
        confidence: the intervals' level.
        top: images to list on which the models' ranks differ most.

    Returns:
        Medians of the figures, with intervals and p-values of the mean differences. Single references are not tested.
    """
    cluster, ids = numbered(reference_ids)
    share = ratio if ratio is not None else np.nan
    each = [(_figures(s.a, s.labels, cluster[s.images]), _figures(s.b, s.labels, cluster[s.images])) for s in splits]
    tested = np.unique(np.concatenate([s.images for s in splits]))
    references = len(np.unique(cluster[tested]))
    differences: dict[str, Difference] = {}
    for name in (*STATISTICS, "srcc_within"):
        first, second = (np.array([both[i][name] for both in each]) for i in (0, 1))
        differences[name] = _difference(name, first, second, share, confidence, references)
    notes = [f"by the corrected resampled t test on the same test parts of {len(splits)} splits: docs/statistics.md"]
    if ratio is None:
        notes.append("no intervals and p-values: the numbers of training and test references are not known")
    undefined = [name for name, d in differences.items() if d.difference is not None and d.p_value is None]
    if undefined and ratio is not None:
        notes.append(
            f"no interval of {', '.join(undefined)}: all splits give the same difference, or there are fewer than two splits"
        )
    return PairedComparison(
        n=len(tested),
        references=references,
        differences=differences,
        independent=(),
        by_distortion=_groups(splits, cluster, distortions, share, confidence),
        by_level=_groups(splits, cluster, levels, share, confidence),
        by_reference=_by_reference(splits, cluster, [str(name) for name in ids]),
        disagreements=_disagreements(splits, len(cluster), top),
        confidence=confidence,
        few_references=references < FEW_REFERENCES,
        notes=tuple(notes),
    )


def _figures(scores: Floats, labels: Floats, cluster: Ints) -> dict[str, float]:
    srcc, plcc = spearman(scores, labels), pearson(scores, labels)
    inside, names = numbered(cluster.tolist())
    within = spearman_within(scores, labels, inside, len(names))
    known = within[np.isfinite(within)]
    mean = float(known.mean()) if len(known) else np.nan
    return {"srcc": srcc, "plcc": plcc, "krcc": kendall(scores, labels), "main": srcc + plcc, "srcc_within": mean}


def _difference(name: str, a: Floats, b: Floats, ratio: float, confidence: float, references: int) -> Difference:
    """From both models' values (J,) on the splits."""
    known = Difference(name, median(a), median(b), None, references=references)
    if known.a is None or known.b is None:
        return known
    known = replace(known, difference=float((a - b).mean()))
    found = corrected_resampled(a - b, ratio)
    if found is None:
        return known
    return replace(known, ci=found.interval(confidence), p_value=found.p_value(), method=METHOD, error=found.error)


def _groups(
    splits: Sequence[SplitScores], cluster: Ints, kinds: Sequence[Hashable] | None, ratio: float, confidence: float
) -> tuple[Group, ...]:
    """SRCC within each kind, of kinds that every split tests; p after Holm's correction over the table's rows."""
    if kinds is None:
        return ()
    number, names = numbered(kinds)
    groups = []
    for i, name in enumerate(names):
        if name is None or name != name:
            continue
        rows = [number[s.images] == i for s in splits]
        a, b = (
            np.array([spearman(getattr(s, of)[mine], s.labels[mine]) for s, mine in zip(splits, rows, strict=True)])
            for of in ("a", "b")
        )
        images = np.unique(np.concatenate([s.images[mine] for s, mine in zip(splits, rows, strict=True)]))
        references = len(np.unique(cluster[images]))
        groups.append(Group(str(name), len(images), references, _difference("srcc", a, b, ratio, confidence, references)))
    known = [i for i, group in enumerate(groups) if group.srcc.p_value is not None]
    adjusted = dict(zip(known, holm([groups[i].srcc.p_value or 0.0 for i in known]), strict=True))
    return tuple(sorted((replace(g, p_holm=adjusted.get(i)) for i, g in enumerate(groups)), key=lambda g: natural(g.name)))


def _by_reference(splits: Sequence[SplitScores], cluster: Ints, ids: Sequence[str]) -> tuple[Group, ...]:
    """Means over the splits that test a reference; largest difference first."""
    found: dict[int, list[tuple[float, float]]] = {}
    images: dict[int, set[int]] = {}
    for s in splits:
        mine = cluster[s.images]
        inside, names = numbered(mine.tolist())
        if len(names) == len(mine):
            return ()
        a, b = (spearman_within(v, s.labels, inside, len(names)) for v in (s.a, s.b))
        for i, reference in enumerate(names):
            found.setdefault(int(str(reference)), []).append((float(a[i]), float(b[i])))
            images.setdefault(int(str(reference)), set()).update(s.images[inside == i].tolist())
    groups = []
    for reference, values in found.items():
        first, second = (float(np.mean([v[i] for v in values])) for i in (0, 1))
        gap = _defined(first - second)
        difference = Difference("srcc", _defined(first), _defined(second), gap, references=1)
        groups.append(Group(ids[reference], len(images[reference]), 1, difference))
    return tuple(sorted(groups, key=lambda g: (-abs(g.srcc.difference or 0.0), g.name)))


def _defined(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _disagreements(splits: Sequence[SplitScores], count: int, top: int) -> tuple[Disagreement, ...]:
    """Ranks as shares of a part's images, their means over the splits that test an image."""
    sums, times = np.zeros((3, count)), np.zeros(count)
    for s in splits:
        times[s.images] += 1
        for i, values in enumerate((s.a, s.b, s.labels)):
            sums[i, s.images] += midranks(values) / len(values)
    a, b, label = sums / np.maximum(times, 1)
    order = np.argsort(-np.abs(a - b), kind="stable")[:top]
    return tuple(Disagreement(int(i), float(a[i]), float(b[i]), float(label[i])) for i in order if a[i] != b[i])


def medians_of(documents: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Figures of several splits as one: the median of every number that all have; other values from the first."""
    first = documents[0]
    found: dict[str, object] = {}
    for name, value in first.items():
        values = [document.get(name) for document in documents]
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        tables = [v for v in values if isinstance(v, Mapping)]
        if len(tables) == len(values):
            found[name] = medians_of(tables)
        elif numbers and len(numbers) == len(values):
            found[name] = float(np.median(numbers))
        else:
            found[name] = None if numbers or tables else value
    return found
