"""`Scorer`: scores image pairs in chunks; `score_pair`: scores one pair.

A chunk is up to `batch` distorted images of one reference, in the table's order. It is the unit of work, of writing and
of resuming: equal chunks give equal bits. Images are decoded in threads, ahead of the model.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.cards.plugins import errors_of
from harness.cards.schema import Cropping
from harness.engine.devices import numerics
from harness.engine.references import KeptReferences
from harness.engine.warm_time import WarmTime
from harness.imaging import crops as cropping
from harness.imaging import decode, file_headers
from harness.imaging.colour import compared
from harness.imaging.crops import Crop
from harness.imaging.decode import Pixels
from harness.imaging.remarks import Remark
from harness.models.capabilities import LoadedModel, capabilities
from harness.results.run_scores import CropScore, Scored
from harness.runtime.errors import RunError, UsageError, listed
from harness.runtime.threads import ahead

if TYPE_CHECKING:
    import pandas as pd
    import torch

_log = logging.getLogger(__package__)

BATCH = 8
_PIXELS_AT_ONCE = 1 << 19
"""Distorted pixels in one forward pass of a network: limits memory, and gives small crops a large enough batch."""


class Pair(NamedTuple):
    """A pair of images and its name; a model gets only the images."""

    name: str
    distorted: str
    reference: str
    reference_id: str


class DecodedChunk(NamedTuple):
    """A chunk with its images: one reference, and a distorted image for each pair."""

    pairs: Sequence[Pair]
    reference: decode.Decoded
    distorted: Sequence[decode.Decoded]


def refuse_small(model: Any, protocol: Cropping, pairs: Sequence[Pair]) -> None:
    """Raise UsageError for images smaller than the model's minimum, listing all, from the references' headers.

    Files that cannot be read are left to the scorer, whose error says why.
    """
    smallest = capabilities(model).minimum_size
    if smallest == 1 or protocol.crops != "whole" or protocol.crop_size:
        return
    small = []
    for path in dict.fromkeys(pair.reference for pair in pairs):
        with suppress(UsageError):
            found = file_headers.look(path)
            if min(found.height, found.width) < smallest:
                small.append(f"{Path(path).name} ({found.width}x{found.height})")
    if small:
        raise UsageError(f"too small: this model needs at least {smallest} pixels a side: {listed(small)}")


@dataclass
class Scorer:
    """A model under a protocol's cropping, on a device.

    `model` as in `harness.models.base`; `identical` is the card's score for a pair whose formula gives infinity.
    """

    model: Any
    protocol: Cropping
    identical: float | None = None
    seed: int = 0
    device: str = "cpu"
    batch: int = BATCH
    workers: int = 0
    """Decoding threads (and scoring threads, for metrics on uint8); 0: one per core."""
    card_path: str = ""
    """The path of the model's card, for errors in a user's own model."""
    _embedded: tuple[str, list[Any]] | None = field(default=None, repr=False)
    _crops_at_once: int | None = field(default=None, repr=False)
    """How many reference crops fit into memory at once; None: not known yet."""
    warm: WarmTime = field(default_factory=WarmTime, repr=False)

    def __post_init__(self) -> None:
        cropping.check(self.protocol.crops)
        self.can = capabilities(self.model)
        own = self.can.crop_size
        self.crop_size: int | None = self.protocol.crop_size or own
        if own and self.protocol.crop_size not in (0, own):
            raise UsageError(f"protocol.crop_size = {self.protocol.crop_size}, but this model takes {own}x{own} crops only")
        self.threads = self.workers or os.cpu_count() or 1
        self._references = KeptReferences(self.threads)
        # A model's `precision` asks for less than float32; the card's setting of it is part of the run's identity.
        wanted = getattr(self.model, "precision", None)
        self.precision: str = wanted if wanted in ("tf32", "bf16") else "fp32"
        # The members of an ensemble are scored with their own croppings; None stands for a file of scores.
        self.parts: list[Scorer | None] = [
            None
            if m.model is None
            else Scorer(m.model, m.protocol, m.identical, self.seed, self.device, self.batch, self.workers)
            for m in self.can.members
        ]

    @property
    def on_uint8(self) -> bool:
        """Whether the model, or each of its members, scores uint8 arrays one by one, so that chunks may be scored in parallel."""
        if self.parts:
            return all(part is None or part.on_uint8 for part in self.parts)
        return self.can.score_uint8

    def chunks(self, pairs: Sequence[Pair]) -> list[list[Pair]]:
        """The pairs, divided into chunks."""
        return cut(pairs, self.batch)

    def score(self, chunks: Sequence[Sequence[Pair]]) -> Iterator[list[Scored]]:
        """The results of each chunk, in the chunks' order.

        Raises UsageError for images that cannot be scored, RunError naming the images whose score is not finite.
        """
        with ThreadPoolExecutor(self.threads) as pool, self.working():
            if self.on_uint8:
                yield from ahead(pool, lambda chunk: self.score_decoded(self.decoded(chunk)), chunks, self.threads + 1)
            else:
                yield from map(self.score_decoded, ahead(pool, self.decoded, chunks, self.threads + 1))
        self.forget()

    def forget(self) -> None:
        """Drop the cached features of references."""
        for scorer in (self, *filter(None, self.parts)):
            scorer._embedded = None
        self._references.forget()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Start and end a round of scoring, for models (and members) that define `working`."""
        with ExitStack() as stack:
            for scorer in (self, *filter(None, self.parts)):
                if callable(working := getattr(scorer.model, "working", None)):
                    stack.enter_context(working())
            yield

    def each(self, chunks: Mapping[int, Sequence[Pair]]) -> Iterator[tuple[int, list[Scored]]]:
        """Chunks by their numbers, with their results, when they are finished: here in the given order."""
        self.warm = WarmTime(self.threads + 1)
        for number, results in zip(chunks, self.score(list(chunks.values())), strict=True):
            self.warm.chunk(len(results))
            yield number, results

    def seconds_per_image(self, chunks: Sequence[Sequence[Pair]]) -> float | None:
        """Seconds per image of the warm model, one image after the other, from the chunks of `each`."""
        return self.warm.per_image(self, chunks)

    def score_decoded(self, chunk: DecodedChunk) -> list[Scored]:
        """The results of a chunk whose images are decoded."""
        with errors_of(self.card_path, "its model cannot score", RunError), numerics(self.device, self.precision):
            results = self._combined(chunk) if self.parts else self._over_crops(chunk)
            bad = [f"{r.name} ({r.score})" for r in results if not math.isfinite(r.score)]
            if bad:
                raise RunError(f"the model gave scores that are not finite numbers: {listed(bad)}; earlier scores are kept")
            return results

    def _combined(self, chunk: DecodedChunk) -> list[Scored]:
        names = [pair.name for pair in chunk.pairs]
        each = [part.score_decoded(chunk) if part else None for part in self.parts]
        known = [[r.score for r in rows] if rows else m.known(names) for rows, m in zip(each, self.model.members, strict=True)]
        identical = [any(rows[i].identical for rows in each if rows) for i in range(len(names))]
        scores = self.model.combine(np.array(known, dtype=np.float64))
        return [
            Scored(name, float(score), same, image.sha256, chunk.reference.sha256, (), _remarks(name, chunk.reference, image))
            for name, score, same, image in zip(names, scores, identical, chunk.distorted, strict=True)
        ]

    def _over_crops(self, chunk: DecodedChunk) -> list[Scored]:
        reference, ceiling = chunk.reference, self.identical
        places = self._places(chunk.pairs[0], reference.pixels)
        weights = [place.weight for place in places]
        if self.can.score_uint8:
            scores = np.array([self._uint8(chunk, place) for place in places])
        else:
            scores = self._network(chunk, places)
        results = []
        for i, (pair, image) in enumerate(zip(chunk.pairs, chunk.distorted, strict=True)):
            values = [float(v) for v in scores[:, i]]
            identical = ceiling is not None and math.inf in values
            if ceiling is not None:
                values = [ceiling if v == math.inf else v for v in values]
            mean = math.fsum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)
            crops = tuple(map(CropScore, places, values))
            remarks = _remarks(pair.name, reference, image)
            results.append(Scored(pair.name, mean, identical, image.sha256, reference.sha256, crops, remarks))
        return results

    def _uint8(self, chunk: DecodedChunk, place: Crop) -> list[float]:
        reference = _cut(chunk.reference.pixels, place)
        score = partial(self.model.score_uint8, reference)
        if len(chunk.pairs) > 1 and self.can.score_several_uint8:
            cuts = [_cut(image.pixels, place) for image in chunk.distorted]
            return [float(v) for v in self.model.score_several_uint8(self.model.embed_uint8(reference), cuts)]
        if len(chunk.pairs) > 1 and self.can.embed_uint8:
            score = partial(self.model.score_embedded_uint8, self.model.embed_uint8(reference))
        values = []
        for pair, image in zip(chunk.pairs, chunk.distorted, strict=True):
            try:
                values.append(float(score(_cut(image.pixels, place))))
            except RunError as error:
                raise RunError(f"{pair.name}: {error}") from error
        return values

    def decoded(self, chunk: Sequence[Pair]) -> DecodedChunk:
        """A chunk with its images. Raises UsageError for one that cannot be scored."""
        reference = self._references.read(chunk[0].reference)
        distorted = [decode.read_hashed(pair.distorted) for pair in chunk]
        for pair, image in zip(chunk, distorted, strict=True):
            decode.check_same_size(reference.pixels, image.pixels, pair.name)
        return DecodedChunk(chunk, reference, distorted)

    def _places(self, pair: Pair, pixels: Pixels) -> list[Crop]:
        height, width = pixels.shape[:2]
        fixed = self.can.crop_size
        if self.protocol.crops == "whole" and fixed and (height, width) != (fixed, fixed):
            raise UsageError(
                f"{pair.name}: crops = 'whole' needs images of {fixed}x{fixed}, this one is {width}x{height}; "
                "try --set protocol.crops=five, nine, grid or random20"
            )
        smallest = self.can.minimum_size
        try:
            places = cropping.positions(
                self.protocol.crops, height, width, self.crop_size, seed=self.seed, reference_id=pair.reference_id
            )
        except UsageError as error:
            raise UsageError(f"{pair.name}: {error}") from None
        if min(places[0].height, places[0].width) < smallest:
            raise UsageError(f"{pair.name}: {width}x{height} is too small: this model needs at least {smallest} pixels a side")
        if self.protocol.mirrored:
            places += [place._replace(mirrored=True) for place in places]
        return places

    def _network(self, chunk: DecodedChunk, places: list[Crop]) -> np.ndarray[Any, Any]:
        """A network's scores (crops, distorted images), some crops at a time; fewer after an out-of-memory error."""
        while True:
            together = max(1, _PIXELS_AT_ONCE // (places[0].height * places[0].width * self.batch))
            together = min(together, self._crops_at_once or together)
            groups = [places[i : i + together] for i in range(0, len(places), together)]
            try:
                return np.concatenate([self._forward(chunk, groups, number) for number in range(len(groups))])
            except (RuntimeError, MemoryError) as error:
                # `_halving` handles memory for distorted images: this error comes from the reference's features.
                if not _short_of_memory(error) or len(groups[0]) == 1:
                    raise
                self._crops_at_once = -(-len(groups[0]) // 2)
                self._embedded = None
                _log.info(
                    f"not enough memory for {len(groups[0])} reference crops at once; continuing with {self._crops_at_once}"
                )

    def _forward(self, chunk: DecodedChunk, groups: list[list[Crop]], number: int) -> np.ndarray[Any, Any]:
        """Scores (crops of the group, distorted images) of one group of crops."""
        import torch

        group, count = groups[number], len(chunk.distorted)
        with torch.inference_mode():
            distorted = self._tensors(chunk.distorted, group)
            index = torch.arange(len(group), device=self.device).repeat_interleave(count)
            if self.can.score_embedded:
                features = self._features(chunk, groups, number)
                scores = self._halving(lambda rows: self.model.score_embedded(features, distorted[rows], index[rows]), len(index))
            else:
                reference = self._tensors([chunk.reference], group)
                scores = self._halving(lambda rows: self.model.score(reference[index[rows]], distorted[rows]), len(index))
        return scores.float().cpu().numpy().reshape(len(group), count)

    def _features(self, chunk: DecodedChunk, groups: list[list[Crop]], number: int) -> Any:
        """The reference's features for a group of crops, cached until the reference or its groups of crops change."""
        key = f"{chunk.pairs[0].reference}|{chunk.reference.sha256}|{len(groups[0])}"
        if self._embedded is None or self._embedded[0] != key:
            self._embedded = (key, [])
        kept = self._embedded[1]
        for group in groups[len(kept) : number + 1]:
            kept.append(self.model.embed(self._tensors([chunk.reference], group)))
        return kept[number]

    def _tensors(self, images: Sequence[decode.Decoded], places: Sequence[Crop]) -> torch.Tensor:
        """(places x images, 3, H, W) in [0, 1], place by place."""
        import torch

        cuts = np.stack([_cut(image.pixels, place) for place in places for image in images])
        return torch.from_numpy(cuts).to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)

    def _halving(self, forward: Callable[[slice], torch.Tensor], rows: int) -> torch.Tensor:
        """`forward` over all rows, in halves, quarters, ... if there is not enough memory."""
        import torch

        pieces = 1
        while True:
            step = -(-rows // pieces)
            try:
                return torch.cat([forward(slice(i, i + step)) for i in range(0, rows, step)])
            except (RuntimeError, MemoryError) as error:
                if not _short_of_memory(error) or step == 1:
                    raise
                pieces *= 2
                _log.info(f"not enough memory for {step} crops at once; continuing with {-(-rows // pieces)}")


def _short_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "memory" in str(error).lower()


def _remarks(name: str, reference: decode.Decoded, distorted: decode.Decoded) -> tuple[Remark, ...]:
    profiles = compared(name, distorted.colour, reference.colour)
    return (*reference.remarks, *distorted.remarks, *((profiles,) if profiles else ()))


def cut(pairs: Sequence[Pair], batch: int) -> list[list[Pair]]:
    """The pairs in chunks of up to `batch`, grouped by reference in order of first appearance, table order within."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.reference, []).append(pair)
    return [group[i : i + batch] for group in groups.values() for i in range(0, len(group), batch)]


def pairs_of(table: pd.DataFrame) -> list[Pair]:
    """The rows of a dataset's table as pairs."""
    columns = [table[c] for c in ("name", "distorted", "reference", "reference_id")]
    return [Pair(*map(str, row)) for row in zip(*columns, strict=True)]


def score_pair(
    model: Any,
    reference: str | os.PathLike[str] | Pixels,
    distorted: str | os.PathLike[str] | Pixels,
    protocol: Cropping | str | None = None,
    *,
    seed: int = 0,
) -> float:
    """The score of one pair.

    Args:
        model: from `load_model`, or any object with `score(reference, distorted)` and `higher_is_better`.
        reference: a path, or an (H, W, 3) uint8 RGB array.
        distorted: the same, of the same size.
        protocol: the cropping, such as `whole`, `five` or `random20`; None: that of the model's card.
        seed: seed of random crops, together with the reference file's stem and size (for an array: with its size only).

    Returns:
        The model's score, in its own unit; `model.higher_is_better` is its polarity.

    Raises:
        UsageError: an image that cannot be read, images of different sizes, or too small for the model or the crops.
    """
    card = model.card if isinstance(model, LoadedModel) else None
    if protocol is None:
        protocol = card.protocol if card else Cropping()
    elif isinstance(protocol, str):
        protocol = Cropping(crops=protocol)
    scorer = Scorer(model, protocol, identical=card.identical if card else None, seed=seed, batch=1)
    if isinstance(reference, np.ndarray) or isinstance(distorted, np.ndarray):
        first, second = (decode.Decoded(_as_pixels(x), "") for x in (reference, distorted))
        pair = Pair("the distorted image", "", "", "" if isinstance(reference, np.ndarray) else Path(reference).stem)
        decode.check_same_size(first.pixels, second.pixels, pair.name)
        return scorer.score_decoded(DecodedChunk([pair], first, [second]))[0].score
    pair = Pair(str(distorted), str(distorted), str(reference), Path(reference).stem)
    return next(scorer.score([[pair]]))[0].score


def _as_pixels(image: Any) -> Pixels:
    if not isinstance(image, np.ndarray):
        return decode.read(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise UsageError(f"expected (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}")
    return image


def _cut(pixels: Pixels, place: Crop) -> Pixels:
    window = pixels[place.top : place.top + place.height, place.left : place.left + place.width]
    return np.ascontiguousarray(window[:, ::-1]) if place.mirrored else window
