"""Training batches: the pairs, crops and flips of each step, determined by the run's seed and the step's number."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from harness.cards.schema import Recipe
from harness.imaging import decode
from harness.imaging.decode import Pixels
from harness.runtime.errors import UsageError
from harness.runtime.threads import ahead

if TYPE_CHECKING:
    import pandas as pd

_CACHE_BYTES = 1 << 30


class Group(NamedTuple):
    """Distorted images (positions in the training table) of one reference that share a crop and a flip."""

    reference: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Batch:
    """The input of a step. G counts every crop of every group: with `recipe.crops` of 2, a reference occurs twice."""

    reference: torch.Tensor
    """(G, 3, S, S) float32 in [0, 1]."""
    distorted: torch.Tensor
    """(N, 3, S, S) float32 in [0, 1]."""
    index: torch.Tensor
    """(N,): the row of `reference` that each distorted image belongs to."""
    target: torch.Tensor
    """(N,): labels in [0, 1], higher is better."""

    def pinned(self) -> Batch:
        """The same in page-locked memory."""
        return Batch(*(part.pin_memory() for part in (self.reference, self.distorted, self.index, self.target)))


class Batches:
    """The batches of a training part.

    `table`: its rows; `targets` (n,): their labels in [0, 1]; `crop_size`: side of the crops, None for whole images.
    """

    def __init__(
        self, recipe: Recipe, table: pd.DataFrame, targets: np.ndarray[Any, Any], crop_size: int | None, seed: int
    ) -> None:
        self.recipe, self.targets, self.crop_size, self.seed = recipe, targets, crop_size, seed
        self.pairs = [(str(r), str(d)) for r, d in zip(table["reference"], table["distorted"], strict=True)]
        self.by_reference: dict[str, list[int]] = {}
        for row, (reference, _) in enumerate(self.pairs):
            self.by_reference.setdefault(reference, []).append(row)
        per_pass = sum(-(-len(rows) // recipe.batch_distorted) for rows in self.by_reference.values())
        self.per_pass = -(-per_pass // recipe.batch_references)
        self.decoded = _Decoded(_CACHE_BYTES)
        self.extents: dict[str, tuple[int, int]] = {}
        self.drawn: tuple[int, list[Group]] = (-1, [])

    def rows(self, step: int) -> int:
        """The number of distorted images in a step's batch, over all processes."""
        return self.recipe.crops * sum(len(group.rows) for group in self.groups(step))

    def groups(self, number: int) -> list[Group]:
        """The groups of batch `number`: each pass over the training part has its own order."""
        done, position = divmod(number, self.per_pass)
        drawn = self.drawn
        if drawn[0] != done:
            draw = generator_of(self.seed, "pass", done)
            whole: list[Group] = []
            for reference, rows in self.by_reference.items():
                order = [rows[i] for i in draw.permutation(len(rows))]
                size = self.recipe.batch_distorted
                whole += [Group(reference, tuple(order[i : i + size])) for i in range(0, len(order), size)]
            self.drawn = drawn = (done, [whole[i] for i in draw.permutation(len(whole))])
        first = position * self.recipe.batch_references
        return drawn[1][first : first + self.recipe.batch_references]

    def ahead(
        self,
        first: int,
        last: int,
        mine: Callable[[Sequence[Group]], Collection[int]],
        *,
        threads: int = 1,
        pinned: bool = False,
    ) -> Iterator[tuple[int, Batch]]:
        """Batches first .. last - 1, decoded while earlier ones are in training.

        Args:
            first: A step's number.
            last: The number after the last step's.
            mine: The positions of the groups of a batch that this process trains on.
            threads: How many batches are decoded in parallel; it does not change the batches.
            pinned: In page-locked memory, from which a GPU copies while it computes; needs CUDA.

        Yields:
            The step's number and its batch.
        """

        def made(step: int) -> tuple[int, Batch]:
            batch = self.batch(step, self.groups(step), mine)
            return step, batch.pinned() if pinned else batch

        with ThreadPoolExecutor(threads) as pool:
            yield from ahead(pool, made, range(first, last), threads + 1)

    def batch(self, step: int, groups: Sequence[Group], mine: Callable[[Sequence[Group]], Collection[int]]) -> Batch:
        """One batch, of the groups whose positions `mine` gives."""
        draw = generator_of(self.seed, "crops", step)
        reference_crops: list[Pixels] = []
        distorted_crops: list[Pixels] = []
        index, target = [], []
        wanted = mine(groups)
        for number, group in enumerate(groups):
            if group.reference not in self.extents:
                self.extents[group.reference] = self.decoded[group.reference].shape[:2]
            height, width = self.extents[group.reference]
            size = self.crop_size
            if size and min(height, width) < size:
                raise UsageError(f"{group.reference}: {width}x{height} is smaller than the {size}x{size} training crop")
            rows, columns = (size, size) if size else (height, width)
            for _ in range(self.recipe.crops):
                top, left = (int(draw.integers(0, extent + 1)) for extent in (height - rows, width - columns))
                flips = [bool(draw.random() < self.recipe.flip_probability) for _ in range(2)]
                if number not in wanted:
                    # Drawn for all groups: a group's crop must not depend on the process that has it.
                    continue
                where = slice(top, top + rows), slice(left, left + columns)
                reference = self.decoded[group.reference]
                reference_crops.append(self._flip(reference[where], flips))
                for row in group.rows:
                    image = self.decoded[self.pairs[row][1]]
                    decode.check_same_size(reference, image, self.pairs[row][1])
                    distorted_crops.append(self._flip(image[where], flips))
                    index.append(len(reference_crops) - 1)
                    target.append(self.targets[row])
        return Batch(
            _tensor(reference_crops),
            _tensor(distorted_crops),
            torch.tensor(index),
            torch.tensor(np.array(target, dtype=np.float32)),
        )

    def _flip(self, pixels: Pixels, flips: Sequence[bool]) -> Pixels:
        horizontal = self.recipe.flip in ("horizontal", "both") and flips[0]
        vertical = self.recipe.flip in ("vertical", "both") and flips[1]
        return pixels[:: -1 if vertical else 1, :: -1 if horizontal else 1]


class _Decoded:
    """A cache of decoded images by path with a limit in bytes; the least recently used are dropped."""

    def __init__(self, limit: int) -> None:
        self.limit, self.bytes = limit, 0
        self.kept: OrderedDict[str, Pixels] = OrderedDict()
        self.lock = threading.Lock()

    def __getitem__(self, path: str) -> Pixels:
        with self.lock:
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path]
        pixels = decode.read(path)
        with self.lock:
            if path not in self.kept:
                self.kept[path] = pixels
                self.bytes += pixels.nbytes
            while self.bytes > self.limit and len(self.kept) > 1:
                self.bytes -= self.kept.popitem(last=False)[1].nbytes
        return pixels


def number_of(seed: int, what: str, number: int) -> int:
    """A 256-bit number from the run's seed, a name and a count: the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{what}|{number}".encode()).digest(), "big")


def generator_of(seed: int, what: str, number: int) -> np.random.Generator:
    """A separate generator for one named choice, such as the crops of step 7; it does not depend on other draws."""
    return np.random.Generator(np.random.PCG64(number_of(seed, what, number)))


def _tensor(cuts: Sequence[Pixels]) -> torch.Tensor:
    if not cuts:
        return torch.empty(0, 3, 0, 0)
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).float().div_(255)
