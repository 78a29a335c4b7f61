"""Pairs from folders: by relative path, by stem, by a pattern; and every problem at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harness.datasets.folders import measure_files, pair_images
from harness.runtime.errors import UsageError

PIXEL = np.zeros((12, 12, 3), np.uint8)


def fill(folder: Path, *names: str, size: tuple[int, int] = (12, 12)) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / name)
    folder.mkdir(exist_ok=True)
    return str(folder)


def found(tmp_path: Path, *words: str, **how) -> list[tuple[str, str]]:
    pairing = pair_images(str(tmp_path / "r"), [str(tmp_path / "d")], *words, **how)
    return [(Path(p.reference).relative_to(tmp_path / "r").as_posix(), p.name) for p in pairing.pairs]


def refused(tmp_path: Path, *words: str, **how) -> str:
    with pytest.raises(UsageError) as caught:
        found(tmp_path, *words, **how)
    return str(caught.value)


def test_equal_relative_paths_are_paired_before_equal_stems(tmp_path: Path):
    fill(tmp_path / "r", "x/a.png", "y/a.png", "b.png")
    fill(tmp_path / "d", "x/a.jpg", "y/a.webp", "deep/er/b.jpg")
    assert found(tmp_path) == [("b.png", "deep/er/b.jpg"), ("x/a.png", "x/a.jpg"), ("y/a.png", "y/a.webp")]


def test_files_of_other_kinds_and_hidden_ones_are_passed_over(tmp_path: Path):
    fill(tmp_path / "r", "a.png", ".hidden/b.png", "._a.png")
    fill(tmp_path / "d", "a.jpg")
    (tmp_path / "d/notes.txt").write_text("x")
    assert found(tmp_path) == [("a.png", "a.jpg")]


def test_one_reference_is_that_of_every_distorted_image(tmp_path: Path):
    fill(tmp_path, "o.png")
    fill(tmp_path / "d", "q1.jpg", "q2.jpg")
    pairing = pair_images(str(tmp_path / "o.png"), [str(tmp_path / "d/q1.jpg"), str(tmp_path / "d/q2.jpg")])
    assert [p.name for p in pairing.pairs] == ["q1.jpg", "q2.jpg"]
    pairing = pair_images(str(tmp_path / "o.png"), [str(tmp_path / "d")], "q{quality}.jpg")
    assert [p.columns for p in pairing.pairs] == [{"quality": "1"}, {"quality": "2"}]


def test_fields_of_a_pattern_become_columns(tmp_path: Path):
    fill(tmp_path / "r", "im1.png", "im11.png")
    fill(tmp_path / "d", "jpeg/20/im1.jpg", "jpeg/20/im11.jpg", "webp/20/im1.webp", "webp/20/im11.webp")
    pairing = pair_images(str(tmp_path / "r"), [str(tmp_path / "d")], "{codec}/{quality}/{name}")
    assert pairing.columns == ("codec", "quality")
    assert [(p.reference_id, p.columns["codec"]) for p in pairing.pairs] == [
        ("im1", "jpeg"), ("im1", "webp"), ("im11", "jpeg"), ("im11", "webp"),
    ]  # fmt: skip


word = st.text("abcz019-. ", min_size=1, max_size=6).filter(lambda w: w.strip(" .") == w)


@settings(deadline=None, max_examples=40)
@given(st.sets(word, min_size=1, max_size=4), st.sets(word, min_size=1, max_size=3), st.integers(0, 10**6))
def test_any_names_come_back_from_the_paths_that_the_pattern_makes(tmp_path_factory, names, codecs, number):
    root = tmp_path_factory.mktemp("w")
    if len({n.lower() for n in names}) < len(names) or len({c.lower() for c in codecs}) < len(codecs):
        return
    for folder, entries in (
        ("r", [f"{n}.png" for n in names]),
        ("d", [f"{c}/q_{number}/{n}.png" for n in names for c in codecs]),
    ):
        for entry in entries:
            (root / folder / entry).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / entry).write_bytes(b"x")
    pairing = pair_images(str(root / "r"), [str(root / "d")], "{codec}/q_{quality}/{name}.png")
    given_ = {(p.reference_id, p.columns["codec"], p.columns["quality"]) for p in pairing.pairs}
    assert given_ == {(n, c, str(number)) for n in names for c in codecs}


def test_a_path_that_a_pattern_fits_in_two_ways_is_refused_with_both(tmp_path: Path):
    fill(tmp_path / "r", "a.png", "a_1.png")
    fill(tmp_path / "d", "a_1_50.png")
    text = refused(tmp_path, "{name}_{quality}.png")
    assert "quality = 1_50, name = a or quality = 50, name = a_1" in text


def test_unpaired_images_of_both_sides_are_listed_and_left_out_on_request(tmp_path: Path):
    fill(tmp_path / "r", "a.png", "b.png")
    fill(tmp_path / "d", "a.jpg", "c.jpg")
    text = refused(tmp_path)
    assert "1 distorted images without a reference: " in text
    assert "d/c.jpg" in text
    assert "1 references without a distorted image: " in text
    assert "r/b.png" in text
    pairing = pair_images(str(tmp_path / "r"), [str(tmp_path / "d")], inner=True)
    assert ([p.name for p in pairing.pairs], len(pairing.left_out)) == (["a.jpg"], 2)


def test_two_distorted_files_for_one_stem_are_refused(tmp_path: Path):
    fill(tmp_path / "r", "a.png", "b.png")
    fill(tmp_path / "d", "a.jpg", "a.webp")
    text = refused(tmp_path)
    assert "a: 2 distorted files for one stem: " in text
    assert "--pattern" in text
    assert "b.png" in text  # all problems at once
    fill(tmp_path / "d", "x/a.png", "y/a.png")
    assert "4 distorted files for one stem" in refused(tmp_path)


def test_a_pattern_that_fits_nothing_shows_the_nearest_misses(tmp_path: Path):
    fill(tmp_path / "r", "a.png")
    fill(tmp_path / "d", "jpeg/20/a.jpg", "b.jpg")
    text = refused(tmp_path, "{codec}/{quality}/{name}.png")
    assert "matches no file; the closest of the others:" in text
    first = text.splitlines()[1]
    assert "jpeg/20/a.jpg" in first
    assert "in place of '.png'" in first


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{codec}{name}.png", "two fields without text between them"),
        ("{codec}/x.png", "it needs {name}"),
        ("{codec/{name}", "a brace that is not closed"),
        ("{1}/{name}", "not names of columns: 1"),
        ("{score}/{name}", "not names of columns: score"),
    ],
)
def test_a_pattern_that_cannot_work_says_why(tmp_path: Path, pattern: str, said: str):
    fill(tmp_path / "r", "a.png")
    fill(tmp_path / "d", "a.png")
    assert said in refused(tmp_path, pattern)


def test_folders_without_images_are_all_reported(tmp_path: Path):
    fill(tmp_path / "r")
    (tmp_path / "r/x.txt").write_text("x")
    text = refused(tmp_path)
    assert "r: no images in this folder (reference; 1 other files)" in text
    assert "d: no such file or folder (distorted)" in text


def test_mixed_sizes_and_broken_images_are_all_reported_before_anything_is_scored(tmp_path: Path):
    fill(tmp_path / "r", "a.png", "b.png", "c.png")
    fill(tmp_path / "d", "a.png")
    fill(tmp_path / "d", "b.png", size=(20, 12))
    (tmp_path / "d/c.png").write_bytes(b"no image")
    pairing = pair_images(str(tmp_path / "r"), [str(tmp_path / "d")])
    with pytest.raises(UsageError) as caught:
        measure_files(pairing.pairs)
    assert "c.png: not an image" in str(caught.value)
    assert "b.png (12x20, its reference 12x12)" in str(caught.value)
    (tmp_path / "d/c.png").unlink()
    measured = measure_files([p for p in pairing.pairs if p.name == "a.png"])
    assert (measured[0].pixels, measured[0].bytes) == (144, (tmp_path / "d/a.png").stat().st_size)
