"""A TLS test server on the loopback that simulates the hosts of downloads, with their usual behaviour and faults.

A process reaches it through a proxy (`environment`), so that addresses are those of the real hosts and no code under test
knows of it. Hosts that are not named are not there.
"""

from __future__ import annotations

import contextlib
import datetime
import gzip
import http.server
import ipaddress
import re
import socket
import socketserver
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HOSTS = (
    "a.example",
    "b.example",
    "huggingface.co",
    "cdn-lfs.huggingface.co",
    "github.com",
    "drive.usercontent.google.com",
    "ponomarenko.info",
    "datasets.vqa.mmsp-kn.de",
    "s2.smu.edu",
    "people.eecs.berkeley.edu",
)
LONG_AGO = "Sat, 01 Jan 2022 00:00:00 GMT"


@dataclass(frozen=True)
class Play:
    """How one request is answered. The default: a good server's answer, with ranges and a strong entity tag."""

    status: int = 0
    """Not 0: this status, and `body`."""
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    heeds: bool = True
    """Whether If-Range is heeded."""
    cut: int | None = None
    """Bytes of the body after which the connection is dropped."""
    hang: int | None = None
    """Bytes of the body after which nothing comes until the server's `release` is set."""
    delay: float = 0.0
    """Seconds before the first byte."""
    announced: int | None = None
    """A Content-Length other than the body's."""
    length: bool = True
    """Whether the length is reported at all."""
    zipped: bool = False
    """Sent with Content-Encoding: gzip, asked or not."""
    location: str = ""
    drop: bool = False
    """The connection is dropped without an answer."""


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    host: str
    path: str
    headers: dict[str, str]
    """Their names With-Capitals."""


class Server:
    """`files` by `host/path`; `plays` by the same, one taken by each request until none is left, then `usual`."""

    def __init__(self, folder: Path, hosts: tuple[str, ...] = HOSTS) -> None:
        self.files: dict[str, bytes] = {}
        self.plays: dict[str, list[Play]] = defaultdict(list)
        self.usual: dict[str, Play] = {}
        self.asked: list[Asked] = []
        self.hosts = set(hosts)
        self.release = threading.Event()
        self.certificate = folder / "server.pem"
        _make_certificate(self.certificate, hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._web = _Quiet(("127.0.0.1", 0), type("Handler", (_Handler,), {"play": self}))
        self._web.socket = context.wrap_socket(self._web.socket, server_side=True, do_handshake_on_connect=False)
        self._proxy = _Quiet(("127.0.0.1", 0), type("Proxy", (_Proxy,), {"play": self}))
        for server in (self._web, self._proxy):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._web.server_address[1])

    def environment(self) -> dict[str, str]:
        """What a process needs to meet this server in place of the hosts."""
        proxy = f"http://127.0.0.1:{self._proxy.server_address[1]}"
        trusted = {"REQUESTS_CA_BUNDLE": str(self.certificate), "HF_HUB_OFFLINE": "0"}
        return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "", **trusted}

    def ranges(self, place: str) -> list[str | None]:
        """The Range of each request to `host/path`."""
        return [asked.headers.get("Range") for asked in self.asked if asked.host + asked.path.partition("?")[0] == place]

    def close(self) -> None:
        self.release.set()
        for server in (self._web, self._proxy):
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def serving(folder: Path, hosts: tuple[str, ...] = HOSTS) -> Iterator[Server]:
    server = Server(folder, hosts)
    try:
        yield server
    finally:
        server.close()


class _Quiet(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed or refuse a certificate are part of the play."""


class _Handler(http.server.BaseHTTPRequestHandler):
    play: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.play
        host = str(self.headers["Host"]).partition(":")[0]
        place = host + self.path.partition("?")[0]
        server.asked.append(Asked(host, self.path, {name.title(): value for name, value in self.headers.items()}))
        planned = server.plays[place]
        play = planned.pop(0) if planned else server.usual.get(place, Play())
        self.close_connection = True
        if play.drop:
            return
        time.sleep(play.delay)
        if play.location:
            self._begin(302, {"Location": play.location, "Content-Length": "0", **play.headers})
            return
        if play.status:
            self._begin(play.status, {"Content-Length": str(len(play.body)), **play.headers})
            self._send(play.body, play)
            return
        if place not in server.files:
            self._begin(404, {"Content-Length": "0"})
            return
        self._file(server.files[place], play)

    def _file(self, content: bytes, play: Play) -> None:
        body = gzip.compress(content) if play.zipped else content
        begin = 0
        match = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        same = self.headers["If-Range"] in (None, play.etag, play.modified or None)
        if match and play.ranges and (same or not play.heeds):
            begin = int(match[1])
        headers = {"ETag": play.etag, "Last-Modified": play.modified, "Content-Encoding": "gzip" if play.zipped else ""}
        if begin >= len(body):
            self._begin(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
            return
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        if play.length:
            headers["Content-Length"] = str(len(body) - begin if play.announced is None else play.announced)
        self._begin(206 if begin else 200, {**headers, **play.headers})
        self._send(body[begin:], play)

    def _begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, play: Play) -> None:
        with contextlib.suppress(OSError):
            self.wfile.write(body[: play.cut if play.hang is None else play.hang])
            if play.hang is not None:
                self.wfile.flush()
                self.play.release.wait(30)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class _Proxy(socketserver.StreamRequestHandler):
    play: Server

    def handle(self) -> None:
        words = self.rfile.readline().decode("latin-1").split()
        while self.rfile.readline().strip():
            pass
        if len(words) < 2 or words[0] != "CONNECT" or words[1].partition(":")[0] not in self.play.hosts:
            self.wfile.write(b"HTTP/1.1 502 no such host\r\n\r\n")
            return
        self.wfile.write(b"HTTP/1.1 200 connected\r\n\r\n")
        with socket.create_connection(("127.0.0.1", self.play.port)) as other:
            back = threading.Thread(target=_pipe, args=(other, self.connection), daemon=True)
            back.start()
            _pipe(self.connection, other)
            back.join(30)


def _pipe(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _make_certificate(path: Path, hosts: tuple[str, ...]) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server of the tests")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *(x509.DNSName(host) for host in hosts)]
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(key.private_bytes(*plain) + certificate.public_bytes(serialization.Encoding.PEM))
