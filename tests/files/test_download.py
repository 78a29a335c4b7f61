"""Downloads from a realistic test server: every case ends with the file or with one clear message, and can be resumed."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tls_server import LONG_AGO, Play, Server

from harness.files import download as fetching
from harness.files.addresses import address, hub_file, page
from harness.files.content import content_problem
from harness.files.download import DownloadFailed, Fetched, download
from harness.files.partial_download import Origin
from harness.runtime.errors import Unwritable, UsageError

CONTENT = bytes(range(1, 200)) * 3000
SHA, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()
PLACE = "a.example/w.bin"
URL = f"https://{PLACE}"


@pytest.fixture
def web(web: Server) -> Server:
    web.files = {PLACE: CONTENT}
    return web


def fetch(folder: Path, url: str = URL, name: str = "w.bin", **known: Any) -> Fetched:
    return download(url, folder / name, **known)


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run(server: Server, folder: Path, before: str = "", **options: Any) -> subprocess.Popen[str]:
    """The download in a process of its own."""
    code = f"""
import sys
from pathlib import Path
from harness.files import download
from harness.runtime import logs
from harness.runtime.errors import HarnessError
{before}
try:
    logs.handle(lambda level, line: print(line, flush=True))
    print(download.download({URL!r}, Path({str(folder / "w.bin")!r})).sha256)
except HarnessError as error:
    print(error)
    sys.exit(error.exit_status)
"""
    environment = {**os.environ, **server.environment()}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# The file arrives


def test_a_file_is_fetched_whole_and_nothing_else_stays(web: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = fetch(tmp_path, sha256=SHA.upper(), md5=MD5, size=len(CONTENT), progress=lambda *step: steps.append(step))
    assert found == Fetched(tmp_path / "w.bin", len(CONTENT), SHA)
    assert found.path.read_bytes() == CONTENT
    assert left(tmp_path) == {"w.bin"}
    assert steps[-1] == ("w.bin", len(CONTENT), len(CONTENT))
    assert fetch(tmp_path) == Fetched(tmp_path / "w.bin", len(CONTENT), SHA, fresh=False)
    assert len(web.asked) == 1


@pytest.mark.parametrize("play", [Play(cut=300_000), Play(cut=300_000, etag="", modified=LONG_AGO)])
def test_a_cut_download_goes_on_where_it_stopped(web: Server, tmp_path: Path, play: Play) -> None:
    web.usual[PLACE] = Play(etag=play.etag, modified=play.modified)
    web.plays[PLACE] = [play]
    assert fetch(tmp_path).sha256 == SHA
    assert web.ranges(PLACE) == [None, "bytes=300000-"]
    assert web.asked[1].headers["If-Range"] == (play.etag or play.modified)


def test_a_weak_tag_suffices_where_the_hash_is_known_and_only_there(web: Server, tmp_path: Path) -> None:
    web.usual[PLACE] = Play(etag='W/"one"')
    for known, second in (({"sha256": SHA}, "bytes=300000-"), ({"md5": MD5}, "bytes=300000-"), ({}, None)):
        web.plays[PLACE], web.asked = [Play(etag='W/"one"', cut=300_000)], []
        assert fetch(tmp_path, **known).sha256 == SHA
        assert web.ranges(PLACE) == [None, second]
        assert "If-Range" not in web.asked[1].headers
        (tmp_path / "w.bin").unlink()


def test_a_server_without_ranges_is_asked_for_the_whole_file_again(web: Server, tmp_path: Path) -> None:
    web.plays[PLACE], web.usual[PLACE] = [Play(cut=300_000)], Play(ranges=False)
    assert fetch(tmp_path).sha256 == SHA


def test_a_server_that_always_cuts_at_one_place_is_given_up(web: Server, tmp_path: Path) -> None:
    web.usual[PLACE] = Play(cut=1000, ranges=False)
    with pytest.raises(DownloadFailed, match=r"^cut after 1,000 ") as caught:
        fetch(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(web.asked) == fetching._TRIES + 1
    web.usual.clear()
    assert fetch(tmp_path).sha256 == SHA


def test_a_file_that_changed_between_two_tries_is_never_joined(web: Server, tmp_path: Path) -> None:
    other = CONTENT[::-1]
    for old, new, known in (
        (Play(cut=300_000), Play(etag='"two"'), {}),
        (Play(cut=300_000), Play(etag='"two"', heeds=False), {}),
        (Play(cut=300_000, etag='W/"one"'), Play(etag='W/"two"'), {"sha256": hashlib.sha256(other).hexdigest()}),
        (Play(cut=300_000, etag=""), Play(etag=""), {"sha256": hashlib.sha256(other).hexdigest()}),
    ):
        web.files[PLACE] = CONTENT
        web.usual[PLACE] = Play(drop=True)
        web.plays[PLACE] = [old]
        with pytest.raises(DownloadFailed):
            fetch(tmp_path, **known)
        web.files[PLACE], web.usual[PLACE] = other, new
        assert fetch(tmp_path, **known).path.read_bytes() == other
        assert left(tmp_path) == {"w.bin"}
        (tmp_path / "w.bin").unlink()


def test_a_server_that_fails_is_asked_again(web: Server, tmp_path: Path) -> None:
    web.plays[PLACE] = [Play(500), Play(503), Play(drop=True), Play(502)]
    assert fetch(tmp_path).sha256 == SHA
    web.usual[PLACE] = Play(500)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(DownloadFailed, match=r"^HTTP status 500 \(Internal Server Error\)$"):
        fetch(tmp_path)
    assert not (tmp_path / "w.bin").exists()


def test_retry_after_is_waited_for_and_reported(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetching, "_wait", waits.append)
    web.plays[PLACE] = [Play(429, headers={"Retry-After": "7"}), Play(503, headers={"Retry-After": "soon"})]
    assert fetch(tmp_path).sha256 == SHA
    assert waits == [7.0, 0.0]
    assert logged == [
        "w.bin: HTTP status 429 (Too Many Requests); trying again in 7 s",
        f"w.bin: {len(CONTENT):,} bytes to fetch",
    ]


def test_a_429_that_asks_for_an_hour_is_shown_and_other_files_of_the_host_are_tried(web: Server, tmp_path: Path) -> None:
    web.files["a.example/x.bin"] = CONTENT
    web.plays[PLACE] = [Play(429, headers={"Retry-After": "3600"})]
    unreachable: set[str] = set()
    with pytest.raises(DownloadFailed, match=r"429 .* asks to wait 3600 s: run the same command again after that"):
        fetch(tmp_path, unreachable=unreachable)
    assert not unreachable
    assert fetch(tmp_path, "https://a.example/x.bin", "x.bin", unreachable=unreachable).sha256 == SHA
    assert fetch(tmp_path).sha256 == SHA


@pytest.mark.parametrize(("status", "word"), [(404, "not found"), (403, "forbidden"), (401, "account"), (410, "Gone")])
def test_a_refusal_that_will_not_pass_is_reported_at_once(web: Server, tmp_path: Path, status: int, word: str) -> None:
    web.usual[PLACE] = Play(status)
    with pytest.raises(DownloadFailed, match=rf"^HTTP status {status} \(.*{word}"):
        fetch(tmp_path)
    assert len(web.asked) == 1
    assert left(tmp_path) == set()


def test_a_slow_first_byte_is_waited_for_as_long_as_one_says(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.usual[PLACE] = Play(delay=1.5)
    monkeypatch.setenv("HARNESS_DOWNLOAD_TIMEOUT", "1")
    with pytest.raises(DownloadFailed, match=r"no answer within 1 s \(\$HARNESS_DOWNLOAD_TIMEOUT gives it longer\)"):
        fetch(tmp_path)
    monkeypatch.setenv("HARNESS_DOWNLOAD_TIMEOUT", "20")
    assert fetch(tmp_path).sha256 == SHA


def test_a_trickling_answer_is_given_up_and_what_came_is_kept(
    web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_SLOW_FOR", 0.0)
    monkeypatch.setattr(fetching, "_SLOWEST", 1 << 40)
    with pytest.raises(DownloadFailed, match="too slow"):
        fetch(tmp_path)
    assert "w.bin.part" in left(tmp_path)


def test_a_host_without_a_connection_is_asked_once_for_all_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    unreachable: set[str] = set()
    with pytest.raises(DownloadFailed, match=r"^no connection to 127.0.0.1:9: Connection refused$"):
        fetch(tmp_path, "https://127.0.0.1:9/w.bin", unreachable=unreachable)
    assert unreachable == {"127.0.0.1:9"}
    with pytest.raises(DownloadFailed, match="did not answer before"):
        fetch(tmp_path, "https://127.0.0.1:9/x.bin", unreachable=unreachable)


# https, and whose it is


def test_redirects_are_followed_on_https_alone_and_a_token_stays_with_its_host(web: Server, tmp_path: Path) -> None:
    web.files = {"b.example/store": CONTENT}
    web.plays[PLACE] = [Play(location="https://a.example/2"), Play(location="http://b.example/store?secret=1")]
    web.usual["a.example/2"] = Play(location="https://b.example/store")
    assert fetch(tmp_path, headers={"Authorization": "Bearer secret"}).sha256 == SHA
    assert [asked.headers.get("Authorization") for asked in web.asked] == ["Bearer secret", "Bearer secret", None]
    (tmp_path / "w.bin").unlink()
    with pytest.raises(DownloadFailed, match=r"redirects to http://b.example/store, which is not https$"):
        fetch(tmp_path)
    web.usual[PLACE] = Play(location="https://a.example/w.bin")
    with pytest.raises(DownloadFailed, match="more than 10 redirects"):
        fetch(tmp_path)


@pytest.mark.parametrize("source", ["http://a.example/x", "ftp://a.example/x", "file:///etc/hostname", "gdrive:../x", "hf://a/b"])
def test_what_is_no_https_address_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(DownloadFailed, match=r"only https|should read hf"):
        fetch(tmp_path, source)
    assert left(tmp_path) == set()


def test_a_certificate_that_nobody_trusts_is_refused(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(DownloadFailed, match="certificate verify failed"):
        fetch(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(web.certificate))
    assert fetch(tmp_path).sha256 == SHA


def test_netrc_sends_nothing(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine a.example login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fetch(tmp_path, headers={"Authorization": "Bearer mine"})
    assert web.asked[0].headers["Authorization"] == "Bearer mine"


def test_the_hubs_sha256_and_revision_serve_where_a_card_has_none(web: Server, tmp_path: Path) -> None:
    place, commit = "huggingface.co/o/r/resolve/main/w.bin", "a" * 40
    hub = {"X-Linked-ETag": f'"{SHA}"', "X-Repo-Commit": commit}
    web.files = {"cdn-lfs.huggingface.co/w": CONTENT}
    web.usual[place] = Play(location="https://cdn-lfs.huggingface.co/w", headers=hub)
    web.usual["cdn-lfs.huggingface.co/w"] = Play(etag="")
    web.plays["cdn-lfs.huggingface.co/w"] = [Play(etag="", cut=300_000)]
    found = fetch(tmp_path, "hf://o/r/w.bin")
    assert (found.sha256, found.revision) == (SHA, commit)
    assert web.ranges("cdn-lfs.huggingface.co/w") == [None, "bytes=300000-"]
    found.path.unlink()
    web.files = {"cdn-lfs.huggingface.co/w": CONTENT[::-1]}
    with pytest.raises(DownloadFailed, match=f"should have {SHA}"):
        fetch(tmp_path, "hf://o/r/w.bin")
    with pytest.raises(DownloadFailed, match="the hub's file has the sha256"):
        fetch(tmp_path, "hf://o/r/w.bin", sha256="0" * 64)


def test_addresses_of_the_hub_and_of_google_drive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address("hf://o/r/a b.pth").url == "https://huggingface.co/o/r/resolve/main/a%20b.pth"
    assert address("hf://o/r@v1/a/b.pth").url == "https://huggingface.co/o/r/resolve/v1/a/b.pth"
    assert address("hf://datasets/o/r/b.tar").url == "https://huggingface.co/datasets/o/r/resolve/main/b.tar"
    assert address("gdrive:1Nk-x").url == "https://drive.usercontent.google.com/download?id=1Nk-x&export=download&confirm=t"
    assert page("gdrive:1Nk-x") == "https://drive.google.com/file/d/1Nk-x/view"
    assert page("hf://o/r/a b.pth") == address("hf://o/r/a b.pth").url
    for source in ("hf://a/b", "hf://a/b/../../c", "hf://a/b@../c", "gdrive:a&b=c", "data:,x", "x"):
        with pytest.raises(UsageError):
            address(source)
    assert hub_file("hf://datasets/o/r@main/x").dataset


# What came is what it should be


def test_a_wrong_hash_or_length_is_refused_with_both(web: Server, tmp_path: Path) -> None:
    for known, words in (
        ({"sha256": "0" * 64}, (SHA, "0" * 64)),
        ({"md5": "0" * 32}, (MD5, "0" * 32)),
        ({"size": 12}, (f"{len(CONTENT):,}", "should have 12")),
        ({"largest": 12}, ("more than such a file can have",)),
    ):
        with pytest.raises(DownloadFailed) as caught:
            fetch(tmp_path, **known)
        assert all(word in str(caught.value) for word in words)
        assert not left(tmp_path) & {"w.bin", "w.bin.part"} or "largest" in known or "size" in known
        assert fetch(tmp_path).sha256 == SHA
        (tmp_path / "w.bin").unlink()


def test_more_or_fewer_bytes_than_announced_are_no_file(web: Server, tmp_path: Path) -> None:
    web.usual[PLACE] = Play(announced=len(CONTENT) + 5, ranges=False)
    with pytest.raises(DownloadFailed, match="cut after"):
        fetch(tmp_path)
    web.usual[PLACE] = Play(length=False)
    with pytest.raises(DownloadFailed, match="sent more than the"):
        fetch(tmp_path, size=1000)
    assert fetch(tmp_path, size=len(CONTENT)).sha256 == SHA


def test_a_login_page_is_no_file_and_its_title_is_reported(web: Server, tmp_path: Path) -> None:
    login = b"\n<!DOCTYPE html><html><head><title>Sign in &amp; go on</title></head></html>"
    for name in ("w.bin", "labels.xlsx", "labels.csv", "a.zip"):
        web.files[PLACE] = login
        with pytest.raises(DownloadFailed, match="sent a web page called 'Sign in & go on', not the file"):
            fetch(tmp_path, name=name)
        assert left(tmp_path) == set()
    web.files[PLACE] = CONTENT
    assert fetch(tmp_path).sha256 == SHA


def test_what_came_compressed_unasked_is_unpacked(web: Server, tmp_path: Path) -> None:
    web.usual[PLACE] = Play(zipped=True)
    web.plays[PLACE] = [Play(zipped=True, cut=500)]
    assert fetch(tmp_path, sha256=SHA).path.read_bytes() == CONTENT
    assert left(tmp_path) == {"w.bin"}
    web.files[PLACE] = b"name,score\na,1\n"
    assert fetch(tmp_path, name="x.csv").path.read_bytes() == b"name,score\na,1\n"
    web.usual[PLACE] = Play(headers={"Content-Encoding": "br"})
    with pytest.raises(DownloadFailed, match=r"sent it compressed \(br\)"):
        fetch(tmp_path, name="y.bin")


def test_a_tgz_that_a_server_calls_compressed_stays_one(web: Server, tmp_path: Path) -> None:
    web.files[PLACE] = packed = archive(".tgz")
    web.usual[PLACE] = Play(headers={"Content-Encoding": "x-gzip"})
    assert fetch(tmp_path, name="a.tgz").path.read_bytes() == packed


def archive(kind: str) -> bytes:
    memory = io.BytesIO()
    if kind == ".tar" or kind == ".tgz":
        with tarfile.open(fileobj=memory, mode="w:gz" if kind == ".tgz" else "w") as tar:
            entry = tarfile.TarInfo("x" * 150)
            entry.size = 5000
            tar.addfile(entry, io.BytesIO(os.urandom(5000)))
        return memory.getvalue()
    if kind == ".gz":
        return gzip.compress(os.urandom(5000))
    with zipfile.ZipFile(memory, "w") as zipped:
        zipped.writestr("xl/workbook.xml", os.urandom(5000))
    return memory.getvalue()


@pytest.mark.parametrize("kind", [".zip", ".xlsx", ".tar", ".tgz", ".gz"])
def test_a_cut_archive_is_distinguished_from_a_whole_one(web: Server, tmp_path: Path, kind: str) -> None:
    whole = archive(kind)
    web.files[PLACE] = whole
    assert fetch(tmp_path, name=f"a{kind}").path.read_bytes() == whole
    for wrong in (whole[:4000], b"\x1f\x8b" + bytes(3000) if kind in (".zip", ".xlsx", ".tar") else b"PK\x03\x04" + bytes(3000)):
        web.files[PLACE] = wrong
        with pytest.raises(DownloadFailed, match=r"cut short|damaged|does not begin|not a tar"):
            fetch(tmp_path, name=f"b{kind}")
        assert left(tmp_path) == {f"a{kind}"}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.mat", b'{"error": "quota exceeded"}', "sent a JSON document, not the file: 'quota exceeded'"),
        ("a.csv", b'{"detail": 3}', "sent a JSON document"),
        ("a.csv", gzip.compress(b"name,score", mtime=0), "compressed with gzip"),
        ("a.csv", b"name\x00score", "bytes that a text does not"),
        ("a.json", b'{"cut": ', "not JSON"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
        ("a.rar", b"Rar", "does not begin like a .rar file"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(6) + (100).to_bytes(8, "little") * 2 + bytes(50), "cut short: 78 bytes of 232"),
        ("a.png", b"GIF89a", "does not begin"),
        ("a.dat", b"", "it is empty"),
    ],
)
def test_content_that_a_name_does_not_promise_is_refused(tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / "part").write_bytes(content)
    assert word in content_problem(tmp_path / "part", name)


@given(content=st.binary(max_size=2000), name=st.sampled_from(["a.tar", "a.zip", "a.tgz", "a.7z", "a.json", "a.csv", "a.mat"]))
def test_any_bytes_are_judged_without_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    assert isinstance(content_problem(path, name), str)


def test_a_file_that_is_there_is_checked_and_never_removed(web: Server, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"mine")
    with pytest.raises(DownloadFailed, match=r"w.bin is there but is not the file: .*; remove or rename it"):
        fetch(tmp_path, sha256=SHA)
    assert (tmp_path / "w.bin").read_bytes() == b"mine"
    assert not web.asked


# Killed, full, and two at once


def test_killed_while_downloading_the_same_command_goes_on(web: Server, tmp_path: Path) -> None:
    web.plays[PLACE] = [Play(hang=300_000)]
    process = run(web, tmp_path)
    part = tmp_path / "w.bin.part"
    until(lambda: part.exists() and part.stat().st_size == 300_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    web.release.set()
    again = run(web, tmp_path)
    assert again.communicate()[0].split()[-1] == SHA
    assert web.ranges(PLACE) == [None, "bytes=300000-"]
    assert left(tmp_path) == {"w.bin"}


@pytest.mark.slow
@pytest.mark.parametrize("length", [True, False])
def test_killed_while_hashing_the_same_command_goes_on(web: Server, tmp_path: Path, length: bool) -> None:
    web.usual[PLACE] = Play(length=length)
    kill = "import os\ndownload._hash_problem = lambda *rest: os.kill(os.getpid(), 9)"
    process = run(web, tmp_path, kill)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "w.bin.part").stat().st_size == len(CONTENT)
    assert run(web, tmp_path).communicate()[0].split()[-1] == SHA
    assert len(web.asked) == 1
    assert left(tmp_path) == {"w.bin"}


def test_a_complete_part_of_unknown_length_is_recognised_by_the_416(web: Server, tmp_path: Path) -> None:
    for extra in (b"", b"more"):
        part = tmp_path / "w.bin.part"
        part.write_bytes(CONTENT + extra)
        fetching.write_origin(part, Origin(URL, etag='"one"'))
        assert fetch(tmp_path).sha256 == SHA
        (tmp_path / "w.bin").unlink()
    assert web.ranges(PLACE) == [f"bytes={len(CONTENT)}-", f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"source": 3}', "\udcff", '{"source": "x", "etag": []}'])
def test_a_damaged_note_next_to_a_part_starts_again(web: Server, tmp_path: Path, text: str) -> None:
    (tmp_path / "w.bin.part").write_bytes(b"half")
    (tmp_path / "w.bin.part.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert fetch(tmp_path).sha256 == SHA
    assert web.ranges(PLACE) == [None]


def test_two_processes_fetch_a_file_once(web: Server, tmp_path: Path) -> None:
    web.plays[PLACE] = [Play(hang=1000)]
    web.usual[PLACE] = Play()
    first = run(web, tmp_path)
    until(lambda: (tmp_path / "w.bin.part").exists())
    second = run(web, tmp_path)
    assert second.stdout is not None
    assert second.stdout.readline().strip() == "w.bin: another process is fetching it; waiting for it"
    web.release.set()  # the first is cut, and goes on
    assert first.communicate()[0].split()[-1] == SHA
    assert second.communicate()[0].strip() == SHA
    assert web.ranges(PLACE) == [None, "bytes=1000-"]
    assert left(tmp_path) == {"w.bin"}


def test_threads_that_want_one_file_fetch_it_once(web: Server, tmp_path: Path) -> None:
    web.usual[PLACE] = Play(delay=0.3)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(tmp_path).sha256)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SHA] * 3
    assert len(web.asked) == 1


def test_a_full_disk_is_reported_and_what_came_is_kept(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [300_000]

    def write(descriptor: int, block: Any) -> int:
        if room[0] <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(descriptor, memoryview(block)[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(fetching.os, "write", write)
    with pytest.raises(Unwritable, match="no space left: free some and run the same command again"):
        fetch(tmp_path)
    monkeypatch.setattr(fetching.os, "write", real)
    assert fetch(tmp_path).sha256 == SHA
    assert web.ranges(PLACE) == [None, "bytes=300000-"]


def test_a_limit_of_the_system_on_a_files_size_is_one_line(web: Server, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # noqa: E731
    process = run(web, tmp_path, preexec_fn=limit)
    assert "w.bin.part: cannot be written: File too large" in process.communicate()[0]
    assert process.returncode == 2
    assert run(web, tmp_path).communicate()[0].split()[-1] == SHA
    assert web.ranges(PLACE) == [None, "bytes=200000-"]


def test_a_disk_that_will_be_full_is_reported_before_it_is(web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(Unwritable, match=f"{len(CONTENT):,} more bytes are needed and 1,000 are free"):
        fetch(tmp_path)


def test_a_folder_that_cannot_be_made_is_reported(web: Server, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(Unwritable, match="cannot be written"):
        fetch(tmp_path / "plain" / "in")
    assert not web.asked


def test_a_further_look_may_refuse_the_file(web: Server, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise DownloadFailed("it is not what was hoped for")

    with pytest.raises(DownloadFailed, match="hoped for"):
        fetch(tmp_path, accept=refuse)
    assert left(tmp_path) == set()
