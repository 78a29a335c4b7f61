"""The interface of models: `score`, `higher_is_better`, and optional methods for speed, training and ensembles.

A model is any class with `score` and `higher_is_better`; deriving from `Model` is optional. Its constructor takes the card's
`[model]` table as keyword arguments, downloads nothing and reads no file: weights are loaded afterwards by `load_part` and
`load_state`.

A model has an optional ability if it has its methods:

`score_uint8(reference, distorted) -> float`
    the same number from two (H, W, 3) uint8 arrays, for metrics that need no tensors.
`embed_uint8(reference) -> embedding` and `score_embedded_uint8(embedding, distorted) -> float`
    the same bits as `score_uint8`, where a part of the work depends only on the reference and can be done once.
`score_several_uint8(embedding, distorted) -> list of float`
    in addition to these two: the same bits for a sequence of images at once, where that is faster than one after the other.
`embed(reference) -> embedding` and `score_embedded(embedding, distorted, index) -> (N,)`
    reuse of a reference's features: row i of `distorted` (N, 3, H, W) is compared with row `index[i]` of the
    (R, 3, H, W) reference batch that was embedded.
`forward(reference, distorted, index=None) -> (N,)`
    differentiable, for a `torch.nn.Module` that can be trained. `index` as above (None: row by row).
`training_step(reference, distorted, index, target) -> loss`
    instead of `forward` and the recipe's loss: the mean loss, one number with a gradient, of distorted crops (N, 3, H, W)
    whose references are rows `index` (N,) of `reference` (R, 3, H, W), with labels `target` (N,) in [0, 1], higher is better.
    Randomness comes from torch's global generator, seeded by the run's seed and the step, so that a killed run resumes to the
    same bits.
`from_card(card)`
    a class method that constructs the model from its card, where the card's path matters.
`working()`
    a context around a round of scoring, for a model with work outside of Python: on an exception, it stops that work.
`combines_members = True`, `members` and `combine(values) -> (n,)`
    an ensemble (`harness.models.ensemble`): each member is scored with its own cropping, (members, n), then combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch


class ScoringModel(Protocol):
    """The required attributes of a model; `harness.models.capabilities.capabilities` finds the optional ones."""

    higher_is_better: bool

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """(N,) scores of two float32 RGB batches (N, 3, H, W) in [0, 1]."""
        ...


class Model:
    """Base of full-reference models; see the module's docstring for the optional abilities."""

    version: ClassVar[int] = 1
    """To be raised whenever the class's numbers change; part of every record's key."""

    higher_is_better: bool = True
    crop_size: int | None = None
    """The only height and width that `score` accepts; None: any size from `minimum_size` up."""
    minimum_size: int = 1
    combines_members: ClassVar[bool] = False
    """Whether it is an ensemble, with `members` and `combine`."""

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """Scores of `distorted` against `reference`.

        Both are RGB, float32 in [0, 1], (N, 3, H, W). Returns (N,) float32. Raises UsageError for anything else.
        """
        raise NotImplementedError

    def load_part(self, part: str, state: Mapping[str, torch.Tensor]) -> None:
        """Fill the part of the model that a card's `[[weights]]` entry names, strictly."""
        raise NotImplementedError(f"{type(self).__name__} takes no weights (asked to fill {part!r})")

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Fill the model from one user's file (`--weights FILE`), strictly."""
        raise NotImplementedError(f"{type(self).__name__} takes no weights")


def check_pair(reference: torch.Tensor, distorted: torch.Tensor, crop_size: int | None = None, minimum_size: int = 1) -> None:
    """Raise UsageError for anything but two float32 RGB batches in [0, 1] of the same shape."""
    import torch

    from harness.runtime.errors import UsageError

    for what, x in (("reference", reference), ("distorted", distorted)):
        if x.ndim != 4 or x.shape[1] != 3:
            raise UsageError(f"{what}: expected (N, 3, H, W), got {tuple(x.shape)}")
        if x.dtype != torch.float32:
            raise UsageError(f"{what}: expected float32 in [0, 1], got {x.dtype}; divide uint8 pixels by 255")
        _check_values(what, x)
    if reference.shape != distorted.shape:
        raise UsageError(f"reference {tuple(reference.shape)} and distorted {tuple(distorted.shape)} differ in shape")
    height, width = reference.shape[-2:]
    if crop_size is not None and (height, width) != (crop_size, crop_size):
        raise UsageError(
            f"this model takes {crop_size}x{crop_size} crops, got {height}x{width}; "
            "let a protocol crop (harness.score_pair, --set protocol.crops=five)"
        )
    if min(height, width) < minimum_size:
        raise UsageError(f"images of {height}x{width} are too small: this model needs at least {minimum_size} pixels a side")


def _check_values(what: str, x: torch.Tensor) -> None:
    """Raise UsageError for values outside [0, 1]. On a GPU the check has to wait, so only `score` makes it, not `embed`."""
    from harness.runtime.errors import UsageError

    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):
        raise UsageError(f"{what}: values from {x.amin():g} to {x.amax():g}, expected [0, 1] without NaN")
