"""Differences between models: paired by reference, checked against independent computations and worked examples of papers."""

from __future__ import annotations

import csv
import inspect
import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.runtime.errors import UsageError
from harness.statistics.best_group import best_group
from harness.statistics.comparison import Difference, compare, williams_steiger
from harness.statistics.intervals import bootstrap_interval, cluster_draws, holm
from harness.statistics.power import references_needed

SCIPY = {"srcc": stats.spearmanr, "plcc": stats.pearsonr, "krcc": stats.kendalltau}


def made(references=20, images=12, seed=0, spread=0.6):
    """Scores of two models (b noisier), labels, reference ids, kinds, levels."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(references), images)
    kind, level = np.arange(len(ids)) % 3, np.arange(len(ids)) // 3 % 4 + 1
    labels = -level + 0.4 * rng.normal(size=len(ids))
    shared = spread * rng.normal(size=references)[ids]
    a = labels + shared + 0.5 * rng.normal(size=len(ids))
    b = labels + shared + 0.9 * rng.normal(size=len(ids))
    return a, b, labels, [f"r{i:03}" for i in ids], [f"kind{k}" for k in kind], level.tolist()


def test_figures_equal_scipy_and_swapping_the_models_turns_every_sign():
    a, b, labels, ids, *_ = made()
    there, back = compare(a, b, labels, ids), compare(b, a, labels, ids)
    for name, figure in SCIPY.items():
        d = there.differences[name]
        assert (d.a, d.b) == pytest.approx((figure(a, labels)[0], figure(b, labels)[0]), abs=1e-12)
        assert d.difference == pytest.approx(d.a - d.b)
    for name, d in there.differences.items():
        turned = back.differences[name]
        assert turned.difference == pytest.approx(-d.difference)
        assert turned.ci == pytest.approx((-d.ci[1], -d.ci[0]))
        assert turned.p_value == pytest.approx(d.p_value)
    assert there.independent[0].williams_t == pytest.approx(-back.independent[0].williams_t)
    main = there.differences["main"]
    assert main.difference == pytest.approx(there.differences["srcc"].difference + there.differences["plcc"].difference)


def test_the_paired_jackknife_equals_an_independent_computation():
    a, b, labels, ids, *_ = made(seed=3)
    ids = np.array(ids)
    names = np.unique(ids)
    k = len(names)
    for name, figure in SCIPY.items():
        z = [np.arctanh(figure(x, labels)[0]) for x in (a, b)]
        without = [np.arctanh([figure(x[ids != g], labels[ids != g])[0] for g in names]) for x in (a, b)]
        pseudo = k * (z[0] - z[1]) - (k - 1) * (without[0] - without[1])
        error = stats.sem(pseudo)
        centre = z[0] - z[1] + np.clip(pseudo.mean() - (z[0] - z[1]), -error / 2, error / 2)
        degrees = min(k - 1, 2 * k / (stats.kurtosis(pseudo, bias=False) + 3 - (k - 3) / (k - 1)))
        middle = (z[0] + z[1]) / 2
        ends = centre + np.array([-1, 1]) * stats.t.ppf(0.975, degrees) * error
        found = compare(a, b, labels, ids.tolist()).differences[name]
        assert found.ci == pytest.approx(np.tanh(middle + ends / 2) - np.tanh(middle - ends / 2), abs=1e-9)
        assert found.p_value == pytest.approx(2 * stats.t.sf(abs(centre) / error, degrees), rel=1e-6)
        assert found.error == pytest.approx(error)
        assert found.method == "jackknife"


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.integers(3, 30), st.sampled_from(["jackknife", "bootstrap"]), st.sampled_from([0.8, 0.95]))
@example(seed=200, references=6, method="bootstrap", confidence=0.95)  # no interval of any level holds 0
@example(seed=7993, references=3, method="bootstrap", confidence=0.95)  # ten different samples
def test_an_interval_leaves_out_zero_exactly_when_the_p_value_is_small(seed, references, method, confidence):
    a, b, labels, ids, *_ = made(references=references, images=6, seed=seed)
    found = compare(a, b, labels, ids, method=method, confidence=confidence, draws=400, top=0)
    for name, d in found.differences.items():
        if d.ci is None:
            continue
        assert d.ci[0] <= d.difference + 1e-12
        assert d.difference <= d.ci[1] + 1e-12
        if abs(d.p_value - (1 - confidence)) > 1e-9:
            assert (d.p_value < 1 - confidence) == (not d.ci[0] <= 0 <= d.ci[1]), name


def test_identical_models_do_not_differ():
    a, _, labels, ids, *_ = made()
    found = compare(a, a, labels, ids)
    for d in found.differences.values():
        assert d.difference == 0
        assert d.ci == pytest.approx((0, 0), abs=1e-12)
        assert d.p_value == 1
    assert found.disagreements == ()
    assert found.independent == ()
    boot = compare(a, a, labels, ids, method="bootstrap", draws=50)
    assert boot.differences["srcc"].p_value == 1
    # For figures of ranks a model and its monotone copy are one and the same.
    copied = compare(a, np.exp(a), labels, ids)
    assert copied.differences["srcc"].p_value == 1
    assert copied.differences["plcc"].p_value < 1


def test_perfect_agreement_is_compared_on_its_own_scale():
    _, b, labels, ids, *_ = made()
    found = compare(labels, b, labels, ids)
    for name in ("srcc", "plcc", "krcc", "main"):
        d = found.differences[name]
        assert d.ci[0] < d.difference < d.ci[1]
        assert d.ci[0] > 0
        assert d.p_value < 0.01
        assert d.error is None
    assert found.independent == ()


def test_one_reference_gives_figures_without_intervals():
    a, b, labels, ids, *_ = made(references=1)
    found = compare(a, b, labels, ids, method="bootstrap")
    for d in found.differences.values():
        assert d.difference is not None
        assert d.ci is None
        assert d.p_value is None
    assert any("two references" in note for note in found.notes)


def test_constant_scores_are_not_defined_and_said_so():
    _, b, labels, ids, kinds, levels = made()
    found = compare(np.ones(len(b)), b, labels, ids, distortions=kinds, levels=levels)
    assert found.differences["srcc"].a is None
    assert found.differences["main"].difference is None
    assert found.differences["srcc"].b is not None
    assert any("a are constant" in note for note in found.notes)
    json.dumps(found.json(), allow_nan=False)


# The bootstrap


def test_from_one_hundred_references_on_the_bootstrap_is_used():
    for references, method in ((99, "jackknife"), (100, "bootstrap")):
        a, b, labels, ids, *_ = made(references=references, images=6)
        found = compare(a, b, labels, ids, draws=200)
        assert {found.differences[name].method for name in ("srcc", "plcc", "krcc", "main")} == {method}
        assert found.differences["srcc_within"].method == "t"


def test_bootstrap_and_jackknife_agree_when_references_are_many():
    a, b, labels, ids, *_ = made(references=150, images=8)
    boot, left_out = (compare(a, b, labels, ids, method=m, draws=1000) for m in ("bootstrap", "jackknife"))
    for name in ("srcc", "plcc", "krcc", "main"):
        width = np.ptp(left_out.differences[name].ci)
        assert boot.differences[name].ci == pytest.approx(left_out.differences[name].ci, abs=0.15 * width)
    again = compare(a, b, labels, ids, method="bootstrap", draws=1000)
    assert again == boot
    other = compare(a, b, labels, ids, method="bootstrap", draws=1000, seed=1)
    assert other.differences["srcc"].ci != boot.differences["srcc"].ci


def test_bca_equals_scipys_bootstrap():
    values = np.random.default_rng(5).exponential(size=40) - 0.6
    # scipy calls its generator `rng` from 1.15 on.
    named = "rng" if "rng" in inspect.signature(stats.bootstrap).parameters else "random_state"
    seeded = {named: np.random.default_rng(1)}
    expected = stats.bootstrap((values,), np.mean, n_resamples=4000, method="BCa", **seeded)
    drawn = expected.bootstrap_distribution
    deleted = (values.sum() - values) / 39
    ci, p_value = bootstrap_interval(float(values.mean()), drawn, deleted, 0.95)
    assert ci == pytest.approx(tuple(expected.confidence_interval), abs=1e-9)
    # The p-value is the level whose interval ends at 0.
    at_p, _ = bootstrap_interval(float(values.mean()), drawn, deleted, 1 - p_value)
    assert min(abs(at_p[0]), abs(at_p[1])) < 0.01


def test_draws_take_as_many_references_as_there_are_and_depend_on_the_seed_alone():
    one = cluster_draws(30, 50, 4)
    assert (one.sum(axis=1) == 30).all()
    np.random.default_rng(0).normal()
    assert (one == cluster_draws(30, 50, 4)).all()
    assert (one != cluster_draws(30, 50, 5)).any()


def test_krcc_falls_back_to_the_jackknife_for_references_with_very_many_images():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=4800)
    a, b = labels + rng.normal(size=4800), labels + 2 * rng.normal(size=4800)
    found = compare(a, b, labels, (np.arange(4800) % 3).tolist(), method="bootstrap", draws=20)
    assert found.differences["krcc"].method == "jackknife"
    assert found.differences["srcc"].method == "bootstrap"
    assert any("krcc" in note for note in found.notes)


# Tables


def test_tables_by_kind_level_and_reference_hold_scipys_figures():
    a, b, labels, ids, kinds, levels = made()
    found = compare(a, b, labels, ids, distortions=kinds, levels=levels)
    assert [g.name for g in found.by_distortion] == ["kind0", "kind1", "kind2"]
    assert [g.name for g in found.by_level] == ["1", "2", "3", "4"]
    for groups, column in ((found.by_distortion, kinds), (found.by_level, levels), (found.by_reference, ids)):
        for group in groups:
            rows = np.array([str(v) == group.name for v in column])
            assert group.n == rows.sum()
            assert group.srcc.a == pytest.approx(stats.spearmanr(a[rows], labels[rows])[0])
            assert group.srcc.difference == pytest.approx(group.srcc.a - stats.spearmanr(b[rows], labels[rows])[0])
    for groups in (found.by_distortion, found.by_level):
        assert [g.p_holm for g in groups] == pytest.approx(holm([g.srcc.p_value for g in groups]))
        assert {g.references for g in groups} == {20}
    assert len(found.by_reference) == 20
    assert all(g.srcc.ci is None for g in found.by_reference)
    sizes = [abs(g.srcc.difference) for g in found.by_reference]
    assert sizes == sorted(sizes, reverse=True)
    within = found.differences["srcc_within"]
    d = [g.srcc.difference for g in found.by_reference]
    assert within.difference == pytest.approx(np.mean(d))
    expected = stats.ttest_1samp(d, 0)
    assert within.p_value == pytest.approx(expected.pvalue)
    assert within.ci == pytest.approx(tuple(expected.confidence_interval()))


def test_levels_are_ordered_as_numbers_and_unknown_ones_left_out():
    a, b, labels, ids, *_ = made()
    levels = [None if i < 12 else (i % 12) + 1 for i in range(len(a))]
    names = [g.name for g in compare(a, b, labels, ids, levels=levels).by_level]
    assert names == [str(i) for i in range(1, 13)]


def test_disagreements_are_the_largest_rank_differences():
    labels = np.arange(1.0, 6)
    a, b = labels.copy(), np.array([1.0, 5, 3, 4, 2])
    found = compare(a, b, labels, list("vwxyz"), top=2)
    assert [(d.row, d.rank_a, d.rank_b, d.rank_label) for d in found.disagreements] == [(1, 0.4, 1.0, 0.4), (4, 1.0, 0.4, 1.0)]


def test_json_is_plain_and_complete():
    a, b, labels, ids, kinds, levels = made()
    found = compare(a, b, labels, ids, distortions=kinds, levels=levels)
    document = json.loads(json.dumps(found.json(), allow_nan=False))
    assert document["independent"][0]["assumption"] == "assumes independent images"
    assert document["differences"]["srcc"]["ci"] == list(found.differences["srcc"].ci)


def test_bad_requests_name_every_problem():
    a, b, labels, ids, *_ = made()
    with pytest.raises(UsageError) as caught:
        compare(a[:-1], [float("nan")] * len(b), labels, ids, distortions=["x"], confidence=0.1)
    for text in ("b: 240 of 240 are NaN", "239 a", "distortions: 1 for 240", "confidence"):
        assert text in str(caught.value)
    with pytest.raises(UsageError, match="reference"):
        compare(a, b, labels, None)


# Worked examples


def test_williams_and_steiger_reproduce_the_papers_examples():
    # Steiger (1980), case A, p. 249: r12 = .4, r13 = .5, r23 = .1, n = 103: T2 = -.89; Z1* is printed as -.8913 from a rounded
    # covariance and is -.8887 (cocor's tests).
    case_a = williams_steiger("plcc", 0.4, 0.5, 0.1, 103)
    assert case_a.williams_t == pytest.approx(-0.8913, abs=5e-5)
    assert case_a.steiger_z == pytest.approx(-0.8887185, abs=5e-8)
    # Silver, Hittner & May (2006), depcor: .3, .4, .5, n = 100.
    depcor = williams_steiger("plcc", 0.3, 0.4, 0.5, 100)
    assert (round(depcor.williams_t, 4), round(depcor.williams_p, 4)) == (-1.0767, 0.2843)
    assert (round(depcor.steiger_z, 4), round(depcor.steiger_p, 4)) == (-1.0718, 0.2838)
    assert williams_steiger("plcc", 1.0, 0.5, 0.5, 100) is None
    assert williams_steiger("plcc", 0.1, 0.5, 0.5, 3) is None


def test_holm_steps_down():
    # Sorted p times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_lies_between_the_p_values_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1, p * len(p_values)) + 1e-12
    assert [adjusted[i] for i in np.argsort(p_values, kind="stable")] == sorted(adjusted)


# The best group, planning


def test_the_best_group_holds_what_is_not_significantly_worse():
    a, b, labels, ids, *_ = made(references=40)
    rng = np.random.default_rng(9)
    scores = {
        "worse": b,
        "best": a,
        "near": a + 0.02 * rng.normal(size=len(a)),
        "flat": np.zeros(len(a)),
        "noise": rng.normal(size=len(a)),
    }
    for statistic in ("main", "srcc", "krcc", "plcc"):
        found = best_group(scores, labels, ids, statistic=statistic)
        assert {s.name for s in found if s.best} == {"best", "near"}
        assert [s.name for s in found][2:] == ["worse", "noise", "flat"]
        assert found[0].p_adjusted is None
        assert found[-1].value is None
        adjusted = [s.p_adjusted for s in found[1:4]]
        assert adjusted == sorted(adjusted, reverse=True)
    assert best_group({"only": a}, labels, ids)[0].best
    assert all(s.best for s in best_group({"a": a, "b": b}, labels, ["one"] * len(a)))
    assert not best_group({"flat": np.zeros(len(a))}, labels, ids)[0].best


def test_planning_finds_the_smallest_number_that_satisfies_its_equation():
    observed = Difference("srcc", 0.9, 0.85, 0.05, error=0.05, references=25)
    middle = (np.arctanh(0.9) + np.arctanh(0.85)) / 2

    def detectable(k):
        z = (stats.t.ppf(0.975, k - 1) + stats.t.ppf(0.8, k - 1)) * 0.05 * 5 / np.sqrt(k)
        return np.tanh(middle + z / 2) - np.tanh(middle - z / 2)

    for difference in (0.01, 0.03, 0.1):
        needed = references_needed(observed, difference)
        assert detectable(needed) <= difference < detectable(needed - 1)
        assert references_needed(observed, -difference) == needed
        assert references_needed(observed, difference, power=0.95) > needed
    assert references_needed(observed, 0.0) is None
    assert references_needed(Difference("srcc", None, 0.5, None), 0.1) is None
    with pytest.raises(UsageError, match="cannot differ"):
        references_needed(observed, 2.0)
    with pytest.raises(UsageError, match="power"):
        references_needed(observed, 0.1, power=80)


def test_planned_references_do_show_the_difference_with_the_stated_power():
    a, b, labels, ids, *_ = made(references=400, images=6, spread=0.3)
    pilot = compare(a, b, labels, ids, method="jackknife").differences["srcc"]
    needed = references_needed(pilot, pilot.difference, power=0.8)
    shown = 0
    for seed in range(60):
        a, b, labels, ids, *_ = made(references=needed, images=6, seed=1000 + seed, spread=0.3)
        shown += compare(a, b, labels, ids, method="jackknife", top=0).differences["srcc"].p_value < 0.05
    assert 37 <= shown <= 57


# Real scores


def test_nine_metrics_are_ranked_with_groups_on_real_scores(shared):
    for name, reference, sign in (("kadid10k", "ref_img", -1), ("csiq", "image", 1)):
        with open(shared / "data" / "crossval" / f"{name}.VQMT.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        labels, ids = [float(r["dmos"]) for r in rows], [r[reference] for r in rows]
        scores = {metric: [sign * float(r[metric]) for r in rows] for metric in list(rows[0])[6:]}
        found = best_group(scores, labels, ids, statistic="srcc")
        assert len(found) == 9
        assert found[0].name == "DSSIM"
        assert [s.best for s in found] == [True] + [False] * 8
        assert [s.value for s in found] == sorted((s.value for s in found), reverse=True)


def test_models_that_order_alike_do_not_differ_however_their_figures_round():
    draw = np.random.default_rng(0)
    scores = draw.normal(size=40)
    labels = scores + draw.normal(size=40)
    ids = [str(i // 10) for i in range(40)]
    same = compare(scores, np.exp(scores / 3), labels, ids).differences["srcc"]
    assert same.p_value == 1.0
    assert same.ci == (0.0, 0.0)
