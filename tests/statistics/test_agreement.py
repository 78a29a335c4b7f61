"""Agreement: figures equal scipy's, undefined figures are None with a note, intervals are over references."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, special, stats

from harness.runtime.errors import UsageError
from harness.statistics.agreement import agreement
from harness.statistics.comparison import compare
from harness.statistics.correlations import codes, kendall, midranks, pearson, spearman
from harness.statistics.curve_fitting import fit_curve
from harness.statistics.intervals import cluster_draws, cluster_limit, fisher, fisher_interval, jackknife, pooled_clusters
from harness.statistics.reference_resampling import ClusteredPairs, figures_of

SCIPY = {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}


def scipys(statistic: str, x: np.ndarray, y: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(SCIPY[statistic](x, y)[0]) if len(x) > 1 else np.nan


@st.composite
def tied_data(draw, smallest=2, largest=30):
    """Scores and labels with many ties, and references."""
    n = draw(st.integers(smallest, largest))
    values = st.lists(st.integers(-5, 5), min_size=n, max_size=n)
    scale = draw(st.sampled_from([1.0, 0.1, 1e-6, 1e6]))
    x, y, ids = (np.array(draw(values), dtype=float) for _ in range(3))
    return x * scale, y, codes(ids // 3)


def made(n=120, references=12, seed=0, noise=1.0):
    """Well-behaved scores and labels; a reference shifts its scores."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n) % references
    y = rng.normal(size=n)
    return y + noise * rng.normal(size=n) + 0.5 * rng.normal(size=references)[ids], y, [f"r{i:02}" for i in ids]


@pytest.mark.slow
@settings(deadline=None)
@given(tied_data())
def test_correlations_equal_scipy_with_ties(data):
    x, y, _ = data
    for statistic, ours in (("srcc", spearman), ("plcc", pearson), ("krcc", kendall)):
        assert ours(x, y) == pytest.approx(scipys(statistic, x, y), abs=1e-12, nan_ok=True)
    np.testing.assert_array_equal(midranks(x), stats.rankdata(x))


@pytest.mark.parametrize("n", [1000, 4097])
def test_correlations_equal_scipy_on_longer_columns(n):
    rng = np.random.default_rng(n)
    y = rng.normal(size=n)
    for x in (y + rng.normal(size=n), np.round(y, 1), rng.exponential(size=n) * 1e-3 + 1e6, rng.permutation(n) * 2.0**700):
        found = agreement(x, y, intervals=False)
        for statistic in SCIPY:
            # scipy overflows on the last.
            expected = scipys(statistic, x if x.max() < 1e100 else x / 2.0**700, y)
            assert getattr(found, statistic) == pytest.approx(expected, abs=1e-10)
        assert found.main == found.srcc + found.plcc


@settings(deadline=None, max_examples=15)
@given(tied_data(smallest=4), st.integers(0, 2**32 - 1))
def test_order_of_rows_does_not_matter(data, seed):
    x, y, unit = data
    order = np.random.default_rng(seed).permutation(len(x))
    one, other = agreement(x, y, unit.tolist()), agreement(x[order], y[order], unit[order].tolist())
    for name in ("srcc", "plcc", "krcc", "srcc_within", "plcc_fitted"):
        assert (getattr(one, name) is None) == (getattr(other, name) is None)
        if getattr(one, name) is not None:
            assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-6)
    for name, interval in one.ci.items():
        assert (interval is None) == (other.ci[name] is None)
        if interval is not None and name != "plcc_fitted":
            assert interval == pytest.approx(other.ci[name], abs=1e-9)


@settings(deadline=None)
@given(tied_data())
def test_srcc_and_krcc_ignore_increasing_transforms_and_plcc_affine_ones(data):
    x, y, _ = data
    assume(np.ptp(x) > 0 and np.ptp(y) > 0)
    # Monotone on the few distinct values there are, without rounding two of them into one.
    curved = np.exp(midranks(x) / len(x)) ** 3
    assert spearman(curved, y) == pytest.approx(spearman(x, y), abs=1e-12)
    assert kendall(curved, y) == kendall(x, y)
    assert pearson(3.7 * x - 1.1, 0.2 * y + 5) == pytest.approx(pearson(x, y), abs=1e-9)


def test_a_wrong_sign_is_shown_in_every_figure():
    x, y, ids = made()
    right, wrong = agreement(x, y, ids), agreement(-x, y, ids)
    for name in ("srcc", "plcc", "krcc", "main", "plcc_fitted", "srcc_within"):
        assert getattr(right, name) > 0.1
        assert getattr(wrong, name) == pytest.approx(-getattr(right, name), abs=1e-6)
    assert wrong.ci["srcc"] == pytest.approx([-v for v in reversed(right.ci["srcc"])])
    for fit in ("logistic5", "poly3"):
        assert agreement(-x, y, fit=fit).plcc_fitted < 0 < agreement(x, y, fit=fit).plcc_fitted


# Resampling and intervals


@pytest.mark.parametrize("few", [0, 4096])
@settings(deadline=None, max_examples=30)
@given(tied_data())
def test_figures_without_each_reference_equal_scipy_on_the_other_images(few, data):
    """`few`: above this number of images SRCC is computed reference by reference."""
    x, y, unit = data
    units = int(unit.max()) + 1
    whole = ClusteredPairs(x, y, unit, units)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.statistics.reference_resampling._FEW_IMAGES", few)
        found = {statistic: getattr(whole, f"{statistic}_without_each")() for statistic in SCIPY}
    for statistic in SCIPY:
        expected = [scipys(statistic, x[unit != g], y[unit != g]) for g in range(units)]
        np.testing.assert_allclose(found[statistic], expected, atol=1e-9, equal_nan=True)


@settings(deadline=None, max_examples=30)
@given(tied_data(), st.integers(0, 1000))
def test_resampled_figures_equal_scipy_on_repeated_images(data, seed):
    x, y, unit = data
    units = int(unit.max()) + 1
    whole, weights = ClusteredPairs(x, y, unit, units), cluster_draws(units, 3, seed)
    found = {"srcc": whole.srcc(weights), "plcc": whole.plcc(weights), "krcc": whole.krcc_resampled(weights)}
    for row, taken in enumerate(weights):
        times = taken[unit].astype(int)
        for statistic in SCIPY:
            expected = scipys(statistic, np.repeat(x, times), np.repeat(y, times))
            assert found[statistic][row] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(deadline=None, max_examples=30)
@given(tied_data(), st.integers(0, 1000))
def test_many_resamplings_at_once_equal_one_after_the_other(data, seed):
    """From so many rows on SRCC comes from sums over units; labels' work is shared by two models."""
    x, y, unit = data
    units = int(unit.max()) + 1
    weights = np.concatenate([cluster_draws(units, 2 * units + 1, seed), 1.0 - np.eye(units)])
    one, many = ClusteredPairs(x, y, unit, units), ClusteredPairs(x, y, unit, units)
    other = ClusteredPairs(y - x, y, unit, units, many._labels)
    alone = np.array([one.srcc(row[None])[0] for row in weights])
    np.testing.assert_allclose(many.srcc(weights), alone, atol=1e-12, equal_nan=True)
    np.testing.assert_allclose(many.srcc_without_each(), one.srcc_without_each(), atol=1e-12, equal_nan=True)
    expected = ClusteredPairs(y - x, y, unit, units)
    np.testing.assert_allclose(other.srcc(weights), [expected.srcc(row[None])[0] for row in weights], atol=1e-12, equal_nan=True)
    np.testing.assert_allclose(other.krcc_resampled(weights), expected.krcc_resampled(weights), atol=1e-12, equal_nan=True)


def test_models_in_threads_have_the_figures_that_they_have_alone(monkeypatch: pytest.MonkeyPatch):
    draw = np.random.default_rng(3)
    unit, labels = np.arange(400) % 12, np.round(draw.normal(size=400), 1)
    models = [np.round(labels + draw.normal(size=400), digits) for digits in (1, 3, 9)]
    given = models, labels, unit, 12, ["srcc", "plcc", "krcc", "main"], cluster_draws(12, 50, 0)
    alone = [figures_of(models[i : i + 1], *given[1:])[0] for i in range(3)]
    monkeypatch.setattr("harness.statistics.reference_resampling._FROM_THREADS", 0)
    for one, other in zip(figures_of(*given), alone, strict=True):
        for found, expected in zip(vars(one).values(), vars(other).values(), strict=True):
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("largest", [300, 40_000])
def test_sums_over_references_of_any_size_are_exact(largest):
    """A reference with more images than 16 bits count takes wider numbers."""
    draw = np.random.default_rng(largest)
    unit = np.repeat([0, 1, 2], [largest, largest // 2, 40])
    x, y = (np.round(draw.normal(size=len(unit)), digits) for digits in (1, 4))
    weights = np.concatenate([cluster_draws(3, 12, 0), 1.0 - np.eye(3)])
    pairs = ClusteredPairs(x, y, unit, 3)
    for row, found in zip(weights, pairs.srcc(weights), strict=True):
        times = row[unit].astype(int)
        assert found == pytest.approx(scipys("srcc", np.repeat(x, times), np.repeat(y, times)), abs=1e-12)
    assert "_products" in vars(pairs)


def test_plcc_survives_the_loss_of_the_reference_that_carries_all_variance():
    y = np.array([0.0, 1.0, 2.0, 3.0, 1e9, -1e9])
    x = np.array([0.1, 0.9, 2.2, 2.8, 1e9, -1e9])
    found = ClusteredPairs(x, y, np.array([0, 0, 1, 1, 2, 2]), 3).plcc_without_each()
    assert found[2] == pytest.approx(stats.pearsonr(x[:4], y[:4])[0], abs=1e-6)


def test_the_jackknife_of_a_mean_is_the_textbook_standard_error():
    values = np.random.default_rng(3).exponential(size=20)
    deleted = (values.sum() - values) / 19
    found = jackknife(float(values.mean()), deleted)
    assert found.centre == pytest.approx(values.mean())
    assert found.error == pytest.approx(stats.sem(values))
    kurtosis = stats.kurtosis(values, bias=False) + 3
    assert found.degrees == pytest.approx(2 / ((kurtosis - 17 / 19) / 20))
    assert found.p_value() == pytest.approx(2 * stats.t.sf(values.mean() / stats.sem(values), found.degrees))


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40))
def test_degrees_of_freedom_never_exceed_references_less_one(values):
    values = np.array(values)
    found = jackknife(float(values.mean()), (values.sum() - values) / (len(values) - 1))
    assert min(2.0, len(values) - 1) <= found.degrees <= len(values) - 1


def test_an_interval_equals_an_independent_computation():
    x, y, ids = made(n=200, references=25, seed=5)
    ids = np.array(ids)
    z = np.arctanh(stats.spearmanr(x, y)[0])
    without = np.arctanh([stats.spearmanr(x[ids != g], y[ids != g])[0] for g in np.unique(ids)])
    pseudo = 25 * z - 24 * without
    error = stats.sem(pseudo)
    shift = np.clip(pseudo.mean() - z, -error / 2, error / 2)
    degrees = min(24, 2 * 25 / (stats.kurtosis(pseudo, bias=False) + 3 - 22 / 24))
    expected = np.tanh(z + shift + np.array([-1, 1]) * stats.t.ppf(0.975, degrees) * error)
    assert agreement(x, y, ids.tolist()).ci["srcc"] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(tied_data(smallest=3), st.sampled_from([0.5, 0.8, 0.95, 0.999]))
def test_intervals_contain_their_figure_and_stay_in_range(data, confidence):
    x, y, unit = data
    found = agreement(x, y, unit.tolist(), confidence=confidence)
    for name, interval in found.ci.items():
        if interval is not None:
            reach = 2 if name == "main" else 1
            assert -reach - 1e-9 <= interval[0] <= getattr(found, name) + 1e-9
            assert getattr(found, name) - 1e-9 <= interval[1] <= reach + 1e-9


def test_more_confidence_is_a_wider_interval():
    x, y, ids = made()
    narrow, wide = (agreement(x, y, ids, confidence=c).ci["srcc"] for c in (0.8, 0.99))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_perfect_agreement_has_no_interval_and_a_note_says_so():
    _, y, ids = made()
    for sign in (1, -1):
        found = agreement(sign * y, y, ids)
        for name in ("srcc", "plcc", "krcc"):
            assert getattr(found, name) == pytest.approx(sign, abs=1e-12)
            assert found.ci[name] is None
        assert found.ci["main"] is None
        assert any("srcc, plcc" in note and "agreement is perfect" in note for note in found.notes)
    assert found.main == pytest.approx(-2, abs=1e-12)


def test_two_references_of_two_images_say_nothing_of_others():
    found = agreement([1.0, 2, 3, 4], [1.1, 1.9, 3.2, 3.9], ["a", "a", "b", "b"])
    assert found.srcc == 1
    assert 0.9 < found.plcc < 1
    # Without either reference two images are left, whose correlation is always 1 or -1.
    assert set(found.ci.values()) == {None}
    noted = " ".join(found.notes)
    assert all(name in noted for name in ("srcc", "plcc", "krcc", "main"))
    alike = compare([1.0, 2, 3, 4], [2.0, 1, 3, 4], [1.1, 1.9, 3.2, 3.9], ["a", "a", "b", "b"], top=0).differences
    assert alike["srcc"].difference > 0
    assert (alike["srcc"].ci, alike["srcc"].p_value) == (None, None)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from("abc")), min_size=2, max_size=12))
def test_a_figure_without_an_interval_always_has_its_note(rows):
    x, y, ids = zip(*rows, strict=True)
    found = agreement(x, y, ids)
    noted = " ".join(found.notes)
    for name, interval in found.ci.items():
        if getattr(found, name) is not None and interval is None:
            assert "no intervals" in noted or re.search(rf"no interval of [a-z_, ]*\b{name}\b", noted)


def test_an_interval_exists_when_all_disagreement_sits_in_one_reference():
    y = np.arange(20.0)
    x = y.copy()
    x[:4] = x[3::-1]
    low, high = agreement(x, y, (np.arange(20) // 4).tolist()).ci["srcc"]
    assert -1 < low < stats.spearmanr(x, y)[0] < high < 1


def test_the_tangent_of_fishers_scale_is_used_only_where_z_is_infinite():
    z, without = fisher(0.5, np.array([0.4, 1.0]))
    assert z == np.arctanh(0.5)
    np.testing.assert_allclose(without, z + np.array([-0.1, 0.5]) / 0.75)
    np.testing.assert_allclose(fisher(0.5, np.array([0.4, 0.9]))[1], np.arctanh([0.4, 0.9]))
    assert fisher_interval(0.5, np.array([0.4]), 0.95) is None


def test_without_references_intervals_need_independent_images():
    """Without references there are no intervals unless images are said to be independent."""
    x, y, _ = made()
    bare = agreement(x, y)
    assert set(bare.ci.values()) == {None}
    assert bare.references is None
    assert any("reference" in note for note in bare.notes)
    images = agreement(x, y, "images")
    assert images.references is None
    assert images.ci == agreement(x, y, list(range(len(x)))).ci
    assert any("independent" in note for note in images.notes)
    assert set(agreement(x, y, "images", intervals=False).ci.values()) == {None}


def test_many_references_are_pooled_without_changing_the_interval_much():
    n = 3000
    x, y, _ = made(n=n, references=n, seed=2)
    unit = np.arange(n)
    pooled, units = pooled_clusters(unit, n, 300)
    assert units == 300
    assert np.bincount(pooled).tolist() == [10] * 300
    assert pooled_clusters(pooled, 300, 300)[0] is pooled
    exact, rough = (
        fisher_interval(spearman(x, y), ClusteredPairs(x, y, u, k).srcc_without_each(), 0.95)
        for u, k in ((unit, n), (pooled, units))
    )
    assert np.ptp(rough) == pytest.approx(np.ptp(exact), rel=0.15)
    assert cluster_limit(1_000_000) == 250
    assert cluster_limit(5000) >= 5000


def test_few_references_are_marked():
    for references, few in ((9, True), (10, False)):
        x, y, ids = made(references=references)
        assert agreement(x, y, ids).few_references is few
        assert agreement(x, y, ids).references == references


def test_srcc_within_is_the_mean_over_references():
    x, y, ids = made()
    x[np.array(ids) == "r03"] = 7.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        each = [stats.spearmanr(x[np.array(ids) == g], y[np.array(ids) == g])[0] for g in sorted(set(ids))]
    found = agreement(x, y, ids)
    assert found.srcc_within == pytest.approx(np.nanmean(each))
    assert any("leaves out 1 of 12 references" in note for note in found.notes)
    assert agreement(x, y).srcc_within is None
    assert agreement(x, y, list(range(len(x)))).srcc_within is None


def test_23200_images_of_200_references_take_well_under_two_seconds():
    x, y, ids = made(n=23_200, references=200)
    start = time.process_time()
    agreement(x, y, ids)
    assert time.process_time() - start < 2


# Fits


def logistic4(x, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))


def logistic5(x, b1, b2, b3, b4, b5):
    return b1 * (0.5 - 1 / (1 + np.exp(b2 * (x - b3)))) + b4 * x + b5


def squared_error(curve, y):
    return float(np.sum((curve - y) ** 2))


def sigmoid_data(seed=1, n=400):
    rng = np.random.default_rng(seed)
    x = rng.uniform(20, 50, n)
    return x, logistic4(x, 90, 10, 33, 3) + rng.normal(size=n)


def test_logistic4_equals_scipys_curve_fit_where_that_converges():
    x, y = sigmoid_data()
    expected, _ = optimize.curve_fit(logistic4, x, y, p0=[y.max(), y.min(), x.mean(), x.std()])
    found = fit_curve(x, y, "logistic4")
    assert found.parameters == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(found.values, logistic4(x, *expected), atol=1e-4)
    whole = agreement(x, y)
    assert whole.plcc_fitted == pytest.approx(stats.pearsonr(logistic4(x, *expected), y)[0], abs=1e-8)
    assert whole.rmse == pytest.approx(np.sqrt(squared_error(logistic4(x, *expected), y) / len(x)), rel=1e-8)
    assert whole.fit_problem is None


def test_logistic5_equals_scipys_curve_fit_where_that_converges():
    x, y = sigmoid_data(2)
    y = y + 0.8 * x
    expected, _ = optimize.curve_fit(logistic5, x, y, p0=[80, 0.3, 33, 0.5, 50])
    found = fit_curve(x, y, "logistic5")
    assert squared_error(found.values, y) == pytest.approx(squared_error(logistic5(x, *expected), y), rel=1e-8)
    np.testing.assert_allclose(logistic5(x, *found.parameters), found.values, rtol=1e-9)


def test_poly3_is_the_least_squares_cubic():
    x, y = sigmoid_data(3)
    found = fit_curve(x, y, "poly3")
    np.testing.assert_allclose(found.values, np.polyval(np.polyfit(x, y, 3), x), rtol=1e-9)
    np.testing.assert_allclose(found.parameters, np.polyfit(x, y, 3)[::-1], rtol=1e-6)


SHAPES = {
    "sigmoid": lambda x, rng: logistic4(x, 1, 0, 0.5, 0.1),
    "falling": lambda x, rng: -logistic4(x, 1, 0, 0.5, 0.1),
    "line": lambda x, rng: x,
    "saturating": lambda x, rng: 1 - np.exp(-4 * x),
    "accelerating": lambda x, rng: np.exp(4 * x) / 50,
    "step": lambda x, rng: (x > 0.6).astype(float),
    "unrelated": lambda x, rng: rng.normal(size=len(x)),
    "hill": lambda x, rng: -((x - 0.5) ** 2),
}
SPREADS = {
    "even": lambda u: u,
    "skewed": lambda u: u**6,
    "ceiling": lambda u: np.where(u > 0.9, 3.0, u),
    "crowded": lambda u: 1 - 1e-4 * u**3,
    "coarse": lambda u: np.round(u * 7),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("fit", ["logistic4", "logistic5"])
def test_no_logistic_of_a_dense_search_is_better(shape, spread, fit):
    rng = np.random.default_rng(len(shape) + len(spread))
    u = rng.uniform(size=100)
    x = SPREADS[spread](u)
    y = SHAPES[shape](u, rng) + 0.1 * rng.normal(size=100)
    found = fit_curve(x, y, fit)
    best = np.inf
    low, reach = x.min(), np.ptp(x)
    for width in np.geomspace(1e-3, 50, 20) * reach:
        beyond = np.array([10.0, 4.0]) * width
        centres = np.concatenate((low - beyond, np.quantile(x, np.linspace(0, 1, 30)), low + reach + beyond))
        sigmoids = special.expit((x - centres[:, None]) / width)
        columns = [np.ones_like(sigmoids), sigmoids / sigmoids.max(axis=1, keepdims=True), np.broadcast_to(x, sigmoids.shape)]
        span, triangle = np.linalg.qr(np.stack(columns[: 2 if fit == "logistic4" else 3], axis=2))
        values = np.einsum("cnk,ck->cn", span, np.einsum("cnk,n->ck", span, y))
        # A sigmoid that is all but a combination of the other columns adds nothing but rounding.
        sound = np.abs(triangle[:, -1, -1]) > 1e-7
        best = min(best, np.sum((values[sound] - y) ** 2, axis=1).min(initial=np.inf))
    # In noise there is a step between any two images that is a minimum; missing the deepest by a per cent is not a loss.
    assert squared_error(found.values, y) <= best * (1.01 if shape == "unrelated" else 1.001)
    formula = logistic4 if fit == "logistic4" else logistic5
    with np.errstate(over="ignore"):
        again = formula(x, *found.parameters)
    np.testing.assert_allclose(again, found.values, atol=1e-4 * np.ptp(y))


@pytest.mark.parametrize("fit", ["logistic4", "logistic5", "poly3"])
@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0), (1e6, 0), (1, 1e4), (-1, 0), (1e300, 0)])
def test_fitted_figures_do_not_depend_on_the_units(fit, scale, shift):
    x, y = sigmoid_data(4)
    plain, scaled = agreement(x, y, fit=fit), agreement(scale * x + shift, y * 1e3 - 5, fit=fit)
    assert scaled.plcc_fitted == pytest.approx(np.sign(scale) * plain.plcc_fitted, abs=1e-6)
    assert scaled.rmse == pytest.approx(1e3 * plain.rmse, rel=1e-5)


def test_the_limits_of_the_logistic_family_are_fits_and_are_named():
    x = np.linspace(0, 1, 200) ** 3
    rng = np.random.default_rng(0)
    exponential = agreement(x, -np.exp(-9 * x) + 0.01 * rng.normal(size=200))
    assert exponential.fit_problem is None
    assert exponential.plcc_fitted > 0.99
    assert any("exponential" in note for note in exponential.notes)
    line = agreement(x, x)
    assert line.plcc_fitted == pytest.approx(1, abs=1e-9)
    assert any("straight line" in note for note in line.notes)


@pytest.mark.parametrize("fit", ["logistic4", "logistic5", "poly3"])
def test_a_fit_that_cannot_be_is_reported_and_not_guessed(fit):
    few = agreement([1, 2, 3, 4], [1, 2, 3, 5], fit=fit)
    coarse = agreement([0, 1] * 20, np.arange(40), fit=fit)
    for found, text in ((few, "images"), (coarse, "distinct scores")):
        assert found.plcc_fitted is None
        assert found.rmse is None
        assert text in found.fit_problem
        assert found.srcc is not None


# What is not defined, and bad input


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [([1, 1, 1], [1, 2, 3], "scores are constant"), ([1, 2, 3], [2, 2, 2], "labels are constant"), ([1], [2], "two images")],
)
def test_undefined_figures_are_none_with_a_reason(x, y, text):
    found = agreement(x, y, list(range(len(x))))
    assert (found.srcc, found.plcc, found.krcc, found.main) == (None,) * 4
    assert any(text in note for note in found.notes)
    json.dumps(found.json(), allow_nan=False)


def test_one_reference_or_one_with_all_variety_gives_no_interval_but_a_reason():
    """One reference or one that carries all variety gives no interval and a reason."""
    one = agreement([1, 2, 3, 2], [1, 2, 3, 4], ["a"] * 4)
    assert one.ci["srcc"] is None
    assert any("two references" in note for note in one.notes)
    flat = agreement([1, 2, 0, 0], [1, 2, 5, 5], ["a", "a", "b", "b"])
    assert flat.ci["srcc"] is None
    assert any("without one of the references" in note for note in flat.notes)


def test_every_problem_is_in_the_one_message():
    with pytest.raises(UsageError) as caught:
        agreement([1, float("nan"), 3], [1, 2, float("inf"), 4], ["a", "", None], fit="logistc4", confidence=95)
    for text in (
        "scores: 1 of 3",
        "rows 1",
        "labels: 1 of 4",
        "3 scores and 4 labels",
        "2 images have none",
        "'logistic4'",
        "0.95",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("scores", "labels", "ids"),
    [
        ([], [], None),
        (["a"], [1], None),
        ([[1, 2]], [1, 2], None),
        ([1, 2], [1, 2], ["r"]),
        ([1, 2], [1, 2], "image"),
        ([1, 2], [1, 2], [float("nan"), 1]),
        ([1, None], [1, 2], None),
    ],
)
def test_bad_input_is_refused(scores, labels, ids):
    with pytest.raises(UsageError):
        agreement(scores, labels, ids)


def test_json_has_the_contracts_fields_and_no_nan():
    x, y, ids = made()
    for found in (agreement(x, y, ids), agreement(x, y), agreement([1], [1]), agreement(np.ones(5), y[:5], ["a"] * 5)):
        document = json.loads(json.dumps(found.json(), allow_nan=False))
        assert {"n", "srcc", "plcc", "plcc_fitted", "krcc", "rmse", "main", "ci"} <= set(document)
        assert {"srcc", "plcc"} <= set(document["ci"])
    assert agreement(x, y, ids).json()["ci"]["srcc"] == list(agreement(x, y, ids).ci["srcc"])


def test_importing_agreement_imports_nothing_heavy():
    heavy = "print([m for m in ('scipy', 'pandas', 'torch', 'sklearn') if m in sys.modules])"
    code = f"import sys, harness.statistics.agreement; {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ma.array([1.0, 2.0, 3.0], mask=[False, True, False]), "masked"),
        (np.ma.array([1.0, 2.0, 3.0]), "masked"),
        ([1.0, np.ma.masked, 3.0], "masked"),
        (np.array([1 + 0j, 2, 3]), "complex"),
        ([1.0, 2.0, 3j], "complex"),
        ([1.0, np.complex64(2), 3.0], "complex"),
        (np.array([1.0, np.complex128(2 + 1j), 3.0], dtype=object), "complex"),
    ],
)
def test_values_of_which_a_part_would_be_dropped_are_refused_on_either_side(values, words: str):
    with pytest.raises(UsageError, match=f"^labels: .*{words}"):
        agreement([1.0, 2.0, 3.0], values)
    with pytest.raises(UsageError, match=f"^scores: .*{words}"):
        agreement(values, [1.0, 2.0, 3.0])


# Published numbers

PUBLISHED = {
    # VQMTCrossVal's tables, signs as printed there (distances against KADID-10k's MOS and CSIQ's DMOS).
    ("kadid10k", "DSSIM"): (-0.639, -0.856, -0.670),
    ("kadid10k", "SSIMULACRA"): (-0.623, -0.700, -0.508),
    ("kadid10k", "Butteraugli"): (-0.605, -0.735, -0.546),
    ("csiq", "DSSIM"): (0.803, 0.946, 0.793),
    ("csiq", "SSIMULACRA"): (0.793, 0.848, 0.644),
    ("csiq", "Butteraugli"): (0.767, 0.902, 0.722),
}


def crossval(shared: Path, name: str) -> list[dict[str, str]]:
    with open(shared / "data" / "crossval" / f"{name}.VQMT.csv", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("name", "metric"), PUBLISHED)
def test_published_correlations_come_out_to_their_last_digit(shared, name, metric):
    rows = crossval(shared, name)
    found = agreement([float(r[metric]) for r in rows], [float(r["dmos"]) for r in rows], intervals=False)
    assert tuple(round(v, 3) for v in (found.plcc, found.srcc, found.krcc)) == PUBLISHED[name, metric]


def test_real_metrics_can_be_fitted(shared):
    for name, reference, sign in (("kadid10k", "ref_img", -1), ("csiq", "image", 1)):
        rows = crossval(shared, name)
        labels, ids = [float(r["dmos"]) for r in rows], [r[reference] for r in rows]
        for metric in list(rows[0])[6 : 15 if name == "csiq" else 8]:
            found = agreement([sign * float(r[metric]) for r in rows], labels, ids)
            assert found.fit_problem is None
            assert found.plcc_fitted >= found.plcc - 1e-9
            assert found.ci["srcc"][0] < found.srcc < found.ci["srcc"][1]
