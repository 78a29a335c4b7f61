"""Full-reference metrics of the package frame-analytics, which need no download, as models: `frame-analytics:ssimulacra2`."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from harness.models.adapters import Adapter


class FrameAnalyticsMetric(NamedTuple):
    """A metric of frame-analytics: its direction and range."""

    title: str
    higher_is_better: bool
    best: float
    """The value of a pair of identical images; inf where the formula has no limit."""
    worst: float
    """The other end of its range; inf or -inf where there is none."""
    has_range: bool = True
    """Whether the function is told the range of the images' values."""


# Direction and range lie in the library's texts, not in data; the tests hold this table to a ladder of one distortion.
METRICS = {
    "adm_like": FrameAnalyticsMetric("ADM, an approximation of VMAF's detail loss", True, 1.0, 0.0),
    "ciede2000": FrameAnalyticsMetric("CIEDE2000 colour difference, mean", False, 0.0, math.inf),
    "dss": FrameAnalyticsMetric("DSS (DCT subbands)", True, 1.0, 0.0),
    "flip": FrameAnalyticsMetric("FLIP, mean", False, 0.0, 1.0),
    "fsim": FrameAnalyticsMetric("FSIM", True, 1.0, 0.0),
    "fsimc": FrameAnalyticsMetric("FSIMc", True, 1.0, 0.0),
    "gmsd": FrameAnalyticsMetric("GMSD", False, 0.0, 1.0),
    "haarpsi": FrameAnalyticsMetric("HaarPSI", True, 1.0, 0.0),
    "iw_ssim": FrameAnalyticsMetric("IW-SSIM", True, 1.0, -1.0),
    "l1": FrameAnalyticsMetric("mean absolute difference", False, 0.0, 1.0, has_range=False),
    "lpips": FrameAnalyticsMetric("LPIPS v0.1 (AlexNet)", False, 0.0, math.inf),
    "mdsi": FrameAnalyticsMetric("MDSI", False, 0.0, math.inf),
    "ms_gmsd": FrameAnalyticsMetric("MS-GMSD", False, 0.0, 1.0),
    "ms_ssim": FrameAnalyticsMetric("MS-SSIM", True, 1.0, -1.0),
    "mse": FrameAnalyticsMetric("mean squared error", False, 0.0, 1.0, has_range=False),
    "nlpd": FrameAnalyticsMetric("NLPD", False, 0.0, math.inf),
    "psnr": FrameAnalyticsMetric("PSNR", True, math.inf, 0.0),
    "psnr_hvs": FrameAnalyticsMetric("PSNR-HVS", True, math.inf, -math.inf),
    "psnr_hvs_m": FrameAnalyticsMetric("PSNR-HVS-M", True, math.inf, -math.inf),
    "scielab": FrameAnalyticsMetric("S-CIELAB difference, mean", False, 0.0, math.inf),
    "srsim": FrameAnalyticsMetric("SR-SIM", True, 1.0, 0.0),
    "srsimc": FrameAnalyticsMetric("SR-SIM with colour", True, 1.0, 0.0),
    "ssim": FrameAnalyticsMetric("SSIM, mean of R, G and B", True, 1.0, -1.0),
    "ssimulacra2": FrameAnalyticsMetric("SSIMULACRA 2", True, 100.0, -math.inf),
    "vifp": FrameAnalyticsMetric("VIFp", True, 1.0, 0.0),
    "vsi": FrameAnalyticsMetric("VSI", True, 1.0, 0.0),
}


class FrameAnalytics(Adapter):
    """A metric of frame-analytics on images in [0, 1]; `options` go to its function."""

    library = "frame-analytics"

    def __init__(self, metric: str, **options: Any) -> None:
        self.options = options | ({"data_range": 1.0} if METRICS[metric].has_range else {})
        super().__init__(metric, options)

    def make(self, metric: str, options: dict[str, Any]) -> Any:
        """The library's function."""
        return getattr(importlib.import_module("frame_analytics"), metric)

    def compute(self, reference: Any, distorted: Any) -> Any:
        """The library's value of one pair."""
        with _not_compiled():
            return self.module(reference, distorted, **self.options)


@contextlib.contextmanager
def _not_compiled() -> Iterator[None]:
    """Without torch.compile inside, which takes a compiler and a minute, and whose bits are those of the machine."""
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
