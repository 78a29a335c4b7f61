"""Archives of users: recognised, unpacked safely, kept; rar by a program's pipe, zip with a password."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import archive_makers
import miniatures
import pytest
from tls_server import Server, serving

from harness.cards.loading import find_dataset, load_cards
from harness.datasets import load_dataset, rar
from harness.datasets.archives import unpack
from harness.datasets.check import check
from harness.datasets.download import unpack_archives
from harness.runtime.errors import RunError, UsageError

REPOSITORY = Path(__file__).resolve().parents[2]
REAL_TOOLS = [tool for tool in rar.tools() if tool.name in ("unrar", "bsdtar")]


def contents(root: Path) -> dict[str, bytes]:
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


def zipped(members: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return memory.getvalue()


def harness(*words: str, path: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, **environment, "PYTHONPATH": str(REPOSITORY), **({"PATH": path} if path else {})}
    command = [sys.executable, "-m", "harness", *words]
    return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)


def inside(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")}


# rar


def test_a_rar_is_unpacked_by_a_tools_pipe_and_its_checksums_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", archive_makers.unrar(tmp_path / "bin"))
    archive = tmp_path / "a.rar"
    archive.write_bytes(
        archive_makers.rar({"one.txt": b"1" * 3_000_000, "two/three.txt": b"", "__MACOSX/x": b"mac", "four": b"4"})
    )
    assert unpack(archive, tmp_path / "in").folders == {".": 2, "two": 1}
    assert inside(tmp_path / "in") == {"one.txt", "two/three.txt", "four"}
    assert (tmp_path / "in/one.txt").read_bytes() == b"1" * 3_000_000


@pytest.mark.slow
@pytest.mark.parametrize("printed", ["archive.read(info)[:-1]", "archive.read(info)[::-1]", "archive.read(info) + b'x'", "b''"])
def test_a_tool_that_prints_other_bytes_than_the_listing_leaves_nothing(tmp_path, monkeypatch, printed):
    monkeypatch.setenv("PATH", archive_makers.unrar(tmp_path / "bin", printed))
    archive = tmp_path / "a.rar"
    archive.write_bytes(archive_makers.rar({"one.txt": b"123", "two.txt": b"456"}))
    with pytest.raises(RunError, match="unrar: "):
        unpack(archive, tmp_path / "in")
    assert not inside(tmp_path / "in")
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "C:\\out.txt"])
def test_a_rar_whose_names_lead_outside_unpacks_nothing(tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", archive_makers.unrar(tmp_path / "bin"))
    archive = tmp_path / "a.rar"
    archive.write_bytes(archive_makers.rar({"good.txt": b"x", name: b"y"}))
    with pytest.raises(RunError, match="leads outside the folder or is not a file name"):
        unpack(archive, tmp_path / "deep/in")
    assert inside(tmp_path) == {"a.rar", "bin/unrar"}


def test_a_rar_with_a_link_or_that_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", archive_makers.unrar(tmp_path / "bin"))
    archive = tmp_path / "a.rar"
    archive.write_bytes(archive_makers.rar({"good.txt": b"x"}, link="evil"))
    with pytest.raises(RunError, match="is a link"):
        unpack(archive, tmp_path / "in")
    archive.write_bytes(archive_makers.rar({"zeros": bytes(1 << 20)}))
    monkeypatch.setattr("harness.datasets.archives._SMALL", 1 << 10)
    monkeypatch.setattr("harness.datasets.archives.MOST_SWELLING", 0.5)
    with pytest.raises(RunError, match="unpacks to more bytes"):
        unpack(archive, tmp_path / "in")
    assert not inside(tmp_path / "in")


def test_without_a_tool_a_rar_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.rar").write_bytes(archive_makers.rar({"x": b"x"}))
    with pytest.raises(RunError, match=r"no program that unpacks rar .* install one of unrar"):
        unpack(tmp_path / "a.rar", tmp_path / "in")


@pytest.mark.parametrize("tool", REAL_TOOLS or [None], ids=lambda tool: tool.name if tool else "none")
def test_the_real_tools_print_members_as_expected(tmp_path, monkeypatch, tool):
    if tool is None:
        pytest.skip("neither unrar nor bsdtar is installed (7-Zip may come without its rar module)")
    monkeypatch.setattr("harness.datasets.rar._TOOLS", (tool,))
    archive = tmp_path / "-a b.rar"
    archive.write_bytes(archive_makers.rar({"one.txt": b"1" * 3_000_000, "two/three.txt": b"3"}))
    assert unpack(archive, tmp_path / "in").files == 2


# Passwords


def test_an_encrypted_zip_opens_with_its_password_and_with_no_other(tmp_path):
    archive, reported = tmp_path / "a.zip", []
    archive.write_bytes(archive_makers.encrypted_zip({"big": b"5" * 5000, "small": b"text of the readme"}, b"secret"))

    def ask(*words: bytes | None):
        def answer(name: str, wrong: int) -> bytes | None:
            reported.append((name, wrong))
            return words[wrong]

        return answer

    assert unpack(archive, tmp_path / "in", password=ask(b"bad", b"worse", b"secret")).files == 2
    assert reported == [("a.zip", 0), ("a.zip", 1), ("a.zip", 2)]
    assert (tmp_path / "in/big").read_bytes() == b"5" * 5000
    for words in ((b"bad", None), (b"1", b"2", b"3")):
        with pytest.raises(RunError, match="the password does not open it"):
            unpack(archive, tmp_path / "other", password=ask(*words))
    with pytest.raises(RunError, match="--password-file"):
        unpack(archive, tmp_path / "other", password=ask(None))
    assert not inside(tmp_path / "other")


@pytest.mark.slow
def test_lives_zip_is_unpacked_with_a_password_file(tmp_path):
    root = tmp_path / "live"
    root.mkdir()
    archive = root / "databaserelease2.zip"
    archive.write_bytes(archive_makers.encrypted_zip(contents(miniatures.tree("live")), b"the word"))
    (tmp_path / "word").write_bytes(b"the word\n")
    without = harness("data", "unpack", "live", "--root", str(root))
    assert (without.returncode, "--password-file" in without.stderr) == (1, True)
    done = harness("data", "unpack", "live", "--root", str(root), "--password-file", str(tmp_path / "word"))
    assert done.returncode == 0, done.stderr
    assert "kept" in done.stdout
    assert archive.is_file()
    assert len(load_dataset("live", root).table) == 779


# Archives that lie unopened


@pytest.mark.parametrize("name", ["kadid10k", "csiq", "tid2013", "bapps", "live"])
def test_check_and_run_name_an_archive_that_lies_unopened(tmp_path, name):
    (tmp_path / "data.zip").write_bytes(b"PK\x03\x04")
    report = check(find_dataset(name), tmp_path)
    assert not report.ok
    assert f"data.zip is here, not unpacked (harness data unpack {name} --root {tmp_path})" in report.text()
    with pytest.raises(UsageError, match=r"data\.zip is here, not unpacked"):
        load_dataset(name, tmp_path)


def test_an_archive_next_to_a_whole_dataset_is_not_mentioned(tmp_path):
    root = miniatures.copy(miniatures.tree("kadid10k"), tmp_path / "kadid10k")
    (root / "kadid10k.zip").write_bytes(b"PK\x03\x04")
    report = check(dataclasses.replace(find_dataset("kadid10k"), pairs=75, references=5), root)
    assert report.ok
    assert "not unpacked" not in report.text()
    assert len(load_dataset("kadid10k", root).table) == 75


def test_archives_in_archives_are_unpacked_once_and_all_faults_reported(tmp_path):
    files = contents(miniatures.tree("csiq"))
    halves = [{n: c for n, c in files.items() if n.startswith("src") == first} for first in (True, False)]
    (tmp_path / "drive.zip").write_bytes(zipped({"part/one.zip": zipped(halves[0]), "part/two.zip": zipped(halves[1])}))
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 cut")
    card = find_dataset("csiq")
    with pytest.raises(RunError, match=r"bad\.zip: a damaged archive") as caught:
        unpack_archives(card, tmp_path)
    assert str(caught.value).count("done: ") == 3
    assert len(load_dataset("csiq", tmp_path).table) == 144
    (tmp_path / "bad.zip").unlink()
    assert sum("unpacked before" in line for line in unpack_archives(card, tmp_path)) == 3
    with pytest.raises(UsageError, match="no such file"):
        unpack_archives(card, tmp_path, [tmp_path / "nowhere.zip"])


# Documents


@pytest.mark.parametrize("name", load_cards("datasets"))
def test_every_dataset_has_a_page_that_agrees_with_its_card(name):
    card = find_dataset(name)
    page = (REPOSITORY / f"docs/datasets/{name}.md").read_text(encoding="utf-8")
    assert f"harness data check {name}" in page
    assert f"    {name}: {card.title}" in page
    assert f"    {name}: ok. home: {card.home}; licence: {card.licence}" in page
    assert all(f"      protocol {protocol}: " in page for protocol in card.protocols)
    if card.pairs:
        assert f": {card.pairs:,}, expected {card.pairs:,}" in page
        assert f": {card.references:,}, expected {card.references:,}" in page
    if card.downloads:
        assert f"    harness data get {name}\n" in page
        assert all(f"| {e.file} | " in page and e.url in page and (e.sha256 or e.md5) in page for e in card.downloads)
    elif name != "demo":
        assert f"    harness data unpack {name}" in page


@pytest.mark.slow
def test_data_get_that_cannot_fetch_has_status_1_and_prints_each_step_once(tmp_path):
    for words, cause in ((["mdid"], "no public address"), (["tid2013", "--offline"], "the network must not be used")):
        done = harness("data", "get", *words, HARNESS_DATA=str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert cause in done.stderr
        assert done.stderr.count("How to get") == 1
        assert f"folder: {tmp_path / words[0]}" in done.stderr
        assert "licence: " in done.stderr
    assert not list(tmp_path.iterdir())


# From empty folders, with a server that stands for the real hosts


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Server:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


def _hosted(name: str) -> dict[str, bytes]:
    root = miniatures.tree(name)
    if name == "tid2013":
        return {"ponomarenko.info/tid2013/tid2013.rar": archive_makers.rar(contents(root))}
    if name == "kadid10k":
        return {"datasets.vqa.mmsp-kn.de/archives/kadid10k.zip": zipped(contents(root))}
    place = "s2.smu.edu/~eclarson/csiq/"
    archives = {
        f"{place}{part}.zip": zipped({n: c for n, c in contents(root).items() if n.startswith(part)})
        for part in ("src_imgs", "dst_imgs")
    }
    return {**archives, f"{place}csiq.DMOS.xlsx": (root / "csiq.DMOS.xlsx").read_bytes()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tid2013", "kadid10k", "csiq"])
def test_from_an_empty_folder_get_and_check_succeed(web, tmp_path, name):
    web.files = _hosted(name)
    card = (REPOSITORY / f"datasets/{name}.toml").read_text(encoding="utf-8")
    if name == "tid2013":  # the card's md5 is that of the real archive
        real = next(line for line in card.splitlines() if line.startswith("md5"))
        card = card.replace(real, f'md5 = "{hashlib.md5(web.files["ponomarenko.info/tid2013/tid2013.rar"]).hexdigest()}"')
    cards = tmp_path / "cards/datasets"
    cards.mkdir(parents=True)
    (cards / "mine.toml").write_text(card.replace(f'name = "{name}"', 'name = "mine"'), encoding="utf-8")
    path = archive_makers.unrar(tmp_path / "bin")
    shared = {**web.environment(), "HARNESS_DATA": str(tmp_path / "data")}
    got = harness("data", "get", "mine", "--cards", str(tmp_path / "cards"), path=path, **shared)
    assert got.returncode == 0, got.stderr
    assert not [p for p in (tmp_path / "data/mine").rglob("*") if p.suffix in (".rar", ".zip", ".part")]
    checked = harness("data", "check", "mine", "--allow-incomplete", "--cards", str(tmp_path / "cards"), path=path, **shared)
    assert checked.returncode == 0, checked.stdout
    again = harness("data", "get", "mine", "--cards", str(tmp_path / "cards"), path=path, **shared)
    assert "fetched before" in again.stdout


@pytest.mark.slow
def test_a_process_killed_while_unpacking_is_cleaned_up_after_by_the_next(tmp_path):
    (tmp_path / "csiq.zip").write_bytes(zipped(contents(miniatures.tree("csiq"))))
    killed = (
        "import os, signal; from harness.datasets import archives; from harness.cli.main import main\n"
        "archives._move = lambda *places: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"main(['data', 'unpack', 'csiq', '--root', {str(tmp_path)!r}])"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", killed], env=environment, capture_output=True, timeout=120)
    assert done.returncode == -9
    assert len(list(tmp_path.glob(".unpacking-*/**/*.png"))) == 149
    again = harness("data", "unpack", "csiq", "--root", str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert "of an earlier, interrupted unpacking" in again.stderr
    assert not list(tmp_path.glob(".unpacking-*"))
    assert len(load_dataset("csiq", tmp_path).table) == 144
