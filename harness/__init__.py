"""A challenge benchmarking harness for full-reference image quality assessment.

>>> import harness
>>> model = harness.load_model("ssim")                                    # doctest: +SKIP
>>> harness.score_pair(model, "reference.png", "distorted.png")           # doctest: +SKIP
>>> harness.load_dataset("tid2013", root="/data/tid2013").table           # doctest: +SKIP
>>> harness.agreement(scores, labels).srcc                                # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.datasets import load_dataset as load_dataset
    from harness.engine.scorer import score_pair as score_pair
    from harness.models import load_model as load_model
    from harness.statistics.agreement import agreement as agreement

_ROOMS = {
    "load_model": "harness.models",
    "score_pair": "harness.engine.scorer",
    "load_dataset": "harness.datasets",
    "agreement": "harness.statistics.agreement",
}
__all__ = ["agreement", "load_dataset", "load_model", "score_pair"]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_ROOMS[name]), name)
