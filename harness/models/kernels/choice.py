"""Which way a product is computed: the public function's, or a faster one where a timed trial on this machine showed it.

A trial is made once for each shape, kept in the cache folder, and read by every later process: a choice made again each time
could fall out otherwise by chance, and bits would not repeat. It is kept for one processor, torch version and number of
threads (`machine`). `$HARNESS_KERNELS` decides instead: `plain` takes the public functions, `fast` every faster way that gives
the same numbers, `auto` (the default) what the trials found.
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
"""Of each kind of product the ways, the public function's first and the one expected to be the fastest last.

Training's ways are threads: all of them, or one (`harness.engine.training_threads`)."""
_BEFORE = {kind: PLAIN if kind in ("composed", "training") else ways[-1] for kind, ways in WAYS.items()}
"""What was taken before there was a choice."""
PLAINLY: Mapping[str, str] = MappingProxyType({})
"""For `using`: every product by the public function, as what counts operations wants it."""
_MARGIN = 1.03
"""How many times faster than the public function a way has to be: less is within the noise of a trial."""
_ROUNDS = 7
_PLAINLY = 1.2
"""A difference that three rounds are enough for."""
_VERSION = 1
"""Raised when a way's code changes, so that it is timed again."""

_lock = threading.RLock()
_known: dict[tuple[str, int, str], str] = {}
_imposed: list[Mapping[str, str] | None] = []


class HasKernels:
    """A module some of whose products have a choice of ways."""

    def kernels(self) -> dict[str, str]:
        """The products by name (`linear 768x2304`), with the ways that they take."""
        raise NotImplementedError


def way_of(kernel: str, ways: Callable[[], Mapping[str, Callable[[], Tensor]]]) -> str:
    """The way to compute `kernel`, whose name begins with its kind (a key of WAYS).

    Args:
        kernel: kind and shape.
        ways: makes the contenders of a trial, `plain` among them; called only where no choice is known.

    Raises:
        UsageError: for a $HARNESS_KERNELS that is none of the words.
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
    """What $HARNESS_KERNELS says: auto, plain or fast."""
    word = os.environ.get(VARIABLE) or "auto"
    known = ("auto", PLAIN, "fast")
    if word not in known:
        raise UsageError(f"${VARIABLE} = {word!r} is not one of {', '.join(known)}{near(word, known)}")
    return word


@contextmanager
def using(named: object) -> Iterator[None]:
    """Inside, products take these ways (a record's, or those that a run was begun with), unless $HARNESS_KERNELS says otherwise.

    `named`: `kernels` of a record's conditions; None for a record from before there was a choice, when every faster way was
    taken; PLAINLY for the public functions, whatever the variable says. What is no name or way of ours is passed over.
    """
    impose(named)
    try:
        yield
    finally:
        _imposed.pop()


def impose(named: object) -> None:
    """As `using`, for as long as the process lives."""
    given = named if isinstance(named, Mapping) else {}
    ways = {k: w for k, w in given.items() if w in WAYS.get(str(k).partition(" ")[0], ())}
    _imposed.append(named if named is None or named is PLAINLY else ways)


def imposed() -> Mapping[str, str] | None:
    """What `using` holds here and now; empty where it holds nothing."""
    return _imposed[-1] if _imposed else {}


def chosen(models: Sequence[Any], threads: int) -> dict[str, str]:
    """The ways that the products of these models take on so many threads, by name; trials are made where none is known.

    Empty for models without such products, and where `using(None)` holds: such records name none.
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
    """What a choice is kept for: it may be another one where any of this differs."""
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
    """The file of this machine's choices, a line each."""
    return cache_folder() / "kernels" / f"{sha256_json(machine())[:16]}.jsonl"


def _decided(kernel: str, ways: Callable[[], Mapping[str, Callable[[], Tensor]]]) -> str:
    """The kept choice; else a trial's, kept from now on. Where nothing can be kept there is no trial: a rule decides."""
    path = kept_in()
    if kernel in (kept := read(path)):
        return kept[kernel]
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError), path.open("x", encoding="utf-8") as stream:
                stream.write(json.dumps({"machine": machine()}) + "\n")
                _log.info("trying once which ways of computing are the fastest on this machine; kept in %s", path)
        way, ratios = trial(ways())
        # An empty line first ends whatever a killed process left unfinished.
        append_lines(path, "\n" + json.dumps({"kernel": kernel, "way": way, "times_faster": ratios}) + "\n")
    except Unwritable as error:
        _log.warning("%s; which way of computing %s is the fastest here is not tried", error, kernel)
        return _by_rule(kernel)
    _log.debug("%s: %s is the fastest way here (%s)", kernel, way, ratios)
    # Another process may have been first: its choice holds for both.
    return read(path).get(kernel, _by_rule(kernel))


def _by_rule(kernel: str) -> str:
    """Without a trial: oneDNN's products were faster wherever they were measured with AVX-512, and slower with AVX2."""
    import torch

    kind = kernel.partition(" ")[0]
    if kind == "training":
        return PLAIN
    of_onednn = kind in ("onednn", "linear", "linear-gelu")
    return PLAIN if of_onednn and not torch.backends.cpu.get_cpu_capability().startswith("AVX512") else WAYS[kind][-1]


def read(path: Path) -> dict[str, str]:
    """The choices in a file: of each kernel the first line that names one of its ways; anything else is passed over."""
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
    """The fastest of some ways, and how many times faster than `plain` each is; in rounds, one way after the other.

    A way whose numbers are not those of `plain` takes no part, and one that is not clearly faster does not win.
    """
    import torch

    # One thread's own time does not count what other processes take; the time of several threads is known by the clock alone.
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
    """Whether a product is as good as fp32's.

    Of the typical entry, ways of summing differ by up to 5e-6 (root mean square) and 1e-4 (largest), Winograd's the most; TF32
    errs by 3e-4 and 1.4e-3, bf16 by 2e-3 and 1e-2.
    """
    error, entry = (product - truth).double(), truth.double().std()
    return bool((error.square().mean().sqrt() < 3e-5 * entry) & (error.abs().max() < 5e-4 * entry))
