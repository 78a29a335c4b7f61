from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.imaging import crops
from harness.runtime.errors import UsageError


def places(
    protocol: str, height: int, width: int, size: int | None, seed: int = 0, reference: str = "r"
) -> list[tuple[int, int]]:
    return [(c.top, c.left) for c in crops.positions(protocol, height, width, size, seed=seed, reference_id=reference)]


def test_five_are_the_corners_and_the_centre_in_the_released_order():
    assert places("five", 384, 512, 224) == [(0, 0), (0, 288), (160, 0), (160, 288), (80, 144)]


def test_nine_add_the_middles_of_the_edges():
    assert set(places("nine", 384, 512, 224)) - set(places("five", 384, 512, 224)) == {(0, 144), (80, 0), (80, 288), (160, 144)}


def test_equal_positions_are_one_crop_with_a_weight():
    only = crops.positions("five", 224, 224, 224, seed=0, reference_id="r")
    assert [(c.top, c.left, c.weight) for c in only] == [(0, 0, 5)]


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40))
def test_a_grid_covers_every_pixel_with_the_fewest_crops(height: int, width: int, size: int):
    if size > min(height, width):
        return
    found = crops.positions("grid", height, width, size, seed=0, reference_id="r")
    covered = {(y, x) for c in found for y in range(c.top, c.top + size) for x in range(c.left, c.left + size)}
    assert len(covered) == height * width
    assert len(found) == -(-height // size) * -(-width // size)


def test_random_crops_depend_on_seed_reference_and_size_alone():
    first = places("random20", 384, 512, 224)
    assert first == places("random20", 384, 512, 224)
    assert first != places("random20", 384, 512, 224, seed=1)
    assert first != places("random20", 384, 512, 224, reference="other")
    assert sum(c.weight for c in crops.positions("random20", 230, 230, 224, seed=0, reference_id="r")) == 20


def test_random_crops_reach_the_first_and_the_last_position():
    tops = {top for seed in range(60) for top, _ in places("random20", 227, 227, 224, seed=seed)}
    assert tops == {0, 1, 2, 3}


def test_random_crops_of_an_image_of_the_crop_size_are_that_image():
    assert places("random20", 224, 224, 224) == [(0, 0)]


@pytest.mark.parametrize(
    ("protocol", "height", "size", "words"),
    [
        ("fife", 300, 224, "five"),
        ("random0", 300, 224, "random"),
        ("five", 200, 224, "smaller"),
        ("five", 300, None, "crop_size"),
    ],
)
def test_what_cannot_be_cropped_is_refused_with_a_reason(protocol: str, height: int, size: int | None, words: str):
    with pytest.raises(UsageError, match=words):
        places(protocol, height, 300, size)
