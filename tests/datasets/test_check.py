"""`harness data check`: complete miniatures pass, and broken ones give one report with the right lines."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import miniatures
import numpy as np
import pytest
from click.testing import CliRunner
from miniatures import copy, live_mats, live_vectors, noisy, replace, still, text, tree, write
from PIL import Image

from harness.cards.loading import find_dataset
from harness.cli.main import cli
from harness.datasets import load_dataset
from harness.datasets.check import Report, check
from harness.datasets.check.manifest import manifest_hash
from harness.imaging import file_headers
from harness.runtime.errors import UsageError

NAMES = [name for name in miniatures.TREES if "," not in name]


def checked(name: str, root: Path, full: bool = False, whole: bool = False) -> Report:
    """The miniatures are small: unless `whole`, that is accepted."""
    return check(find_dataset(name), root, full=full, allow_incomplete=not whole, workers=1)


def errors(report: Report) -> str:
    return "\n".join(str(p) for p in report.problems if p.severity == "error")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_miniature_passes_where_a_smaller_size_is_accepted(name):
    report = checked(name, tree(name))
    assert report.ok, errors(report)
    card, found = find_dataset(name), report.json()
    assert list(found) == ["dataset", "ok", "references", "pairs", "problems"]
    assert (found["dataset"], found["ok"]) == (name, True)
    json.dumps(found, allow_nan=False)
    if card.pairs and report.counts[0].found != card.pairs:
        assert any(f"the card says {card.pairs:,}" in p["what"] for p in found["problems"])
    written = report.text()
    assert card.licence in written
    assert card.home in written
    assert all(f"protocol {protocol}: " in written for protocol in card.protocols)
    assert not any("not possible here" in what for what in report.protocols.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_dataset_with_fewer_pairs_than_its_card_says_is_incomplete(name):
    report = checked(name, tree(name), whole=True)
    short = [count for count in report.counts if count.expected and count.found < count.expected]
    assert report.ok == (not short)
    for count in short:
        assert re.search(f"{count.found:,} {count.what}, the card says {count.expected:,}.*--allow-incomplete", errors(report))
    if short:
        assert f"{name}: incomplete. " in report.text()
        assert f"{name}: incomplete, and accepted. " in checked(name, tree(name)).text()


def test_the_check_of_an_incomplete_dataset_ends_with_1_unless_that_is_accepted():
    words = ["data", "check", "tid2013", "--root", str(tree("tid2013"))]
    assert CliRunner().invoke(cli, words).exit_code == 1
    assert CliRunner().invoke(cli, [*words, "--allow-incomplete"]).exit_code == 0
    assert CliRunner().invoke(cli, [*words, "--allow-incomplete", "--strict"]).exit_code == 1


# What breaks a tree of any layout


def rows(name: str, root: Path):
    frame = load_dataset(name, root).table
    # The names of NTIRE 2022's validation images are known from the folder alone, so none can be missed.
    return frame[frame["part"] == "test"] if name == "pipal-ntire2022" else frame


def a_picture(name: str, root: Path, which: int = 3) -> Path:
    return Path(rows(name, root)["distorted"].iloc[which])


def missing_picture(name: str, root: Path) -> str:
    path = a_picture(name, root)
    path.unlink()
    return rf"{path.stem if name == 'bapps' else path.name}|no number"


def missing_reference(name: str, root: Path) -> str:
    path = Path(rows(name, root)["reference"].iloc[3])
    path.unlink()
    return r"(?i)references are missing: " + re.escape(path.name) if name != "bapps" else r"missing in ref: " + path.stem


def missing_part(name: str, root: Path) -> str:
    frame = rows(name, root)
    folder = frame["reference_id"].iloc[0]
    for path in frame["distorted"][frame["reference_id"] == folder]:
        Path(path).unlink()
    return rf"no image of 1 references \({folder} to {folder}\)"


def truncated(name: str, root: Path) -> str:
    path = a_picture(name, root)
    replace(path, path.read_bytes()[:-200])
    return rf"1 of [\d,]+ images cannot be read: .*{re.escape(path.name)} \((cut off|a damaged image)"


def empty(name: str, root: Path) -> str:
    path = a_picture(name, root)
    replace(path, b"")
    return rf"{re.escape(path.name)} \(an empty file\)"


def no_picture(name: str, root: Path) -> str:
    path = a_picture(name, root)
    replace(path, b"<html>404 not found</html>" * 9)
    return rf"{re.escape(path.name)} \(not an image"


def other_size(name: str, root: Path) -> str:
    path = a_picture(name, root)
    path.unlink()
    write(path, still("other", 20, 20))
    return r"1 of [\d,]+ distorted images differ in size from their reference: .*\(20x20, its reference "


def copied(name: str, root: Path) -> str:
    frame = rows(name, root)
    first, last = Path(frame["distorted"].iloc[3]), Path(frame["distorted"].iloc[-1])
    other = next(Path(d) for d, r in zip(frame["distorted"], frame["reference"], strict=True) if r != frame["reference"].iloc[3])
    with Image.open(first) as a, Image.open(other) as b:
        assert name == "live" or a.size == b.size
    replace(other, first.read_bytes())
    assert last
    return r"1 groups of equal images under different references: "


# What breaks label files that are text


def label_file(name: str, root: Path) -> Path:
    pattern = {
        "kadid10k": "dmos.csv",
        "pieapp": "ref_160_per*.csv",
        "mdid": "mos.txt",
        "csiq": "csiq_label.txt",
        "pipal": "A0001.txt",
    }
    return next(root.rglob(pattern.get(name, "mos_with_names.txt")))


def relabel(name: str, root: Path, change: Callable[[list[str]], list[str]]) -> Path:
    path = label_file(name, root)
    lines = path.read_bytes().decode().split("\n")
    replace(path, "\n".join(change([line.strip() for line in lines if line.strip()])).encode())
    return path


def no_labels(name: str, root: Path) -> str:
    for path in {label_file(name, root), *root.rglob("Train_Label/*.txt"), *root.rglob("*per_image_score.csv")}:
        path.unlink()
    return "no label file"


def bad_line(name: str, root: Path) -> str:
    relabel(name, root, lambda lines: [*lines[:2], "what is this?", *lines[2:]])
    return r"1 line cannot be read: line 3 \('what is this\?'\)|1 lines are not numbers: line 3"


def not_a_number(name: str, root: Path) -> str:
    relabel(name, root, lambda lines: [*lines[:2], re.sub(r"(?<![\w.])\d+\.\d+(?![\w.])", "nan", lines[2], count=1), *lines[3:]])
    return r"1 line cannot be read: line 3 .*not a finite number|1 lines are not numbers: line 3"


def labelled_twice(name: str, root: Path) -> str:
    relabel(name, root, lambda lines: [*lines, lines[-1]])
    return r"1 names labelled twice: .* line \d+ and .* line \d+\)|51 scores for 50 images"


def label_lost(name: str, root: Path) -> str:
    relabel(name, root, lambda lines: [*lines[:2], *lines[3:]])
    return r"1 images have no label: |49 scores for 50 images"


def out_of_range(name: str, root: Path) -> str:
    def change(lines: list[str]) -> list[str]:
        return [*lines[:2], re.sub(r"(?<![\w.])(\d+)\.(\d+)(?![\w.])", r"99\1.\2", lines[2], count=1), *lines[3:]]

    relabel(name, root, change)
    return r"1 of \d+ labels outside "


def backwards(name: str, root: Path) -> str:
    """Labels of the other direction: the best image has the worst label."""
    number = r"(?<![\w.])\d+\.\d+(?![\w.])"
    others = [*root.rglob("*per_image_score.csv"), *root.rglob("Train_Label/*.txt")]
    for path in {label_file(name, root), *others}:
        lines = path.read_text().splitlines()
        scores = [float(match.group()) for line in lines if (match := re.search(number, line))]
        total = min(scores) + max(scores)
        flipped = [re.sub(number, lambda m, t=total: f"{t - float(m.group()):.4f}", line, count=1) for line in lines]
        replace(path, "\n".join(flipped).encode())
    return "quality rises with the level|labels contradict PSNR|other scores than"


PICTURES = [missing_picture, missing_reference, missing_part, truncated, empty, no_picture, other_size, copied]
LABELS = [no_labels, bad_line, not_a_number, labelled_twice, label_lost, out_of_range, backwards]


def breakable(name: str, tmp_path: Path) -> Path:
    if name == "csiq":
        miniatures.csiq(tmp_path / "csiq", labels="text")
        return tmp_path / "csiq"
    return copy(tree("pipal, a tenth of the training set" if name == "pipal" else name), tmp_path / name)


NAMED = ["tid2013", "tid2008", "kadid10k", "csiq", "pieapp", "mdid", "pipal"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "breaking"),
    [(name, b) for name in NAMED for b in (*PICTURES, *LABELS) if (name, b) != ("pieapp", out_of_range)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_tree_of_named_images_fails_with_the_right_line(name, breaking, tmp_path):
    root = breakable(name, tmp_path)
    expected = breaking(name, root)
    if name == "mdid" and breaking in (missing_picture, missing_part):
        expected = "scores for .* images; line n should be the score of image n"
    report = checked(name, root, full=breaking is backwards)
    assert not report.ok
    assert re.search(expected, errors(report)), f"{expected}\n{errors(report)}"
    assert not report.json()["ok"]
    for problem in report.problems:
        assert problem.what
        assert problem.where


UNNAMED = ("live", "bapps", "pipal-ntire2022")


# A BAPPS triplet has one image of a kind, and its patches recur.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "breaking"),
    [(name, b) for name in UNNAMED for b in PICTURES if name != "bapps" or b not in (missing_part, copied)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_tree_without_label_lists_fails_with_the_right_line(name, breaking, tmp_path):
    root = copy(tree(name), tmp_path / name)
    expected = breaking(name, root)
    if name == "live" and breaking is missing_part:
        expected = r"\d+ of 779 distorted images are missing"
    report = checked(name, root)
    assert not report.ok
    assert re.search(expected, errors(report)), f"{expected}\n{errors(report)}"


# LIVE's vectors


def vectors_with(change: Callable[[dict[str, np.ndarray]], None]) -> dict[str, np.ndarray]:
    vectors = live_vectors()
    change(vectors)
    return vectors


def swapped(v: dict[str, np.ndarray]) -> None:
    v["dmos_new"], v["dmos"] = v["dmos"], v["dmos_new"]


def mixed(v: dict[str, np.ndarray]) -> None:
    v["dmos_new"][0, :227] = v["dmos"][0, :227]


def one_for_both(v: dict[str, np.ndarray]) -> None:
    v["dmos_new"] = v["dmos"].copy()


def reordered(v: dict[str, np.ndarray]) -> None:
    v["refnames_all"] = np.roll(v["refnames_all"], 227, axis=1)


def cut_short(v: dict[str, np.ndarray]) -> None:
    v["dmos_new"] = v["dmos_new"][:, :-1]


def wrong_marks(v: dict[str, np.ndarray]) -> None:
    v["orgs"] = v["orgs"].copy()
    v["orgs"][0, 100:110] = 1


def not_finite(v: dict[str, np.ndarray]) -> None:
    v["dmos_new"][0, 100] = np.nan


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            swapped,
            "labels within 17.9..84.5 like those of dmos.mat:dmos, where dmos_realigned.mat:dmos_new was expected, in all",
        ),
        (mixed, "in jp2k only: mixed label vectors"),
        (one_for_both, "the same labels as dmos_realigned.mat: one is a copy of the other"),
        (reordered, "distorted images differ in size from their reference"),
        (cut_short, "dmos_new has 981 entries, expected 982"),
        (wrong_marks, "orgs marks 213 copies of references, expected 203"),
        (not_finite, "1 labels are not finite numbers: jp2k/img101.bmp"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_lives_damaged_or_mixed_vectors_are_distinguished(change, expected, tmp_path):
    root = copy(tree("live"), tmp_path / "live")
    for file in root.rglob("*.mat"):
        file.unlink()
    live_mats(root / "databaserelease2", vectors_with(change))
    report = checked("live", root)
    assert not report.ok
    assert expected in errors(report)
    if change is reordered:
        assert any("references contradict the folders' info.txt" in p.what for p in report.problems)


def test_lives_first_labels_are_not_taken_for_the_realigned_ones(tmp_path):
    root = copy(tree("live"), tmp_path / "live")
    (root / "databaserelease2/dmos_realigned.mat").unlink()
    with pytest.raises(UsageError, match=r"no dmos_realigned\.mat .*only dmos\.mat, the other labels, is here"):
        load_dataset("live", root)
    assert checked("live-first", root).ok
    root = copy(tree("live"), tmp_path / "damaged")
    replace(root / "databaserelease2/dmos_realigned.mat", b"MATLAB 5.0 MAT-file" + bytes(range(256)) * 4)
    replace(root / "databaserelease2/refnames_all.mat", b"")
    report = checked("live", root)
    assert "holds no readable vector 'dmos_new'" in errors(report)
    assert "holds no readable vector 'refnames_all'" in errors(report)


# Other formats' own faults


def test_votes_that_are_no_fraction_are_named(tmp_path):
    root = copy(tree("bapps"), tmp_path / "bapps")
    judge = root / "dataset/2afc/val/traditional/judge"
    replace(judge / "000001.npy", b"\x80\x04]\x94.")
    (judge / "000002.npy").unlink()
    np.save(judge / "000002.npy", np.array([7.0]))
    (judge / "000003.npy").unlink()
    report = checked("bapps", root)
    assert "votes are not fractions: 000001.npy, 000002.npy" in errors(report)
    assert "1 of 6 missing in judge: 000003" in errors(report)


def test_a_subset_without_votes_is_named(tmp_path):
    root = copy(tree("bapps"), tmp_path / "bapps")
    shutil.rmtree(root / "dataset/2afc/val/superres/judge")
    assert re.search(r"superres: 6 of 6 missing in judge: 000000", errors(checked("bapps", root)))
    shutil.rmtree(root / "dataset/2afc")
    assert "no triplets (looked for train, val" in errors(checked("bapps", root))


def test_a_challenge_without_its_test_set_or_with_a_broken_label_file_is_reported(tmp_path):
    """The challenge without its test set or with a broken label file of one's own is reported."""
    root = copy(tree("pipal-ntire2022"), tmp_path / "challenge")
    text(root / "ntire2022_test_labels.txt", "A0000_10_00.bmp,1500.0\nA0000_10_01.bmp,high\n")
    found = errors(checked("pipal-ntire2022", root))
    assert "1 line cannot be read: line 2 ('A0000_10_01.bmp high')" in found
    assert "test: 1,649 images have no label" in found
    (root / "ntire2022_test_labels.txt").unlink()
    for folder in root.glob("*_Testing_*"):
        shutil.rmtree(folder)
    assert "no rows of part test, which the default protocol needs" in errors(checked("pipal-ntire2022", root))


def test_a_broken_spreadsheet_is_named(tmp_path):
    root = copy(tree("csiq"), tmp_path / "csiq")
    replace(root / "csiq.DMOS.xlsx", b"PK\x03\x04 not a spreadsheet")
    assert "not a readable spreadsheet" in errors(checked("csiq", root))


def test_kadids_swapped_references_and_tids_shifted_labels_are_found(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    path = root / "kadid10k/dmos.csv"
    replace(path, path.read_text().replace("I01_01_02.png,I01.png", "I01_01_02.png,I02.png").encode())
    assert "1 of 75 names have another image's reference: I01_01_02.png (I02.png in the label file)" in errors(
        checked("kadid10k", root)
    )
    root = copy(tree("tid2013"), tmp_path / "tid")
    lines = (root / "mos_with_names.txt").read_bytes().split(b"\r\n")
    names = [line.split()[1] for line in lines if line]
    scores = [line.split()[0] for line in lines if line]
    shifted = b"\r\n".join(s + b" " + n for s, n in zip([scores[-1], *scores[:-1]], names, strict=True))
    replace(root / "mos_with_names.txt", shifted)
    assert "other scores than mos_with_names.txt for 100 of 100 images" in errors(checked("tid2013", root))


@pytest.mark.slow
def test_a_missing_image_of_a_challenge_is_named_though_it_has_no_label(tmp_path):
    root = copy(tree("pipal"), tmp_path / "pipal")
    (root / "Val_Dist/A0005_10_02.bmp").unlink()
    (root / "Val_Ref/A0240.bmp").unlink()
    found = errors(checked("pipal", root))
    assert "ntire2021-validation: 1 of 1,000 distorted images are missing: A0005_10_02.bmp" in found
    assert "ntire2021-validation: 1 of 25 references are missing: A0240.bmp" in found


def test_the_default_protocols_part_must_be_there(tmp_path):
    root = copy(tree("pipal"), tmp_path / "pipal")
    for folder in ("Train_Ref", "Train_Label", *(f"Distortion_{i}" for i in range(1, 5))):
        os.rename(root / folder, tmp_path / folder)
    assert "no rows of part train, which the default protocol needs" in errors(checked("pipal", root))


def test_one_report_lists_everything_that_is_wrong(tmp_path):
    root = copy(tree("tid2013"), tmp_path / "tid")
    expected = [breaking("tid2013", root) for breaking in (truncated, other_size)]  # before the label file is broken
    (root / "reference_images/I02.BMP").unlink()
    (root / "distorted_images/i02_13_4.bmp").unlink()
    replace(root / "mos.txt", b"1.0\n2.0\n")
    relabel("tid2013", root, lambda lines: ["1.0", *lines[:40], "5.0 x.bmp", "nan i01_01_5.bmp", *lines[40:-1]])
    found = errors(checked("tid2013", root))
    for line in (
        expected[1],
        "references are missing: I02.bmp",
        "distorted images are missing: i02_13_4.bmp",
        r"2 lines cannot be read: line 1 \('1.0'\).*; line 43 ",
        r"1 of \d+ names that are not of the form .*: line 42 \(x.bmp\)",
        "1 images have no label: distorted_images/i25_18_5.bmp",
        "2 lines, the labels next to it have",
    ):
        assert re.search(line, found), f"{line}\n{found}"


# The full check


def test_the_full_check_finds_damage_inside_an_image_that_its_header_hides(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    path = a_picture("kadid10k", root)
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 20
    data[middle : middle + 40] = bytes(40)
    replace(path, bytes(data))
    assert checked("kadid10k", root).ok
    assert re.search(rf"1 images cannot be used: .*{path.name} \(a damaged image", errors(checked("kadid10k", root, full=True)))


def test_the_full_check_finds_images_under_the_wrong_reference(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    path = root / "kadid10k/images/I01_01_03.png"
    path.unlink()
    write(path, noisy(still("kadid2"), 3, "moved"))
    found = errors(checked("kadid10k", root, full=True))
    assert "1 of 75 images look like another reference than their own: I01_01_03.png (looks like I02.png)" in found


def test_copies_of_references_and_equal_images_are_warnings_that_name_them(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    images = root / "kadid10k/images"
    replace(images / "I01_01_01.png", (images / "I01.png").read_bytes())
    replace(images / "I02_01_01.png", (images / "I02_01_02.png").read_bytes())
    report = checked("kadid10k", root, full=True)
    assert report.ok
    lines = "\n".join(str(p) for p in report.problems)
    assert "1 of 75 distorted images are byte for byte their reference: I01_01_01.png" in lines
    assert "distorted images equal their reference in every pixel: I01_01_01.png" in lines
    assert "I02_01_01.png = I02_01_02.png" in lines


def test_one_reference_under_two_names_would_leak_across_a_split(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    replace(root / "kadid10k/images/I02.png", (root / "kadid10k/images/I01.png").read_bytes())
    assert "1 references are the same image under several names: I01.png = I02.png" in errors(checked("kadid10k", root))


def test_a_full_check_leaves_a_manifest_that_mirrors_share_and_changes_void(tmp_path):
    """A full check leaves a manifest whose hash two mirrors share and any change voids."""
    card = find_dataset("kadid10k")
    root = copy(tree("kadid10k"), tmp_path / "one")
    assert manifest_hash(card, root) is None
    assert checked("kadid10k", root).manifest is None
    report = checked("kadid10k", root, full=True)
    assert report.manifest == manifest_hash(card, root) is not None
    assert checked("kadid10k", root).manifest == report.manifest
    document = json.loads((root / "manifest-kadid10k.json").read_text())
    assert len(document["files"]) == 75 + 5 + 1
    other = copy(tree("kadid10k"), tmp_path / "two")
    os.rename(other / "kadid10k/images", other / "pictures")
    assert checked("kadid10k", other, full=True).manifest == report.manifest
    path = a_picture("kadid10k", root)
    replace(path, path.read_bytes() + b"\0")
    assert manifest_hash(card, root) is None


def test_a_broken_tree_leaves_no_manifest(tmp_path):
    root = copy(tree("kadid10k"), tmp_path / "kadid")
    a_picture("kadid10k", root).unlink()
    assert checked("kadid10k", root, full=True).manifest is None
    assert not list(root.glob("manifest*"))


def test_a_manifest_goes_to_the_cache_where_the_dataset_cannot_be_written(tmp_path, monkeypatch):
    from harness.datasets.check import manifest
    from harness.runtime.errors import RunError

    root = copy(tree("kadid10k"), tmp_path / "kadid")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    original = manifest.write_json

    def refusing(path: Path, document: object) -> None:
        if Path(path).is_relative_to(root):
            raise RunError("read-only")
        original(path, document)

    monkeypatch.setattr(manifest, "write_json", refusing)
    report = checked("kadid10k", root, full=True)
    assert report.manifest is not None
    assert not list(root.glob("manifest*"))
    assert list((tmp_path / "cache").rglob("manifest-kadid10k.json"))


# Headers


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
@pytest.mark.parametrize("kind", ["bmp", "png", "jpg", "tif", "webp"])
def test_headers_give_the_size_that_a_decoder_gives(tmp_path, mode, kind):
    path = tmp_path / f"x.{kind}"
    picture = Image.fromarray(still("header", 13, 17)).convert(mode)
    if kind == "jpg" and mode in ("P", "1"):
        picture = picture.convert("L")
    picture.save(path)
    header = file_headers.look(str(path))
    assert (header.height, header.width, header.size) == (13, 17, path.stat().st_size)


@pytest.mark.parametrize("kind", ["bmp", "png"])
def test_a_file_cut_anywhere_is_noticed_from_its_header_and_end(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    write(path, still("cut", 13, 17))
    data = path.read_bytes()
    for length in range(0, len(data) - 40, 7):
        path.write_bytes(data[:length])
        with pytest.raises(UsageError):
            file_headers.look(str(path))


def test_an_image_with_bytes_after_its_end_is_whole(tmp_path):
    path = tmp_path / "x.png"
    write(path, still("tail"))
    path.write_bytes(path.read_bytes() + bytes(500))
    assert file_headers.look(str(path))[:2] == (12, 16)


def test_check_says_where_an_absent_dataset_comes_from():
    report = check(find_dataset("live"), None)
    assert not report.ok
    assert "form on the home page" in report.text()


def test_a_users_own_reader_is_checked_like_the_shipped_ones(tmp_path):
    text(tmp_path / "own.toml", OWN)
    miniatures.write(tmp_path / "r.png", still("own"))
    lines = ["distorted,reference,score"]
    for i in range(4):
        write(tmp_path / f"d{i}.png", noisy(still("own"), 4 * i + 4, "own", i))
        lines.append(f"d{i}.png,r.png,{4 - i}")
    text(tmp_path / "pairs.csv", "\n".join(lines))
    card = find_dataset(str(tmp_path / "own.toml"))
    assert check(card, tmp_path, full=True).ok
    text(tmp_path / "pairs.csv", "\n".join([*lines, "d9.png,r.png,x"]))
    assert "score is not a finite number" in errors(check(card, tmp_path))


OWN = """
name = "own"
title = "A user's table"
reader = "harness.datasets:read_table"
higher_is_better = true
default_protocol = "full"
[protocols.full]
split = "full"
[layout]
table = "pairs.csv"
"""


def test_files_that_changed_since_the_last_full_check_are_named(tmp_path):
    """Files that changed since the last full check are named and a new one says what it replaces."""
    root = copy(tree("kadid10k"), tmp_path / "kadid10k")
    assert checked("kadid10k", root, full=True).ok
    victim = next(path for path in sorted(root.rglob("*.png")) if "_" in path.name)
    facts = victim.stat()
    data = victim.read_bytes()
    victim.write_bytes(data[:-8] + data[-8:][::-1])
    os.utime(victim, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (warning,) = [p for p in checked("kadid10k", root).problems if "last full check" in p.what]
    assert (warning.severity, victim.name in warning.what) == ("warning", True)
    assert checked("kadid10k", root).manifest is None
    victim.write_bytes(data)
    assert not [p for p in checked("kadid10k", root).problems if "last full check" in p.what]
    still = next(path for path in sorted(root.rglob("*.png")) if "_" not in path.name)
    still.unlink()
    replaced = [p for p in checked("kadid10k", root, full=True).problems if "is replaced" in p.what]
    assert [p.severity for p in replaced] == ["information"]
