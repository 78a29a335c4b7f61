from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from small import distorted, picture

from harness.models.kernels.ssim_map import C1, C2, Reference, mean_ssims
from harness.models.planes import rows_of, rows_uint8
from harness.models.ssim import MSSSIM, SCALE_WEIGHTS, SSIM, shrink
from harness.runtime.errors import UsageError

SMALL = picture(1), distorted(picture(1), "noise", 2, 1)
LARGE = picture(2, 200, 240), distorted(picture(2, 200, 240), "noise", 3, 2)
GOLDEN = {
    "ssim": 0.2539459,
    "ssim-rgb": 0.1926526,
    "ssim-256": 0.2539459,
    "ms-ssim": 0.8774846,
    "ms-ssim-product": 0.8494973,
}


def tensor(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)


def by_definition(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM's map and its contrast-structure, straight from the paper in float64."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / 4.5)
    window /= window.sum()

    def mean(z: np.ndarray) -> np.ndarray:
        return correlate1d(correlate1d(z, window, 0), window, 1)[5:-5, 5:-5]

    x, y = x.astype(np.float64), y.astype(np.float64)
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    cs = (2 * cov + C2) / (vx + vy + C2)
    return (2 * mx * my + C1) / (mx**2 + my**2 + C1) * cs, cs


def greys(pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = (rows_uint8(image, "luma").whole() for image in pair)
    return x, y


def models() -> dict[str, SSIM | MSSSIM]:
    return {
        "ssim": SSIM(),
        "ssim-rgb": SSIM("rgb"),
        "ssim-256": SSIM(downsample=True),
        "ms-ssim": MSSSIM(),
        "ms-ssim-product": MSSSIM(combine="product"),
    }


@pytest.mark.parametrize("kind", ["noise", "fade"])
@pytest.mark.parametrize("size", [(11, 11), (64, 80), (203, 97)])
def test_ssim_is_the_papers_formula_to_1e_6(kind, size):
    image = picture(5, *size)
    pair = image, distorted(image, kind, 3, 5)
    x, y = greys(pair)
    assert SSIM().score_uint8(*pair) == pytest.approx(by_definition(x, y)[0].mean(), abs=1e-6)
    each = [by_definition(pair[0][..., c], pair[1][..., c])[0].mean() for c in range(3)]
    assert SSIM("rgb").score_uint8(*pair) == pytest.approx(np.mean(each), abs=1e-6)


def test_negative_contrast_terms_are_kept():
    image = picture(6)
    x, y = greys((image, 255 - image))
    assert by_definition(x, y)[1].min() < -0.5
    assert SSIM().score_uint8(image, 255 - image) == pytest.approx(by_definition(x, y)[0].mean(), abs=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_is_matlabs_imfilter_with_symmetric_borders(factor):
    # imfilter takes place (f + 1) // 2 of the kernel, counted from 1, as its centre, and 'symmetric' repeats the edge.
    x = np.random.default_rng(0).random((17, 22)).astype(np.float32)
    before = (factor - 1) // 2
    padded = np.pad(x, (before, factor), mode="symmetric")
    want = [
        [padded[i : i + factor, j : j + factor].mean() for j in range(0, x.shape[1], factor)]
        for i in range(0, x.shape[0], factor)
    ]
    np.testing.assert_allclose(shrink(x, factor), want, rtol=1e-6)


@pytest.mark.parametrize(("side", "factor"), [(383, 1), (384, 2), (639, 2), (640, 3)])
def test_ssim_256_shrinks_by_the_rounded_share_of_256(side, factor):
    image = picture(7, side, side + 3)
    other = distorted(image, "noise", 1, 7)
    x, y = greys((image, other))
    want = by_definition(shrink(x, factor), shrink(y, factor))[0].mean()
    assert SSIM(downsample=True).score_uint8(image, other) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("combine", ["sum", "product"])
@pytest.mark.parametrize("size", [(161, 161), (176, 250)])
def test_ms_ssim_combines_four_contrasts_and_the_last_ssim(combine, size):
    image = picture(8, *size)
    other = distorted(image, "noise", 3, 8)
    means = []
    a, b = greys((image, other))
    for scale in range(5):
        full, contrast = by_definition(a, b)
        means.append((full if scale == 4 else contrast).mean())
        a, b = shrink(a, 2), shrink(b, 2)
    weights = np.array(SCALE_WEIGHTS)
    want = np.prod(np.array(means) ** weights) if combine == "product" else np.dot(means, weights) / weights.sum()
    assert MSSSIM(combine=combine).score_uint8(image, other) == pytest.approx(want, abs=2e-6)


def test_a_negative_scale_makes_the_product_zero_and_the_sum_negative():
    noise = np.random.default_rng(0).integers(0, 256, (170, 170), np.uint8)
    image = np.repeat(noise[..., None], 3, axis=2)
    assert MSSSIM(combine="product").score_uint8(image, 255 - image) == 0
    assert -1 <= MSSSIM().score_uint8(image, 255 - image) < 0


@pytest.mark.parametrize("name", models())
def test_golden_values_guard_the_numbers(name):
    assert models()[name].score_uint8(*LARGE) == pytest.approx(GOLDEN[name], abs=2e-6)


@pytest.mark.parametrize("name", models())
def test_tensors_and_arrays_give_the_same_bits_in_every_batch(name):
    model = models()[name]
    size = model.minimum_size + 5, model.minimum_size + 20
    images = [picture(seed, *size) for seed in range(3)]
    others = [distorted(image, "noise", 1 + i, i) for i, image in enumerate(images)]
    one_by_one = [model.score_uint8(*pair) for pair in zip(images, others, strict=True)]
    assert model.score(tensor(*images), tensor(*others)).tolist() == one_by_one
    assert model.score(tensor(*images[::-1]), tensor(*others[::-1])).tolist() == one_by_one[::-1]


@pytest.mark.parametrize("name", models())
def test_threads_working_side_by_side_give_the_same_bits(name):
    model = models()[name]
    pairs = [(LARGE[0], np.roll(LARGE[1], shift, axis=1)) for shift in range(6)]
    alone = [model.score_uint8(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda pair: model.score_uint8(*pair), pairs * 3)) == alone * 3


@pytest.mark.parametrize("name", models())
def test_a_reference_that_is_kept_gives_the_same_bits_for_each_of_its_images(name, monkeypatch):
    model = models()[name]
    others = [distorted(LARGE[0], kind, level, level) for kind in ("noise", "fade") for level in (1, 3)]
    alone = [model.score_uint8(LARGE[0], other) for other in others]
    kept, another = model.embed_uint8(LARGE[0]), model.embed_uint8(others[0])
    assert [model.score_embedded_uint8(kept, other) for other in others] == alone
    assert model.score_embedded_uint8(another, others[0]) == 1
    monkeypatch.setattr("harness.models.kernels.ssim_map._KEPT_PIXELS", 0)
    assert [model.score_embedded_uint8(model.embed_uint8(LARGE[0]), other) for other in others] == alone
    for wrong in (LARGE[1][1:], LARGE[1].astype(np.float32)):
        with pytest.raises(UsageError, match="distorted: expected"):
            model.score_embedded_uint8(kept, wrong)


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("pixels", [1, 1 << 17, 1 << 30])
def test_strips_and_stacks_of_every_size_give_the_same_bits(name, pixels, monkeypatch):
    model = models()[name]
    others = [distorted(LARGE[0], kind, level, level) for kind in ("noise", "fade") for level in (1, 3)] + [LARGE[0]]
    alone = [model.score_uint8(LARGE[0], other) for other in others]
    monkeypatch.setattr("harness.models.kernels.ssim_map._STRIP_PIXELS", pixels)
    assert [model.score_uint8(LARGE[0], other) for other in others] == alone
    assert model.score_several_uint8(model.embed_uint8(LARGE[0]), others) == alone


@pytest.mark.parametrize("keep", [False, True])
def test_bands_of_a_large_image_join_without_a_seam(keep, monkeypatch):
    monkeypatch.setattr("harness.models.planes._BAND_PIXELS", 1 << 12)
    x, y = greys(LARGE)
    assert mean_ssims(Reference(rows_of(x), keep), [rows_of(y)])[0] == pytest.approx(by_definition(x, y)[0].mean(), abs=1e-6)


@pytest.mark.slow
def test_opencvs_thread_count_changes_no_bit():
    program = (
        "import sys, cv2; cv2.setNumThreads(int(sys.argv[1])); from small import *; from harness.models.ssim import *;"
        "i = picture(3, 500, 700); d = distorted(i, 'noise', 2, 3);"
        "print([m.score_uint8(i, d).hex() for m in (SSIM(), SSIM('rgb'), SSIM(downsample=True), MSSSIM())])"
    )
    path = ":".join(sys.path)
    said = {
        subprocess.run(
            [sys.executable, "-c", program, threads], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
        ).stdout
        for threads in ("1", "4")
    }
    assert len(said) == 1


@pytest.mark.parametrize("name", models())
def test_identical_images_give_exactly_one(name):
    model = models()[name]
    for image in (LARGE[0], np.full((200, 240, 3), 77, np.uint8), np.zeros((200, 240, 3), np.uint8)):
        assert model.score_uint8(image, image) == 1.0
    assert model.score(tensor(LARGE[0]), tensor(LARGE[0])).item() == 1.0


def test_two_constants_give_the_luminance_factor_alone():
    a, b = (np.full((20, 20, 3), grey, np.uint8) for grey in (100, 150))
    assert SSIM().score_uint8(a, b) == pytest.approx((2 * 100 * 150 + C1) / (100**2 + 150**2 + C1), abs=1e-6)


def test_a_constant_against_an_image_is_defined():
    flat = np.full_like(SMALL[0], 128)
    score = SSIM().score_uint8(SMALL[0], flat)
    assert -1 < score < 1
    assert score == pytest.approx(by_definition(*greys((SMALL[0], flat)))[0].mean(), abs=1e-6)


def test_grey_images_score_the_same_on_luma_and_on_rgb():
    image = np.repeat(SMALL[0][..., :1], 3, axis=2)
    other = np.repeat(SMALL[1][..., :1], 3, axis=2)
    assert SSIM().score_uint8(image, other) == pytest.approx(SSIM("rgb").score_uint8(image, other), abs=1e-7)


@pytest.mark.parametrize("name", models())
def test_images_smaller_than_the_window_are_refused(name):
    model = models()[name]
    side = model.minimum_size
    image = picture(9, side, side)
    assert model.score_uint8(image, image) == 1.0
    with pytest.raises(UsageError, match=f"at least {side} pixels a side"):
        model.score_uint8(image[1:], image[1:])
    with pytest.raises(UsageError, match=f"at least {side} pixels a side"):
        model.score(tensor(image[:, 1:]), tensor(image[:, 1:]))


def test_planes_that_are_compared_stay_as_they_were():
    x, y = greys(SMALL)
    before = x.copy(), y.copy()
    mean_ssims(Reference(rows_of(x)), [rows_of(y)])
    assert (x == before[0]).all()
    assert (y == before[1]).all()


@pytest.mark.parametrize("wrong", [lambda: SSIM("yuv"), lambda: MSSSIM("grey"), lambda: MSSSIM(combine="mean")])
def test_unknown_settings_are_refused(wrong):
    with pytest.raises(UsageError, match=r"is (neither|not one of)"):
        wrong()


def test_official_values_of_tid2013_pairs(shared):
    from harness.imaging.decode import read

    folder = shared / "data" / "tid2013-pairs"
    names = ["I03", "I04", "I06", "I08", "I19"]
    pairs = [(read(folder / f"reference/{n}.bmp"), read(folder / f"distorted/{n}.bmp")) for n in names]
    assert [round(SSIM().score_uint8(*pair), 4) for pair in pairs] == [0.6993, 0.9978, 0.9989, 0.9669, 0.6519]
    assert [round(MSSSIM().score_uint8(*pair), 4) for pair in pairs] == [0.6733, 0.9996, 0.9998, 0.9566, 0.8462]
