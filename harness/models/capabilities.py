"""Finding the optional abilities of a model (`capabilities`), and `LoadedModel`: a model with its card.

No attribute is ever set on a model: it may be a frozen dataclass, have `__slots__`, or use any attribute's name for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.runtime.errors import UsageError

if TYPE_CHECKING:
    from harness.cards.schema import ModelCard


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to score, and its card. Other attributes are the model's own."""

    model: Any
    card: ModelCard

    @property
    def higher_is_better(self) -> bool:
        """The scores' polarity."""
        return self.card.higher_is_better

    def score(self, reference: Any, distorted: Any) -> Any:
        """Scores (N,) of two float32 RGB batches (N, 3, H, W) in [0, 1]. Raises UsageError for anything else."""
        return self.model.score(reference, distorted)

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "card"):
            raise AttributeError(name)
        return getattr(self.model, name)


@dataclass(frozen=True)
class Capabilities:
    """The optional abilities of `harness.models.base` that a model has."""

    score_uint8: bool
    embed_uint8: bool
    score_several_uint8: bool
    score_embedded: bool
    crop_size: int | None
    """The only height and width that it accepts; None: any size."""
    minimum_size: int
    members: Sequence[Any]
    """The members of an ensemble (`harness.models.ensemble`)."""
    details: Mapping[str, Any] | None
    """Facts for the record."""


def capabilities(model: Any) -> Capabilities:
    """The optional abilities of a model.

    Args:
        model: a model, or a `LoadedModel` around one.

    Returns:
        Its abilities and sizes; members and details where it has them.

    Raises:
        UsageError: a `crop_size` or `minimum_size` that is not a whole number of pixels.
    """
    model = model.model if isinstance(model, LoadedModel) else model
    details = getattr(model, "details", None)
    embed_uint8 = _has(model, "embed_uint8") and _has(model, "score_embedded_uint8")
    return Capabilities(
        score_uint8=_has(model, "score_uint8"),
        embed_uint8=embed_uint8,
        score_several_uint8=embed_uint8 and _has(model, "score_several_uint8"),
        score_embedded=_has(model, "embed") and _has(model, "score_embedded"),
        crop_size=_pixels(model, "crop_size"),
        minimum_size=_pixels(model, "minimum_size") or 1,
        members=model.members if getattr(type(model), "combines_members", False) is True else (),
        details=dict(details) if isinstance(details, Mapping) else None,
    )


def move(model: Any, device: str) -> None:
    """Move a model to a device, if it can be moved."""
    if _has(model, "to"):
        model.to(device)


def _has(model: Any, method: str) -> bool:
    return callable(getattr(model, method, None))


def _pixels(model: Any, name: str) -> int | None:
    value = getattr(model, name, None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{type(model).__name__}.{name} = {value!r}: should be a whole number of pixels, or None")
    return value
