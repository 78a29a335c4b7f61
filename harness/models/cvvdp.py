"""ColorVideoVDP of the package cvvdp as a model: `cvvdp:cvvdp`.

It computes with luminance: the card's `display` names the display model that converts sRGB values and gives the pixels per
degree. `harness run cvvdp:cvvdp --set model.display=standard_phone`. The package's other metrics are left out: of 0.5.7, PU-PSNR
raises NameError when it is called on arrays, and the learned variants fetch weights.
"""

from __future__ import annotations

import functools
import importlib
import json
import math
from typing import Any

from harness.models.adapters import Adapter, Metric, file_of, reasons
from harness.runtime.errors import UsageError, near

DISPLAY = "standard_4k"
"""The default display model, which is the library's default."""


METRICS = {"cvvdp": Metric("ColorVideoVDP in JOD (just-objectionable differences)", True, 10.0, -math.inf)}


@functools.cache
def displays() -> tuple[str, ...]:
    """The display models that show sRGB images; the others expect values of HDR video. Read without importing the library."""
    models = json.loads(file_of("cvvdp", "vvdp_data/display_models.json").read_text(encoding="utf-8"))
    return tuple(name for name, facts in models.items() if facts.get("colorspace", "sRGB") == "sRGB")


class Cvvdp(Adapter):
    """A metric of cvvdp under a display model."""

    library = "cvvdp"

    def __init__(self, metric: str, display: str = DISPLAY) -> None:
        if display not in displays():
            known = ", ".join(displays())
            raise UsageError(
                f"cvvdp:{metric}: no display {display!r} for sRGB images{near(display, displays())} (known: {known})"
            )
        self.display = display
        super().__init__(metric)

    def make(self, device: Any = "cpu") -> Any:
        """The library's metric on a device."""
        import torch

        library = importlib.import_module("pycvvdp")
        return getattr(library, self.metric)(display_name=self.display, device=torch.device(device), quiet=True)

    def to(self, device: Any) -> Cvvdp:
        """Make the library's metric again on the device: it cannot be moved."""
        with reasons(self.name, f"cannot be set up on {device}"):
            self.module = self.make(device)
        return self

    def compute(self, reference: Any, distorted: Any) -> Any:
        """The library's value of one pair."""
        value, _ = self.module.predict(distorted, reference, dim_order="BCHW")
        return value
