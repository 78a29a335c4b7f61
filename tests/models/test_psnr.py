from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small import distorted, picture

import harness
from harness.models.planes import rows_tensor, rows_uint8
from harness.models.psnr import PSNR, psnr_of_error
from harness.runtime.errors import UsageError

PAIR = picture(1), distorted(picture(1), "noise", 2, 1)
GOLDEN = {"rgb": 23.539122, "luma": 27.009462}


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


def test_psnr_is_ten_log_of_peak_squared_over_mean_squared_error():
    error = np.mean((PAIR[0].astype(np.int64) - PAIR[1]) ** 2)
    assert PSNR().score_uint8(*PAIR) == np.float32(10 * math.log10(255**2 / error))


def test_psnr_of_one_grey_level_everywhere_is_48_13_db():
    flat = np.full((3, 5, 3), 100, np.uint8)
    for colour in ("rgb", "luma"):
        assert PSNR(colour).score_uint8(flat, flat + 1) == pytest.approx(20 * math.log10(255), abs=1e-5)


def test_golden_values_guard_the_numbers():
    assert PSNR().score_uint8(*PAIR) == pytest.approx(GOLDEN["rgb"], abs=1e-5)
    assert PSNR("luma").score_uint8(*PAIR) == pytest.approx(GOLDEN["luma"], abs=1e-5)


@pytest.mark.parametrize("colour", ["rgb", "luma"])
def test_tensors_and_arrays_give_the_same_bits_in_every_batch(colour):
    model = PSNR(colour)
    images = [picture(seed, 37, 53) for seed in range(5)]
    others = [distorted(image, "noise", 1 + i % 3, i) for i, image in enumerate(images)]
    one_by_one = [model.score_uint8(*pair) for pair in zip(images, others, strict=True)]
    together = model.score(tensor(*images), tensor(*others))
    assert together.dtype == torch.float32
    assert together.tolist() == one_by_one
    assert [model.score(tensor(a), tensor(b)).item() for a, b in zip(images, others, strict=True)] == one_by_one
    assert model.score(tensor(*images[::-1]), tensor(*others[::-1])).tolist() == one_by_one[::-1]


@pytest.mark.parametrize("height_width", [(1, 1), (1, 7), (480, 640), (1000, 1500)])
def test_sums_of_squares_are_whole_numbers_at_any_size(height_width):
    generator = np.random.default_rng(0)
    a, b = generator.integers(0, 256, (2, *height_width, 3), np.uint8)
    error = int(np.sum((a.astype(np.int64) - b) ** 2))
    assert PSNR().score_uint8(a, b) == psnr_of_error(error, a.size)


def test_arrays_that_are_views_of_larger_ones_are_scored_like_copies():
    large = picture(3, 90, 90), distorted(picture(3, 90, 90), "fade", 1, 3)
    views = [image[10:74, 5:69] for image in large]
    for colour in ("rgb", "luma"):
        assert PSNR(colour).score_uint8(*views) == PSNR(colour).score_uint8(*map(np.ascontiguousarray, views))


def test_identical_images_give_infinity_and_the_card_a_ceiling():
    assert PSNR().score_uint8(PAIR[0], PAIR[0]) == math.inf
    assert PSNR("luma").score(tensor(PAIR[0]), tensor(PAIR[0])).item() == math.inf
    assert harness.score_pair(harness.load_model("psnr"), PAIR[0], PAIR[0]) == 120.0


def test_images_of_equal_luma_are_identical_to_psnr_y_alone():
    a = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    b = np.full((8, 8, 3), (10, 20, 31), np.uint8)
    assert PSNR("luma").score_uint8(a, b) == math.inf
    assert PSNR("rgb").score_uint8(a, b) < 60


def test_luma_is_rounded_and_keeps_grey_images():
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    assert (rows_uint8(greys, "luma").whole()[:, 0] == np.arange(256)).all()
    ours = rows_uint8(PAIR[0], "luma").whole()
    exact = PAIR[0] @ np.array([0.298936021293775, 0.587043074451121, 0.114020904255103])
    assert np.abs(ours - exact).max() <= 0.5 + 1e-4
    assert (rows_tensor(tensor(PAIR[0])[0], "luma").whole() == ours).all()


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ((PAIR[0], PAIR[1][:-1]), "differ in shape"),
        ((PAIR[0].astype(np.float32), PAIR[1]), r"reference: expected \(H, W, 3\) uint8"),
        ((PAIR[0], PAIR[1][..., 0]), r"distorted: expected \(H, W, 3\) uint8"),
        ((PAIR[0][:0], PAIR[1][:0]), "too small"),
    ],
)
def test_arrays_of_another_kind_are_refused(pair, said):
    with pytest.raises(UsageError, match=said):
        PSNR().score_uint8(*pair)


@pytest.mark.parametrize("scale", [255.0, -1.0, math.nan])
def test_tensors_outside_0_to_1_are_refused(scale):
    with pytest.raises(UsageError, match=r"expected \[0, 1\]"):
        PSNR().score(tensor(PAIR[0]), tensor(PAIR[1]) * scale)


def test_an_unknown_colour_is_refused():
    with pytest.raises(UsageError, match="'yuv' is not one of"):
        PSNR("yuv")  # type: ignore[arg-type]


def test_official_values_of_tid2013_pairs(shared):
    from harness.imaging.decode import read

    folder = shared / "data" / "tid2013-pairs"
    official = {"I03": 21.11, "I04": 20.99, "I06": 27.01, "I08": 23.30, "I19": 21.62}
    ours = {n: PSNR().score_uint8(read(folder / f"reference/{n}.bmp"), read(folder / f"distorted/{n}.bmp")) for n in official}
    assert {n: round(v, 2) for n, v in ours.items()} == official
