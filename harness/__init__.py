"""A challenge benchmarking harness for full-reference image quality assessment.

>>> import harness
>>> harness.evaluate("ssim", "demo").srcc                                 # doctest: +SKIP
>>> model = harness.load_model("ssim")                                    # doctest: +SKIP
>>> harness.score_pair(model, "reference.png", "distorted.png")           # doctest: +SKIP
>>> harness.load_dataset("tid2013", root="/data/tid2013").table           # doctest: +SKIP
>>> harness.agreement(scores, labels).srcc                                # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.cards.listing import list_datasets as list_datasets
    from harness.cards.listing import list_models as list_models
    from harness.datasets import load_dataset as load_dataset
    from harness.engine.compare import compare_members as compare
    from harness.engine.evaluate import evaluate as evaluate
    from harness.engine.scorer import score_pair as score_pair
    from harness.engine.verify import verify as verify
    from harness.models import load_model as load_model
    from harness.statistics.agreement import agreement as agreement

    __version__: str

_WHERE = {
    "agreement": ("harness.statistics.agreement", "agreement"),
    "compare": ("harness.engine.compare", "compare_members"),
    "evaluate": ("harness.engine.evaluate", "evaluate"),
    "list_datasets": ("harness.cards.listing", "list_datasets"),
    "list_models": ("harness.cards.listing", "list_models"),
    "load_dataset": ("harness.datasets", "load_dataset"),
    "load_model": ("harness.models", "load_model"),
    "score_pair": ("harness.engine.scorer", "score_pair"),
    "verify": ("harness.engine.verify", "verify"),
}
__all__ = [
    "agreement",
    "compare",
    "evaluate",
    "list_datasets",
    "list_models",
    "load_dataset",
    "load_model",
    "score_pair",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("iqa-harness")
    if name not in _WHERE:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    import importlib

    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
