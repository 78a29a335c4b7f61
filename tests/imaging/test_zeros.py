"""Zero bytes of an interrupted download of a JPEG are distinguished from those that an encoder writes."""

from __future__ import annotations

import json
from pathlib import Path

import deep
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import picture

from harness.cli.main import cli
from harness.imaging import decode
from harness.imaging.remarks import ZEROS
from harness.imaging.zeros import run_of_zeros
from harness.runtime.errors import UsageError


def noisy(side: int = 160) -> Image.Image:
    noise = np.random.default_rng(0).integers(-20, 20, (side, side, 3))
    return Image.fromarray(np.clip(picture(0, side, side) + noise, 0, 255).astype(np.uint8))


WAYS: dict[str, dict[str, object]] = {
    "plain": {},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "fine": {"quality": 98, "subsampling": 0},
    "coarse": {"quality": 20, "optimize": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_second_half_of_zeros_is_found(way: str):
    data = deep.encoded(noisy(), "JPEG", **WAYS[way])
    half = len(data) // 2
    broken = data[:half] + bytes(len(data) - half)
    found = run_of_zeros("JPEG", broken)
    assert found is not None
    assert half - 16 <= found[0] <= half
    assert found[0] + found[1] == len(data)
    assert run_of_zeros("JPEG", data) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_hole_of_zeros_that_spares_the_end_is_found(way: str):
    data = deep.encoded(noisy(640), "JPEG", **WAYS[way])
    broken = data[: len(data) // 4] + bytes(len(data) // 2) + data[len(data) // 4 + len(data) // 2 :]
    assert run_of_zeros("JPEG", broken) is not None
    assert run_of_zeros("JPEG", data) is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_flat_images_and_padding_after_the_end_are_no_damage(way: str, mode: str):
    options = WAYS[way] if mode == "RGB" else {k: v for k, v in WAYS[way].items() if k != "subsampling"}
    for level in (0, 128, 255):
        flat = Image.new(mode, (1600, 1200), (level,) * 3 if mode == "RGB" else level)
        data = deep.encoded(flat, "JPEG", **options)
        assert run_of_zeros("JPEG", data) is None
        assert run_of_zeros("JPEG", data + bytes(5000)) is None
        flat.paste(noisy(160), (0, 0))
        assert run_of_zeros("JPEG", deep.encoded(flat, "JPEG", **options)) is None


def test_zeros_between_the_images_of_a_compound_file_are_no_damage():
    first = deep.encoded(noisy(), "JPEG")
    assert run_of_zeros("MPO", first + bytes(4096) + first) is None


@given(
    st.integers(1, 5),
    st.integers(0, 255),
    st.integers(1, 100),
    st.booleans(),
    st.booleans(),
    st.integers(8, 600),
    st.integers(8, 600),
)
@settings(max_examples=60)
def test_what_an_encoder_writes_is_never_called_damaged(
    seed: int, level: int, quality: int, optimise: bool, progressive: bool, width: int, height: int
):
    pixels = np.full((height, width, 3), level, np.uint8)
    pixels[: height // seed, : width // 2] = picture(seed, height // seed, width // 2) if width > 1 else level
    data = deep.encoded(Image.fromarray(pixels), "JPEG", quality=quality, optimize=optimise, progressive=progressive)
    assert run_of_zeros("JPEG", data) is None


@given(st.binary(max_size=200), st.integers(0, 600))
def test_any_bytes_are_looked_at_without_an_error(head: bytes, zeros: int):
    for data in (b"\xff\xd8" + head + bytes(zeros), head, deep.encoded(deep.eight(), "JPEG")[: len(head)] + head + bytes(zeros)):
        for kind in ("JPEG", "MPO", "JPEG2000", "WEBP", "PNG"):
            run_of_zeros(kind, data)


def test_a_webp_and_a_jpeg_2000_that_end_in_zeros_are_found():
    webp = deep.encoded(noisy(), "WEBP", quality=90)
    assert run_of_zeros("WEBP", webp) is None
    assert run_of_zeros("WEBP", webp[: len(webp) // 2] + bytes(len(webp) - len(webp) // 2)) is not None
    jp2 = deep.encoded(noisy(), "JPEG2000")
    assert run_of_zeros("JPEG2000", jp2) is None
    assert run_of_zeros("JPEG2000", jp2[: len(jp2) // 2] + bytes(len(jp2) - len(jp2) // 2)) is not None


def test_where_the_decoder_gives_up_the_zeros_are_named_as_the_reason():
    data = deep.encoded(noisy(), "JPEG")
    with pytest.raises(UsageError, match=r"truncated.*zero bytes from byte [\d,]+ on: an unfinished download") as caught:
        decode.decode(data[:3000] + bytes(len(data) - 3000), "x.jpg")
    assert len(str(caught.value).splitlines()) == 1


def test_a_broken_download_is_a_warning_when_scored_and_an_error_of_the_full_check(tmp_path: Path):
    noisy().save(tmp_path / "ref.png")
    data = deep.encoded(noisy(), "JPEG", **WAYS["fine"])
    (tmp_path / "whole.jpg").write_bytes(data)
    (tmp_path / "broken.jpg").write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    scored = CliRunner().invoke(cli, ["score", "psnr", str(tmp_path / "ref.png"), str(tmp_path / "broken.jpg")])
    assert float(scored.stdout) < 25
    assert scored.stderr.startswith(f"warning: {ZEROS}: {tmp_path / 'broken.jpg'} (")
    assert decode.read_hashed(tmp_path / "whole.jpg").remarks == ()

    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "mine.toml").write_text(
        'name = "mine"\ntitle = "mine"\nreader = "harness.datasets:read_table"\nhigher_is_better = true\n'
        'default_protocol = "full"\n[layout]\ntable = "p.csv"\n[protocols.full]\nsplit = "full"\n'
    )
    (tmp_path / "p.csv").write_text("distorted,reference,score\nwhole.jpg,ref.png,2\nbroken.jpg,ref.png,1\n")
    words = ["data", "check", "mine", "--full", "--root", str(tmp_path), "--cards", str(cards), "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1
    (problem,) = [p for p in json.loads(done.stdout)["problems"] if ZEROS in p["what"]]
    assert "broken.jpg" in problem["what"]
    assert "whole.jpg" not in problem["what"]
    assert problem["severity"] == "error"
