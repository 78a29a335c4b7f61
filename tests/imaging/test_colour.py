"""Embedded colour profiles, and pairs whose profiles differ."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import deep
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageCms

from harness.cli.main import cli
from harness.imaging import decode, file_headers
from harness.imaging.colour import Colour, compared
from harness.imaging.remarks import PROFILES, SRGB_PROFILES
from harness.runtime.errors import UsageError


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def matrix_profile(name: str, columns: np.ndarray, gamma: float) -> bytes:
    """An ICC v2 display profile: three colorants (XYZ, D50) and one gamma curve."""
    text = name.encode("ascii") + b"\0"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = b"XYZ " + bytes(4) + s15(0.9642) + s15(1) + s15(0.8249)
    bodies = {b"desc": description, b"wtpt": white, b"cprt": b"text" + bytes(4) + b"none\0"}
    for tag, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns.T, strict=True):
        bodies[tag] = b"XYZ " + bytes(4) + b"".join(s15(v) for v in column)
    bodies |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    at, table, content = 128 + 4 + 12 * len(bodies), struct.pack(">I", len(bodies)), b""
    for tag, body in bodies.items():
        body += bytes(-len(body) % 4)
        table += struct.pack(">4sII", tag, at + len(content), len(body))
        content += body
    head = struct.pack(">I4sI4s4s4s", 0, b"none", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head = head.ljust(68, b"\0") + s15(0.9642) + s15(1) + s15(0.8249)
    whole = head.ljust(128, b"\0") + table + content
    return struct.pack(">I", len(whole)) + whole[4:]


SRGB_D50 = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
WIDE_D50 = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
WIDE = matrix_profile("Wide gamut", WIDE_D50, 2.2)
GAMMA_1 = matrix_profile("Linear", SRGB_D50, 1.0)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cicp(png: bytes, primaries: int, transfer: int) -> bytes:
    body = bytes([primaries, transfer, 0, 1])
    chunk = struct.pack(">I", 4) + b"cICP" + body + struct.pack(">I", zlib.crc32(b"cICP" + body))
    return png[:33] + chunk + png[33:]


def look(tmp_path: Path, data: bytes) -> Colour:
    path = tmp_path / "x.dat"
    path.write_bytes(data)
    found = decode.look(path).colour
    assert decode.read_hashed(path).colour == found
    assert file_headers.look(str(path)).colour == found
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_an_embedded_profile_is_named_and_srgb_is_distinguished_from_others(tmp_path: Path, kind: str):
    assert look(tmp_path, deep.encoded(deep.eight(), kind)) == ("", True)
    profiles = {"wide": WIDE, "srgb": SRGB, "linear": GAMMA_1}
    data = {name: deep.encoded(deep.eight(), kind, icc_profile=profile) for name, profile in profiles.items()}
    wide, srgb, linear = (look(tmp_path, data[name]) for name in ("wide", "srgb", "linear"))
    assert "Wide gamut" in wide.text
    assert (wide.srgb, srgb.srgb, linear.srgb) == (False, True, False)
    assert len({wide.text, srgb.text, linear.text}) == 3


def test_a_grey_profile_and_one_that_cannot_be_read_are_no_srgb(tmp_path: Path):
    assert not look(tmp_path, deep.encoded(deep.eight(), "PNG", icc_profile=b"nonsense" * 20)).srgb
    assert not look(tmp_path, deep.encoded(deep.eight(), "PNG", icc_profile=WIDE[:-200])).srgb


def test_code_points_of_png_and_avif_are_read(tmp_path: Path):
    png = deep.encoded(deep.eight(), "PNG")
    assert look(tmp_path, cicp(png, 12, 13)) == ("CICP 12/13", False)
    assert look(tmp_path, cicp(png, 1, 13)) == ("CICP 1/13", True)
    assert look(tmp_path, cicp(png, 2, 2)) == ("", True)
    avif = bytearray(deep.encoded(deep.eight(), "AVIF"))
    at = avif.index(b"nclx") + 4
    avif[at : at + 4] = struct.pack(">HH", 9, 16)
    assert look(tmp_path, bytes(avif)) == ("CICP 9/16", False)
    avif[at : at + 4] = struct.pack(">HH", 2, 2)
    assert look(tmp_path, bytes(avif)) == ("", True)


def test_a_profile_in_the_box_of_a_jpeg_2000_is_read(tmp_path: Path):
    plain = deep.encoded(deep.eight(), "JPEG2000")
    colr = plain.index(b"colr") - 4
    new = struct.pack(">I4sBBB", 11 + len(WIDE), b"colr", 2, 0, 0) + WIDE
    head = plain.index(b"jp2h") - 4
    longer = struct.unpack(">I", plain[head : head + 4])[0] - 15 + len(new)
    data = plain[:head] + struct.pack(">I", longer) + plain[head + 4 : colr] + new + plain[colr + 15 :]
    assert "Wide gamut" in look(tmp_path, data).text
    assert look(tmp_path, plain).text == ""


def test_a_pair_is_named_where_its_files_differ_and_only_then():
    none, srgb, wide = Colour(), Colour("an sRGB profile", True), Colour("a wide one", False)
    assert compared("x", none, none) is None
    assert compared("x", wide, wide) is None
    for pair in ((wide, none), (none, wide), (wide, srgb)):
        remark = compared("x.png", *pair)
        assert remark is not None
        assert remark.kind == PROFILES
        assert all((c.text or "no profile") in remark.what for c in pair)
    assert getattr(compared("x", srgb, none), "kind", None) == SRGB_PROFILES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    deep.eight().save(tmp_path / "ref.png")
    deep.eight().save(tmp_path / "same.png", optimize=True)
    deep.eight().save(tmp_path / "wide.png", icc_profile=WIDE)
    deep.eight().save(tmp_path / "srgb.png", icc_profile=SRGB)
    (tmp_path / "hdr.png").write_bytes(cicp((tmp_path / "ref.png").read_bytes(), 9, 16))
    names = ("same.png", "wide.png", "srgb.png", "hdr.png")
    rows = "".join(f"{name},ref.png,{i}\n" for i, name in enumerate(names))
    (tmp_path / "p.csv").write_text("distorted,reference,score\n" + rows)
    return tmp_path


def test_score_names_the_pairs_and_what_each_file_says(folder: Path):
    done = CliRunner().invoke(cli, ["score", "psnr", "--pairs", str(folder / "p.csv")])
    assert [line.partition(",")[2] for line in done.stdout.splitlines()] == ["120.0"] * 4
    (warned,) = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "wide.png (ICC profile 'Wide gamut'" in warned
    assert "hdr.png (CICP 9/16; its reference: no profile)" in warned
    assert "same.png" not in done.stderr
    (noted,) = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert "srgb.png" in noted
    document = json.loads(CliRunner().invoke(cli, ["score", "psnr", "--pairs", str(folder / "p.csv"), "--json"]).stdout)
    assert ["remarks" in entry for entry in document] == [False, True, True, True]


@pytest.mark.slow
def test_run_names_the_pairs(folder: Path):
    words = ["run", "psnr", "--dataset", str(folder / "p.csv"), "--runs", str(folder / "runs"), "--mlflow-uri", "off"]
    done = CliRunner().invoke(cli, words)
    assert "wide.png (ICC profile" in done.stderr, done.output


def test_the_quick_check_and_the_full_one_name_the_pairs(folder: Path):
    cards = folder / "cards"
    cards.mkdir()
    (cards / "mine.toml").write_text(
        'name = "mine"\ntitle = "mine"\nreader = "harness.datasets:read_table"\nhigher_is_better = true\n'
        'default_protocol = "full"\n[layout]\ntable = "p.csv"\n[protocols.full]\nsplit = "full"\n'
    )
    for more in ([], ["--full"]):
        words = ["data", "check", "mine", "--root", str(folder), "--cards", str(cards), *more, "--json"]
        problems = json.loads(CliRunner().invoke(cli, words).stdout)["problems"]
        (warned,) = [p for p in problems if PROFILES in p["what"]]
        assert warned["severity"] == "warning"
        assert "2 pairs: wide.png" in warned["what"]
        assert "hdr.png" in warned["what"]
        (noted,) = [p for p in problems if SRGB_PROFILES in p["what"]]
        assert noted["severity"] == "information"


# One size for the check and the run


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "MPO"])
def test_the_size_of_the_header_is_the_size_of_the_pixels_under_every_rotation(tmp_path: Path, kind: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x.dat"
    wide = deep.eight().crop((0, 0, 16, 10))
    path.write_bytes(deep.encoded(wide, kind, exif=exif))
    pixels = decode.read(path)
    assert pixels.shape[:2] == ((16, 10) if orientation > 4 else (10, 16))
    assert decode.look(path)[:2] == pixels.shape[:2]
    assert tuple(file_headers.look(str(path))[:2]) == pixels.shape[:2]


@pytest.mark.parametrize("after", [False, True])
def test_a_rotation_that_only_text_chunks_of_a_png_hold_is_seen_by_the_check(tmp_path: Path, after: bool):
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    body = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()
    chunk = struct.pack(">I", len(body)) + b"iTXt" + body + struct.pack(">I", zlib.crc32(b"iTXt" + body))
    data = deep.encoded(deep.eight().crop((0, 0, 16, 10)), "PNG")
    place = len(data) - 12 if after else 33
    path = tmp_path / "x.png"
    path.write_bytes(data[:place] + chunk + data[place:])
    assert tuple(file_headers.look(str(path))[:2]) == decode.read(path).shape[:2] == (16, 10)


def test_an_animated_png_is_refused_by_the_quick_check_too(tmp_path: Path):
    path = tmp_path / "x.png"
    path.write_bytes(deep.encoded(deep.eight(), "PNG", save_all=True, append_images=[Image.new("RGB", (16, 16))]))
    for read in (file_headers.look, decode.read):
        with pytest.raises(UsageError, match="animation"):
            read(str(path))


def test_a_stream_of_pixels_is_not_changed_by_a_profile():
    out = io.BytesIO()
    deep.eight().save(out, "PNG", icc_profile=WIDE)
    assert np.array_equal(decode.decode(out.getvalue(), "x"), np.asarray(deep.eight()))
