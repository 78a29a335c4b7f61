from __future__ import annotations

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import picture

from harness.imaging import decode
from harness.runtime.errors import UsageError


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tiff"])
def test_a_lossless_image_comes_back_as_it_was(tmp_path: Path, ending: str):
    pixels = picture(0)
    path = saved(tmp_path / f"a b é.{ending}", Image.fromarray(pixels), **({"lossless": True} if ending == "webp" else {}))
    assert np.array_equal(decode.read(path), pixels)
    assert decode.read_hashed(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert decode.look(path)[:2] == pixels.shape[:2]


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (2, 3), (64, 81), (5, 6), (7, 11)])
def test_a_plain_bmp_has_the_pixels_that_pillow_gives(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    data = encoded(Image.fromarray(pixels), "BMP")
    assert decode._is_plain_bmp(data)
    assert np.array_equal(decode.decode(data, "x.bmp"), pixels)


@given(st.data())
@settings(max_examples=150)
def test_a_bmp_whatever_its_header_says_is_read_as_pillow_reads_it_or_refused(data: st.DataObject):
    broken = bytearray(encoded(Image.fromarray(picture(0, 6, 5)), "BMP"))
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, 53))] = data.draw(st.integers(0, 255))
    try:
        pixels = decode.decode(bytes(broken), "x.bmp")
    except UsageError:
        return
    assert np.array_equal(pixels, by_pillow(bytes(broken)))


def test_grey_palette_one_bit_and_opaque_alpha_become_rgb(tmp_path: Path):
    grey = Image.fromarray(picture(0)[..., 0])
    assert (decode.read(saved(tmp_path / "grey.png", grey)) == np.asarray(grey)[..., None]).all()
    palette = Image.fromarray(picture(0)).quantize(16)
    assert np.array_equal(decode.read(saved(tmp_path / "palette.png", palette)), np.asarray(palette.convert("RGB")))
    bits = grey.convert("1")
    assert np.array_equal(decode.read(saved(tmp_path / "bits.png", bits)), np.asarray(bits.convert("RGB")))
    opaque = Image.fromarray(picture(0)).convert("RGBA")
    assert np.array_equal(decode.read(saved(tmp_path / "alpha.png", opaque)), picture(0))


def test_exif_rotation_is_applied_as_a_viewer_does(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "turned.png", Image.fromarray(picture(0)), exif=exif)
    assert np.array_equal(decode.read(path), np.rot90(picture(0), -1))


def hand_made_png(side: int, depth: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(8 * 6) for _ in range(8))
    header = struct.pack(">IIBBBBB", side, side, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refused() -> dict[str, tuple[bytes, str]]:
    colour = Image.fromarray(picture(0))
    clear = colour.convert("RGBA")
    clear.putalpha(200)
    png = encoded(colour, "PNG")
    return {
        "16-bit grey": (encoded(Image.fromarray(np.zeros((8, 8), np.uint16)), "PNG"), "8 bits"),
        "16-bit colour": (hand_made_png(8, 16), "8 bits"),
        "float": (encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "8 bits"),
        "cmyk": (encoded(colour.convert("CMYK"), "JPEG"), "CMYK"),
        "transparent": (encoded(clear, "PNG"), "transparency"),
        "animated": (encoded(colour, "GIF", save_all=True, append_images=[Image.fromarray(picture(1))]), "animation"),
        "truncated": (png[: len(png) // 2], "damaged"),
        "empty": (b"", "empty"),
        "text": (b"hello, world", "not an image"),
    }


@pytest.mark.parametrize("kind", refused())
def test_an_image_whose_conversion_would_be_a_choice_is_refused_by_name(tmp_path: Path, kind: str):
    data, words = refused()[kind]
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UsageError, match=words) as caught:
        decode.read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_a_bomb_is_refused_before_it_is_unpacked(side: int):
    with pytest.raises(UsageError, match="pixels"):
        decode.decode(hand_made_png(side, 8), "bomb.png")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nowhere\.png"):
        decode.read(tmp_path / "nowhere.png")


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_image_is_read_or_refused_and_nothing_else(data: st.DataObject):
    out = io.BytesIO()
    Image.fromarray(picture(0, 16, 16)).save(out, data.draw(st.sampled_from(["PNG", "BMP", "JPEG", "GIF", "TIFF", "WEBP"])))
    broken = bytearray(out.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    try:
        pixels = decode.decode(bytes(broken[:cut]), "x")
    except UsageError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3


def test_a_postscript_file_called_png_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import subprocess

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, "EPS")
    with pytest.raises(UsageError, match="not an image"):
        decode.read(path)
    with pytest.raises(UsageError, match="not an image"):
        decode.look(path)
