"""Every known defect of a submission is found, named with its line, and fixed where that is mechanical."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from challenge import CARD, NAMES, good, link, made_scores, output_text, raw_zip, readme_text, save

from harness.challenges import submission_check as checking
from harness.challenges import submission_zip
from harness.challenges.submission_check import Report, check, fix
from harness.cli.main import main
from harness.files.atomic import write_text
from harness.runtime.errors import UsageError
from harness.runtime.findings import Finding

SCORES = made_scores()
LINES = output_text(SCORES).splitlines()
README = readme_text().splitlines()


def report_of(path: Path, **options: object) -> Report:
    return check(path, **options)  # type: ignore[arg-type]


def edited(**changes: Callable[[list[str]], list[str]]) -> dict[str, bytes]:
    """A good submission after its files' lines were changed: `output=`, `readme=`."""
    files = {"output": list(LINES), "readme": list(README)}
    for name, change in changes.items():
        files[name] = change(files[name])
    return {f"{name}.txt": "".join(f"{line}\n" for line in text).encode() for name, text in files.items()}


def at(number: int, change: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    """Line `number`, from 1, changed."""

    def apply(text: list[str]) -> list[str]:
        return [change(line) if i == number else line for i, line in enumerate(text, 1)]

    return apply


def put(number: int, *new: str) -> Callable[[list[str]], list[str]]:
    """New lines before line `number`."""
    return lambda text: [*text[: number - 1], *new, *text[number - 1 :]]


def score_as(text: str) -> Callable[[str], str]:
    return lambda line: line.partition(",")[0] + "," + text


def drop(number: int) -> Callable[[list[str]], list[str]]:
    return lambda text: text[: number - 1] + text[number:]


def swapped(a: int, b: int) -> Callable[[list[str]], list[str]]:
    def apply(text: list[str]) -> list[str]:
        text = list(text)
        text[a - 1], text[b - 1] = text[b - 1], text[a - 1]
        return text

    return apply


def in_bytes(name: str, change: Callable[[bytes], bytes]) -> dict[str, bytes]:
    files = good()
    return files | {name: change(files[name])}


OUTPUT_DEFECTS: dict[str, tuple[dict[str, bytes], str, int | None, bool]] = {
    # what, files, kind of the finding, its line, whether --fix fixes it
    "CRLF": (in_bytes("output.txt", lambda b: b.replace(b"\n", b"\r\n")), "line-ends", 1, True),
    "CR": (in_bytes("output.txt", lambda b: b.replace(b"\n", b"\r")), "line-ends", 1, True),
    "one CRLF": (edited(output=at(40, lambda line: line + "\r")), "line-ends", 40, True),
    "byte order mark": (in_bytes("output.txt", lambda b: b"\xef\xbb\xbf" + b), "byte-order-mark", 1, True),
    "UTF-16": (in_bytes("output.txt", lambda b: b.decode().encode("utf-16")), "encoding", 1, True),
    "not UTF-8": (in_bytes("output.txt", lambda b: b.replace(b"A0011_10_05", b"A0011_10_\xff5")), "encoding", 137, False),
    "blank line": (edited(output=put(12, "")), "blank", 12, True),
    "blank line at the end": (in_bytes("output.txt", lambda b: b + b"\n"), "blank", 1651, True),
    "header": (edited(output=put(1, "name,score")), "header", 1, True),
    "semicolons": (in_bytes("output.txt", lambda b: b.replace(b",", b";")), "separator", 1, True),
    "blanks between": (in_bytes("output.txt", lambda b: b.replace(b",", b" ")), "separator", 1, True),
    "a tab in one line": (edited(output=at(9, lambda line: line.replace(",", "\t"))), "separator", 9, True),
    "space after the comma": (edited(output=at(5, lambda line: line.replace(",", ", "))), "spaces", 5, True),
    "trailing space": (edited(output=at(6, lambda line: line + " ")), "spaces", 6, True),
    "quotes": (edited(output=at(7, lambda line: '"' + line.replace(",", '","') + '"')), "quotes", 7, True),
    "row numbers": (edited(output=lambda t: [f"{i},{line}" for i, line in enumerate(t)]), "index-column", 1, True),
    "a third column": (edited(output=at(8, lambda line: line + ",1")), "columns", 8, False),
    "no score at all": (edited(output=at(8, lambda line: line.partition(",")[0])), "columns", 8, False),
    "no extension": (in_bytes("output.txt", lambda b: b.replace(b".bmp", b"")), "extension", 1, True),
    "another extension": (edited(output=at(11, lambda line: line.replace(".bmp", ".png"))), "extension", 11, True),
    "letter case": (edited(output=at(13, lambda line: line.replace("A", "a"))), "letter-case", 13, True),
    "folder in a name": (edited(output=at(14, lambda line: "Dis/" + line)), "name-folder", 14, True),
    "unknown name": (edited(output=at(15, lambda line: "A9999_10_00.bmp,1.000000")), "unknown-name", 15, False),
    "missing row": (edited(output=drop(16)), "missing", 16, False),
    "missing last rows": (edited(output=lambda t: t[:-2]), "missing", 1649, False),
    "duplicate": (edited(output=lambda t: [*t[:17], t[16], *t[17:]]), "duplicate", 18, True),
    "contradiction": (edited(output=lambda t: [*t[:17], t[16][:-1] + "x", *t[17:]]), "no-number", 18, False),
    "two scores": (edited(output=lambda t: [*t[:17], score_as("1.500000")(t[16]), *t[17:]]), "contradiction", 18, False),
    "order": (edited(output=swapped(20, 30)), "order", 21, True),
    "nan": (edited(output=at(21, score_as("nan"))), "not-finite", 21, False),
    "inf": (edited(output=at(22, score_as("-Infinity"))), "not-finite", 22, False),
    "overflow": (edited(output=at(22, score_as("1e999"))), "not-finite", 22, False),
    "text for a score": (edited(output=at(23, score_as("good"))), "no-number", 23, False),
    "empty score": (edited(output=at(24, score_as(""))), "no-number", 24, False),
    "underscores": (edited(output=at(25, score_as("1_000.000000"))), "no-number", 25, False),
    "decimal comma": (edited(output=lambda t: [line.replace(",", ";").replace(".", ",").replace(",bmp", ".bmp") for line in t]),
                      "decimal-comma", 1, True),
    "constant": (edited(output=lambda t: [score_as("1.000000")(line) for line in t]), "constant", 1, False),
    "control character": (edited(output=at(26, lambda line: line + "\0")), "control", 26, False),
    "an empty file": (good() | {"output.txt": b""}, "missing", 1, False),
}  # fmt: skip

README_DEFECTS: dict[str, tuple[dict[str, bytes], str, int | None, bool]] = {
    "CRLF": (in_bytes("readme.txt", lambda b: b.replace(b"\n", b"\r\n")), "line-ends", 1, True),
    "no colon": (edited(readme=at(2, lambda line: line.replace(" : ", " "))), "readme-extra", 2, False),
    "colon without blanks": (edited(readme=at(2, lambda line: line.replace(" : ", ":"))), "readme-label", 2, True),
    "label in capitals": (edited(readme=at(1, lambda line: line.replace("runtime", "Runtime"))), "readme-label", 1, True),
    "runtime nan": (edited(readme=at(1, lambda line: line.replace("0.12", "nan"))), "readme-value", 1, False),
    "runtime as text": (edited(readme=at(1, lambda line: line.replace("0.12", "fast"))), "readme-value", 1, False),
    "runtime zero": (edited(readme=at(1, lambda line: line.replace("0.12", "0"))), "readme-value", 1, False),
    "runtime with a unit": (edited(readme=at(1, lambda line: line + " s")), "readme-unit", 1, True),
    "yes for 1": (edited(readme=at(3, lambda line: line.replace(": 1", ": yes"))), "readme-value", 3, False),
    "1.0 for 1": (edited(readme=at(3, lambda line: line.replace(": 1", ": 1.0"))), "readme-unit", 3, True),
    "no reference": (edited(readme=at(5, lambda line: line.replace(": 1", ": 0"))), "readme-contradiction", 5, False),
    "line missing": (edited(readme=drop(3)), "readme-missing", 3, False),
    "line twice": (edited(readme=put(3, README[1])), "readme-twice", 3, True),
    "two values": (edited(readme=put(3, README[1].replace(": 0", ": 1"))), "readme-two-values", 3, False),
    "order": (edited(readme=swapped(2, 3)), "readme-order", 3, True),
    "blank line": (edited(readme=put(2, "")), "readme-blank", 2, True),
    "description on two lines": (edited(readme=put(5, "and more: of it")), "readme-wrapped", 5, True),
    "a sixth line": (edited(readme=put(1, "Team : us")), "readme-extra", 1, False),
}

FILES = list(good().items())
ZIP_DEFECTS: dict[str, tuple[Callable[[Path], Path], str, str, bool]] = {
    # what, how it is made, kind of the finding, the entry it names, whether --fix fixes it
    "in a folder": (lambda p: raw_zip(p, [(f"sub/{n}", d) for n, d in FILES]), "folder", "sub/output.txt", True),
    "a folder next to": (lambda p: raw_zip(p, [("sub/", b""), *FILES]), "folder", "sub/", True),
    "macOS": (lambda p: raw_zip(p, [*FILES, ("__MACOSX/._output.txt", b"x")]), "leftover", "__MACOSX/._output.txt", True),
    ".DS_Store": (lambda p: raw_zip(p, [*FILES, (".DS_Store", b"x")]), "leftover", ".DS_Store", True),
    "a stray file": (lambda p: raw_zip(p, [*FILES, ("code.py", b"x")]), "stray", "code.py", True),
    "a zip in the zip": (lambda p: raw_zip(p, [*FILES, ("team.zip", b"x")]), "stray", "team.zip", True),
    "capital letters": (lambda p: raw_zip(p, [("Output.TXT", FILES[0][1]), FILES[1]]), "file-name", "Output.TXT", True),
    "another extension": (lambda p: raw_zip(p, [("output.csv", FILES[0][1]), FILES[1]]), "file-name", "output.csv", True),
    "no readme": (lambda p: raw_zip(p, [FILES[0]]), "no-file", "readme.txt", False),
    "no output": (lambda p: raw_zip(p, [FILES[1]]), "no-file", "output.txt", False),
    "an empty zip": (lambda p: raw_zip(p, []), "no-file", "output.txt", False),
    "one name twice": (lambda p: raw_zip(p, [*FILES, FILES[0]]), "twice", "output.txt", True),
    "two contents": (lambda p: raw_zip(p, [*FILES, ("output.txt", b"x")]), "twice", "output.txt", False),
    "out of its folder": (lambda p: raw_zip(p, [(f"../{n}", d) for n, d in FILES]), "path", "../output.txt", True),
    "an absolute path": (lambda p: raw_zip(p, [("/etc/passwd", b"x"), *FILES]), "path", "/etc/passwd", True),
    "a drive": (lambda p: raw_zip(p, [("C:/x.txt", b"x"), *FILES]), "path", "C:/x.txt", True),
    "backslashes": (lambda p: raw_zip(p, [(f"sub\\{n}", d) for n, d in FILES]), "path", "sub\\output.txt", True),
    "a symbolic link": (lambda p: raw_zip(p, [(link("output.txt"), b"/etc/passwd"), FILES[1]]), "link", "output.txt", False),
    "bzip2 inside": (lambda p: raw_zip(p, FILES, zipfile.ZIP_BZIP2), "compression", "output.txt", False),
    "a bomb": (lambda p: raw_zip(p, [("output.txt", bytes(8 << 20)), FILES[1]]), "too-large", "output.txt", False),
    "a bomb that lies": (lambda p: lying(raw_zip(p, [("output.txt", bytes(8 << 20)), FILES[1]])), "damaged", "output.txt", False),
    "encrypted": (lambda p: flagged(raw_zip(p, FILES)), "encrypted", "output.txt", False),
    "an escape code": (lambda p: raw_zip(p, [*FILES, ("\x1b[31m.png", b"x")]), "stray", r"'\x1b[31m.png'", True),
    "a flipped bit": (lambda p: flipped(raw_zip(p, FILES, zipfile.ZIP_STORED)), "damaged", "output.txt", False),
    "two thousand files": (lambda p: raw_zip(p, [*FILES, *((f"{i}.png", b"") for i in range(2000))]), "entries", "the zip", True),
    "a huge table of contents": (lambda p: raw_zip(p, [(f"{i:0>999}", b"") for i in range(1100)]), "entries", "the zip", False),
}  # fmt: skip


def lying(path: Path) -> Path:
    """Both headers of the first entry claim 100 bytes."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 22, 100)
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02")) + 24, 100)
    path.write_bytes(data)
    return path


def flagged(path: Path) -> Path:
    """Every entry claims to be encrypted."""
    data = bytearray(path.read_bytes())
    place = data.find(b"PK\x01\x02")
    while place >= 0:
        data[place + 8] |= 1
        place = data.find(b"PK\x01\x02", place + 4)
    path.write_bytes(data)
    return path


def flipped(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    return path


def named(report: Report, kind: str) -> Finding:
    found = [f for f in report.findings if f.kind == kind]
    assert found, [(f.kind, f.where, f.line) for f in report.findings]
    return found[0]


def test_a_submission_without_fault_has_no_findings_but_the_remark_about_types(tmp_path: Path):
    report = report_of(save(tmp_path / "x.zip", good()))
    assert [f.severity for f in report.findings] == ["information"]
    assert (report.ok, report.warned, report.phase, len(report.scores)) == (True, False, "test", 1650)


@pytest.mark.slow
@pytest.mark.parametrize("what", OUTPUT_DEFECTS)
def test_a_defect_of_the_scores_is_named_with_its_line_and_mended_where_a_rule_can(what: str):
    files, kind, line, mechanical = OUTPUT_DEFECTS[what]
    _named_and_mended(files, "output.txt", kind, line, mechanical)


@pytest.mark.slow
@pytest.mark.parametrize("what", README_DEFECTS)
def test_a_defect_of_the_readme_is_named_with_its_line_and_mended_where_a_rule_can(what: str):
    files, kind, line, mechanical = README_DEFECTS[what]
    _named_and_mended(files, "readme.txt", kind, line, mechanical)


def _named_and_mended(files: dict[str, bytes], where: str, kind: str, line: int | None, mechanical: bool) -> None:
    report = checking.inspect(files, [], [CARD], "test", "x.zip")
    found = named(report, kind)
    assert (found.where, found.line, found.severity, found.mechanical) == (where, line, "error", mechanical)
    assert found.fix
    assert not report.ok
    fixed = checking.inspect(report.fixed, [], [CARD], "test", "fixed.zip")
    assert fixed.ok == mechanical, fixed.findings
    if mechanical:
        assert fixed.scores == SCORES
        assert not fixed.findings


@pytest.mark.slow
@pytest.mark.parametrize("what", ZIP_DEFECTS)
def test_a_defect_of_the_zip_is_named_and_mended_where_a_rule_can(tmp_path: Path, what: str):
    make, kind, where, mechanical = ZIP_DEFECTS[what]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, about a name that is there twice
        path = make(tmp_path / "x.zip")
    report = report_of(path)
    found = named(report, kind)
    assert (found.where, found.severity, found.mechanical) == (where, "error", mechanical)
    assert not report.ok
    if mechanical:
        fixed = fix(report, tmp_path / "fixed.zip")
        assert fixed.ok, fixed.findings
        assert zipfile.ZipFile(tmp_path / "fixed.zip").namelist() == ["output.txt", "readme.txt"]


def test_there_are_more_than_twenty_kinds_of_defects_and_all_at_once_are_all_named(tmp_path: Path):
    kinds = {case[1] for cases in (OUTPUT_DEFECTS, README_DEFECTS, ZIP_DEFECTS) for case in cases.values()}
    assert len(kinds) >= 40
    text = list(LINES)
    text[2], text[4], text[6] = text[2].replace(",", ", "), score_as("nan")(text[4]), text[6].replace(".bmp", "")
    text[9], text[10] = text[10], text[9]
    readme = [line.replace("0.12", "nan") for line in README]
    entries = [("a/output.txt", "\r\n".join(["name,score", *text, ""]).encode()), ("a/readme.txt", "\n".join(readme).encode())]
    report = report_of(raw_zip(tmp_path / "x.zip", [*entries, ("__MACOSX/._a", b"")]))
    found = {f.kind: f.line for f in report.findings if f.severity == "error"}
    assert found == {
        "folder": None, "leftover": None, "line-ends": 1, "header": 1, "spaces": 4, "not-finite": 6, "extension": 8,
        "order": 12, "readme-value": 1,
    }  # fmt: skip


def test_what_is_unusual_but_no_fault_is_a_warning(tmp_path: Path):
    fewer = edited(output=lambda t: [f"{line[:-4]}" for line in t])
    report = report_of(save(tmp_path / "x.zip", fewer))
    assert {f.kind: (f.severity, f.line) for f in report.findings if f.kind != "types"} == {
        "decimals": ("warning", 1),
        "ties": ("warning", named(report, "ties").line),
    }
    power = report_of(save(tmp_path / "x.zip", edited(output=at(3, score_as("5.1e1")))))
    assert (power.ok, named(power, "exponent").line) == (True, 3)
    open_end = report_of(save(tmp_path / "x.zip", in_bytes("output.txt", lambda b: b[:-1])))
    assert (open_end.ok, named(open_end, "last-line").line) == (True, 1650)
    empty = report_of(save(tmp_path / "x.zip", edited(readme=at(4, lambda line: "Other description : "))))
    assert (empty.ok, named(empty, "readme-empty").line) == (True, 4)


def test_tied_scores_are_counted_and_the_first_is_named(tmp_path: Path):
    report = report_of(save(tmp_path / "x.zip", edited(output=at(100, score_as(LINES[49].partition(",")[2])))))
    ties = named(report, "ties")
    assert (ties.severity, ties.line, ties.count, ties.lines) == ("information", 50, 2, (50, 100))
    rounded = edited(output=lambda t: [score_as("50.000000")(line) if i < 17 else line for i, line in enumerate(t)])
    many = named(report_of(save(tmp_path / "y.zip", rounded)), "ties")
    assert (many.severity, many.line, many.count) == ("warning", 1, 17)


@pytest.mark.slow
def test_the_phase_follows_from_the_names_and_images_of_another_are_named(tmp_path: Path):
    card = checking.find_challenge("ntire2021")
    other = checking.image_names.all_names(card, "validation")
    assert other is not None
    files = good({name: float(i % 997) for i, name in enumerate(other)})
    report = report_of(save(tmp_path / "x.zip", files))
    assert (report.card.name, report.phase, report.ok) == ("ntire2021", "validation", True)
    unlisted = [f"A{300 + r:04d}_10_{t:02d}.bmp" for r in range(25) for t in range(66)]
    files = good({name: i / 7 for i, name in enumerate(unlisted)})
    report = report_of(save(tmp_path / "y.zip", files))
    assert (report.card.name, report.phase, report.ok) == ("ntire2022-fr", "validation", True)
    short = report_of(save(tmp_path / "z.zip", good({name: i / 7 for i, name in enumerate(unlisted[:-1])})))
    assert (named(short, "count").line, short.ok) == (1649, False)
    wrong = report_of(save(tmp_path / "w.zip", good()), phase="validation")
    assert named(wrong, "phase").what == "these are images of phase test, not of validation"
    nonsense = report_of(raw_zip(tmp_path / "v.zip", [("output.txt", b"img1.png,1.000000\n"), FILES[1]]))
    assert (nonsense.phase, named(nonsense, "phase").severity) == (None, "error")


def test_images_of_another_phase_among_the_right_ones_are_called_so(tmp_path: Path):
    listed = 'listed = "A0300_10_{type}.bmp"\nreferences = ["A0300"]\ntypes = ["00"]\n'
    text = Path(CARD.path).read_text(encoding="utf-8").replace('name = "ntire2022-fr"', 'name = "mine"', 1)
    text = text.replace("[phases.validation]\n", f"[phases.validation]\n{listed}")
    text = text.replace("images = 1650", "images = 1", 1)
    write_text(tmp_path / "mine.toml", text)
    files = edited(output=at(1, lambda line: line.replace("A0000_10_00", "A0300_10_00")))
    report = report_of(save(tmp_path / "x.zip", files), challenge=str(tmp_path / "mine.toml"))
    assert "A0300_10_00.bmp is an image of phase validation" in named(report, "other-phase").what


def test_a_file_that_is_no_zip_cannot_be_read_and_is_called_what_it_is(tmp_path: Path):
    path = tmp_path / "x.zip"
    whole = save(tmp_path / "good.zip", good()).read_bytes()
    for content, words in ((b"", "empty"), (b"Rar!\x1a\x07\x00", "RAR"), (b"\x1f\x8b\x08", "gzip"), (whole[:-40], "cut short")):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=words):
            report_of(path)
    with pytest.raises(UsageError, match="no such file"):
        report_of(tmp_path / "absent.zip")
    with pytest.raises(UsageError, match="cannot be read"):
        report_of(tmp_path)


@pytest.mark.slow
def test_a_bomb_costs_little_memory(tmp_path: Path):
    path = raw_zip(tmp_path / "x.zip", [("output.txt", bytes(32 << 20)), ("readme.txt", bytes(32 << 20))])
    for make in (lambda p: p, lying):
        tracemalloc.start()
        report_of(make(path))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20


@pytest.mark.slow
def test_a_quarter_of_a_million_blank_lines_are_one_finding(tmp_path: Path):
    report = report_of(raw_zip(tmp_path / "x.zip", [("output.txt", b"\n" * (1 << 18)), FILES[1]]), challenge="ntire2022-fr")
    assert named(report, "blank").count == 1 << 18
    assert len(named(report, "blank").lines) == 20


def test_each_place_where_the_order_breaks_is_named():
    report = checking.inspect(edited(output=swapped(20, 30)), [], [CARD], "test", "x.zip")
    assert named(report, "order").lines == (21, 30)


def test_a_zip_is_the_same_bytes_on_any_day_and_machine():
    data = submission_zip.zipped({"output.txt": b"A0000_10_00.bmp,1.000000\n", "readme.txt": b"x\n"})
    assert hashlib.sha256(data).hexdigest() == "9809e22ca5fbae718b9c0678784c0696fb2cf8c29c440b1a70d95b8657668aee"
    infos = zipfile.ZipFile(io.BytesIO(data)).infolist()
    assert {(i.date_time, i.compress_type, i.create_system) for i in infos} == {((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED, 3)}


def test_names_out_of_quotes_and_unprintable_ones_do_not_break_the_report(tmp_path: Path):
    odd = ['"A0000_10_00.bmp,1.0', "'", '""', "\x1b[31m,1.000000", "=cmd()|x,2.000000", "é,3.000000", "," * 50]
    report = report_of(save(tmp_path / "x.zip", edited(output=put(1, *odd))))
    assert not report.ok
    assert "\x1b" not in str(report)
    json.dumps(report.json())


@pytest.mark.slow
def test_exit_statuses_are_0_for_a_fit_zip_1_for_a_defective_one_and_2_for_none(tmp_path: Path):
    fit = str(save(tmp_path / "fit.zip", good()))
    warned = str(save(tmp_path / "warned.zip", in_bytes("output.txt", lambda b: b[:-1])))
    defective = str(save(tmp_path / "defective.zip", edited(output=drop(3))))
    mechanical = str(save(tmp_path / "mechanical.zip", edited(output=swapped(3, 4))))

    def status(*words: str) -> int:
        with pytest.raises(SystemExit) as left:
            main(["submission", "check", *words])
        return int(left.value.code or 0)

    assert status(fit) == 0
    assert status(warned) == 0
    assert status(warned, "--strict") == 1
    assert status(defective) == 1
    assert status(defective, "--fix", str(tmp_path / "a.zip")) == 1
    assert status(mechanical) == 1
    assert status(mechanical, "--fix", str(tmp_path / "b.zip")) == 0
    assert (tmp_path / "b.zip").read_bytes() == Path(fit).read_bytes()
    assert status(str(tmp_path / "none.zip")) == 2
    assert status(fit, "--challenge", "ntire2022") == 2
    assert status(fit, "--phase", "tset") == 2


def test_the_check_prints_one_json_document_and_imports_neither_torch_nor_mlflow(tmp_path: Path):
    path = save(tmp_path / "x.zip", edited(output=drop(3)))
    program = (
        "import sys, harness.cli.main\n"
        f"try: harness.cli.main.main(['submission', 'check', {str(path)!r}, '--json'])\n"
        "except SystemExit as left: status = left.code\n"
        "assert not {'torch', 'ray', 'mlflow', 'scipy.stats'} & set(sys.modules), 'heavy'\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert (report["ok"], report["challenge"], report["phase"], report["images"]) == (False, "ntire2022-fr", "test", 1649)
    (missing,) = [f for f in report["findings"] if f["kind"] == "missing"]
    assert (missing["line"], missing["severity"], missing["mechanical"]) == (3, "error", False)
    assert NAMES[2] in missing["what"]
