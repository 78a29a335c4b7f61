"""Fuzzing with bad input: every case ends well, or in one HarnessError with a printable message.

    python tools/soak/fuzz.py [--cases 100000] [--only TARGET]... [--seed 0]

Each target reads files of one kind. A case is a good file that was damaged, or a made-up one. What counts as a failure: any
other exception, a case of more than `DEADLINE` seconds, a message without words, memory beyond the limit, a planted program
that ran, or a file outside the folder. `tests/integration/test_fuzz.py` runs a small share of the same targets.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import functools
import io
import json
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import worlds
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

DEADLINE = 10.0
MEMORY = 6 << 30
Case = Callable[[random.Random, Path], None]


class Hang(BaseException):
    """A case took longer than DEADLINE; no handler of the harness's may swallow it."""


@dataclass
class Target:
    """One kind of input: `case` makes a bad one with the generator it is given and lets the harness read it."""

    name: str
    case: Case
    share: float
    """Of all cases of the soak."""


@dataclass
class Outcome:
    good: int = 0
    refused: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)


# Damage

_WORDS = (
    b"", b"\0", b"\xff\xfe", b"nan", b"-inf", b"1e400", b"-1", b"0", b"99999999999999999999", b"2147483648", b"\n", b"\r", b",",
    b";", b'"', b"[", b"{", b"]]", b"=", b"..", b"/", b"\\", b"../../x", b"\xe2\x80\xa8", b"\x0c", b"\xc2\x85", "é".encode(),
    b"\xed\xa0\x80", b"1_000", b"0x10", b"true", b"[]", b"{}", b"1.0", "²".encode(), "１".encode(), b"a" * 300, b"(" * 50,
)  # fmt: skip


def damaged(draw: random.Random, good: bytes) -> bytes:
    """A good file with one to four injuries: bits, bytes, words, cuts, repetitions, wrong numbers."""
    data = bytearray(good)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        length = min(len(data) - at, draw.choice((1, 2, 4, 8, 40, 400)))
        kind = draw.randrange(8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + length] = draw.randbytes(length)
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 20))
        elif kind == 5:
            data[at : at + draw.choice((0, length))] = draw.choice(_WORDS)
        elif kind == 6 and len(data) >= at + 8:
            number = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, len(data)))
            data[at : at + 4] = struct.pack(draw.choice("<>") + "I", number)
        else:
            data[at:] = data[at:][::-1]
    return bytes(data)


def lines_damaged(draw: random.Random, good: bytes) -> bytes:
    """A good text with cells and lines put wrong, which bytes at random rarely do."""
    lines = good.split(b"\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        kind = draw.randrange(6)
        if kind == 0:
            lines.insert(at, draw.choice(lines))
        elif kind == 1:
            del lines[at]
            lines = lines or [b""]
        elif kind == 2:
            cells = re.split(rb"([,;= \t])", lines[at])
            cells[draw.randrange(len(cells))] = draw.choice(_WORDS)
            lines[at] = b"".join(cells)
        elif kind == 3:
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == 4:
            lines[at] += draw.choice((b",", b" ", b"\t", b'"', b"#", b"\0", b"\r")) + draw.choice(_WORDS)
        else:
            lines[0] = draw.choice(_WORDS) + lines[0]
    return b"\n".join(lines)


def text_damaged(draw: random.Random, good: bytes) -> bytes:
    return (lines_damaged if draw.random() < 0.7 else damaged)(draw, good)


# Cards


def toml_cards(folders: Sequence[str]) -> list[tuple[str, bytes]]:
    from harness.cards.loading import card_folders

    places = {folder for kind in ("models", "datasets") if kind in folders for folder in card_folders(kind)}
    return [(path.stem, path.read_bytes()) for folder in sorted(places) for path in sorted(folder.glob("*.toml"))]


@functools.cache
def _cards() -> list[tuple[str, bytes]]:
    return toml_cards(("models", "datasets"))


def cards(draw: random.Random, folder: Path) -> None:
    from harness.cards.loading import find_challenge, find_dataset
    from harness.cards.overrides import apply_set
    from harness.models import find_model

    good = draw.choice(_cards())[1]
    path = folder / "card.toml"
    path.write_bytes(text_damaged(draw, good))
    if b"\nphases" in good or b"[phases" in good:
        find_challenge(str(path))
    elif b"\nreader" in good:
        find_dataset(str(path))
    else:
        card = find_model(str(path))
        apply_set(card, {draw.choice(("protocol.crops", "recipe.epochs", "recipe.betas", "model.x", "x")): "five"})


_VALUES: tuple[Any, ...] = (
    0,
    -1,
    1.5,
    "",
    "x",
    "(",
    "[",
    "(?P<x>",
    [],
    ["("],
    {},
    {"x": 1},
    True,
    None,
    10**30,
    float("nan"),
    "{",
    "{a}",
)


def layouts(draw: random.Random, folder: Path) -> None:
    """A dataset card whose layout says something else, read over a miniature of that dataset."""
    import tomllib

    import miniatures

    from harness import datasets
    from harness.cards.plugins import resolve
    from harness.cards.schema import DatasetCard, parse_card

    name = draw.choice(("tid2013", "kadid10k", "csiq", "pieapp", "mdid", "live"))
    good = next(text for stem, text in _cards() if stem == name)
    document = tomllib.loads(good.decode())
    place = document["layout"]
    while (key := draw.choice(list(place))) and isinstance(place[key], dict) and place[key] and draw.random() < 0.7:
        place = place[key]
    value = draw.choice(_VALUES)
    if isinstance(place[key], str) and draw.random() < 0.6:
        value = text_damaged(draw, place[key].encode()).decode("utf-8", "replace")
    place[key] = value
    card = parse_card(DatasetCard, document, str(folder / "card.toml"))
    reader = resolve(f"harness.datasets.readers:{card.reader}", card.path)
    from harness.datasets.table import complete

    complete(reader(card, miniatures.tree(name), **card.layout), datasets.__name__)


# Label files


LABELLED = {
    "tid2013": ("mos_with_names.txt", "mos.txt", "mos_std.txt"),
    "tid2008": ("mos_with_names.txt",),
    "kadid10k": ("kadid10k/dmos.csv",),
    "live": ("databaserelease2/dmos_realigned.mat", "databaserelease2/refnames_all.mat", "databaserelease2/jpeg/info.txt"),
    "csiq": ("csiq.DMOS.xlsx",),
    "pipal, a tenth of the training set": ("Train_Label/*.txt",),
    "pieapp": ("labels/test/*_per_image_score.csv",),
    "mdid": ("MDID/mos.txt", "MDID/mos_std.txt"),
    "bapps": ("dataset/2afc/val/*/judge/*.npy",),
}


def label_files(draw: random.Random, folder: Path) -> None:
    """A label file of any format, damaged, through the parser of its kind."""
    import miniatures

    from harness.datasets import label_files as label_reader
    from harness.datasets.readers import bapps, live_release2

    name = draw.choice(list(LABELLED))
    files = [f for pattern in LABELLED[name] for f in sorted(miniatures.tree(name).glob(pattern))]
    source = draw.choice(files)
    good = source.read_bytes()
    path = folder / f"labels{source.suffix}"
    binary = source.suffix in (".mat", ".npy", ".xlsx")
    if source.suffix == ".xlsx" and draw.random() < 0.7:
        path.write_bytes(inner_damaged(draw, good))
    else:
        path.write_bytes(damaged(draw, good) if binary else text_damaged(draw, good))
    if source.suffix == ".mat":
        live_release2.load_vector(path, "dmos_new" if "dmos" in source.name else "refnames_all")
    elif source.suffix == ".npy":
        bapps._vote(str(path))
    elif name == "mdid" or source.name in ("mos.txt", "mos_std.txt"):
        label_reader.read_numbers(path)
    else:
        columns = draw.choice(((), ("score", "name"), ("name", "score"), ("name", "-", "reference", "score", "std")))
        compose = "{image}.{dst_type}.{dst_lev}.png" if binary else ""
        label_reader.read_labels(path, columns, {}, compose).problem  # noqa: B018


def inner_damaged(draw: random.Random, good: bytes) -> bytes:
    """A zip one of whose parts is damaged while the zip itself is sound."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        victim = draw.choice(source.namelist())
        for entry in source.namelist():
            data = source.read(entry)
            target.writestr(entry, text_damaged(draw, data) if entry == victim else data)
    return out.getvalue()


def readers(draw: random.Random, folder: Path) -> None:
    """A dataset whose label file is damaged, through its card and reader."""
    import miniatures

    from harness import datasets

    name = draw.choice([n for n in LABELLED if n != "live" or draw.random() < 0.2])
    tree = _linked(name)
    victim = draw.choice([f for pattern in LABELLED[name] for f in sorted(tree.glob(pattern))])
    good = victim.read_bytes()
    binary = victim.suffix in (".mat", ".npy", ".xlsx")
    miniatures.replace(victim, damaged(draw, good) if binary else text_damaged(draw, good))
    try:
        datasets.load_dataset(name.partition(",")[0], tree)
    finally:
        miniatures.replace(victim, good)


@functools.cache
def _linked(name: str) -> Path:
    import miniatures

    return miniatures.copy(miniatures.tree(name), _scratch() / f"tree of {name}")


@functools.cache
def _scratch() -> Path:
    import atexit

    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


# Tables and scores

_TABLE = (
    "name,distorted,reference,score,reference_id,distortion,level,part\n"
    + "".join(f"n{i},d{i}.png,r{i // 3}.png,{i * 0.5},r{i // 3},blur,{i % 3},{('train', 'test')[i // 6]}\n" for i in range(12))
).encode()
_SCORES = ("name,score,reference_id\n" + "".join(f"n{i},{i * 0.37},r{i // 3}\n" for i in range(12))).encode()


def tables(draw: random.Random, folder: Path) -> None:
    from harness.datasets import splits
    from harness.datasets.table import read_csv, table_hash
    from harness.engine import unlabelled

    path = folder / "table.csv"
    path.write_bytes(
        text_damaged(draw, draw.choice((_TABLE, _TABLE.replace(b",", b";"), _TABLE.replace(b"\n", b"\r\n"), _SCORES)))
    )
    if draw.random() < 0.2:
        unlabelled.read_pairs(str(path))
        return
    frame = read_csv(path)
    table_hash(frame)
    from harness import datasets

    protocols = datasets._table_card(path).protocols
    parts = splits.split(frame, protocols[draw.choice(list(protocols))])
    splits.split_hash(frame, parts)


def score_files(draw: random.Random, folder: Path) -> None:
    from harness.engine.compare import agreement_of_files
    from harness.results.run_scores import ScoreFile

    scores, labels = folder / "scores.csv", folder / "labels.csv"
    labels.write_bytes(_SCORES if draw.random() < 0.8 else text_damaged(draw, _SCORES))
    scores.write_bytes(text_damaged(draw, _SCORES))
    if draw.random() < 0.3:
        file = ScoreFile(folder)
        file.read()
        file.resume([["n0", "n1", "n2"], ["n3"]])
        return
    agreement_of_files(scores, labels, inner=draw.random() < 0.7, fit=draw.choice(("logistic4", "poly3")))


def records(draw: random.Random, folder: Path) -> None:
    """A run's folder whose record is damaged, through everything that reads records."""
    from harness import leaderboard
    from harness.engine import score_source
    from harness.results.record import read_record

    source, record = _record()
    place = folder / "runs" / "toy" / "psnr" / source.name
    place.mkdir(parents=True, exist_ok=True)
    document = json.loads(json.dumps(record))
    if draw.random() < 0.7:
        where: Any = document
        while isinstance(where, dict) and where:
            key = draw.choice(list(where))
            if not isinstance(where[key], dict) or draw.random() < 0.5:
                break
            where = where[key]
        if isinstance(where, dict) and where:
            if draw.random() < 0.3:
                del where[key]
            else:
                where[key] = draw.choice(_VALUES)
        text = json.dumps(document).encode()
    else:
        text = text_damaged(draw, json.dumps(record, indent=1).encode())
    (place / "record.json").write_bytes(text)
    (place / "scores.csv").write_bytes((source / "scores.csv").read_bytes())
    choice = draw.randrange(3)
    if choice == 0:
        leaderboard.show(None, folder / "runs", folder / "boards")
    elif choice == 1:
        score_source.member("psnr", dataset="toy", runs_folder=folder / "runs")
    else:
        read_record(place)


@functools.cache
def _record() -> tuple[Path, dict[str, Any]]:
    import record_factory

    return record_factory.make(_scratch() / "record", noise=0.5)


# Zips


def submissions(draw: random.Random, folder: Path) -> None:
    import challenge

    from harness.challenges.submission_check import check

    path = folder / "in.zip"
    files = dict(_submission())
    if draw.random() < 0.6:
        victim = draw.choice(list(files))
        files[victim] = text_damaged(draw, files[victim])
        entries = [
            (draw.choice((name, name, name, "a/" + name, "../" + name, name.upper(), "\\" + name)), d)
            for name, d in files.items()
        ]
        challenge.raw_zip(path, entries)
    else:
        challenge.save(path, files)
        path.write_bytes(damaged(draw, path.read_bytes()))
    report = check(path, challenge="ntire2022-fr", phase="test")
    str(report).encode("utf-8")
    json.dumps(report.json(), allow_nan=False)


@functools.cache
def _submission() -> tuple[tuple[str, bytes], ...]:
    import challenge

    return tuple(challenge.good().items())


def archives(draw: random.Random, folder: Path) -> None:
    """A zip or tar with links, tricks and damage: nothing may appear outside the folder."""
    from harness.datasets.archives import unpack

    inside = folder / "in" / "side"
    inside.mkdir(parents=True, exist_ok=True)
    names = [
        "a.txt",
        "b/c.txt",
        "../../out.txt",
        "/tmp/harness-fuzz-out",
        "a.txt",
        "b",
        "b/../../x",
        "C:\\x",
        "link",
        "link/y",
        "\u2028",
        "x" * 300,
    ]
    if draw.random() < 0.5:
        path = folder / "a.zip"
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
            warnings.simplefilter("ignore")
            for name in draw.sample(names, draw.randint(1, 5)):
                entry = zipfile.ZipInfo(name)
                entry.external_attr = draw.choice((0o100644, 0o120777, 0o040755, 0)) << 16
                archive.writestr(entry, draw.choice((b"text", b"../../out.txt", b"/etc", b"x" * 5000)))
    else:
        path = folder / draw.choice(("a.tar", "a.tar.gz", "a.tar.xz"))
        with tarfile.open(path, {"a.tar": "w", "a.tar.gz": "w:gz", "a.tar.xz": "w:xz"}[path.name]) as archive:
            for name in draw.sample(names, draw.randint(1, 5)):
                member = tarfile.TarInfo(name)
                member.type = draw.choice(
                    (tarfile.REGTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
                )
                member.linkname = draw.choice(("", "../..", "/etc/passwd", "a.txt"))
                data = b"text" if member.isreg() else b""
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    if draw.random() < 0.4:
        path.write_bytes(damaged(draw, path.read_bytes()))
    try:
        unpack(path, inside)
    finally:
        strange = [p for p in folder.rglob("*") if p not in (path, folder / "in", inside) and inside not in p.parents]
        links = [p for p in inside.rglob("*") if p.is_symlink() or not (p.is_file() or p.is_dir())]
        left = list(inside.glob(".unpacking-*"))
        shutil.rmtree(folder / "in")
        if strange or links or left or Path("/tmp/harness-fuzz-out").exists():
            raise AssertionError(f"outside the folder: {strange}, links: {links}, left over: {left}")


# Weights


class Planted:
    """A pickle that leaves a file where it is carried out."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.marker, "w"))


def marker() -> Path:
    return _scratch() / "a program ran"


@functools.cache
def _weights() -> list[tuple[str, bytes]]:
    import torch
    from safetensors.torch import save

    state = {
        "a.weight": torch.arange(12.0).reshape(3, 4),
        "a.bias": torch.zeros(3),
        "n": torch.tensor(3),
        "h": torch.ones(2).half(),
    }
    made = [("x.safetensors", save(state, {"trained_on": "tid2013"}))]
    planted = Planted(marker())
    for name, content, legacy in (
        ("zip.pth", {"state": state, "epoch": 3}, False),
        ("legacy.pth", state, True),
        ("planted.pth", {"state": state, "x": planted}, False),
        ("planted-legacy.pth", {"state": state, "x": planted}, True),
        ("nan.pth", {"a": torch.tensor([1.0, float("nan")])}, False),
        ("inf.pth", {"a": torch.tensor([float("inf")])}, True),
        ("object.pth", [1, 2], False),
        ("nested.pth", functools.reduce(lambda inner, _: {"x": inner}, range(30), {}), False),
    ):
        out = io.BytesIO()
        torch.save(content, out, _use_new_zipfile_serialization=not legacy)
        made.append((name, out.getvalue()))
    made.append(("bare.pth", pickle.dumps(planted)))
    made.append(("bare.safetensors", pickle.dumps(planted)))
    return made


_HEADERS: tuple[Any, ...] = (
    {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
    {"a": {"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F64", "shape": [-1], "data_offsets": [8, 0]}},
    {"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}},
    {"a": {"dtype": "X", "shape": "8", "data_offsets": [0, 8]}},
    {"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}, "b": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}},
    {"a": {"dtype": "BOOL", "shape": [8], "data_offsets": [0, 8]}, "__metadata__": {"x": 1}},
    {"a": [], "b": None},
    [],
    "x",
    {"__metadata__": {"x": "y"}},
)


def checkpoints(draw: random.Random, folder: Path) -> None:
    from harness.models.weights.checkpoint import names, read_metadata, read_state

    name, good = draw.choice(_weights())
    if draw.random() < 0.15:
        name = "made-up.safetensors"
        text = json.dumps(draw.choice(_HEADERS)).encode()
        length = draw.choice((len(text), len(text), len(text), 1 << 40, 0, len(text) - 1, (1 << 63) + 5))
        good = struct.pack("<Q", length) + text + struct.pack("<2f", draw.choice((1.0, float("nan"))), 2.0)
        data = good
    elif draw.random() < 0.1:
        data = good
    else:
        data = damaged(draw, good)
    path = folder / name
    path.write_bytes(data)
    try:
        names(path)
        read_metadata(path)
        read_state(path)
    finally:
        if marker().exists():
            marker().unlink()
            raise AssertionError("a pickle was carried out")


# Images


@functools.cache
def _pictures() -> list[bytes]:
    import numpy as np
    from PIL import Image, ImageCms

    draw = np.random.default_rng(0)
    rgb = Image.fromarray(draw.integers(0, 255, (20, 30, 3), np.uint8))
    deep = Image.fromarray(draw.integers(0, 65535, (20, 30)).astype(np.uint16))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    turned = {"save_all": True, "append_images": [rgb.rotate(180)]}
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        *((rgb, kind, {}) for kind in ("PNG", "BMP", "JPEG", "TIFF", "PPM", "GIF", "JPEG2000", "EPS", "ICO", "TGA", "PDF")),
        *((rgb, kind, turned) for kind in ("GIF", "PNG", "WEBP", "TIFF")),
        *((rgb, kind, {"icc_profile": profile}) for kind in ("PNG", "JPEG")),
        *((rgb.convert(mode), "PNG", {}) for mode in ("RGBA", "LA", "1", "L")),
        *((rgb.convert(mode), "TIFF", {}) for mode in ("CMYK", "F", "LAB")),
        *((deep, kind, {}) for kind in ("PNG", "TIFF")),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "WEBP", {"lossless": True}),
        (rgb, "JPEG", {"exif": rotated}),
        (rgb.quantize(16), "PNG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
    ]
    made = []
    for picture, kind, options in kinds:
        out = io.BytesIO()
        picture.save(out, kind, **options)
        made.append(out.getvalue())
    return [*made, *bombs()]


def bombs() -> list[bytes]:
    """Small files that announce, or unpack to, very much."""
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(width: int, height: int, *extra: bytes) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")

    swollen = zlib.compress(b"\0" * (64 << 20), 9)
    bmp = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0)
    return [
        png(60000, 60000), png(9000, 10000), png(0x7FFFFFFF, 0x7FFFFFFF), png(30, 20, chunk(b"zTXt", b"k\0\0" + swollen)),
        png(30, 20, chunk(b"iCCP", b"k\0\0" + swollen)), bmp, b"P6 40000 40000 255\n" + b"x" * 100, b"GIF89a" + b"\xff" * 40,
    ]  # fmt: skip


def pictures(draw: random.Random, folder: Path) -> None:
    from harness.imaging import decode, file_headers

    good = draw.choice(_pictures())
    data = good if draw.random() < 0.05 else damaged(draw, good)
    path = folder / f"x.{draw.choice(('png', 'bmp', 'jpg', 'tif', 'gif', 'txt', 'eps'))}"
    path.write_bytes(data)
    with contextlib.suppress(decode.UsageError):
        decode.look(path)
    with contextlib.suppress(decode.UsageError):
        file_headers.look(str(path))
    decode.read_hashed(path)


TARGETS = [
    Target("cards", cards, 0.14),
    Target("layouts of dataset cards", layouts, 0.02),
    Target("label files, each parser", label_files, 0.16),
    Target("label files, whole readers", readers, 0.02),
    Target("tables of pairs", tables, 0.12),
    Target("score files", score_files, 0.10),
    Target("records", records, 0.06),
    Target("submissions", submissions, 0.04),
    Target("archives", archives, 0.06),
    Target("checkpoints", checkpoints, 0.12),
    Target("pictures", pictures, 0.16),
]


def attempt(target: Target, number: int, outcome: Outcome) -> str | None:
    """One case; returns what is wrong with how it ended, or None."""
    from harness.runtime.errors import HarnessError

    draw = random.Random(number)
    begun = time.process_time()
    folder = _scratch() / "case"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    problem = None
    try:
        with _deadline(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.case(draw, folder)
        outcome.good += 1
    except HarnessError as error:
        outcome.refused += 1
        try:
            text = str(error).encode("utf-8").decode()
        except UnicodeError:
            problem = "a message that no terminal can show"
        else:
            if not text.strip() or "Traceback" in text or max(map(len, text.splitlines())) > 6000:
                problem = f"a message that helps nobody: {text[:300]!r}"
    except Hang:
        problem = f"took more than {DEADLINE:g} s of CPU"
    except Exception as error:
        problem = f"{type(error).__name__}: {str(error)[:300]}"
        if os.environ.get("FUZZ_DEBUG"):
            raise
    outcome.slowest = max(outcome.slowest, time.process_time() - begun)
    return problem and f"{target.name} #{number}: {problem}"


@contextlib.contextmanager
def _deadline() -> Iterator[None]:
    if not hasattr(signal, "setitimer"):  # Windows: no deadline, the rest holds
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise Hang

    # Seconds of CPU, so that a machine with other work finds nothing that is not there.
    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, DEADLINE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fuzz(target: Target, cases: int, base: int = 0) -> Outcome:
    """`cases` cases of a target, chosen by hypothesis from the generator seeded with `base`."""
    outcome = Outcome()
    reported: set[str] = set()

    @seed(base)
    @settings(max_examples=cases, database=None, deadline=None, suppress_health_check=list(HealthCheck), phases=_PHASES)
    @given(st.integers(0, 2**62))
    def run(number: int) -> None:
        problem = attempt(target, number, outcome)
        kind = re.sub(r"#\d+|[\d.]+", "#", problem or "")[:120]
        if problem and kind not in reported:
            reported.add(kind)
            outcome.failures.append(problem)

    run()
    return outcome


def _phases() -> tuple[Any, ...]:
    from hypothesis import Phase

    return (Phase.explicit, Phase.generate)


_PHASES = _phases()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--only", action="append", help="a target's name; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case again, by its number, with its traceback")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chosen = [t for t in TARGETS if not asked.only or t.name in asked.only]
    if asked.case is not None:
        os.environ["FUZZ_DEBUG"] = "1"
        print(attempt(chosen[0], asked.case, Outcome()))
        return 0
    faulthandler.enable()
    rows, failures = [], []
    for target in chosen:
        attempt(target, 0, Outcome())  # imports and good files are not the case's time
        count = round(asked.cases * target.share / sum(t.share for t in chosen))
        begun = time.process_time()
        outcome = fuzz(target, count, asked.seed)
        seconds = time.process_time() - begun
        failures += outcome.failures
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        done = outcome.good + outcome.refused
        rows.append(
            [
                target.name,
                done,
                outcome.good,
                outcome.refused,
                len(outcome.failures),
                f"{outcome.slowest:.2f} s",
                f"{seconds:.0f} s",
                f"{peak} MB",
            ]
        )
        print(f"{target.name}: {seconds:.0f} s of CPU", file=sys.stderr, flush=True)
        print("\n".join(outcome.failures), file=sys.stderr, flush=True)
    header = ["input", "cases", "read", "refused", "failures", "slowest", "CPU", "peak memory so far"]
    print(worlds.table(rows, header))
    print(f"\n{sum(int(row[1]) for row in rows)} cases, {len(failures)} kinds of failure")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
