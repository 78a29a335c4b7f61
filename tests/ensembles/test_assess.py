"""Gains of ensembles are over the better of the best member and its rescaling alone."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from harness.ensembles.assess import Scored, assess, baseline, out_of_fold, rescaled_member, scored
from harness.ensembles.blends import Blend, Fits, least_squares
from harness.ensembles.members import Images
from harness.ensembles.tables import blend_text
from harness.ensembles.weight_candidates import folds
from harness.models.score_scaling import KINDS, Scaling, fit
from harness.statistics.agreement import agreement
from harness.statistics.comparison import compare

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "ensemble_null.py"


def curved(seed: int = 0, references: int = 30, images: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A score whose relation to labels is far from a line, labels, and references: what DSSIM is like."""
    draw = np.random.default_rng(seed)
    quality = draw.uniform(-3, 3, (references, images))
    labels = quality + 0.4 * draw.normal(size=(references, 1)) + 0.4 * draw.normal(size=quality.shape)
    scores = -np.exp(-1.5 * (quality + 0.3 * draw.normal(size=quality.shape)))
    return scores.ravel(), labels.ravel(), np.repeat([f"r{i:02}" for i in range(references)], images)


def made(*more: np.ndarray) -> Images:
    score, labels, references = curved()
    return Images("toy", "fitting", [str(i) for i in range(len(labels))], labels, references.tolist(), np.stack([score, *more]))


def test_scaling_alone_is_no_gain_in_any_figure() -> None:
    images = made()
    held_out = folds(images.references, 0)
    outside = [np.setdiff1d(np.arange(len(images.labels)), rows) for rows in held_out]
    alone = rescaled_member(0, images, held_out, outside)
    base = baseline(images, 0, alone.fitting)
    (member, control, blend) = assess(images, ["score"], {"searched": alone.fitting}, base)
    assert base.rescaled == {"main", "plcc"}
    assert control.figures.plcc > member.figures.plcc + 0.1
    # The rule that compared with the member as it is called this a gain.
    raw = compare(alone.fitting.values, images.scores[0], images.labels, images.references, top=0).differences["main"]
    assert raw.difference > 0.1
    assert raw.p_value < 0.001
    for figure in ("main", "srcc", "plcc"):
        assert blend.versus[figure].difference == pytest.approx(0, abs=1e-12)
        assert blend.verdict(figure) == "not significant"


@pytest.mark.slow
def test_several_scalings_of_one_member_are_no_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Least squares may use a member under several scalings at once: against one of them alone that looks like a gain."""

    def gained(seed: int) -> bool:
        draw = np.random.default_rng(seed)
        quality = draw.exponential(size=(30, 12))
        true = quality + 4 * (1 - np.exp(-2 * quality))
        labels = (true + 0.05 * draw.normal(size=(30, 1)) + 0.05 * draw.normal(size=quality.shape)).ravel()
        scores = np.stack([quality.ravel(), draw.normal(size=labels.size)])
        references = np.repeat([f"r{i:02}" for i in range(30)], 12)
        images = Images("toy", "fitting", [str(i) for i in range(len(labels))], labels, references.tolist(), scores)
        held_out = folds(images.references, 0)
        outside = [np.setdiff1d(np.arange(len(labels)), rows) for rows in held_out]
        blends = [least_squares(Fits(scores[:, rows], labels[rows]), [0, 1], KINDS) for rows in outside]
        base = baseline(images, 0, rescaled_member(0, images, held_out, outside).fitting)
        row = assess(images, ["score", "noise"], {"least-squares": out_of_fold(blends, held_out, scores)}, base)[-1]
        return any(row.verdict(figure) == "gain" for figure in ("main", "srcc", "plcc"))

    assert not any(map(gained, range(6)))
    monkeypatch.setattr("harness.ensembles.assess._RESCALINGS", ("logistic", "ecdf", "raw"))
    assert any(map(gained, range(6)))


def test_a_rescaled_member_keeps_srcc_where_scaling_ties_images() -> None:
    """A rescaled member keeps SRCC where its scaling ties images and folds differ."""
    images = made()
    scale = fit("ecdf", images.scores[0][:40], images.labels[:40])
    assert scale is not None
    own = scored(Blend((0,), (scale,), (2.0,)), images.scores)
    plain = agreement(images.scores[0], images.labels, images.references)
    tied = agreement(own.values, images.labels, images.references)
    assert tied.srcc != plain.srcc
    row = assess(images, ["score"], {"mean": own}, baseline(images, 0, own))[-1]
    assert (row.figures.srcc, row.figures.krcc, row.figures.plcc) == (plain.srcc, plain.krcc, tied.plcc)
    assert row.figures.main == pytest.approx(plain.srcc + tied.plcc)
    assert row.figures.ci["srcc"] == plain.ci["srcc"]
    low, high = row.figures.ci["main"]
    assert low < row.figures.main < high
    # A falling rescaling turns the order round, and a blend of two has an order of its own.
    assert scored(Blend((0,), (Scaling("raw"),), (-1.0,)), images.scores).order is not images.scores[0]


def test_a_blend_that_is_better_than_any_rescaling_is_a_gain() -> None:
    _, labels, _ = curved()
    second = labels + 0.3 * np.random.default_rng(5).normal(size=len(labels))
    images = made(second)
    base = baseline(images, 0, Scored(images.scores[0], images.scores[0]))
    row = assess(images, ["score", "second"], {"searched": Scored(second, second)}, base)[-1]
    assert [row.verdict(figure) for figure in ("main", "srcc", "plcc")] == ["gain"] * 3
    assert base.rescaled == frozenset()


def test_shown_shares_are_of_the_variance_and_do_not_depend_on_units() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 4000))
    blend = Blend((0, 1), (Scaling("raw"), Scaling("raw")), (2.0, 1.0))
    shown = blend_text(blend, ["a", "b"], np.stack([a, b]))
    shares = [float(part.split()[0]) for part in shown.split(" + ")]
    assert sum(shares) == pytest.approx(1, abs=0.002)
    assert shares == pytest.approx([0.8, 0.2], abs=0.02)
    same = Blend((0, 1), (Scaling("raw"), Scaling("raw")), (0.002, 1.0))
    assert blend_text(same, ["a", "b"], np.stack([1000 * a, b])) == shown


@pytest.mark.skipif(not SCRIPT.is_file(), reason="only a checkout has the benchmarks")
@pytest.mark.slow
def test_noise_is_called_a_gain_no_more_often_than_stated() -> None:
    spec = importlib.util.spec_from_file_location("ensemble_null", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    null: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules["ensemble_null"] = null
    spec.loader.exec_module(null)
    claimed = [null.run(seed, *curved(seed, images=8), trials=60) for seed in range(10)]
    # At 6.5 % three or more of ten have a chance of 2 %.
    for key in claimed[0]:
        assert sum(found[key] for found in claimed) <= 2, key
