"""Full-reference metrics of the package frame-analytics as models: `frame-analytics:ssimulacra2`; no downloads."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from typing import Any

from harness.models.adapters import Adapter, Metric

# Polarity and range are only in the library's documents; the tests check this table with increasing distortion.
METRICS = {
    "adm_like": Metric("ADM, an approximation of VMAF's detail loss", True, 1.0, 0.0),
    "ciede2000": Metric("CIEDE2000 colour difference, mean", False, 0.0, math.inf),
    "dss": Metric("DSS (DCT subbands)", True, 1.0, 0.0),
    "flip": Metric("FLIP, mean", False, 0.0, 1.0),
    "fsim": Metric("FSIM", True, 1.0, 0.0),
    "fsimc": Metric("FSIMc", True, 1.0, 0.0),
    "gmsd": Metric("GMSD", False, 0.0, 1.0),
    "haarpsi": Metric("HaarPSI", True, 1.0, 0.0),
    "iw_ssim": Metric("IW-SSIM", True, 1.0, -1.0),
    "l1": Metric("mean absolute difference", False, 0.0, 1.0, has_range=False),
    "lpips": Metric("LPIPS v0.1 (AlexNet)", False, 0.0, math.inf),
    "mdsi": Metric("MDSI", False, 0.0, math.inf),
    "ms_gmsd": Metric("MS-GMSD", False, 0.0, 1.0),
    "ms_ssim": Metric("MS-SSIM", True, 1.0, -1.0),
    "mse": Metric("mean squared error", False, 0.0, 1.0, has_range=False),
    "nlpd": Metric("NLPD", False, 0.0, math.inf),
    "psnr": Metric("PSNR", True, math.inf, 0.0),
    "psnr_hvs": Metric("PSNR-HVS", True, math.inf, -math.inf),
    "psnr_hvs_m": Metric("PSNR-HVS-M", True, math.inf, -math.inf),
    "scielab": Metric("S-CIELAB difference, mean", False, 0.0, math.inf),
    "srsim": Metric("SR-SIM", True, 1.0, 0.0),
    "srsimc": Metric("SR-SIM with colour", True, 1.0, 0.0),
    "ssim": Metric("SSIM, mean of R, G and B", True, 1.0, -1.0),
    "ssimulacra2": Metric("SSIMULACRA 2", True, 100.0, -math.inf),
    "vifp": Metric("VIFp", True, 1.0, 0.0),
    "vsi": Metric("VSI", True, 1.0, 0.0),
}


class FrameAnalytics(Adapter):
    """A metric of frame-analytics on images in [0, 1]."""

    library = "frame-analytics"

    def make(self) -> Any:
        """The library's function."""
        return getattr(importlib.import_module("frame_analytics"), self.metric)

    def compute(self, reference: Any, distorted: Any) -> Any:
        """The library's value of one pair."""
        options = self.options | ({"data_range": 1.0} if METRICS[self.metric].has_range else {})
        with _not_compiled():
            return self.module(reference, distorted, **options)


@contextlib.contextmanager
def _not_compiled() -> Iterator[None]:
    """Disable torch.compile inside the block: it needs a compiler and a minute, and its bits depend on the machine."""
    functional = importlib.import_module("frame_analytics.functional")
    before = getattr(functional, "_COMPILE_ENABLED", None)
    if before is None:
        yield
        return
    functional.__dict__["_COMPILE_ENABLED"] = False
    try:
        yield
    finally:
        functional.__dict__["_COMPILE_ENABLED"] = before
