from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def fidelity():
    path = HOME / "benchmarks" / "fidelity.py"
    if not path.is_file():
        pytest.skip("only a checkout has the benchmarks")
    spec = importlib.util.spec_from_file_location("fidelity", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["fidelity"] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_not_run_is_never_said_to_agree(fidelity):
    result = fidelity.Result(fidelity.OFFICIAL[0], (), "no weights")
    assert result.verdict() == "NOT RUN: no weights"
    text = fidelity.document([result], [])
    assert text.count("not run") >= 5
    assert "every published digit" not in text


def test_a_wrong_last_digit_is_a_difference(fidelity):
    row = fidelity.Row("m", ("0.05079", "21.60"), "somebody")
    assert fidelity.Result(row, (0.050794, 21.5951)).verdict() == "every published digit"
    assert fidelity.Result(row, (0.050796, 21.5951)).verdict() == "differs"
    assert fidelity.Result(row, (0.050794, 21.5949)).verdict() == "differs"
    within = row._replace(tolerance=1e-3)
    assert fidelity.Result(within, (0.0512, 21.6005)).verdict() == "within 0.001"
    assert fidelity.Result(within, (0.0512, 21.602)).verdict() == "NOT within 0.001"


def test_the_document_says_what_the_metrics_give_today(fidelity, shared):
    written = (HOME / "docs" / "fidelity.md").read_text(encoding="utf-8")
    fast = [row for row in fidelity.OFFICIAL if row.model in ("psnr", "ssim", "ms-ssim")]
    for row in fast:
        result = fidelity.measure(row, shared / "data" / "tid2013-pairs")
        assert result.verdict() == "every published digit"
        for line in fidelity._details([result]).splitlines()[2:]:
            assert "".join(line.split()) in "".join(written.split())
