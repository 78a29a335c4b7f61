"""The corrected resampled t test: its formula, its level with models trained again, and groups by it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from harness.statistics.resampled_t_test import corrected_resampled, standings_over_splits

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "resampled.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("resampled_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_test_is_the_papers_formula() -> None:
    d = np.array([0.02, 0.05, -0.01, 0.04, 0.03])
    found = corrected_resampled(d, ratio=5 / 15)
    assert found is not None
    error = np.sqrt((1 / 5 + 5 / 15) * d.var(ddof=1))
    assert (found.mean, found.error, found.degrees) == (pytest.approx(d.mean()), pytest.approx(error), 4)
    assert found.p_value() == pytest.approx(2 * stats.t.sf(d.mean() / error, 4))
    assert found.interval(0.95) == pytest.approx(stats.t.interval(0.95, 4, d.mean(), error))


def test_as_the_shared_images_vanish_it_becomes_the_plain_paired_t_test() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 10))
    found = corrected_resampled(a - b, ratio=1e-12)
    assert found is not None
    assert found.p_value() == pytest.approx(stats.ttest_rel(a, b).pvalue)


@pytest.mark.parametrize("d", [[0.1], [0.1, np.nan, 0.2], [0.1, 0.1, 0.1]])
def test_what_says_nothing_of_other_splits_is_not_defined(d: list[float]) -> None:
    assert corrected_resampled(d, ratio=1 / 3) is None


def test_equal_figures_are_no_difference() -> None:
    found = corrected_resampled(np.zeros(10), ratio=1 / 3)
    assert found is not None
    assert (found.p_value(), found.interval(0.95)) == (1.0, (0.0, 0.0))


def test_a_model_far_below_is_left_out_and_equal_ones_stay() -> None:
    shared = np.random.default_rng(0).normal(0, 0.02, 10)
    wobble = np.random.default_rng(1).normal(0, 0.005, (3, 10))
    found = standings_over_splits(
        {"worse": 0.6 + shared + wobble[0], "a": 0.9 + shared + wobble[1], "b": 0.9 + shared + wobble[2]}, ratio=1 / 3
    )
    assert {s.name: s.best for s in found} == {"a": True, "b": True, "worse": False}
    assert found[0].p_adjusted is None
    assert found[-1].name == "worse"
    # The smaller of the two tests that show it, times the three pairs.
    p = [corrected_resampled(wobble[i] - wobble[0] + 0.3, ratio=1 / 3) for i in (1, 2)]
    assert found[-1].p_adjusted == pytest.approx(3 * min(t.p_value() for t in p if t is not None))


def test_where_every_split_gives_one_difference_nobody_is_left_out() -> None:
    found = standings_over_splits({"a": np.full(10, 0.9), "b": np.full(10, 0.8)}, ratio=1 / 3)
    assert [(s.name, s.best) for s in found] == [("a", True), ("b", True)]


def test_models_trained_again_on_every_split_keep_the_level(simulation) -> None:
    """A small share of the grid; 7.5 % is 1.6 standard errors above the level at 200 draws."""
    for learner in ("linear", "neighbours"):
        found = simulation.level(simulation.Cell(learner, 25), draws=200, seed=0)
        assert found["corrected"] <= 0.075
        assert found["plain"] >= 0.15


def test_truly_best_models_are_seldom_left_out_of_the_group(simulation) -> None:
    wrong, size = simulation.left_out(simulation.Cell("linear", 25, models=4, half_worse=True), draws=60, seed=0)
    assert wrong <= 0.07
    assert size >= 0.5
