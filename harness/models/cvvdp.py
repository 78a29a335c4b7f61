"""ColorVideoVDP of the package cvvdp as a model: `cvvdp:cvvdp`.

It works in light: the card's `display` names the display model that turns sRGB values into luminance and gives the pixels per
degree. `harness run cvvdp:cvvdp --set model.display=standard_phone`. The package's other metrics are left out: of 0.5.7, PU-PSNR
raises NameError when it is called on arrays, and the learned variants fetch weights.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from harness.models.adapters import Adapter, reasons
from harness.runtime.errors import UsageError, near

DISPLAY = "standard_4k"
"""The display model of a card that is given no other: the library's own default."""


class CvvdpMetric(NamedTuple):
    """A metric of cvvdp: its direction and range."""

    title: str
    best: float
    """The value of a pair of identical images; inf where the formula has no limit."""
    worst: float = -math.inf
    """The other end of its range."""
    higher_is_better: bool = True


METRICS = {
    "cvvdp": CvvdpMetric("ColorVideoVDP in JOD (just-objectionable differences)", 10.0),
}


@functools.cache
def displays() -> tuple[str, ...]:
    """The display models that show sRGB images; the others expect values of HDR video. Read without importing the library."""
    spec = importlib.util.find_spec("pycvvdp")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "vvdp_data" / "display_models.json"
        if path.is_file():
            models = json.loads(path.read_text(encoding="utf-8"))
            return tuple(name for name, facts in models.items() if facts.get("colorspace", "sRGB") == "sRGB")
    raise UsageError("cvvdp: this version has no vvdp_data/display_models.json; try pip install -U cvvdp")


class Cvvdp(Adapter):
    """A metric of cvvdp under a display model."""

    library = "cvvdp"

    def __init__(self, metric: str, display: str = DISPLAY) -> None:
        if display not in displays():
            known = ", ".join(displays())
            raise UsageError(
                f"cvvdp:{metric}: no display {display!r} for sRGB images{near(display, displays())} (there are {known})"
            )
        self.display = display
        super().__init__(metric, {})

    def make(self, metric: str, options: dict[str, Any]) -> Any:
        """The library's metric on the CPU."""
        return self._made("cpu")

    def _made(self, device: Any) -> Any:
        import torch

        library = importlib.import_module("pycvvdp")
        return getattr(library, self.metric)(display_name=self.display, device=torch.device(device), quiet=True)

    def to(self, device: Any) -> Cvvdp:
        """Make the library's metric again on the device: it cannot be moved."""
        with reasons(self.name, f"cannot be set up on {device}"):
            self.module = self._made(device)
        return self

    def compute(self, reference: Any, distorted: Any) -> Any:
        """The library's value of one pair."""
        value, _ = self.module.predict(distorted, reference, dim_order="BCHW")
        return value
