"""The plain definitions of PSNR and SSIM: differentiable, and equal to the fast path on uint8."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from small import distorted, picture

import harness
from harness.models import definitions
from harness.models.planes import rows_uint8
from harness.models.psnr import PSNR
from harness.models.ssim import MSSSIM, SSIM
from harness.runtime.errors import UsageError

LARGE = picture(2, 201, 243), distorted(picture(2, 201, 243), "noise", 3, 2)
COLOURS = ("rgb", "luma", "ycbcr")


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255


@pytest.mark.parametrize(("colour", "border"), list(itertools.product(COLOURS, (0, 4))))
def test_the_fast_path_gives_the_definitions_numbers(colour, border):
    x, y = map(tensor, LARGE)
    how = {"colour": colour, "border": border, "rounded": True}
    assert PSNR(colour, border).score_uint8(*LARGE) == pytest.approx(float(definitions.psnr(x, y, **how)), abs=2e-5)
    assert SSIM(colour, border=border).score_uint8(*LARGE) == pytest.approx(float(definitions.ssim(x, y, **how)), abs=1e-6)
    for combine in ("sum", "product"):
        want = float(definitions.ms_ssim(x, y, combine=combine, **how))
        assert MSSSIM(colour, combine, border).score_uint8(*LARGE) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("size", [(385, 402), (640, 660), (767, 1021)])
def test_downsampling_is_the_fast_paths(size):
    x = picture(3, *size)
    pair = x, distorted(x, "noise", 3, 2)
    want = float(definitions.ssim(*map(tensor, pair), rounded=True, downsample=True))
    assert SSIM(downsample=True).score_uint8(*pair) == pytest.approx(want, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("colour", COLOURS)
def test_gradients_are_right(colour):
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 3, 13, 14, dtype=torch.float64, generator=draw).requires_grad_() for _ in range(2))
    for metric in (definitions.psnr, definitions.ssim):
        assert torch.autograd.gradcheck(lambda a, b, m=metric: m(a, b, colour=colour, border=1), (x, y))


def test_gradients_of_ms_ssim_are_right():
    x, y = (tensor(image[:161, :163]).requires_grad_() for image in LARGE)
    for combine in ("sum", "product"):
        assert torch.autograd.gradcheck(lambda a, b, c=combine: definitions.ms_ssim(a, b, combine=c), (x, y), fast_mode=True)


def test_y_is_rgb2ycbcrs():
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert rows_uint8(colours, "ycbcr").whole().tolist() == [[16, 235, 81, 145, 41]]


def test_y_of_bytes_is_exact_and_halves_go_up():
    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    r, g, b = (image[..., i].astype(np.int64) for i in range(3))
    want = 16 + (65481 * r + 128553 * g + 24966 * b + 127500) // 255000
    assert np.array_equal(rows_uint8(image, "ycbcr").whole(), want)


@pytest.mark.parametrize("name", ["psnr-sr", "ssim-sr"])
def test_a_border_is_what_is_left_of_the_image(name):
    x, y = LARGE
    whole, cut = harness.load_model(name), harness.load_model(name, set={"model.border": 0})
    inside = slice(4, -4)
    assert whole.score_uint8(x, y) == cut.score_uint8(x[inside, inside].copy(), y[inside, inside].copy())
    x32, y32 = (tensor(image).float() for image in LARGE)
    assert float(whole.score(x32, y32)) == np.float32(whole.score_uint8(x, y))
    with pytest.raises(UsageError, match="too small"):
        whole.score_uint8(x[:8], y[:8])


@pytest.mark.parametrize("wrong", [{"model.border": -1}, {"model.colour": "yuv"}, {"model.border": 1.5}])
def test_unknown_colours_and_borders_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).partition(".")[2]):
        harness.load_model("ssim-sr", set=wrong)
