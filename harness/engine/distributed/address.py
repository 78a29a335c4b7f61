"""The address of a running Ray cluster, the check that it accepts this process, and tokens for Ray's authentication."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.runtime.errors import UsageError

AUTO = "auto"
_TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_TOKEN_FILE = "~/.ray/auth_token"
_SET_TOKEN = "set it in RAY_AUTH_TOKEN, or its file in RAY_AUTH_TOKEN_PATH"
_CONNECTION_TIMEOUT = 4.0
_token = ""


def resolve(address: str) -> tuple[str, bool]:
    """The cluster's host:port, and whether it can be reached only through this machine's loopback interface.

    Raises UsageError if nothing answers at the address: Ray itself would try for many minutes.
    """
    if "://" in address:
        raise UsageError(f"--ray {address}: give host:port or auto, without a scheme, on a machine of the cluster")
    services: Any = importlib.import_module("ray._private.services")
    if address == AUTO:
        try:
            address = services.canonicalize_bootstrap_address_or_die(AUTO)
        except (ConnectionError, ValueError) as error:
            raise UsageError(
                f"--ray auto: no cluster on this machine ({first_line(error)}); start one, or give host:port"
            ) from None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise UsageError(f"--ray {address}: expected host:port, or auto for the cluster on this machine")
    hosts = [host]
    if host in ("localhost", "127.0.0.1", "::1"):
        # Ray replaces these by the machine's external address, where a cluster that listens on the loopback does not answer.
        hosts.insert(0, services.get_node_ip_address())
    problem = ""
    for candidate in hosts:
        try:
            socket.create_connection((candidate, int(port)), timeout=_CONNECTION_TIMEOUT / len(hosts)).close()
        except (OSError, OverflowError) as error:
            problem = str(error)
            continue
        return f"{host}:{port}", len(hosts) > 1 and candidate == host
    raise UsageError(f"--ray {address}: no answer ({problem}); check the address and that the cluster is running")


def refuse_token(address: str) -> None:
    """Raise UsageError if the cluster at `address` (host:port) requires a token that this process does not have.

    One call to the cluster's head node shows it at once; `ray.init` would try for 20 seconds and give no reason.
    """
    raylet: Any = importlib.import_module("ray._raylet")
    exceptions: Any = importlib.import_module("ray.exceptions")
    refusal = getattr(exceptions, "AuthenticationError", None)
    if refusal is None or not hasattr(raylet, "GcsClient"):
        return
    try:
        with _without_stderr():
            raylet.GcsClient(address=address)
    except refusal:
        why = f"the cluster requires a token, and none is set here; {_SET_TOKEN}"
        if (source := token_source()) is not None:
            why = f"the cluster rejects the token of {source}; set the token of this cluster there"
        raise UsageError(f"--ray {address}: {why}") from None
    except Exception:
        return  # `ray.init` gets the same error and reports it


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard standard error inside the block: Ray's C++ code writes errors directly to the file descriptor."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def token_source() -> str | None:
    """The variable or file from which Ray reads the user's token; None if there is none."""
    for name in _TOKENS:
        if os.environ.get(name):
            return name
    return _TOKEN_FILE if Path(_TOKEN_FILE).expanduser().is_file() else None


def token_environment(address: str | None) -> dict[str, str]:
    """The variables that turn Ray's token authentication on, with the user's token, or for a local Ray with a new one.

    Raises UsageError if the user turned it on for a cluster and has no token: Ray itself would end the process.
    """
    global _token
    if address is not None:
        if os.environ.get("RAY_AUTH_MODE") == "token" and token_source() is None:
            raise UsageError(f"--ray {address}: RAY_AUTH_MODE is token, and no token is set here; {_SET_TOKEN}")
        # The cluster may belong to somebody else and use another authentication: the user's setting is not changed.
        return {"RAY_AUTH_MODE": "token"} if token_source() and "RAY_AUTH_MODE" not in os.environ else {}
    if any(map(os.environ.get, _TOKENS)):
        return {"RAY_AUTH_MODE": "token"}
    _token = _token or secrets.token_hex(32)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token}


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
