"""Pair analysis, outliers, 2AFC and monotonicity, against brute force and worked examples."""

from __future__ import annotations

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import harness.statistics.discrimination as discrimination
from harness.runtime.errors import UsageError
from harness.statistics.discrimination import monotonicity, outlier_ratio, pair_analysis, score_2afc

LABELS, DEVIATION = [0.0, 1.0, 3.0, 4.0], [2.0] * 4
"""With ten raters steps of 1 are similar (z = 1.12), steps of 2 and more different (z = 2.24)."""


def test_pair_analysis_reproduces_the_published_example():
    # VMAF's test of Krasula's method: four stimuli, the pairs (1, 2) and (3, 4) similar. Better/worse and correct are printed
    # there as 1, 1 and .8125, .75; its different/similar area also counts each stimulus against itself, the paper's does not.
    right = pair_analysis([1, 2, 3, 4], LABELS, DEVIATION, 10)
    assert (right.pairs, right.different, right.better_worse, right.correct) == (6, 4, 1.0, 1.0)
    assert right.different_similar == 0.875
    wrong = pair_analysis([3, 1, 2, 4], LABELS, DEVIATION, 10)
    assert (wrong.better_worse, wrong.correct) == (0.8125, 0.75)
    assert wrong.different_similar == 0.25


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(3, 25))
def test_pair_analysis_equals_mann_whitney_over_all_pairs(seed, n):
    rng = np.random.default_rng(seed)
    labels, deviations, raters = rng.integers(0, 6, n) * 1.0, rng.uniform(0, 2, n), rng.integers(1, 20, n)
    scores = rng.integers(0, 8, n) * 1.0
    better, similar = [], []
    for i, j in itertools.combinations(range(n), 2):
        error = np.hypot(deviations[i] / np.sqrt(raters[i]), deviations[j] / np.sqrt(raters[j]))
        if stats.norm.cdf(abs(labels[i] - labels[j]) / error) >= 0.95:
            better.append((scores[i] - scores[j]) * np.sign(labels[i] - labels[j]))
        else:
            similar.append(abs(scores[i] - scores[j]))
    found = pair_analysis(scores, labels, deviations, raters)
    assert (found.pairs, found.different) == (n * (n - 1) // 2, len(better))
    if better and similar:
        area = stats.mannwhitneyu(np.abs(better), similar).statistic / len(better) / len(similar)
        assert found.different_similar == pytest.approx(area)
    else:
        assert found.different_similar is None
    if better:
        assert found.better_worse == pytest.approx(stats.mannwhitneyu(better, -np.array(better)).statistic / len(better) ** 2)
        assert found.correct == pytest.approx(np.mean(np.array(better) > 0))
    else:
        assert found.correct is None
    json.dumps(found.json(), allow_nan=False)


def test_very_large_sets_are_judged_on_a_fixed_part_and_say_so(monkeypatch):
    rng = np.random.default_rng(0)
    labels = rng.normal(size=300)
    scores = labels + rng.normal(size=300)
    whole = pair_analysis(scores, labels, np.full(300, 0.5), 15)
    monkeypatch.setattr(discrimination, "_MOST_PAIRS", 10_000)
    part = pair_analysis(scores, labels, np.full(300, 0.5), 15)
    assert part.pairs <= 10_000
    assert "random part of 141 of the 300" in part.note
    assert part.better_worse == pytest.approx(whole.better_worse, abs=0.05)
    assert part == pair_analysis(scores, labels, np.full(300, 0.5), 15)


def test_without_deviations_or_raters_pair_figures_are_not_defined():
    assert pair_analysis([1, 2], [1, 2], None, 10) is None
    assert pair_analysis([1, 2], [1, 2], [1, 1], None) is None
    assert outlier_ratio([1, 2], [1, 2], None, None) is None
    assert outlier_ratio([1, 2], [1, 2], [1, 1], 10) is None


def test_impossible_deviations_and_raters_are_refused():
    with pytest.raises(UsageError, match="negative"):
        pair_analysis([1, 2], [1, 2], [-1, 1], 10)
    with pytest.raises(UsageError, match="below 1"):
        pair_analysis([1, 2], [1, 2], [1, 1], [0, 3])


def test_outliers_lie_further_from_the_curve_than_their_interval():
    scores = np.linspace(0, 1, 50)
    labels = scores * 4 + 1
    labels[10] += 1.0
    labels[30] -= 1.0
    # The t quantile of 15 degrees is 2.131: 2.131 * 0.8 / sqrt(16) = 0.426.
    assert outlier_ratio(scores, labels, np.full(50, 0.8), 16, fit="poly3") == pytest.approx(2 / 50)
    # One rater has no deviation.
    assert outlier_ratio(scores, labels, np.full(50, 0.8), 1, fit="poly3") is None


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_outliers_are_labels_whose_t_interval_misses_the_curve(raters, seed):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=60)
    votes = x[:, None] + draw.normal(size=(60, 1)) * 0.3 + draw.normal(size=(60, raters))
    y = votes.mean(axis=1)
    powers = np.vander(x, 4)
    curve = powers @ np.linalg.lstsq(powers, y, rcond=None)[0]
    low, high = stats.t.interval(0.95, raters - 1, loc=y, scale=stats.sem(votes, axis=1))
    expected = np.mean((curve < low) | (curve > high))
    assert outlier_ratio(x, y, votes.std(axis=1, ddof=1), raters, fit="poly3") == pytest.approx(expected)
    assert outlier_ratio(x, y, votes.std(axis=1), raters, fit="poly3", population=True) == pytest.approx(expected)
    assert pair_analysis(x, y, votes.std(axis=1, ddof=1), raters) == pair_analysis(
        x, y, votes.std(axis=1), raters, population=True
    )


def test_the_outlier_ratio_of_dssim_on_kadid10k_is_that_of_its_sample_deviations(shared):
    with open(shared / "data" / "crossval" / "kadid10k.VQMT.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    scores, labels, deviations = ([sign * float(r[c]) for r in rows] for c, sign in (("DSSIM", -1), ("dmos", 1), ("var", 1)))
    assert outlier_ratio(scores, labels, deviations, 30, population=True) == pytest.approx(0.577, abs=5e-4)


def test_2afc_is_the_share_of_raters_who_agree_and_ties_are_one_half():
    assert score_2afc([0.1, 0.4, 0.2], [0.3, 0.2, 0.2], [0.2, 0.6, 1.0]) == pytest.approx((0.8 + 0.6 + 0.5) / 3)
    with pytest.raises(UsageError, match="between 0 and 1"):
        score_2afc([1], [2], [1.5])


def test_monotonicity_counts_the_steps_on_which_scores_fall():
    # Reference r: kind k falls 3 > 2 > 1 (3 of 3 steps), kind l goes 1, 3, 3 (0 of 2 up-steps, one tie: .5 of 3).
    scores = [3, 2, 1, 1, 3, 3, 7]
    kinds, levels = list("kkklllm"), [1, 2, 3, 1, 2, 3, 1]
    found = monotonicity(scores, ["r"] * 7, kinds, levels)
    assert found.steps == pytest.approx(3.5 / 6)
    assert found.series == 0.5
    assert found.count == 2
    assert found.by_kind == pytest.approx({"k": 1.0, "l": 0.5 / 3})
    # Series belong to one reference each.
    split = monotonicity([2, 5, 1, 3], ["r", "s", "r", "s"], list("kkkk"), [1, 2, 2, 1])
    assert (split.count, split.steps, split.series) == (2, 0.5, 0.5)
    none = monotonicity([1, 2], ["r", "s"], ["k", "k"], [1, 2])
    assert (none.steps, none.series, none.count) == (None, None, 0)
    with pytest.raises(UsageError, match="distortions"):
        monotonicity([1, 2], ["r", "r"], ["k"], [1, 2])
