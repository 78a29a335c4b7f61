"""Published numbers: in the cards with their sources, and next to ours after a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from record_factory import make, repeated

from harness.cards.loading import load_cards
from harness.cards.schema import ModelCard, Published
from harness.results.published import compare_published, published_table
from harness.results.record import Record, read_record

CARDS = {name: card for name, card in load_cards("models").items() if isinstance(card, ModelCard)}
BASELINES = ("psnr", "psnr-y", "ssim", "ssim-256", "ms-ssim", "lpips-alex", "lpips-vgg", "dists", "st-lpips", "ahiq")
ROWS = {
    "PSNR RGB": "psnr",
    "SSIM luma, no downsampling": "ssim",
    "MS-SSIM": "ms-ssim",
    "LPIPS AlexNet v0.1": "lpips-alex",
    "LPIPS VGG v0.1": "lpips-vgg",
    "DISTS": "dists",
    "ST-LPIPS": "st-lpips",
    "AHIQ, pyiqa's port until f49e31f (2025-04-18)": "ahiq",
    "AHIQ, pyiqa's port since": "ahiq",
}
DATASETS = ("tid2013", "kadid10k", "live", "csiq", "pipal")


def with_entry(tmp_path: Path, **changes: Any) -> Record:
    """A record whose card has one published entry for its dataset."""
    facts: dict[str, Any] = {"source": "somewhere", "status": "read", "protocol": "held-out", "definition": "the same"}
    options = {name: changes.pop(name) for name in ("limit", "incomplete", "settings", "protocol_ours") if name in changes}
    if ours := options.pop("protocol_ours", None):
        options["protocol"] = ours
    place, _ = make(tmp_path, published=(Published("toy", **(facts | changes)),), **options)
    record = read_record(place)
    assert record is not None
    return record


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_has_published_numbers_with_their_source(name: str) -> None:
    assert CARDS[name].published
    for entry in CARDS[name].published:
        assert entry.source
        assert any(value is not None for value in (entry.srcc, entry.plcc, entry.krcc, entry.main))
        in_a_repository = re.search(r"pyiqa|README", entry.source)
        assert bool(entry.commit) == bool(in_a_repository), f"{name}: {entry.source} names no commit"
        for value in (entry.srcc, entry.plcc, entry.krcc):
            assert value is None or 0 < value < 1


def test_remembered_figures_of_ahiq_may_be_of_another_transformer() -> None:
    remembered = [e for e in CARDS["ahiq"].published if "memory" in e.source and e.dataset in ("live", "csiq", "tid2013")]
    assert len(remembered) == 9
    assert all("perhaps of ViT-B/16" in entry.note and entry.status == "unverified" for entry in remembered)


def test_the_cards_say_what_the_reference_table_says(shared: Path) -> None:
    text = (shared / "reference" / "published.md").read_text(encoding="utf-8")
    checked = 0
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 6 or cells[0] not in ROWS:
            continue
        for dataset, cell in zip(DATASETS, cells[1:], strict=True):
            known = [(e.srcc, e.plcc) for e in CARDS[ROWS[cells[0]]].published if e.dataset == dataset]
            for srcc, plcc in re.findall(r"(\.\d{4})/(\.\d{3,4})", cell):
                assert (float(srcc), float(plcc)) in known, (line, dataset)
                checked += 1
            for srcc in re.findall(r"(?:^|; |, )(\.\d\d) q|ref (\.\d\d)", cell):
                two = float(srcc[0] or srcc[1])
                assert any(s is not None and abs(s - two) <= 0.0051 for s, _ in known), (line, dataset, two)
                checked += 1
    assert checked > 40


def test_a_difference_is_ours_minus_theirs_and_equal_digits_are_none(tmp_path: Path) -> None:
    ours = with_entry(tmp_path / "a", srcc=0.5).srcc
    assert ours is not None
    (one,) = compare_published(with_entry(tmp_path / "b", srcc=0.5))
    assert one.figures[0].difference == ours - 0.5
    assert one.reasons
    (same,) = compare_published(with_entry(tmp_path / "c", srcc=round(ours, 3)))
    assert same.figures[0].equal
    assert same.reasons == ()
    assert "ours equals theirs in every digit" in published_table([same])
    off = round(ours, 3) + 0.001
    (other,) = compare_published(with_entry(tmp_path / "d", srcc=off))
    assert not other.figures[0].equal


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "unverified"}, "from memory"),
        ({"protocol": "NTIRE 2022 test set"}, "other images or another training: ours by protocol held-out"),
        ({"protocol": "full"}, "ours is on the test part, theirs is over all images"),
        ({"protocol": ""}, "their protocol is not known"),
        ({"definition": ""}, "what exactly was computed there is not stated"),
        ({"note": "they crop"}, "they crop"),
        ({"plcc": 0.9}, "it is not known whether their PLCC is after a fit"),
        ({"limit": 60}, "--limit"),
        ({"incomplete": True}, "lacks pairs or references"),
        ({"settings": {"model.x": "1"}}, "other settings than its card: model.x=1"),
    ],
)
def test_why_they_may_differ_is_distinguished_from_what_is_known(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    (one,) = compare_published(with_entry(tmp_path / "with", **({"srcc": 0.1} | changes)))
    assert reason in "; ".join(one.reasons)
    (plain,) = compare_published(with_entry(tmp_path / "without", srcc=0.1))
    assert reason not in "; ".join(plain.reasons)
    assert plain.reasons, "a difference without a known reason says so"


def test_a_fitted_plcc_is_compared_with_ours_after_a_fit(tmp_path: Path) -> None:
    record = with_entry(tmp_path, plcc=0.9, plcc_kind="logistic")
    (one,) = compare_published(record)
    assert [f.figure for f in one.figures] == ["plcc_fitted"]
    assert record.test is not None
    assert one.figures[0].ours == record.test.plcc_fitted


def test_our_interval_says_whether_theirs_is_inside(tmp_path: Path) -> None:
    low, high = with_entry(tmp_path / "a", srcc=0.1).ci["srcc"] or (0.0, 0.0)
    for place, value, inside in (("b", low - 0.01, False), ("c", (low + high) / 2, True)):
        (one,) = compare_published(with_entry(tmp_path / place, srcc=value))
        assert one.figures[0].inside is inside


def test_nothing_is_compared_where_labels_are_withheld_or_the_dataset_is_another(tmp_path: Path) -> None:
    place, _ = make(tmp_path / "a", published=(Published("toy", "s", "read", srcc=0.5),), labelled=False)
    hidden = read_record(place)
    place, _ = make(tmp_path / "b", published=(Published("other", "s", "read", srcc=0.5),))
    other = read_record(place)
    assert hidden is not None
    assert other is not None
    assert compare_published(hidden) == compare_published(other) == ()
    assert published_table([]) == ""


def test_medians_over_splits_are_said_to_be_that(tmp_path: Path) -> None:
    place, record = repeated(tmp_path, "psnr")
    entry = {"dataset": "toy", "source": "s", "status": "read", "protocol": "full", "srcc": 0.1}
    record["cards"]["model"]["published"] = [entry]
    (place / "record.json").write_text(json.dumps(record))
    read = read_record(place)
    assert read is not None
    assert "ours is a median over splits, theirs is over all images" in compare_published(read)[0].reasons


def test_a_published_figure_over_all_images_is_compared_with_ours_over_all_images(tmp_path: Path) -> None:
    place, record = repeated(tmp_path, "psnr")
    entry = {"dataset": "toy", "source": "s", "status": "read", "srcc": 0.1}
    record["cards"]["model"]["published"] = [entry | {"protocol": "full"}, entry | {"protocol": "held-out"}]
    record["all_images"] = record["metrics"]["test"] | {"srcc": 0.7, "ci": {"srcc": [0.6, 0.8]}, "range": {}}
    (place / "record.json").write_text(json.dumps(record))
    read = read_record(place)
    assert read is not None
    whole, median = compare_published(read)
    assert (whole.figures[0].ours, whole.figures[0].inside) == (0.7, False)
    assert "ours is a median over splits, theirs is over all images" not in whole.reasons
    assert median.figures[0].ours == read.srcc
