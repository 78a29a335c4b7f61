"""Bjontegaard's rate difference: known answers, an independent integral, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from harness.statistics.bd_rate import mean_over, places, rate_difference

# The examples that the library's authors publish with it (FAU-LMS/bjontegaard, README.md and example_usage.py).
PUBLISHED = [
    ([9487.76, 4593.60, 2486.44, 1358.24], [40.037, 38.615, 36.845, 34.851],
     [9787.80, 4469.00, 2451.52, 1356.24], [40.121, 38.651, 36.970, 34.987]),
    ([82472.76, 26875.24, 9487.76, 4593.6], [43.825, 41.404, 40.037, 38.615],
     [99896.96, 33952.04, 9787.8, 4469.0], [44.731, 41.875, 40.121, 38.651]),
    ([82472.76, 26875.24, 9487.76, 4593.6, 3600, 2900], [43.825, 41.404, 40.037, 38.615, 36.5, 35.1],
     [99896.96, 33952.04, 9787.8, 4469.0, 4040, 3300], [44.731, 41.875, 40.121, 38.651, 37, 36.5]),
]  # fmt: skip


@pytest.mark.parametrize("method", ["akima", "pchip"])
@pytest.mark.parametrize("curves", PUBLISHED)
def test_published_examples_agree_with_an_integral_taken_another_way(curves: tuple[list[float], ...], method: str):
    made = {"akima": Akima1DInterpolator, "pchip": PchipInterpolator}[method]
    logs = [made(np.sort(q), np.log10(np.sort(r))) for r, q in (curves[:2], curves[2:])]
    low, high = max(min(curves[1]), min(curves[3])), min(max(curves[1]), max(curves[3]))
    at = np.linspace(low, high, 200_001)
    d = logs[1](at) - logs[0](at)
    expected = 100 * (10 ** float(np.mean((d[1:] + d[:-1]) / 2)) - 1)
    assert rate_difference(*curves, method=method).percent == pytest.approx(expected, abs=1e-4)  # type: ignore[arg-type]


rates = st.lists(st.floats(0.01, 50), min_size=4, max_size=9, unique_by=lambda x: round(x, 2))


@settings(deadline=None, max_examples=60)
@given(rates, st.sampled_from(["akima", "pchip"]), st.floats(-0.8, 3), st.randoms())
def test_the_same_image_at_scaled_rates_differs_by_exactly_the_scale(rate, method, share, random):
    rate = np.sort(np.round(rate, 2))
    quality = np.sort([random.uniform(20, 50) for _ in rate])
    if (np.diff(quality) < 1e-3).any() or (rate <= 0).any():
        return
    order = list(range(len(rate)))
    random.shuffle(order)
    found = rate_difference(rate, quality, rate[order] * (1 + share), quality[order], method)
    assert found.percent == pytest.approx(100 * share, abs=1e-6)
    assert found.overlap == 1


def test_ten_percent_more_bytes_is_ten_percent():
    rate, quality = [0.2, 0.4, 0.8, 1.6, 3.0], [30.0, 33, 36, 38.5, 41]
    for method in ("akima", "pchip"):
        assert rate_difference(rate, quality, np.multiply(rate, 1.1), quality, method).percent == pytest.approx(10, abs=1e-9)  # type: ignore[arg-type]


RATE, QUALITY = np.array([1.0, 2, 4, 8]), np.array([30.0, 33, 36, 39])


@pytest.mark.parametrize(
    ("rate", "quality", "reason"),
    [
        (RATE[:3], QUALITY[:3], "the codec has 3 points, and 4 are needed"),
        (RATE, QUALITY + 20, "do not overlap"),
        (RATE, QUALITY + 9, "do not overlap"),
        (RATE, np.array([30.0, 33, 32, 39]), "not monotone: the quality falls between the rates 2 and 4"),
        (RATE, np.array([30.0, 33, 33, 39]), "the quality stays the same between the rates 2 and 4"),
        (np.array([1.0, 2, 2, 8]), QUALITY, "has two values at one rate"),
        (np.array([0.0, 2, 4, 8]), QUALITY, "a rate that is not above 0"),
        (RATE, np.array([30.0, np.nan, 36, 39]), "not finite"),
    ],
)
def test_what_has_no_rate_difference_is_said_and_never_extrapolated(rate, quality, reason: str):
    found = rate_difference(RATE, QUALITY, rate, quality)
    assert found.percent is None
    assert reason in found.reason


def test_the_mean_over_images_has_the_interval_of_students_t():
    from scipy import stats

    values = [-12.0, -8.5, -10.1, 2.3, -4.4]
    found = mean_over(values)
    expected = stats.ttest_1samp(values, 0)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (mean_over([3.0]).mean, mean_over([3.0]).ci, mean_over([]).mean) == (3.0, None, None)
    assert mean_over([10.0, 10.0]).ci == (10.0, 10.0)


def test_places_put_the_best_first_and_test_the_others_paired_by_image():
    draw = np.random.default_rng(0)
    images = draw.normal(30, 5, 40)  # how hard an image is cancels in the difference
    values = np.stack([images + draw.normal(0, 0.1, 40), images + 1 + draw.normal(0, 0.1, 40), images + 1.001])
    found = places(["a", "b", "c"], values)
    assert [(p.name, p.best) for p in found][-1] == ("a", False)
    assert {p.name for p in found if p.best} == {"b", "c"}
    assert found[-1].p_adjusted is not None
    assert found[-1].p_adjusted < 0.001
    assert places(["a", "b", "c"], values, higher_is_better=False)[0].name == "a"


def test_a_truly_best_codec_is_left_out_of_the_group_no_more_often_than_stated():
    """Ten equally good codecs on twelve images: tests against the observed best alone left one out in every seventh table."""
    draw = np.random.default_rng(1)
    left_out = 0
    for _ in range(200):
        values = draw.normal(30, 5, 12) + draw.normal(0, 1, (10, 12))
        left_out += not all(p.best for p in places([str(i) for i in range(10)], values))
    assert left_out <= 18  # 5 % of 200, and 2.6 standard errors


def test_below_six_images_every_codec_stays_in_the_group():
    found = places(["a", "b"], np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 3.0, 4.0, 5.0, 6.1]]))
    assert [(p.name, p.p_adjusted, p.best) for p in found] == [("b", None, True), ("a", None, True)]
    assert found[1].difference is not None
    assert found[1].difference.ci is not None
