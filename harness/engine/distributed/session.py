"""Ray, started here or joined, and put away again: quiet, guarded, with nothing left behind.

A Ray that is started here listens on the loopback only, keeps its files in a folder of its own that goes with it, and
always asks for a token: whoever reaches its ports could run any code. Environment, signal handlers and limits that Ray
changes are put back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.engine.distributed.address import first_line, reached, refuse_token, token_environment
from harness.results import processes
from harness.runtime import signals
from harness.runtime.errors import RunError, UsageError

_OBJECT_STORE = 512 << 20
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_LOOPBACK = {
    # Ray's workers would give way to every other program of the machine (niceness 15); here they are what the user waits for.
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}
"""Ray's switch for machines whose firewall asks: all of its ports are bound to 127.0.0.1, on every system. And torch's."""
_SECONDS_TO_START = 60.0
_SECONDS_TO_RELEASE = 10.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and what it has in all."""

    address: str
    cpus: int
    gpus: int


@dataclass
class Session:
    """A Ray that this process is connected to."""

    address: str
    """Empty: started here."""
    place: str | None = None
    """Where a Ray that was started here keeps its files."""
    folders: list[Path] = field(default_factory=list)
    released: float = -_SECONDS_TO_RELEASE
    """When workers of ours were last ended: what they had is free a moment later."""

    def nodes(self) -> list[Node]:
        """The machines that are there now, those with the most first."""
        ray: Any = importlib.import_module("ray")
        nodes = [
            Node(n["NodeManagerAddress"], int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0)))
            for n in ray.nodes()
            if n["Alive"]
        ]
        return sorted(nodes, key=lambda n: (-n.gpus, -n.cpus, n.address))

    def free(self) -> tuple[int, int]:
        """CPUs and GPUs that nobody uses now."""
        ray: Any = importlib.import_module("ray")
        there = ray.available_resources()
        return int(there.get("CPU", 0)), int(there.get("GPU", 0))

    def require(self, cpus: int, gpus: int = 0) -> None:
        """Raise UsageError unless so much is free now."""
        while cpus > self.free()[0] or gpus > self.free()[1]:
            if time.monotonic() - self.released > _SECONDS_TO_RELEASE:
                amounts = " and ".join(f"{n} {kind}s" for n, kind in ((cpus, "CPU"), (gpus, "GPU")) if n)
                raise UsageError(f"{amounts} asked for, but there is {self.described()}")
            time.sleep(0.1)

    def described(self) -> str:
        """`2 nodes with 4 CPUs (2 free)`, for people who asked for more."""
        nodes, (cpus, gpus) = self.nodes(), self.free()
        kinds = [("CPU", sum(n.cpus for n in nodes), cpus), ("GPU", sum(n.gpus for n in nodes), gpus)]
        amounts = [f"{total} {kind}s ({free} free)" for kind, total, free in kinds if total]
        return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} with {' and '.join(amounts) or 'no CPUs'}"

    def record(self) -> None:
        """Write the processes that work for us into the folders of the runs that they work for; call when some were added."""
        for folder in self.folders:
            processes.record(folder, self.place)


_open: Session | None = None
_keep: list[contextlib.ExitStack] = []


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside, a Ray that `session` starts or joins stays for the sessions that come after, and goes at the end."""
    with contextlib.ExitStack() as stack:
        _keep.append(stack)
        try:
            yield
        finally:
            # What ends here must not be handed out again while it is being put away.
            _keep.remove(stack)


@contextlib.contextmanager
def session(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None, folder: Path | None = None
) -> Iterator[Session]:
    """Ray, for as long as the block runs.

    `address`: `host:port` of a running cluster, or `auto` for the one on this machine; None: one is started here.
    `cpus`, `gpus`: how many must be there (a Ray that is started here knows all of the machine's). `folder`: the run's
    folder, where the processes are written down until they are gone; `harness.results.processes.end_leftovers` ends what a kill
    left. A session inside another is the same one. Raises UsageError at once for what cannot be had, with what is there.
    """
    with contextlib.ExitStack() as own:
        found = _open
        if found is None:
            if address is None and cpus and cpus > cores():
                raise UsageError(f"{cpus} CPUs asked for, but this machine has {cores()} CPUs")
            found = (_keep[0] if _keep else own).enter_context(_opened(address, folder))
        if found.address != (address or ""):
            raise UsageError("this process works with one Ray already: a run cannot use another one at the same time")
        found.require(cpus or 0, gpus or 0)
        if folder is not None and folder not in found.folders:
            found.folders.append(folder)
            processes.record(folder, found.place)
            own.callback(_leave, found, folder)
        yield found


def _leave(found: Session, folder: Path) -> None:
    """A run's folder is done with; where Ray does not stay for others, its end forgets what worked for it."""
    if _keep:
        found.folders.remove(folder)
        processes.forget(folder)


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _opened(address: str | None, folder: Path | None) -> Iterator[Session]:
    """Connect, and at the end take everything away again that the connection brought.

    Where Ray keeps its files is written down in the run's `folder` before it starts: a kill in between leaves them to be found.
    """
    global _open
    with contextlib.ExitStack() as stack:
        settings = _QUIET | (_LOOPBACK if address is None else {}) | token_environment(address)
        stack.enter_context(_environment(settings))
        stack.enter_context(_limits())
        stack.enter_context(_signals())
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            raise UsageError("Ray is in use in this process already: shut it down first (ray.shutdown())")
        where, loopback = reached(address) if address is not None else ("", True)
        _read_environment_again(stack, loopback=loopback, guarded=address is None)
        if address is not None:
            refuse_token(where)
        found = Session(address or "", None if address else _own_folder(stack, folder))
        # Linux ends Ray's processes with the thread that started them: it is there until the shutdown.
        beside = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(_shutdown, ray, found)
        try:
            _listening(beside.submit(_join, ray, where) if found.place is None else beside.submit(_start, ray, found.place))
        except BaseException:
            found.folders += [folder] if folder is not None else []  # nobody uses it yet: `_shutdown` is to forget it
            raise
        _open = found
        yield found


def _listening(connecting: Future[None]) -> None:
    """Wait for a connection made in another thread: on its way Ray puts a handler in place that aborts at SIGTERM."""
    try:
        running = True
        while running:
            running = bool(wait([connecting], 0.01).not_done)
            signals.install()
    except BaseException:
        with _deaf():
            wait([connecting], _SECONDS_TO_START)  # half of a start could not be put away
        raise
    connecting.result()


def _start(ray: Any, place: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cores(),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=_OBJECT_STORE,
            _temp_dir=str(Path(place, "ray")),
        )
    except (RuntimeError, OSError, ValueError, ray.exceptions.RayError) as error:
        raise RunError(f"Ray could not be started here: {first_line(error)}") from error


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UsageError(f"--ray {address}: cannot join it: {first_line(error)}") from error


def _shutdown(ray: Any, found: Session) -> None:
    """Disconnect, and end what does not end by itself; neither Ctrl-C nor SIGTERM stops this half-way."""
    global _open
    import psutil

    with _deaf():
        _open = None
        ours = psutil.Process().children(recursive=True) if not found.address else []
        try:
            ray.shutdown()
        finally:
            _, alive = psutil.wait_procs(ours, timeout=3)
            processes.end(alive)
            for folder in found.folders:
                processes.forget(folder)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Settings for Ray and its processes; afterwards every variable of Ray's is as it was, also those that it set itself."""

    def rays() -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k.startswith("RAY_") or k in ("PYTHONBREAKPOINT", "GLOO_SOCKET_IFNAME")}

    before = rays()
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in rays().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _read_environment_again(stack: contextlib.ExitStack, *, loopback: bool, guarded: bool) -> None:
    """Ray reads some of its environment once, on import: an import that came earlier is told again, until `stack` is left."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    raylet: Any = importlib.import_module("ray._raylet")
    if loopback and (before := getattr(constants, "ENABLE_RAY_CLUSTER", None)) is not None:
        constants.ENABLE_RAY_CLUSTER = False
        stack.callback(setattr, constants, "ENABLE_RAY_CLUSTER", before)
    with contextlib.suppress(AttributeError):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    asks = False
    with contextlib.suppress(AttributeError):
        asks = guarded and raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
    if guarded and not asks:
        raise RunError("Ray would start without asking for a token (this version cannot): ray>=2.52 is needed")


def _own_folder(stack: contextlib.ExitStack, folder: Path | None) -> str:
    """Ray's own files: a folder that goes with `stack`. Unix sockets lie deep in it, and their paths may have 107 characters.

    Ray opens the folder that it is given to everybody; this one lies above that and lets only its owner in.
    """
    root = "/tmp" if os.path.isdir("/tmp") and os.name == "posix" else None
    place = tempfile.mkdtemp(prefix="harness-ray-", dir=root)
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    if folder is not None:
        processes.record(folder, place)
    return place


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Ray raises the number of open files that this process may have, and turns the fault handler on."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        resource = None  # type: ignore[assignment]
    files = resource.getrlimit(resource.RLIMIT_NOFILE) if resource else None
    handler = faulthandler.is_enabled()
    try:
        yield
    finally:
        if files is not None:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, files)
        if not handler:
            faulthandler.disable()


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP unwind the stack, so that everything is put away."""
    with signals.handled():
        try:
            yield
        except SystemExit as error:
            # Ray turns what a handler raises inside it into a status of its own, and its own handler gives the bare number.
            if signal.SIGTERM in (signals.received(), error.code):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP are passed over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[int, Callable[..., Any] | int | None] = {n: signal.getsignal(n) for n in signals.STOPS}
    for number in before:
        signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
