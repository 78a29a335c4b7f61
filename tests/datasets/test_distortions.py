"""The 25 kinds of distortion: their effect, any image size, and increasing strength over the levels."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.datasets import demo
from harness.datasets.demo.color import RGB_FROM_YCBCR, lab_from_rgb, rgb_from_lab
from harness.datasets.demo.distortions import KINDS, LEVELS, distort, to_float
from harness.runtime.errors import UsageError

Image = np.ndarray

# Where a level is not simply more of the last: to both sides of the reference.
TWO_SIDED = {"mean_shift", "contrast_change"}
# Places or directions are drawn again at each level, so only the mean over images grows.
RANDOM_PLACES = {"motion_blur", "color_shift", "non_eccentricity_patch", "color_block"}
IDENTICAL = {("gaussian_blur", 1), ("color_saturation_2", 1), ("mean_shift", 3)}


@functools.cache
def reference(name: str) -> Image:
    return demo.reference_image(name)


def plain(value: int, size: int = 64) -> Image:
    return np.full((size, size, 3), value, np.uint8)


def gradient() -> Image:
    """A small image with smooth, sharp, coloured and grey parts."""
    row, column = np.mgrid[0:48, 0:64]
    image = np.stack([4 * column, 5 * row, 255 - 2 * (row + column)], axis=2)
    image[10:20, 10:30] = (200, 40, 90)
    image[30:40, 30:60] = 128
    return image.astype(np.uint8)


def mse(kind: str, level: int, name: str) -> float:
    image = reference(name)
    return float(((distort(image, kind, level, name).astype(float) - image) ** 2).mean())


def spread(image: Image) -> tuple[float, np.ndarray]:
    """Sum and covariance of a blurred point's weights."""
    weights = image[..., 0].astype(float)
    row, column = np.mgrid[: weights.shape[0], : weights.shape[1]]
    covariance = np.cov(np.stack([row.ravel(), column.ravel()]), aweights=weights.ravel(), ddof=0)
    return weights.sum(), covariance


def point() -> Image:
    image = plain(0, 65)
    # A square of nine pixels keeps enough grey levels under wide blurs; its own variance is 2/3 along each axis.
    image[31:34, 31:34] = 255
    return image


def test_there_are_the_25_kinds_of_kadid_10k_in_its_order() -> None:
    assert tuple(demo.priors()) == KINDS
    assert len(KINDS) == 25
    assert all(len(LEVELS[kind]) == 5 for kind in KINDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_gives_the_same_image_again_and_leaves_its_input_alone(kind: str) -> None:
    image = gradient()
    first = distort(image, kind, 4, "a")
    assert (image == gradient()).all()
    assert (first == distort(image, kind, 4, "a")).all()
    assert (first != image).any()


@settings(max_examples=60)
@given(
    kind=st.sampled_from(KINDS),
    level=st.integers(1, 5),
    height=st.integers(16, 70),
    width=st.integers(16, 70),
    fill=st.sampled_from(["noise", "black", "white"]),
)
def test_any_image_from_16_pixels_up_keeps_its_shape(kind: str, level: int, height: int, width: int, fill: str) -> None:
    noise = np.random.default_rng(height * 100 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = {"noise": noise, "black": noise * 0, "white": noise * 0 + 255}[fill]
    result = distort(image, kind, level, "x")
    assert result.shape == image.shape
    assert result.dtype == np.uint8


def test_the_smallest_image_takes_every_kind_at_every_level() -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for kind in KINDS:
        for level in range(1, 6):
            assert distort(image, kind, level, "x").shape == image.shape


@pytest.mark.slow
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in TWO_SIDED | RANDOM_PLACES])
@pytest.mark.parametrize("name", ["astronaut", "picture_1a"])
def test_a_higher_level_is_farther_from_the_reference(kind: str, name: str) -> None:
    distances = [mse(kind, level, name) for level in range(1, 6)]
    assert distances == sorted(set(distances))


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(RANDOM_PLACES))
def test_a_higher_level_of_a_kind_with_random_places_is_farther_on_average(kind: str) -> None:
    names = demo.reference_ids()
    distances = [sum(mse(kind, level, name) for name in names) for level in range(1, 6)]
    assert distances == sorted(set(distances))


@pytest.mark.parametrize("kind", sorted(TWO_SIDED))
def test_a_two_sided_kind_is_strongest_at_both_ends(kind: str) -> None:
    distances = [mse(kind, level, "coffee") for level in range(1, 6)]
    assert distances[0] > distances[1] > distances[2]
    assert distances[4] > distances[3] >= 0.9 * distances[2]


@pytest.mark.slow
def test_three_cells_equal_their_reference_and_no_other_does() -> None:
    image = reference("wine")
    equal = {(k, v) for k in KINDS for v in range(1, 6) if (distort(image, k, v, "wine") == image).all()}
    assert equal == IDENTICAL


def test_blurs_spread_a_point_as_wide_as_they_say() -> None:
    total = spread(point())[0]
    for level, sigma in zip((3, 4), (1, 2), strict=True):
        weight, covariance = spread(distort(point(), "gaussian_blur", level, "x"))
        assert weight == pytest.approx(total, rel=0.02)
        assert np.diag(covariance) == pytest.approx(sigma**2 + 2 / 3, rel=0.05)
    for level, radius in enumerate(LEVELS["lens_blur"], 1):
        weight, covariance = spread(distort(point(), "lens_blur", level, "x"))
        assert weight == pytest.approx(total, rel=0.03)
        # A disk's variance along an axis is a quarter of its radius squared, and a pixel's is a twelfth.
        assert np.diag(covariance) == pytest.approx(radius**2 / 4 + 2 / 3 + 1 / 12, rel=0.1)
    for level, length in enumerate(LEVELS["motion_blur"], 1):
        weight, covariance = spread(distort(point(), "motion_blur", level, "x"))
        assert weight == pytest.approx(total, rel=0.03)
        across, along = np.sqrt(np.linalg.eigvalsh(covariance))
        # A line's variance is a twelfth of its length squared; soft edges add up to a pixel to either end.
        assert length**2 / 12 < along**2 < (length + 2) ** 2 / 12 + 2 / 3
        assert across < 1.1


@pytest.mark.parametrize("kind", ["color_diffusion", "color_saturation_2", "high_sharpen"])
def test_cielab_kinds_change_what_they_name_and_nothing_else(kind: str) -> None:
    grey = np.repeat(gradient()[..., :1], 3, axis=2)
    result = distort(grey, kind, 4, "x")
    if kind == "high_sharpen":
        assert np.ptp(result.astype(int), axis=2).max() <= 1
        assert np.abs(np.diff(result[..., 0].astype(int))).sum() > 1.5 * np.abs(np.diff(grey[..., 0].astype(int))).sum()
    else:
        assert np.abs(result.astype(int) - grey).max() <= 1
        muted = distort(gradient() // 4 + 96, kind, 2 if kind == "color_saturation_2" else 1, "x")
        difference = lab_from_rgb(to_float(muted)) - lab_from_rgb(to_float(gradient() // 4 + 96))
        assert np.abs(difference[..., 0]).max() < 0.5
        assert np.abs(difference[..., 1:]).max() > 5


def test_lab_is_cielab_and_goes_back() -> None:
    x = to_float(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    assert np.abs(rgb_from_lab(lab_from_rgb(x)) - x).max() < 2e-5
    colors = np.array([[[1, 1, 1], [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5], [0, 0, 0]]], np.float32)
    # White, red, blue, middle grey and black of sRGB under D65, as tables give them.
    expected = [[100, 0, 0], [53.24, 80.09, 67.2], [32.3, 79.19, -107.86], [53.39, 0, 0], [0, 0, 0]]
    assert lab_from_rgb(colors)[0] == pytest.approx(np.array(expected), abs=0.02)


def test_hsv_saturation_is_multiplied_and_hue_and_value_kept() -> None:
    image = gradient()
    value = image.max(axis=2)
    assert (distort(image, "color_saturation_1", 4, "x") == value[..., None]).all()
    x, y = to_float(image), to_float(distort(image, "color_saturation_1", 1, "x"))
    assert np.abs((y.max(2) - y.min(2)) - 0.4 * (x.max(2) - x.min(2))).max() < 1 / 255
    assert (distort(image, "color_saturation_1", 1, "x").max(axis=2) == value).all()


def test_color_shift_moves_the_green_channel_alone() -> None:
    image = reference("friends")
    result = distort(image, "color_shift", 5, "x")
    assert (result[..., [0, 2]] == image[..., [0, 2]]).all()
    assert (result[..., 1] != image[..., 1]).mean() > 0.3
    assert (distort(plain(90), "color_shift", 5, "x") == 90).all()


def test_quantizations_leave_as_many_colours_and_tones_as_they_say() -> None:
    image = reference("picture_1a")
    for level in range(1, 6):
        colors = np.unique(distort(image, "color_quantization", level, "x").reshape(-1, 3), axis=0)
        assert LEVELS["color_quantization"][level - 1] * 0.8 <= len(colors) <= LEVELS["color_quantization"][level - 1]
        assert len(np.unique(distort(image, "quantization", level, "x"))) == LEVELS["quantization"][level - 1]


@pytest.mark.parametrize("level", [1, 3, 5])
def test_noises_have_the_variance_that_they_say(level: int) -> None:
    image = plain(128, 128)
    x = 128 / 255

    def noise(kind: str) -> Image:
        return distort(image, kind, level, "x").astype(float) / 255 - x

    assert noise("white_noise").var() == pytest.approx(LEVELS["white_noise"][level - 1], rel=0.05)
    assert noise("multiplicative_noise").var() == pytest.approx(x**2 * LEVELS["multiplicative_noise"][level - 1], rel=0.05)
    components = noise("white_noise_cc") @ np.linalg.inv(RGB_FROM_YCBCR).T
    assert components.var(axis=(0, 1)) == pytest.approx(LEVELS["white_noise_cc"][level - 1], rel=0.06)
    struck = distort(image, "impulse_noise", level, "x")
    assert set(np.unique(struck)) == {0, 128, 255}
    assert (struck != 128).mean() == pytest.approx(LEVELS["impulse_noise"][level - 1], rel=0.2)


def test_denoising_takes_most_of_the_noise_from_plain_places_and_some_from_images() -> None:
    # The first level of denoise starts from the noise of the last of white_noise.
    assert LEVELS["denoise"][0] == LEVELS["white_noise"][4]
    assert distort(plain(128, 128), "denoise", 1, "x").var() < 0.3 * distort(plain(128, 128), "white_noise", 5, "x").var()
    assert mse("denoise", 1, "wine") < 0.5 * mse("white_noise", 5, "wine")


def test_tones_are_lifted_lowered_shifted_and_spread_as_named() -> None:
    grey = plain(128)
    for level in range(1, 6):
        assert distort(grey, "darken", level, "x")[0, 0, 0] == pytest.approx(128 - 127.5 * LEVELS["darken"][level - 1], abs=1)
        shift = LEVELS["mean_shift"][level - 1]
        assert distort(grey, "mean_shift", level, "x")[0, 0, 0] == pytest.approx(128 + 255 * shift, abs=1)
    lifted = [int(distort(grey, "brighten", level, "x")[0, 0, 0]) for level in range(1, 6)]
    assert lifted == sorted(set(lifted))
    assert lifted[0] == pytest.approx(128 + 127.5 * 0.1, abs=2)
    assert lifted[4] == 255
    for kind in ("brighten", "darken", "contrast_change"):
        assert (distort(plain(0), kind, 1, "x") == 0).all()
        assert (distort(plain(255), kind, 1, "x") == 255).all()
    deviations = [distort(gradient(), "contrast_change", level, "x").std() for level in range(1, 6)]
    assert deviations == sorted(deviations, reverse=True)
    assert deviations[2] > gradient().std() > deviations[3]


def test_jitter_scatters_pixels_and_keeps_plain_places() -> None:
    assert (distort(plain(77), "jitter", 5, "x") == 77).all()
    ramp = np.repeat(np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None], 64, axis=0)[..., None], 3, axis=2)
    for level in (3, 5):
        displacement = (distort(ramp, "jitter", level, "x").astype(float) - ramp)[8:-8, 8:-8] / 4
        # Each of five rounds adds its displacement; reading between pixels averages what the rounds before had added.
        amount = LEVELS["jitter"][level - 1]
        assert amount < displacement.std() < amount * 5**0.5
        assert abs(displacement.mean()) < 0.1 * amount


def test_copied_patches_come_from_eight_pixels_away_at_most() -> None:
    row, column = np.mgrid[0:128, 0:128]
    places = np.stack([row, column, row * 0], axis=2).astype(np.uint8)
    result = distort(places, "non_eccentricity_patch", 1, "x").astype(int)
    moved = (result != places).any(axis=2)
    assert 0.05 < moved.mean() <= 20 * 256 / moved.size
    # A patch may be copied out of an earlier one, but rarely.
    assert np.mean(np.abs(result - places)[moved].max(axis=1) <= 8) > 0.8


def test_pixels_of_a_pixelated_image_come_in_blocks() -> None:
    image = reference("seeding")
    for level, strength in enumerate(LEVELS["pixelate"], 1):
        result = distort(image, "pixelate", level, "x")
        columns = 1 + (np.diff(result.astype(int), axis=1) != 0).any(axis=(0, 2)).sum()
        assert columns == int(288 * (0.95 - strength**0.6))


def test_colour_blocks_are_plain_squares_of_32_pixels() -> None:
    result = distort(plain(128, 200), "color_block", 1, "x")
    struck = (result != 128).any(axis=2)
    assert len(np.unique(result[struck], axis=0)) == 2
    assert 32 * 32 < struck.sum() <= 2 * 32 * 32


def test_codecs_lose_detail_at_the_rate_asked_for() -> None:
    image = reference("chelsea")
    for kind in ("jpeg", "jpeg2000"):
        for level in (1, 5):
            result = distort(image, kind, level, "x")
            assert abs(result.astype(float).mean() - image.mean()) < 3
    blocky = np.abs(np.diff(distort(image, "jpeg", 5, "x").astype(float), axis=1)).mean(axis=(0, 2))
    at_edges = blocky[7::8].mean()
    assert at_edges > 5 * np.delete(blocky, np.s_[7::8]).mean()


def test_random_kinds_draw_again_for_each_reference_kind_and_level() -> None:
    image = plain(128)
    noise = distort(image, "white_noise", 3, "a")
    assert (noise != distort(image, "white_noise", 3, "b")).any()
    standard = [(distort(image, "white_noise", level, "a").astype(float) - 128) for level in (1, 5)]
    assert abs(np.corrcoef(standard[0].ravel(), standard[1].ravel())[0, 1]) < 0.05


GOLDEN = {
    "gaussian_blur": (127.27, 61.87),
    "lens_blur": (127.27, 60.58),
    "motion_blur": (127.27, 62.74),
    "color_diffusion": (117.26, 114.60),
    "color_shift": (124.07, 63.29),
    "color_quantization": (126.14, 61.52),
    "color_saturation_1": (192.29, 33.94),
    "color_saturation_2": (118.97, 109.15),
    "white_noise": (127.34, 65.85),
    "white_noise_cc": (127.60, 66.40),
    "impulse_noise": (127.25, 66.46),
    "multiplicative_noise": (126.98, 66.19),
    "denoise": (128.28, 52.29),
    "brighten": (197.46, 61.69),
    "darken": (89.16, 64.21),
    "mean_shift": (107.93, 63.04),
    "jitter": (127.17, 62.76),
    "non_eccentricity_patch": (126.54, 59.52),
    "pixelate": (127.60, 64.79),
    "quantization": (128.29, 65.18),
    "color_block": (125.57, 78.44),
    "high_sharpen": (125.43, 74.38),
    "contrast_change": (126.72, 55.97),
}


def test_images_of_version_1_are_these() -> None:
    """A change here needs a new `distortions.VERSION`, or caches keep the old images."""
    found = {}
    for kind in KINDS:
        if kind not in ("jpeg", "jpeg2000"):
            image = distort(gradient(), kind, 4, "golden")
            found[kind] = (round(float(image.mean()), 2), round(float(image.std()), 2))
    for kind, expected in GOLDEN.items():
        assert found[kind] == pytest.approx(expected, abs=0.05), kind
    assert set(found) == set(GOLDEN)


def test_bad_requests_say_what_is_wrong() -> None:
    with pytest.raises(UsageError, match="did you mean 'gaussian_blur'"):
        distort(plain(1), "gausian_blur", 1, "x")
    for level in (0, 6, 2.5):
        with pytest.raises(UsageError, match="not one of 1, 2, 3, 4, 5"):
            distort(plain(1), "jpeg", level, "x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"uint8 image, got \(64, 64\)"):
        distort(plain(1)[..., 0], "jpeg", 1, "x")
    with pytest.raises(UsageError, match="float32"):
        distort(to_float(plain(1)), "jpeg", 1, "x")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="15x20 is too small"):
        distort(np.zeros((15, 20, 3), np.uint8), "jpeg", 1, "x")
