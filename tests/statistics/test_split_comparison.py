"""Two models over repeated splits: medians, mean differences, and what is not tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from harness.statistics.resampled_t_test import corrected_resampled
from harness.statistics.split_comparison import SplitScores, compare_over_splits, medians_of

REFERENCES, IMAGES = 10, 6


def splits(count: int = 5) -> list[SplitScores]:
    """Two references of ten in each of `count` parts; what a model says of an image differs from part to part."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=REFERENCES * IMAGES)
    found = []
    for _ in range(count):
        tested = rng.permutation(REFERENCES)[:2]
        images = np.concatenate([np.arange(IMAGES) + IMAGES * r for r in tested])
        a, b = (labels[images] + rng.normal(0, noise, len(images)) for noise in (0.3, 0.8))
        found.append(SplitScores(images, a, b, labels[images]))
    return found


def ids() -> list[str]:
    return [f"r{i // IMAGES}" for i in range(REFERENCES * IMAGES)]


def test_figures_are_medians_and_the_test_is_of_the_mean_difference() -> None:
    parts = splits()
    found = compare_over_splits(parts, ids(), 1 / 3)
    a, b = ([stats.spearmanr(getattr(s, of), s.labels).statistic for s in parts] for of in ("a", "b"))
    expected = corrected_resampled(np.subtract(a, b), 1 / 3)
    assert expected is not None
    srcc = found.differences["srcc"]
    assert (srcc.a, srcc.b, srcc.difference) == pytest.approx((np.median(a), np.median(b), np.mean(a) - np.mean(b)))
    assert srcc.p_value == pytest.approx(expected.p_value())
    assert srcc.ci == pytest.approx(expected.interval(0.95))
    main = found.differences["main"]
    assert main.difference == pytest.approx(srcc.difference + found.differences["plcc"].difference)
    assert found.references == len({image // IMAGES for s in parts for image in s.images})
    assert found.independent == ()


def test_turned_round_the_comparison_is_turned_round() -> None:
    parts = splits()
    one, other = (compare_over_splits(p, ids(), 1 / 3) for p in (parts, [replace(s, a=s.b, b=s.a) for s in parts]))
    for name, difference in one.differences.items():
        turned = other.differences[name]
        assert turned.difference == pytest.approx(-difference.difference)
        assert turned.p_value == pytest.approx(difference.p_value)


def test_kinds_are_tested_with_holms_correction_and_references_are_not() -> None:
    kinds = [("blur", "noise")[i % 2] for i in range(REFERENCES * IMAGES)]
    found = compare_over_splits(splits(), ids(), 1 / 3, distortions=kinds)
    p = sorted(group.srcc.p_value for group in found.by_distortion)
    assert sorted(group.p_holm for group in found.by_distortion) == pytest.approx([2 * p[0], max(2 * p[0], p[1])], rel=1e-9)
    assert found.by_reference
    assert all(group.srcc.p_value is None for group in found.by_reference)


def test_without_the_share_of_references_nothing_is_tested() -> None:
    found = compare_over_splits(splits(), ids(), None)
    assert found.differences["srcc"].difference is not None
    assert found.differences["srcc"].p_value is None
    assert any("are not known" in note for note in found.notes)


def test_a_figure_that_one_split_does_not_have_is_not_defined() -> None:
    parts = splits()
    parts[2] = replace(parts[2], a=np.zeros(len(parts[2].a)))
    assert compare_over_splits(parts, ids(), 1 / 3).differences["srcc"].difference is None


def test_further_figures_are_medians_where_every_split_has_them() -> None:
    each = [{"x": 1.0, "of": {"y": 3, "z": None}, "why": ["a"]}, {"x": 3.0, "of": {"y": 5, "z": 2.0}, "why": ["a"]}]
    assert medians_of(each) == {"x": 2.0, "of": {"y": 4.0, "z": None}, "why": ["a"]}
