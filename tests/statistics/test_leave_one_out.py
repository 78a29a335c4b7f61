"""Figures with each reference left out, as records keep them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.statistics.agreement import agreement
from harness.statistics.best_group import best_group, standings
from harness.statistics.leave_one_out import LeaveOneOut


def made(references: int, images: int = 6, seed: int = 0):
    draw = np.random.default_rng(seed)
    ids = np.repeat([f"r{i:04}" for i in range(references)], images)
    labels = draw.normal(size=len(ids))
    return labels + draw.normal(size=len(ids)), labels, ids


def test_values_are_scipys_on_the_images_that_are_left():
    scores, labels, ids = made(7)
    left_out = agreement(scores, labels, ids.tolist()).left_out
    assert left_out.references == tuple(sorted(set(ids)))
    for name, figure in (("srcc", stats.spearmanr), ("plcc", stats.pearsonr), ("krcc", stats.kendalltau)):
        expected = [figure(scores[ids != r], labels[ids != r])[0] for r in left_out.references]
        assert left_out.figures[name] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 1000), st.sampled_from([3, 40, 1200]))
def test_the_images_order_does_not_matter_even_with_references_in_groups(seed, references):
    """The images' order does not matter even where references are left out in groups."""
    scores, labels, ids = made(references, 2)
    order = np.random.default_rng(seed).permutation(len(ids))
    one, other = (
        agreement(s, y, r.tolist()).left_out for s, y, r in ((scores, labels, ids), (scores[order], labels[order], ids[order]))
    )
    assert one.references == other.references
    assert len(one.references) == min(references, 1000)
    for name, values in one.figures.items():
        assert other.figures[name] == pytest.approx(values, abs=1e-12)


def test_they_survive_json_and_are_no_part_of_an_agreements_own():
    scores, labels, ids = made(5)
    figures = agreement(scores, labels, ids.tolist())
    assert LeaveOneOut.read(json.loads(json.dumps(figures.left_out.json()))) == figures.left_out
    assert LeaveOneOut.read(None) is None
    assert "left_out" not in figures.json()
    assert agreement(scores, labels).left_out is None
    assert agreement(scores, labels, "images").left_out is None


def test_a_figure_that_is_undefined_without_some_reference_is_left_out_itself():
    labels, ids = np.array([1.0, 2, 3, 4, 5, 6]), list("aabbbb")
    left_out = agreement([1.0, 2, 7, 7, 7, 7], labels, ids).left_out
    assert left_out.references == ("a", "b")
    assert left_out.figures == {}


def test_standings_from_what_is_left_out_are_those_from_scores():
    scores, labels, ids = made(15)
    models = {"a": scores, "b": scores + 0.1 * labels, "c": np.random.default_rng(3).normal(size=len(labels))}
    kept = {name: agreement(values, labels, ids.tolist()) for name, values in models.items()}
    from_records = standings({n: (f.srcc, np.array(f.left_out.figures["srcc"])) for n, f in kept.items()}, "srcc")
    from_scores = best_group(models, labels, ids.tolist(), statistic="srcc")
    assert [(s.name, s.best) for s in from_records] == [(s.name, s.best) for s in from_scores]
    assert [s.p_adjusted for s in from_records] == pytest.approx([s.p_adjusted for s in from_scores])


def test_shares_are_compared_by_changing_signs_of_their_differences():
    draw = np.random.default_rng(1)
    a, b = draw.uniform(0.5, 1, 40), draw.uniform(0.4, 0.9, 40)
    figures = {name: (float(v.mean()), (v.sum() - v) / 39) for name, v in (("a", a), ("b", b))}
    first, second = standings(figures, "score_2afc")
    expected = stats.ttest_rel(a, b)
    assert (first.name, first.best) == ("a", True)
    # With two models that is Fisher's randomization test of the mean difference, close to the t test.
    assert second.p_adjusted == pytest.approx(expected.pvalue, abs=0.01)
