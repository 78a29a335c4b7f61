"""Every accepted format: its bit depth is known, and all commands refuse deeper or unknown files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import deep
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from harness.cli.main import cli
from harness.imaging import decode, file_headers, refused_formats
from harness.runtime.errors import UsageError

DEEP: dict[str, tuple[Callable[[], bytes], str]] = {
    "png rgb": (deep.png, "16"),
    "png grey": (lambda: deep.png(colour=0), "16"),
    "tiff rgb": (deep.tiff, "16"),
    "tiff grey": (lambda: deep.tiff(channels=1), "16"),
    "tiff grey 32": (lambda: deep.tiff(32, channels=1), "32"),
    "tiff float": (lambda: deep.tiff(32, 3, 1), "32"),
    "tiff signed": (lambda: deep.tiff(8, 2, 1), "is unknown"),
    "jpeg 2000": (lambda: deep.jpeg2000(16), "16"),
    "jpeg 2000 of 12 bits": (lambda: deep.jpeg2000(12), "12"),
    "jpeg 2000 codestream": (lambda: deep.jpeg2000(10, codestream=True), "10"),
    "jpeg 2000 signed": (lambda: deep.jpeg2000(0x88), "is unknown"),
    "jpeg 2000 of 4 bits": (lambda: deep.jpeg2000(4), "4 bits"),
    "avif 10": (lambda: deep.avif(10), "10"),
    "avif 12": (lambda: deep.avif(12), "12"),
    "jpeg 12": (lambda: deep.jpeg(12), "12"),
    "jpeg 16": (lambda: deep.jpeg(16), "16"),
    "ppm 16": (lambda: deep.ppm(65535), "16"),
    "ppm 10": (lambda: deep.ppm(1023), "10"),
    "ppm plain": (lambda: deep.ppm(65535, plain=True), "16"),
    "ppm behind a comment": (lambda: deep.ppm(4095, comment=b"# 8 8 255\n"), "12"),
    "pgm 16": (lambda: deep.pgm(65535), "16"),
    "sgi": (lambda: deep.sgi(2), "16"),
    "tga": (lambda: deep.tga_grey_16(0), "is unknown"),
    "pfm": (lambda: b"PF\n2 2\n-1.0\n" + bytes(48), "portable float map"),
    "pfm grey": (lambda: b"Pf\n2 2\n-1.0\n" + bytes(16), "portable float map"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_an_image_of_more_than_8_bits_is_refused_by_its_header(tmp_path: Path, kind: str):
    make, words = DEEP[kind]
    path = tmp_path / "x.dat"
    path.write_bytes(make())
    for read in (decode.read, decode.read_hashed, decode.look):
        with pytest.raises(UsageError, match=words) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).count(str(path)) == 1
    with pytest.raises(UsageError, match=words) as caught:
        file_headers.look(str(path))
    assert str(path) not in str(caught.value)


SHALLOW: dict[str, Callable[[], bytes]] = {
    **{kind.lower(): lambda kind=kind: deep.encoded(deep.eight(), kind) for kind in ("PNG", "BMP", "DIB", "TIFF", "TGA", "PCX")},
    "webp": lambda: deep.encoded(deep.eight(), "WEBP", lossless=True),
    "jpeg 2000": lambda: deep.encoded(deep.eight(), "JPEG2000"),
    "jpeg 2000 codestream": lambda: deep.encoded(deep.eight(), "JPEG2000", no_jp2=True),
    "sgi": lambda: deep.sgi(1),
    "ppm": lambda: deep.encoded(deep.eight(), "PPM"),
    "ppm plain": lambda: b"P3 # c\n16 16\n255\n" + b" ".join(b"%d" % v for v in np.asarray(deep.eight()).ravel()),
    "qoi": lambda: deep.encoded(deep.eight(), "QOI"),
}


@pytest.mark.parametrize("kind", SHALLOW)
def test_a_lossless_image_of_8_bits_keeps_its_numbers(tmp_path: Path, kind: str):
    path = tmp_path / "x.dat"
    path.write_bytes(SHALLOW[kind]())
    assert np.array_equal(decode.read(path), np.asarray(deep.eight()))
    assert decode.look(path)[:2] == (deep.SIDE, deep.SIDE)
    assert tuple(file_headers.look(str(path))[:2]) == (deep.SIDE, deep.SIDE)


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "GIF", "WEBP"])
def test_a_lossy_image_of_8_bits_is_read(tmp_path: Path, kind: str):
    path = tmp_path / "x.dat"
    path.write_bytes(deep.encoded(deep.eight(), kind))
    assert decode.read(path).shape == (deep.SIDE, deep.SIDE, 3)


def test_grey_with_an_alpha_channel_in_a_tga_is_not_a_deep_image():
    assert (decode.decode(deep.tga_grey_16(8), "x.tga")[..., 0] == deep.sixteen()[..., 0] & 0xFF).all()


def test_fewer_values_than_256_in_a_ppm_are_scaled_to_all_of_them():
    pixels = decode.decode(b"P6 2 1 15 " + bytes([15, 0, 0, 5, 15, 1]), "x.ppm")
    assert pixels.tolist() == [[[255, 0, 0], [85, 255, 17]]]


def test_every_format_is_listed_with_how_its_depth_is_known_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "pictures.md").read_text(encoding="utf-8")
    for name, entry in refused_formats.FORMATS.items():
        assert any(f"`{name}`" in line and entry.depth_source in line for line in text.splitlines()), name


def test_no_format_but_the_listed_ones_is_opened(tmp_path: Path):
    path = tmp_path / "x.dat"
    for kind in ("ICO", "DDS", "SPIDER", "IM", "MSP", "XBM"):
        image = deep.eight().convert("F" if kind == "SPIDER" else "1" if kind in ("MSP", "XBM") else "RGB")
        path.write_bytes(deep.encoded(image, kind))
        with pytest.raises(UsageError):
            decode.read(path)


@given(st.sampled_from(sorted({*DEEP, *SHALLOW})), st.data())
def test_a_damaged_header_is_read_or_refused_in_one_line(kind: str, data: st.DataObject):
    content = bytearray(DEEP[kind][0]() if kind in DEEP else SHALLOW[kind]())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    for read in (refused_formats.jxl_header, lambda d: list(refused_formats.boxes(d)), refused_formats.named):
        read(bytes(content[:cut]))
    try:
        pixels = decode.decode(bytes(content[:cut]), "x")
    except UsageError as error:
        pixels, reported = None, str(error)
    assert len(reported.splitlines()) == 1 if pixels is None else pixels.dtype == np.uint8


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\x76\x2f\x31\x01" + bytes(40), "OpenEXR"),
        (b"#?RADIANCE\n" + bytes(40), "Radiance"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
        (b"P7\nWIDTH 1\n" + bytes(40), "PAM"),
        (b"<?xml version='1.0'?>\n<svg xmlns='x'/>", "SVG"),
        (b"<!DOCTYPE html><html>404", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"%PDF-1.7", "PDF"),
        (bytes(5000), "zero bytes"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "raw"),
    ],
)
def test_a_file_of_another_kind_is_named(data: bytes, words: str):
    with pytest.raises(UsageError, match=words):
        decode.decode(data, "x.png")


def test_a_file_of_several_pages_is_not_called_an_animation():
    pages = deep.encoded(deep.eight(), "TIFF", save_all=True, append_images=[deep.eight()])
    with pytest.raises(UsageError, match="2 pages") as caught:
        decode.decode(pages, "x.tif")
    assert "animation" not in str(caught.value)


def test_a_tiff_that_begins_with_a_preview_is_refused():
    preview = deep.encoded(deep.eight(), "TIFF", tiffinfo={254: 1})
    with pytest.raises(UsageError, match="preview"):
        decode.decode(preview, "x.nef")


def test_of_a_compound_jpeg_the_primary_image_is_read_and_that_is_said(tmp_path: Path):
    path = tmp_path / "phone.jpg"
    path.write_bytes(deep.mpo(3))
    alone = deep.encoded(deep.eight(), "JPEG")
    assert np.array_equal(decode.read(path), decode.decode(alone, "x.jpg"))
    Image.fromarray(decode.read(path)).save(tmp_path / "ref.png")
    done = CliRunner().invoke(cli, ["score", "psnr", str(tmp_path / "ref.png"), str(path)])
    assert done.stdout == "120.0\n"
    assert "note: a file of several images (MPO)" in done.stderr
    assert str(path) in done.stderr


@pytest.mark.slow
def test_a_large_image_within_the_limit_brings_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((9500, 9500), np.uint8)).save(path, compress_level=1)
    assert decode.look(path)[:2] == (9500, 9500)
    assert decode.read(path).shape == (9500, 9500, 3)
    assert file_headers.look(str(path)).height == 9500
    assert not recwarn.list


def test_an_image_above_the_limit_is_refused_by_the_quick_check_too(tmp_path: Path):
    path = tmp_path / "x.png"
    header = bytearray(deep.encoded(deep.eight(), "PNG"))
    header[16:24] = struct.pack(">II", 12_000, 12_000)
    path.write_bytes(header)
    with pytest.raises(UsageError, match="more than 100,000,000 pixels"):
        file_headers.look(str(path))


CARD = """
name = "mine"
title = "mine"
reader = "harness.datasets:read_table"
higher_is_better = true
default_protocol = "full"
[layout]
table = "p.csv"
[protocols.full]
split = "full"
"""


@pytest.mark.parametrize("kind", ["jpeg 2000", "avif 10", "ppm 10", "sgi", "tga"])
def test_run_score_and_check_refuse_a_deep_image_alike(tmp_path: Path, kind: str):
    deep.eight().save(tmp_path / "ref.png")
    (tmp_path / "deep.dat").write_bytes(DEEP[kind][0]())
    (tmp_path / "p.csv").write_text("distorted,reference,score\nref.png,ref.png,1\ndeep.dat,ref.png,2\n")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "mine.toml").write_text(CARD)
    words = DEEP[kind][1]
    scored = CliRunner().invoke(cli, ["score", "psnr", str(tmp_path / "ref.png"), str(tmp_path / "deep.dat")])
    run = CliRunner().invoke(
        cli, ["run", "psnr", "--dataset", str(tmp_path / "p.csv"), "--runs", str(tmp_path / "runs"), "--mlflow-uri", "off"]
    )
    assert all(isinstance(done.exception, UsageError) and words in str(done.exception) for done in (scored, run))
    where = ["data", "check", "mine", "--root", str(tmp_path), "--cards", str(tmp_path / "cards"), "--json"]
    for more in ([], ["--full"]):
        checked = CliRunner().invoke(cli, [*where, *more])
        assert checked.exit_code == 1
        (problem,) = [p for p in json.loads(checked.stdout)["problems"] if p["severity"] == "error"]
        assert "deep.dat" in problem["what"]
        assert words in problem["what"]


# JPEG XL


def bits(*fields: tuple[int, int]) -> bytes:
    """A codestream's first bits: values with their lengths, lowest bit first."""
    text = "".join(format(value, f"0{length}b")[::-1] if length else "" for value, length in fields)
    text += "0" * (-len(text) % 8)
    return b"\xff\x0a" + bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8)) + bytes(8)


SMALL = ((1, 1), (3, 5), (1, 3))
"""32x32."""


@pytest.mark.parametrize(
    ("data", "header"),
    [
        (bits(*SMALL, (1, 1)), (32, 32, 8, False)),
        (bits(*SMALL, (0, 1), (0, 1), (0, 1), (0, 2)), (32, 32, 8, False)),
        (bits(*SMALL, (0, 1), (0, 1), (0, 1), (1, 2)), (32, 32, 10, False)),
        (bits(*SMALL, (0, 1), (0, 1), (0, 1), (3, 2), (15, 6)), (32, 32, 16, False)),
        (bits(*SMALL, (0, 1), (0, 1), (1, 1), (0, 2)), (32, 32, 32, False)),
        (bits(*SMALL, (0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (0, 1), (0, 1), (2, 2)), (32, 32, 12, False)),
        (bits(*SMALL, (0, 1), (1, 1), (0, 3), (0, 1), (0, 1), (1, 1)), (32, 32, 8, True)),
        (bits((0, 1), (0, 2), (99, 9), (0, 3), (1, 2), (999, 13), (1, 1)), (1000, 100, 8, False)),
        (bits((0, 1), (1, 2), (1079, 13), (5, 3), (1, 1)), (1920, 1080, 8, False)),
    ],
)
def test_the_header_of_jpeg_xl_is_read(data: bytes, header: tuple[int, int, int, bool]):
    assert refused_formats.jxl_header(data) == header
    boxed = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
    assert refused_formats.jxl_header(boxed + box(b"jxlc", data)) == header
    assert refused_formats.jxl_header(boxed + box(b"jxlp", bytes(4) + data)) == header


def test_jpeg_xl_is_refused_by_name_where_its_plug_in_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    monkeypatch.delitem(Image.OPEN, "JXL", raising=False)
    decode._plugins.cache_clear()
    path = tmp_path / "x.jxl"
    path.write_bytes(bits(*SMALL, (1, 1)))
    for read in (decode.read, decode.look):
        with pytest.raises(UsageError, match=r"JPEG XL.*pillow-jxl-plugin"):
            read(path)
    decode._plugins.cache_clear()


@pytest.fixture
def jxl() -> None:
    pytest.importorskip("pillow_jxl")
    decode._plugins.cache_clear()


@pytest.mark.usefixtures("jxl")
@pytest.mark.parametrize("container", [False, True])
def test_jpeg_xl_of_8_bits_is_read_through_its_plug_in(tmp_path: Path, container: bool):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # written next to the codestream, where it does not count
    path = tmp_path / "x.jxl"
    Image.fromarray(pixels).save(path, lossless=True, use_container=container, exif=exif.tobytes() if container else None)
    assert np.array_equal(decode.read(path), pixels)
    assert decode.look(path)[:2] == (24, 40)
    assert decode.look(path).colour.text == ""


@pytest.mark.usefixtures("jxl")
def test_a_jpeg_within_jpeg_xl_is_turned_as_the_jpeg_is(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep.eight().crop((0, 0, 16, 8)).save(tmp_path / "x.jpg", exif=exif)
    with pytest.warns(UserWarning, match="JPEG reconstruction"), Image.open(tmp_path / "x.jpg") as image:
        image.save(tmp_path / "x.jxl")
    assert np.array_equal(decode.read(tmp_path / "x.jxl"), decode.read(tmp_path / "x.jpg"))
    assert decode.look(tmp_path / "x.jxl")[:2] == (16, 8)


@pytest.mark.usefixtures("jxl")
def test_jpeg_xl_of_16_bits_is_refused():
    data = deep.encoded(Image.fromarray(deep.sixteen()[..., 0]), "JXL", lossless=True)
    with pytest.raises(UsageError, match=r"more than 8 bits a channel \(16\)"):
        decode.decode(data, "x.jxl")
