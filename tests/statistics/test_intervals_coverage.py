"""A small share of benchmarks/coverage.py: intervals cover the true value about as often as their level."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.statistics.correlations import pearson, spearman
from harness.statistics.intervals import fisher, fisher_interval, jackknife
from harness.statistics.reference_resampling import ClusteredPairs

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"
DRAWS, REFERENCES = 160, 25


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    if not SCRIPT.is_file():
        pytest.skip("only a checkout has the benchmarks")
    spec = importlib.util.spec_from_file_location("coverage_simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coverage_simulation"] = module
    spec.loader.exec_module(module)
    return module


def test_intervals_hold_the_truth_and_those_that_take_images_as_independent_do_not(simulation: ModuleType) -> None:
    setting = simulation.SETTINGS["strong effects"]
    a, b, labels, _ = simulation.draw(np.random.default_rng(1), 8000, setting)
    truth = {"srcc": spearman(a, labels), "plcc": pearson(a, labels), "a - b": pearson(a, labels) - pearson(b, labels)}
    held = dict.fromkeys([*truth, "independent"], 0)
    rng = np.random.default_rng(2)
    for _ in range(DRAWS):
        a, b, labels, ids = simulation.draw(rng, REFERENCES, setting)
        one, other = (ClusteredPairs(x, labels, ids, REFERENCES) for x in (a, b))
        intervals = {
            "srcc": fisher_interval(spearman(a, labels), one.srcc_without_each(), 0.95),
            "plcc": fisher_interval(pearson(a, labels), one.plcc_without_each(), 0.95),
        }
        za, zb = (fisher(pearson(x, labels), c.plcc_without_each()) for x, c in ((a, one), (b, other)))
        low, high = jackknife(za[0] - zb[0], za[1] - zb[1]).interval(0.95)
        middle = (za[0] + zb[0]) / 2
        intervals["a - b"] = (
            np.tanh(middle + low / 2) - np.tanh(middle - low / 2),
            np.tanh(middle + high / 2) - np.tanh(middle - high / 2),
        )
        for name, (low, high) in intervals.items():
            held[name] += low <= truth[name] <= high
        # The textbook's interval of a correlation of as many independent images.
        r, half = pearson(a, labels), 1.96 / np.sqrt(len(labels) - 3)
        held["independent"] += np.tanh(np.arctanh(r) - half) <= truth["plcc"] <= np.tanh(np.arctanh(r) + half)
    share = {name: count / DRAWS for name, count in held.items()}
    # Three and a half standard errors of 95 %.
    for name in truth:
        assert 0.89 <= share[name] <= 0.995, share
    assert share["independent"] < 0.75
