"""Where a running cluster is, whether it lets this process in, and the token that guards a Ray that is started here."""

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
_WHERE = "put it into RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
_SECONDS_TO_REACH = 4.0
_token = ""


def reached(address: str) -> tuple[str, bool]:
    """The cluster's host:port, and whether it is to be had on this machine's loopback alone.

    Raises UsageError where nobody answers: Ray itself would try for many minutes.
    """
    if "://" in address:
        raise UsageError(f"--ray {address}: give the cluster's own address (host:port, or auto), from a machine of the cluster")
    services: Any = importlib.import_module("ray._private.services")
    if address == AUTO:
        try:
            address = services.canonicalize_bootstrap_address_or_die(AUTO)
        except (ConnectionError, ValueError) as error:
            raise UsageError(f"--ray auto: no cluster found on this machine ({first_line(error)}); give its host:port") from None
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        raise UsageError(f"--ray {address}: expected host:port, or auto for the cluster on this machine")
    hosts = [host]
    if host in ("localhost", "127.0.0.1", "::1"):
        # Ray takes these for the machine's name to the outside, where a cluster of the loopback does not answer.
        hosts.insert(0, services.get_node_ip_address())
    refused = ""
    for one in hosts:
        try:
            socket.create_connection((one, int(port)), timeout=_SECONDS_TO_REACH / len(hosts)).close()
        except (OSError, OverflowError) as error:
            refused = str(error)
            continue
        return f"{host}:{port}", len(hosts) > 1 and one == host
    raise UsageError(f"--ray {address}: nobody answers there ({refused}); is the cluster running?")


def refuse_token(address: str) -> None:
    """Raise UsageError where the cluster at `address` (host:port) asks for a token that this process does not have.

    One call to the cluster's head tells it at once; `ray.init` would try for 20 seconds and give no reason.
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
        why = f"the cluster asks for a token, and none is set here; {_WHERE}"
        if (source := token_source()) is not None:
            why = f"the cluster does not take the token of {source}; it has another one"
        raise UsageError(f"--ray {address}: {why}") from None
    except Exception:
        return  # `ray.init` meets the same and says it


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    """Ray's C++ part writes what it was refused to the descriptor itself; for the length of one call it goes nowhere."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def token_source() -> str | None:
    """Where Ray takes the user's token from; None where there is none."""
    for name in _TOKENS:
        if os.environ.get(name):
            return name
    return _TOKEN_FILE if Path(_TOKEN_FILE).expanduser().is_file() else None


def token_environment(address: str | None) -> dict[str, str]:
    """The environment that turns Ray's token authentication on: with the user's own token, else (here) one for this process.

    Raises UsageError where the user turned it on for a cluster and has no token: Ray itself would end the process.
    """
    global _token
    if address is not None:
        if os.environ.get("RAY_AUTH_MODE") == "token" and token_source() is None:
            raise UsageError(f"--ray {address}: RAY_AUTH_MODE is token, and no token is set here; {_WHERE}")
        # A cluster may be somebody else's, and guarded in another way: what its user set stands.
        return {"RAY_AUTH_MODE": "token"} if token_source() and "RAY_AUTH_MODE" not in os.environ else {}
    if any(map(os.environ.get, _TOKENS)):
        return {"RAY_AUTH_MODE": "token"}
    _token = _token or secrets.token_hex(32)
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token}


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
