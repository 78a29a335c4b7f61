"""`session`: starts a local Ray or joins a cluster, and removes everything again at the end.

A Ray that is started here listens on the loopback interface only and keeps its files in its own folder, which is removed at
the end. It always requires a token, because anyone who can connect to its ports could run any code. The environment, signal
handlers and limits that Ray changes are restored.
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

from harness.engine.distributed.address import first_line, refuse_token, resolve, token_environment
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
    # By default Ray's workers have a low priority (niceness 15); here the user waits for them.
    "RAY_worker_niceness": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}
"""Variables that bind all ports of Ray, and of torch's gloo, to 127.0.0.1 on every system."""
_SECONDS_TO_START = 60.0
_SECONDS_TO_RELEASE = 10.0


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, and its total CPUs and GPUs."""

    address: str
    cpus: int
    gpus: int


@dataclass
class Session:
    """The Ray to which this process is connected."""

    address: str
    """Empty: a local Ray, started by this process."""
    place: str | None = None
    """The folder of a local Ray's files; None for a cluster."""
    folders: list[Path] = field(default_factory=list)
    released: float = -_SECONDS_TO_RELEASE
    """When workers of this process were last ended: Ray frees their resources a moment later."""

    def nodes(self) -> list[Node]:
        """The machines of the cluster that are alive, the largest first."""
        ray: Any = importlib.import_module("ray")
        nodes = [
            Node(n["NodeManagerAddress"], int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0)))
            for n in ray.nodes()
            if n["Alive"]
        ]
        return sorted(nodes, key=lambda n: (-n.gpus, -n.cpus, n.address))

    def free(self) -> tuple[int, int]:
        """The numbers of unused CPUs and GPUs."""
        ray: Any = importlib.import_module("ray")
        available = ray.available_resources()
        return int(available.get("CPU", 0)), int(available.get("GPU", 0))

    def require(self, cpus: int, gpus: int = 0) -> None:
        """Raise UsageError unless this many CPUs and GPUs are free."""
        while cpus > self.free()[0] or gpus > self.free()[1]:
            if time.monotonic() - self.released > _SECONDS_TO_RELEASE:
                amounts = " and ".join(f"{n} {kind}s" for n, kind in ((cpus, "CPU"), (gpus, "GPU")) if n)
                raise UsageError(f"{amounts} requested, but there is only {self.described()}; request fewer")
            time.sleep(0.1)

    def described(self) -> str:
        """A description for error messages: `2 nodes with 4 CPUs (2 free)`."""
        nodes, (cpus, gpus) = self.nodes(), self.free()
        kinds = [("CPU", sum(n.cpus for n in nodes), cpus), ("GPU", sum(n.gpus for n in nodes), gpus)]
        amounts = [f"{total} {kind}s ({free} free)" for kind, total, free in kinds if total]
        return f"{len(nodes)} node{'s' if len(nodes) > 1 else ''} with {' and '.join(amounts) or 'no CPUs'}"

    def record(self) -> None:
        """Write the ids of the worker processes into the folders of their runs; to be called after workers were added."""
        for folder in self.folders:
            processes.record(folder, self.place)


_open: Session | None = None
_keep: list[contextlib.ExitStack] = []


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Inside the block, a Ray that `session` starts or joins is reused by later sessions; it ends with the block."""
    with contextlib.ExitStack() as stack:
        _keep.append(stack)
        try:
            yield
        finally:
            # A session that is being shut down must not be reused.
            _keep.remove(stack)


@contextlib.contextmanager
def session(
    address: str | None = None, *, cpus: int | None = None, gpus: int | None = None, folder: Path | None = None
) -> Iterator[Session]:
    """Ray, for the duration of the block.

    `address`: `host:port` of a running cluster, or `auto` for the one on this machine; None: start a local Ray.
    `cpus`, `gpus`: how many must be free (a local Ray has all CPUs and GPUs of the machine). `folder`: the run's folder, in
    which the process ids are recorded until the processes end; after a kill, `harness.results.processes.end_leftovers` ends
    them. A nested session is the same session. Raises UsageError at once if the cluster cannot be reached or has too few
    resources.
    """
    with contextlib.ExitStack() as own:
        current = _open
        if current is None:
            if address is None and cpus and cpus > cores():
                raise UsageError(f"{cpus} CPUs requested, but this machine has {cores()} CPUs; request fewer")
            current = (_keep[0] if _keep else own).enter_context(_opened(address, folder))
        if current.address != (address or ""):
            raise UsageError("this process uses another Ray already; end that session first, or give the same --ray address")
        current.require(cpus or 0, gpus or 0)
        if folder is not None and folder not in current.folders:
            current.folders.append(folder)
            processes.record(folder, current.place)
            own.callback(_leave, current, folder)
        yield current


def _leave(current: Session, folder: Path) -> None:
    """Remove a run's folder from a session that is reused; otherwise the shutdown of the session removes it."""
    if _keep:
        current.folders.remove(folder)
        processes.forget(folder)


def cores() -> int:
    """The number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _opened(address: str | None, folder: Path | None) -> Iterator[Session]:
    """Connect to Ray, and at the end undo everything that the connection changed.

    The folder of Ray's files is recorded in the run's `folder` before Ray starts, so that it can be removed after a kill.
    """
    global _open
    with contextlib.ExitStack() as stack:
        settings = _QUIET | (_LOOPBACK if address is None else {}) | token_environment(address)
        stack.enter_context(_environment(settings))
        stack.enter_context(_limits())
        stack.enter_context(_signals())
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            raise UsageError("Ray is in use in this process already: call ray.shutdown() first")
        host, loopback = resolve(address) if address is not None else ("", True)
        _read_environment_again(stack, loopback=loopback, guarded=address is None)
        if address is not None:
            refuse_token(host)
        opened = Session(address or "", None if address else _own_folder(stack, folder))
        # Linux ends Ray's processes with the thread that started them: this thread exists until the shutdown.
        starter = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(_shutdown, ray, opened)
        try:
            connecting = starter.submit(_join, ray, host) if opened.place is None else starter.submit(_start, ray, opened.place)
            _wait_for_connection(connecting)
        except BaseException:
            opened.folders += [folder] if folder is not None else []  # `_shutdown` then removes its record of processes
            raise
        _open = opened
        yield opened


def _wait_for_connection(connecting: Future[None]) -> None:
    """Wait for a connection made in another thread, and restore our SIGTERM handler: Ray installs one that aborts."""
    try:
        running = True
        while running:
            running = bool(wait([connecting], 0.01).not_done)
            signals.install()
    except BaseException:
        with _ignored_signals():
            wait([connecting], _SECONDS_TO_START)  # an incomplete start cannot be shut down
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
        raise RunError(f"Ray could not be started on this machine: {first_line(error)}") from error


def _join(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UsageError(f"--ray {address}: cannot join the cluster: {first_line(error)}") from error


def _shutdown(ray: Any, opened: Session) -> None:
    """Disconnect, and end the processes that remain; Ctrl-C and SIGTERM do not interrupt this."""
    global _open
    import psutil

    with _ignored_signals():
        _open = None
        children = psutil.Process().children(recursive=True) if not opened.address else []
        try:
            ray.shutdown()
        finally:
            _, alive = psutil.wait_procs(children, timeout=3)
            processes.end(alive)
            for folder in opened.folders:
                processes.forget(folder)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set variables for Ray and its processes; afterwards all variables of Ray are restored, including those that Ray set."""

    def current() -> dict[str, str]:
        return {k: v for k, v in os.environ.items() if k.startswith("RAY_") or k in ("PYTHONBREAKPOINT", "GLOO_SOCKET_IFNAME")}

    before = current()
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in current().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _read_environment_again(stack: contextlib.ExitStack, *, loopback: bool, guarded: bool) -> None:
    """Make Ray read its environment again, until `stack` is closed: it reads some variables only once, on import."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    raylet: Any = importlib.import_module("ray._raylet")
    if loopback and (before := getattr(constants, "ENABLE_RAY_CLUSTER", None)) is not None:
        constants.ENABLE_RAY_CLUSTER = False
        stack.callback(setattr, constants, "ENABLE_RAY_CLUSTER", before)
    with contextlib.suppress(AttributeError):
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()
    protected = False
    with contextlib.suppress(AttributeError):
        protected = guarded and raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN
    if guarded and not protected:
        raise RunError("this version of Ray cannot require a token: install ray>=2.52")


def _own_folder(stack: contextlib.ExitStack, folder: Path | None) -> str:
    """A folder for Ray's files, removed with `stack`. Its path is short, because Unix sockets in it may have 107 characters.

    Ray makes its own folder accessible to everybody; this one is its parent, and only its owner may enter it.
    """
    root = "/tmp" if os.path.isdir("/tmp") and os.name == "posix" else None
    place = tempfile.mkdtemp(prefix="harness-ray-", dir=root)
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    if folder is not None:
        processes.record(folder, place)
    return place


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Restore the limit of open files and the fault handler, which Ray changes."""
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
    """Ctrl-C, SIGTERM and SIGHUP raise an exception, so that all contexts are closed."""
    with signals.handled():
        try:
            yield
        except SystemExit as error:
            # Ray replaces the exit status of an exception inside its code, and its own handler uses the signal's number.
            if signal.SIGTERM in (signals.received(), error.code):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise


@contextlib.contextmanager
def _ignored_signals() -> Iterator[None]:
    """Ignore Ctrl-C, SIGTERM and SIGHUP inside the block."""
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
