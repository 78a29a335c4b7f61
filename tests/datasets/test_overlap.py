"""Shared content across datasets, and contact sheets."""

from __future__ import annotations

from pathlib import Path

import miniatures
import numpy as np
import pandas as pd
import pytest
from miniatures import copy, still, text, tree, write
from PIL import Image

from harness.cards.loading import find_dataset
from harness.datasets import Dataset, load_dataset, splits
from harness.datasets.contact_sheet import contact_sheet
from harness.datasets.overlap import content_of, independent_rows, shared_references, thumbnail
from harness.imaging import decode
from harness.runtime.errors import UsageError


def data(name: str) -> Dataset:
    return load_dataset(name, tree(name))


def everything(dataset: Dataset) -> pd.Series:
    return pd.Series("train", index=dataset.table.index)


# The map


def test_the_kodak_images_of_live_and_tid_are_one_content():
    live, first = find_dataset("live"), find_dataset("live-first")
    tid13, tid8 = find_dataset("tid2013"), find_dataset("tid2008")
    for name, number in (("caps", 3), ("sailing4", 11), ("lighthouse2", 21), ("paintedhouse", 24)):
        assert content_of(live, name) == content_of(first, name) == content_of(tid13, f"I{number:02d}") == f"kodim{number:02d}"
    assert content_of(tid13, "I25") == content_of(tid8, "I25") == "tid/I25"
    assert content_of(live, "monarch") == content_of(first, "monarch") == "live/monarch"
    assert content_of(find_dataset("kadid10k"), "I03") == "kadid10k/I03"
    kodak = [c for c in live.content.values() if c.startswith("kodim")]
    assert len(kodak) == len(set(kodak)) == 19
    assert set(live.content) - {"*"} <= set(miniatures.LIVE_REFERENCES)


def test_live_and_tid2013_share_what_the_map_says_without_any_image():
    shared = shared_references(data("tid2013"), {"I03", "I04", "I25"}, data("live"), thumbnails=False)
    assert shared == {"caps": "kodim03", "womanhat": "kodim04"}


def test_only_what_was_trained_or_validated_on_counts_as_seen():
    train, test = data("tid2013"), data("live")
    parts = train.table["reference_id"].map({"I01": "train", "I02": "train", "I03": "validation", "I04": "test", "I25": "test"})
    result = independent_rows(train, parts, test, thumbnails=False)
    assert set(result.shared) == {"caps"}
    assert set(test.table["reference_id"][~result.keep]) == {"caps"}
    assert "without 1 of 29 references" in result.note
    assert "caps" in result.note


def test_two_cards_over_one_datasets_images_share_all_of_them():
    live, first = data("live"), data("live-first")
    with pytest.raises(UsageError, match="no reference is left to test"):
        independent_rows(live, everything(live), first, thumbnails=False)
    parts = splits.split(live.table, live.card.protocols["by-reference"])
    result = independent_rows(live, parts, first, thumbnails=False)
    assert set(first.table["reference_id"][result.keep]) == set(live.table["reference_id"][parts == "test"])


def test_tid2008_and_tid2013_share_every_reference():
    with pytest.raises(UsageError, match="every reference of tid2008 is also in the training data"):
        independent_rows(data("tid2013"), everything(data("tid2013")), data("tid2008"))


def test_datasets_of_other_images_are_independent():
    result = independent_rows(data("kadid10k"), everything(data("kadid10k")), data("csiq"))
    assert result.keep.all()
    assert (result.shared, result.note) == ({}, "")


@pytest.mark.slow
def test_pipals_challenge_images_are_one_content_under_both_cards():
    train, challenge = data("pipal"), data("pipal-ntire2022")
    parts = train.table["part"].map({"train": "train", "ntire2021-validation": "test"})
    assert independent_rows(train, parts, challenge, thumbnails=False).keep.all()
    seen = train.table["part"].map({"train": "", "ntire2021-validation": "train"})
    shared = independent_rows(train, seen, challenge, thumbnails=False).shared
    assert set(shared) == set(challenge.table["reference_id"][challenge.table["part"] == "validation"])


# Thumbnails


def test_thumbnails_find_a_shared_image_in_another_size_and_format(tmp_path):
    """Thumbnails find a shared image that no map tells in another size and format."""
    root = copy(tree("csiq"), tmp_path / "csiq")
    (root / "src_imgs/elk.png").unlink()
    large = Image.fromarray(still("kadid3")).resize((64, 48), Image.Resampling.BICUBIC)
    large.save(root / "src_imgs/elk.png")
    test = load_dataset("csiq", root)
    shared = shared_references(data("kadid10k"), {"I01", "I02", "I03", "I04", "I81"}, test)
    assert list(shared) == ["elk"]
    assert "kadid10k I03 (thumbnails correlate at" in shared["elk"]
    assert shared_references(data("kadid10k"), {"I01", "I02"}, test) == {}


def test_a_thumbnail_is_a_unit_vector_and_a_flat_image_is_like_no_other():
    a = thumbnail(still("a"))
    assert a.shape == (1024,)
    assert np.isclose(np.linalg.norm(a), 1, atol=1e-5)
    assert abs(float(a.mean())) < 1e-6
    assert not thumbnail(np.full((9, 9, 3), 77, np.uint8)).any()


def test_real_references_are_distinguished_by_a_wide_margin(shared):
    folders = [shared / "data/demo-references", shared / "data/tid2013-pairs/reference"]
    paths = [p for folder in folders for p in sorted(folder.glob("*.*")) if p.suffix in (".png", ".bmp")]
    views = np.stack([thumbnail(decode.read(p)) for p in paths])
    likeness = views @ views.T - np.eye(len(paths))
    assert likeness.max() < 0.8
    half = np.stack([thumbnail(decode.read(p)[::2, ::2]) for p in paths])
    assert (np.sum(views * half, axis=1) > 0.97).all()


# Contact sheets


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def first_cells(path: Path, count: int) -> list[np.ndarray]:
    """The images of a sheet's first row, shrunk back to the miniatures' size."""
    image = Image.fromarray(pixels(path))
    cell, margin, top = 176, 8, 29
    boxes = [(margin + i * (cell + margin), top, margin + i * (cell + margin) + cell, top + 132) for i in range(count)]
    return [np.asarray(image.crop(box).resize((16, 12), Image.Resampling.BOX)).astype(int) for box in boxes]


@pytest.mark.parametrize("name", ["kadid10k", "csiq"])
def test_a_sheet_shows_the_reference_then_the_best_image_in_both_directions(tmp_path, name):
    """A sheet shows the reference and then the best image, whatever the direction."""
    dataset = data(name)
    out = contact_sheet(dataset, tmp_path / "sheet.png", limit=10)
    rows = dataset.table[dataset.table["reference_id"] == dataset.table["reference_id"].iloc[0]]
    best = rows.sort_values("score", ascending=not dataset.higher_is_better)["distorted"].iloc[0]
    cells = first_cells(out, 2)
    for cell, path in zip(cells, (rows["reference"].iloc[0], best), strict=True):
        assert np.abs(cell[2:-2, 2:-2] - decode.read(path)[2:-2, 2:-2]).mean() < 6


def test_a_sheet_of_many_images_spreads_over_the_scores(tmp_path):
    small = pixels(contact_sheet(data("live"), tmp_path / "a.png", limit=5))
    large = pixels(contact_sheet(data("live"), tmp_path / "b.png", limit=500))
    assert small.shape[0] < large.shape[0]


def test_a_sheet_of_withheld_labels_is_drawn_and_an_unknown_reference_is_named(tmp_path):
    dataset = data("pipal-ntire2022")
    assert contact_sheet(dataset, tmp_path / "sheet.png", reference="A0000").is_file()
    with pytest.raises(UsageError, match="has no reference 'A000'; did you mean 'A0"):
        contact_sheet(dataset, tmp_path / "sheet.png", reference="A000")


def test_a_sheet_needs_images(tmp_path):
    text(tmp_path / "mos_with_names.txt", "5.0 I01_01_1.bmp\n4.0 I01_01_2.bmp\n")
    with pytest.raises(UsageError, match="no image to show"):
        contact_sheet(load_dataset("tid2013", tmp_path), tmp_path / "sheet.png")


def test_a_sheets_captions_survive_any_name(tmp_path):
    write(tmp_path / "r.png", still("r"))
    long = "ж" * 40 + "_" + "x" * 60
    write(tmp_path / f"{long}.png", still("d"))
    write(tmp_path / "plain.png", still("e"))
    text(tmp_path / "table.csv", f"distorted,reference,score\n{long}.png,r.png,1\nplain.png,r.png,2\n")
    assert contact_sheet(load_dataset(str(tmp_path / "table.csv")), tmp_path / "sheet.png").is_file()
