"""HTTP requests and answers: statuses, lengths, redirects and retry delays, with clear error messages."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import re
import ssl
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import requests

_PASSING = {408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524}
"""Statuses after which another try may succeed."""
_WORDS = {
    **{status.value: status.phrase for status in http.HTTPStatus},
    401: "not without an account or a token ($HF_TOKEN for the hub)",
    403: "forbidden: it may need an account, or its terms accepted in a browser",
    404: "not found",
}


class Refused(Exception):
    """The source does not give the file, and another try would not help; `unreachable`: no connection was possible."""

    def __init__(self, why: str, unreachable: bool = False) -> None:
        super().__init__(why)
        self.unreachable = unreachable


class TryAgain(Exception):
    """This try failed and another may succeed; `wait`: the seconds that the server asks to wait."""

    def __init__(self, why: str, wait: float = 0.0) -> None:
        super().__init__(why)
        self.wait = wait


@contextlib.contextmanager
def open_response(url: str, headers: Mapping[str, str], timeout: tuple[float, float]) -> Iterator[requests.Response]:
    """The answer to a GET, its body not read, redirects not followed.

    Proxies and certificates are those of the environment ($HTTPS_PROXY, $REQUESTS_CA_BUNDLE, $SSL_CERT_FILE) and the
    system. Raises Refused when no connection is possible or no answer begins in time, TryAgain when it was cut.
    """
    import requests

    if urllib.parse.urlsplit(url).scheme != "https":
        raise Refused(f"{url.partition('?')[0]}: only https is used")
    with requests.Session() as session:
        session.mount("https://", _adapter())
        # Without this, requests would send the entry of ~/.netrc for the host in place of a token.
        session.auth = lambda request: request
        try:
            answer = session.get(url, headers=dict(headers), stream=True, timeout=timeout, allow_redirects=False)
        except requests.exceptions.ReadTimeout as error:
            raise Refused(f"no answer within {timeout[1]:g} s ($HARNESS_DOWNLOAD_TIMEOUT gives it longer)") from error
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout) as error:
            # A host that accepted the connection and closed it is not unreachable.
            if isinstance(_innermost(error), http.client.RemoteDisconnected | ConnectionResetError | BrokenPipeError):
                raise TryAgain(f"the connection was cut ({reason(error)})") from error
            known = isinstance(error, requests.exceptions.SSLError | requests.exceptions.ProxyError)
            raise Refused(reason(error), unreachable=not known) from error
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            raise Refused(reason(error)) from error
        with answer:
            yield answer


def _adapter() -> Any:
    import requests.adapters

    context = _context(*(os.environ.get(name, "") for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")))

    class Adapter(requests.adapters.HTTPAdapter):
        """Trusts the system's certificates in addition to those of requests."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, ssl_context=context, **options)

        def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
            return super().proxy_manager_for(*arguments, ssl_context=context, **options)

    return Adapter()


@functools.cache
def _context(*bundles: str) -> ssl.SSLContext:
    return ssl.create_default_context()


def next_address(answer: requests.Response, url: str) -> str:
    """The address of a redirect; empty for any other answer. Raises Refused where it is not https."""
    if answer.status_code not in (301, 302, 303, 307, 308):
        return ""
    onward = urllib.parse.urljoin(url, str(answer.headers.get("Location", "")))
    if not answer.headers.get("Location"):
        raise Refused(f"HTTP status {answer.status_code} without an address")
    if urllib.parse.urlsplit(onward).scheme != "https":
        raise Refused(f"it redirects to {onward.partition('?')[0]}, which is not https")
    return onward


def raise_passing(answer: requests.Response) -> None:
    """Raise TryAgain where the answer is a temporary refusal."""
    from urllib3.util.retry import Retry

    if answer.status_code not in _PASSING:
        return
    wait = 0.0
    if text := str(answer.headers.get("Retry-After", "")):
        with contextlib.suppress(Exception):  # urllib3's own error for what is neither seconds nor a date
            wait = max(0.0, float(Retry(retry_after_max=10**9).parse_retry_after(text)))
    raise TryAgain(status_text(answer.status_code), wait)


def status_text(status: int) -> str:
    """A status in words."""
    words = _WORDS.get(status, "")
    return f"HTTP status {status}{f' ({words})' if words else ''}"


def expected_length(answer: requests.Response) -> int:
    """The bytes of the complete file, of which the answer may be a part; 0: unknown."""
    if answer.status_code in (206, 416):
        match = re.search(r"/(\d{1,18})$", str(answer.headers.get("Content-Range", "")).strip())
        return int(match[1]) if match else 0
    length = str(answer.headers.get("Content-Length", "")).strip()
    return int(length) if re.fullmatch(r"\d{1,18}", length) else 0


def reason(error: BaseException) -> str:
    """The innermost reason of an error of requests, in one short line."""
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {inner.verify_message}"
    strerror: object = getattr(inner, "strerror", None)
    text = str(strerror or inner) or type(inner).__name__
    # urllib3 writes `<object>: Failed to resolve ...`.
    text = re.sub(r"^<[^>]*>: |^\w+\(host=[^)]*\): ", "", text)
    if cause := re.search(r"\[Errno -?\d+\] ([^')]+)", text):
        return cause[1].strip()[:200]
    return " ".join(text.split())[:200]


def _innermost(error: BaseException) -> BaseException:
    """requests and urllib3 wrap errors: the inner one is the outer one's reason, or among its arguments."""
    for _ in range(8):
        inner: object = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((argument for argument in error.args if isinstance(argument, BaseException)), None)
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error
