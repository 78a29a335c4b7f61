"""`harness data get`: downloads that resume, archives that cannot harm, steps where there is no address."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import miniatures
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tls_server import Play, Server, serving

from harness.cards.loading import find_dataset
from harness.cards.schema import Download
from harness.datasets import archives, load_dataset
from harness.datasets.archives import unpack
from harness.datasets.download import get
from harness.files import download
from harness.runtime.errors import RunError


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(autouse=True)
def web(started: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name, value in started.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    started.files, started.asked = {}, []
    started.plays.clear()
    return started


def names(web: Server) -> list[str]:
    return [asked.path.rpartition("/")[2] for asked in web.asked]


def zipped(folder: Path, *inside: str) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for top in inside:
            for file in sorted((folder / top).rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder))
    return memory.getvalue()


CSIQ = "s2.smu.edu/~eclarson/csiq/"


@pytest.fixture
def csiq(web: Server) -> Server:
    root = miniatures.tree("csiq")
    web.files = {
        f"{CSIQ}src_imgs.zip": zipped(root, "src_imgs"),
        f"{CSIQ}dst_imgs.zip": zipped(root, "dst_imgs"),
        f"{CSIQ}csiq.DMOS.xlsx": (root / "csiq.DMOS.xlsx").read_bytes(),
    }
    return web


def test_a_dataset_with_public_addresses_is_downloaded_unpacked_and_readable(csiq, tmp_path):
    card, steps = find_dataset("csiq"), []
    lines = get(card, tmp_path / "csiq", progress=lambda *step: steps.append(step))
    assert names(csiq) == ["src_imgs.zip", "dst_imgs.zip", "csiq.DMOS.xlsx"]
    assert len(load_dataset("csiq", tmp_path / "csiq").table) == 144
    assert not list((tmp_path / "csiq").glob("*.zip"))
    digest = hashlib.sha256(csiq.files[f"{CSIQ}src_imgs.zip"]).hexdigest()
    assert any(digest in line and "5 files unpacked" in line for line in lines)
    assert card.licence in lines[-1]
    assert {name for name, _, _ in steps} == {"src_imgs.zip", "dst_imgs.zip", "csiq.DMOS.xlsx"}


def test_what_was_fetched_is_not_fetched_again(csiq, tmp_path):
    card = find_dataset("csiq")
    get(card, tmp_path)
    csiq.asked.clear()
    assert all("fetched before" in line for line in get(card, tmp_path)[:-1])
    assert not csiq.asked


def test_a_cut_download_is_continued_where_it_stopped(csiq, tmp_path):
    csiq.plays[f"{CSIQ}src_imgs.zip"] = [Play(cut=500), Play(cut=500)]
    get(find_dataset("csiq"), tmp_path)
    assert csiq.ranges(f"{CSIQ}src_imgs.zip") == [None, "bytes=500-", "bytes=1000-"]
    assert len(load_dataset("csiq", tmp_path).table) == 144


def test_files_that_cannot_be_had_are_all_named_after_the_others_are_there(csiq, tmp_path):
    del csiq.files[f"{CSIQ}src_imgs.zip"], csiq.files[f"{CSIQ}csiq.DMOS.xlsx"]
    with pytest.raises(RunError) as caught:
        get(find_dataset("csiq"), tmp_path)
    message = str(caught.value)
    assert message.count("HTTP status 404") == 2
    assert "there: dst_imgs.zip" in message
    assert message.count("How to get csiq:") == 1
    assert f"folder: {tmp_path}" in message
    assert (tmp_path / "dst_imgs").is_dir()


def test_a_file_with_another_sha256_or_size_than_the_cards_is_refused(csiq, tmp_path):
    card = find_dataset("csiq")
    for wrong in ({"sha256": "0" * 64}, {"bytes": 7}):
        entry = dataclasses.replace(card.downloads[2], **wrong)
        with pytest.raises(RunError, match="should have"):
            get(dataclasses.replace(card, downloads=(entry,)), tmp_path)
        assert not [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
    right = hashlib.sha256(csiq.files[f"{CSIQ}csiq.DMOS.xlsx"]).hexdigest()
    entry = dataclasses.replace(card.downloads[2], sha256=right)
    assert "as the card says" in get(dataclasses.replace(card, downloads=(entry,)), tmp_path)[0]


def test_only_https_and_plain_file_names_are_followed(web, tmp_path):
    card = find_dataset("csiq")
    for url, file in (("http://a.example/x.zip", "x.zip"), ("https://a.example/x", "../x"), ("https://a.example/x", "")):
        with pytest.raises(RunError, match=r"only https|not a file name"):
            get(dataclasses.replace(card, downloads=(Download(url, file),)), tmp_path / "in")
    assert not web.asked


@pytest.mark.parametrize("name", ["live", "live-first", "mdid", "pipal-ntire2022"])
def test_without_a_public_address_the_steps_are_a_fault_and_nothing_is_asked(web, name, tmp_path):
    card = find_dataset(name)
    with pytest.raises(RunError) as caught:
        get(card, tmp_path / "here")
    message = str(caught.value)
    assert "no public address" in message
    assert f"folder: {tmp_path / 'here'}" in message
    assert card.licence in message
    assert card.home in message
    assert "{folder}" not in message
    assert message.count("How to get") == 1
    assert not web.asked
    assert not list(tmp_path.iterdir())


def test_a_dataset_that_somebody_put_there_whole_is_left_alone(csiq, tmp_path):
    card = dataclasses.replace(find_dataset("csiq"), pairs=144, references=5)
    assert "already, complete" in get(card, miniatures.copy(miniatures.tree("csiq"), tmp_path / "csiq"))[0]
    assert not csiq.asked


def test_offline_nothing_is_asked_and_what_is_there_is_enough(csiq, tmp_path, monkeypatch):
    card = find_dataset("csiq")
    with pytest.raises(RunError, match="--offline") as caught:
        get(card, tmp_path, offline=True)
    assert "How to get csiq" in str(caught.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RunError, match="HF_HUB_OFFLINE"):
        get(card, tmp_path)
    assert not csiq.asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    get(card, tmp_path)
    assert "already; nothing" in get(card, tmp_path, offline=True)[0]


def test_a_folder_that_was_emptied_is_fetched_again(csiq, tmp_path):
    card = find_dataset("csiq")
    get(card, tmp_path)
    shutil.rmtree(tmp_path / "src_imgs")
    csiq.asked.clear()
    get(card, tmp_path)
    assert names(csiq) == ["src_imgs.zip"]
    assert len(load_dataset("csiq", tmp_path).table) == 144


def test_an_archive_that_a_person_put_there_is_used_and_kept(csiq, tmp_path):
    (tmp_path / "src_imgs.zip").write_bytes(csiq.files[f"{CSIQ}src_imgs.zip"])
    lines = get(find_dataset("csiq"), tmp_path)
    assert names(csiq) == ["dst_imgs.zip", "csiq.DMOS.xlsx"]
    assert [p.name for p in tmp_path.glob("*.zip")] == ["src_imgs.zip"]
    assert any(line.startswith("src_imgs.zip") and line.endswith("is kept") for line in lines)
    assert any(line.startswith("dst_imgs.zip") and line.endswith("archive was removed") for line in lines)


def test_what_a_kill_while_unpacking_left_is_removed_and_the_download_used(csiq, tmp_path, monkeypatch, logged: list[str]):
    card = find_dataset("csiq")

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(archives, "_move", killed)
        patch.setattr(archives.shutil, "rmtree", lambda *args, **more: None)
        with pytest.raises(KeyboardInterrupt):
            get(card, tmp_path)
    assert list(tmp_path.glob(".unpacking-*"))
    get(card, tmp_path)
    assert not list(tmp_path.glob(".unpacking-*"))
    assert any("of an earlier, interrupted unpacking" in line for line in logged)
    assert names(csiq).count("src_imgs.zip") == 1
    assert not list(tmp_path.glob("*.zip"))


def test_two_at_once_end_with_one_download_each(csiq, tmp_path, logged: list[str]):
    card = find_dataset("csiq")
    csiq.plays[f"{CSIQ}src_imgs.zip"] = [Play(delay=0.3)]
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(get, card, tmp_path) for _ in range(2)]
        assert all("csiq is in" in one.result()[-1] for one in both)
    assert sorted(names(csiq)) == ["csiq.DMOS.xlsx", "dst_imgs.zip", "src_imgs.zip"]
    assert any("another process works in" in line for line in logged)


def test_a_dataset_goes_to_the_data_folder_by_default(csiq, tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    get(find_dataset("csiq"))
    assert len(load_dataset("csiq").table) == 144


# Archives


def make_zip(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def everything_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:\\out.txt", "a:b", "\\out.txt"])
def test_a_name_that_leads_outside_unpacks_nothing(tmp_path, name):
    inside = tmp_path / "inside"
    inside.mkdir()
    for archive in (
        make_zip(tmp_path / "a.zip", ("good.txt", b"x"), (name, b"y")),
        make_tar(tmp_path / "a.tar.gz", (member("good.txt"), b"x"), (member(name), b"y")),
    ):
        with pytest.raises(RunError, match="leads outside the folder or is not a file name"):
            unpack(archive, inside)
    assert everything_below(tmp_path) == {"a.zip", "a.tar.gz"}


def test_links_and_devices_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    made = [make_zip(tmp_path / "link.zip", (link, b"/etc/passwd"))]
    for i, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)):
        made.append(make_tar(tmp_path / f"{i}.tar.gz", (member("x", kind, "/etc/passwd"), b"")))
    for archive in made:
        with pytest.raises(RunError, match="is a link"):
            unpack(archive, tmp_path / "inside")
        assert not everything_below(tmp_path / "inside")


def test_an_archive_that_swells_beyond_reason_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 1 << 16)
    zeros = bytes(8 << 20)
    for archive in (make_zip(tmp_path / "a.zip", ("zeros", zeros)), make_tar(tmp_path / "a.tar.gz", (member("zeros"), zeros))):
        with pytest.raises(RunError, match="unpacks to more bytes"):
            unpack(archive, tmp_path / "inside")
        assert not everything_below(tmp_path / "inside")
    monkeypatch.setattr(archives, "MOST_ENTRIES", 3)
    with pytest.raises(RunError, match="more than 3 files"):
        unpack(make_zip(tmp_path / "many.zip", *((f"{i}", b"") for i in range(4))), tmp_path / "inside")


def test_a_name_that_comes_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip(tmp_path / "a.zip", ("x", b"1"), ("x", b"2"))
    with pytest.raises(RunError, match="holds 'x' twice"):
        unpack(path, tmp_path / "inside")


def test_an_encrypted_archive_says_what_to_do(tmp_path):
    path = make_zip(tmp_path / "a.zip", ("x", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="data unpack` asks for its password"):
        unpack(path, tmp_path / "inside")


def test_a_full_disk_is_reported_before_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": archives._SPARE + 5})())
    with pytest.raises(RunError, match="not enough free space"):
        unpack(make_zip(tmp_path / "a.zip", ("x", b"more than five")), tmp_path / "inside")


def test_macs_shadow_files_are_left_out_and_files_merged_into_the_folder(tmp_path):
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/old.txt").write_bytes(b"old")
    entries = [("a/new.txt", b"new"), ("__MACOSX/a/._new.txt", b"x"), ("a/._new.txt", b"x"), ("./b/deep/c.txt", b"c")]
    assert unpack(make_zip(tmp_path / "a.zip", *entries), tmp_path / "in").files == 2
    assert everything_below(tmp_path / "in") == {"a/old.txt", "a/new.txt", "b/deep/c.txt"}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_a_clear_fault_or_unpacks_inside(tmp_path, data):
    make = data.draw(st.sampled_from(["zip", "tar.gz"]))
    path = tmp_path / f"a.{make}"
    if make == "zip":
        make_zip(path, ("one.txt", b"1" * 300), ("two/three.txt", b"23"))
    else:
        make_tar(path, (member("one.txt"), b"1" * 300), (member("two/three.txt"), b"23"))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    inside = tmp_path / "inside"
    try:
        unpack(path, inside)
    except RunError as error:
        if str(path) not in str(error):
            raise
    assert not list(tmp_path.glob("one*"))
    assert not list(inside.glob(".unpacking*"))


def test_a_tar_whose_headers_swell_is_refused_before_they_fill_the_memory(tmp_path: Path):
    import gzip

    from harness.datasets.archives import unpack

    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 64 << 20
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header.tobuf(format=tarfile.USTAR_FORMAT))
        for _ in range(64):
            stream.write(b"0" * (1 << 20))
    tracemalloc.start()
    with pytest.raises(RunError, match="a header of"):
        unpack(path, tmp_path / "out")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_tar_that_is_damaged_behind_its_first_file_is_refused(tmp_path: Path, damage: str, packed: bool):
    """To tarfile a damaged header behind the first file is the end: the files after it would be missing without a word."""
    import gzip

    from harness.datasets.archives import unpack

    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        for name in ("a", "b", "c"):
            info = tarfile.TarInfo(name)
            info.size = 700
            archive.addfile(info, io.BytesIO(b"x" * 700))
    data = bytearray(memory.getvalue())
    second = 3 * tarfile.BLOCKSIZE  # a header, and 700 bytes in two blocks
    path = tmp_path / ("x.tar.gz" if packed else "x.tar")

    def write(content: bytes) -> Path:
        path.write_bytes(gzip.compress(content) if packed else content)
        return path

    assert unpack(write(bytes(data)), tmp_path / "whole")
    assert everything_below(tmp_path / "whole") == {"a", "b", "c"}
    if damage == "changed":
        data[second + 100] ^= 0xFF
    else:
        del data[second + 200 :]
    with pytest.raises(RunError, match="not a tar header where one is expected"):
        unpack(write(bytes(data)), tmp_path / "out")
    assert not everything_below(tmp_path / "out")
