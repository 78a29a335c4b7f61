"""What the harness asks of a model.

A model is any class with `score` and `higher_is_better`; deriving from `Model` is a convenience, not a
requirement. Its constructor takes the card's `[model]` table as keyword arguments, downloads nothing and
reads no file: weights arrive afterwards through `load_part` and `load_state`.

Optional abilities are declared by being there:

`score_uint8(reference, distorted) -> float`
    the same number straight from two (H, W, 3) uint8 arrays, for metrics that need no tensors.
`embed_uint8(reference) -> embedding` and `score_embedded_uint8(embedding, distorted) -> float`
    the bits of `score_uint8`, where a part of the work is the reference's alone and can be done once.
`score_several_uint8(embedding, distorted) -> list of float`
    besides these two: the same bits for a sequence of images at once, where that is cheaper than one after the other.
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
    a class method that constructs from the whole card, where its place matters.
`working()`
    a context around a round of scoring, for a model with work outside of Python: left by an exception, it ends that work.
`combines_members = True`, `members` and `combine(values) -> (n,)`
    a model made of others (`harness.models.ensemble`): each is scored under its own cropping, (members, n), then combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    import torch


class ScoringModel(Protocol):
    """What every model has; the optional abilities above are found by `harness.models.capabilities.capabilities`."""

    higher_is_better: bool

    def score(self, reference: torch.Tensor, distorted: torch.Tensor) -> torch.Tensor:
        """(N,) scores of two float32 RGB batches (N, 3, H, W) in [0, 1]."""
        ...


class Model:
    """Base of full-reference models; see the module's text for the optional abilities."""

    version: ClassVar[int] = 1
    """Raised by hand whenever the class's numbers change; part of every record's key."""

    higher_is_better: bool = True
    crop_size: int | None = None
    """The only height and width `score` takes; None: any size from `minimum_size` up."""
    minimum_size: int = 1
    combines_members: ClassVar[bool] = False
    """Whether `members` and `combine` make it a model of others."""

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
    """Refuse anything but two float32 RGB batches in [0, 1] of one shape, with one line that says what is wrong."""
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
    """Refuse values outside [0, 1]. It waits for a GPU: `score` does it, the harness's own path through `embed` does not."""
    from harness.runtime.errors import UsageError

    if x.numel() and not (x.amin() >= 0 and x.amax() <= 1):
        raise UsageError(f"{what}: values from {x.amin():g} to {x.amax():g}, expected [0, 1] without NaN")
