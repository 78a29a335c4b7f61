"""Choosing the kernel (way of computing) of a product: torch's public function, or a faster one after a timed trial.

A trial is made once for each shape, kept in the cache folder, and read by every later process: repeated trials could give
different choices by chance, and bits would not repeat. It is valid for one processor, torch version and number of threads
(`machine`). `$HARNESS_KERNELS` can decide instead: `plain` uses the public functions, `fast` every faster kernel that gives the
same numbers, `auto` (the default) the result of the trials.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.files.atomic import append_lines, sha256_json, writing
from harness.runtime.caches import cache_folder
from harness.runtime.errors import Unwritable, UsageError, near
from harness.runtime.machine import processor, processor_flags

if TYPE_CHECKING:
    from torch import Tensor

_log = logging.getLogger(__name__)

VARIABLE = "HARNESS_KERNELS"
PLAIN = "plain"
WAYS = {
    "onednn": (PLAIN, "onednn"),
    "linear": (PLAIN, "packed"),
    "linear-gelu": (PLAIN, "packed", "fused"),
    "winograd": (PLAIN, "winograd"),
    "composed": (PLAIN, "composed"),
    "training": (PLAIN, "one"),
}
"""The kernels of each kind of product, the public function first, the one expected to be the fastest last.

For training these are thread counts: all threads, or one (`harness.engine.training_threads`)."""
_BEFORE = {kind: PLAIN if kind in ("composed", "training") else ways[-1] for kind, ways in WAYS.items()}
"""The kernels in use before there was a choice."""
PLAINLY: Mapping[str, str] = MappingProxyType({})
"""For `using`: every product by the public function, which the count of operations needs."""
_MARGIN = 1.03
"""The least speed-up over the public function; smaller ones are within the noise of a trial."""
_ROUNDS = 7
_PLAINLY = 1.2
"""A speed ratio for which three rounds are enough."""
_VERSION = 1
"""To be raised when a kernel's code changes, so that it is timed again."""

_lock = threading.RLock()
_known: dict[tuple[str, int, str], str] = {}
_imposed: list[Mapping[str, str] | None] = []


class HasKernels:
    """A module some of whose products have a choice of kernels."""

    def kernels(self) -> dict[str, str]:
        """The products by name (`linear 768x2304`), with their chosen kernels."""
        raise NotImplementedError


def way_of(kernel: str, ways: Callable[[], Mapping[str, Callable[[], Tensor]]]) -> str:
    """The chosen way to compute `kernel`, whose name begins with its kind (a key of WAYS).

    Args:
        kernel: kind and shape.
        ways: makes the functions for a trial, including `plain`; called only where no choice is known.

    Raises:
        UsageError: for an unknown value of $HARNESS_KERNELS.
    """
    kind = kernel.partition(" ")[0]
    named = imposed()
    if named is PLAINLY:
        return PLAIN
    if (word := asked()) != "auto":
        return PLAIN if word == PLAIN else WAYS[kind][-1]
    if named is None or kernel in named:
        return _BEFORE[kind] if named is None else named[kernel]
    import torch

    key = str(cache_folder()), torch.get_num_threads(), kernel
    if key not in _known:
        with _lock:
            if key not in _known:
                _known[key] = _decided(kernel, ways)
    return _known[key]


def asked() -> str:
    """The value of $HARNESS_KERNELS: auto, plain or fast."""
    word = os.environ.get(VARIABLE) or "auto"
    known = ("auto", PLAIN, "fast")
    if word not in known:
        raise UsageError(f"${VARIABLE} = {word!r} is not one of {', '.join(known)}{near(word, known)}")
    return word


@contextmanager
def using(named: object) -> Iterator[None]:
    """Use these kernels inside the block (a record's, or those of a resumed run), unless $HARNESS_KERNELS decides.

    `named`: `kernels` of a record's conditions; None for an older record without them, which used every faster kernel; PLAINLY
    for the public functions, independent of the variable. Unknown names are ignored.
    """
    impose(named)
    try:
        yield
    finally:
        _imposed.pop()


def impose(named: object) -> None:
    """As `using`, for the rest of the process."""
    given = named if isinstance(named, Mapping) else {}
    ways = {k: w for k, w in given.items() if w in WAYS.get(str(k).partition(" ")[0], ())}
    _imposed.append(named if named is None or named is PLAINLY else ways)


def imposed() -> Mapping[str, str] | None:
    """The kernels set by `using`; empty outside of it."""
    return _imposed[-1] if _imposed else {}


def chosen(models: Sequence[Any], threads: int) -> dict[str, str]:
    """The chosen kernels of these models' products on `threads` threads, by name; trials are made where none is known.

    Empty for models without such products, and inside `using(None)`, because older records name no kernels.
    """
    torch = sys.modules.get("torch")
    if torch is None or (imposed() is None and asked() == "auto"):
        return {}
    before = torch.get_num_threads()
    found: dict[str, str] = {}
    try:
        if before != threads:
            torch.set_num_threads(threads)
        for model in models:
            for module in model.modules() if isinstance(model, torch.nn.Module) else ():
                if isinstance(module, HasKernels):
                    found |= module.kernels()
    finally:
        if before != threads:
            torch.set_num_threads(before)
    return dict(sorted(found.items()))


def machine() -> dict[str, object]:
    """The facts for which a choice is valid."""
    import torch

    limits = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
    return {
        "processor": f"{platform.system()} {platform.machine()} {processor()}",
        "flags": processor_flags(),
        "limits": {name: os.environ[name] for name in limits if name in os.environ},
        "torch": f"{torch.__version__} {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "kernels": _VERSION,
    }


def kept_in() -> Path:
    """The file of this machine's choices, one per line."""
    return cache_folder() / "kernels" / f"{sha256_json(machine())[:16]}.jsonl"


def _decided(kernel: str, ways: Callable[[], Mapping[str, Callable[[], Tensor]]]) -> str:
    """The kept choice, else that of a new trial. Where choices cannot be kept, a rule decides without a trial."""
    path = kept_in()
    if kernel in (kept := read(path)):
        return kept[kernel]
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), path.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps({"machine": machine()}) + "\n")
                _log.info("timing once which kernels are the fastest on this machine; kept in %s", path)
        way, ratios = trial(ways())
        # An empty line first ends an unfinished line of a killed process.
        append_lines(path, "\n" + json.dumps({"kernel": kernel, "way": way, "times_faster": ratios}) + "\n")
    except Unwritable as error:
        _log.warning("%s; the kernels of %s are not timed", error, kernel)
        return _by_rule(kernel)
    _log.debug("%s: %s is the fastest kernel here (%s)", kernel, way, ratios)
    # Another process may have been first: its choice is used by both.
    return read(path).get(kernel, _by_rule(kernel))


def _by_rule(kernel: str) -> str:
    """Without a trial: oneDNN's products were faster on all measured CPUs with AVX-512, and slower with AVX2."""
    import torch

    kind = kernel.partition(" ")[0]
    if kind == "training":
        return PLAIN
    of_onednn = kind in ("onednn", "linear", "linear-gelu")
    return PLAIN if of_onednn and not torch.backends.cpu.get_cpu_capability().startswith("AVX512") else WAYS[kind][-1]


def read(path: Path) -> dict[str, str]:
    """The choices in a file: for each product the first line with one of its kernels; other lines are ignored."""
    found: dict[str, str] = {}
    lines: list[str] = []
    with suppress(OSError, UnicodeDecodeError):
        lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        entry: Any = None
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
        if isinstance(entry, dict) and entry.get("way") in WAYS.get(str(entry.get("kernel")).partition(" ")[0], ()):
            found.setdefault(str(entry["kernel"]), entry["way"])
    return found


def trial(ways: Mapping[str, Callable[[], Tensor]]) -> tuple[str, dict[str, float]]:
    """The fastest of some kernels, and the speed-up of each over `plain`; timed in rounds, one after the other.

    A kernel whose numbers differ from those of `plain` is left out, and one that is not clearly faster is not chosen.
    """
    import torch

    # CPU time of one thread excludes other processes; for several threads only wall time is known.
    clock = getattr(time, "thread_time", time.perf_counter) if torch.get_num_threads() == 1 else time.perf_counter
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        truth = ways[PLAIN]()
        fair = {name: way for name, way in ways.items() if name == PLAIN or accurate(way(), truth)}
        ratios: dict[str, list[float]] = {name: [] for name in fair if name != PLAIN}
        names = list(fair)
        for number in range(_ROUNDS if ratios else 0):
            spent = {}
            for name in names[number % len(names) :] + names[: number % len(names)]:
                begun = clock()
                fair[name]()
                spent[name] = max(clock() - begun, 1e-9)
            for name, found in ratios.items():
                found.append(spent[PLAIN] / spent[name])
            if number >= 2 and all(min(found) > _PLAINLY or max(found) < 1 / _PLAINLY for found in ratios.values()):
                break
    times_faster = {name: round(median(found), 3) for name, found in ratios.items()}
    best = max(times_faster, key=lambda name: times_faster[name], default=PLAIN)
    return (best if times_faster.get(best, 0.0) >= _MARGIN else PLAIN), times_faster


def accurate(product: Tensor, truth: Tensor) -> bool:
    """Whether a product has the accuracy of fp32.

    Relative to a typical entry, orders of summation differ by up to 5e-6 (root mean square) and 1e-4 (largest), Winograd's the
    most; the error of TF32 is 3e-4 and 1.4e-3, that of bf16 2e-3 and 1e-2.
    """
    error, entry = (product - truth).double(), truth.double().std()
    return bool((error.square().mean().sqrt() < 3e-5 * entry) & (error.abs().max() < 5e-4 * entry))
