"""Which references of two datasets show the same: a model trained on the one is not tested fairly on the other.

Cards tell by a map (`DatasetCard.content`). Where a map says nothing, thumbnails of the references are compared; they
find whole images in another size or format, and miss crops, which only a map can tell.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.cards.schema import DatasetCard
from harness.datasets import Dataset
from harness.datasets.table import has_images
from harness.imaging import decode
from harness.imaging.decode import Pixels
from harness.runtime.errors import UsageError, listed

if TYPE_CHECKING:
    import pandas as pd

SAME = 0.95
"""Correlation of two thumbnails from which on they count as one picture."""
_MOST_REFERENCES = 2000


class Independent(NamedTuple):
    """Which rows of a further dataset are independent of what a model was trained on."""

    keep: pd.Series
    """True for the rows to test, by the test table's index."""
    shared: Mapping[str, str]
    """The test references that are not independent, and what tells so."""
    note: str
    """For the tables; empty when nothing is shared."""


def content_of(card: DatasetCard, reference_id: str) -> str:
    """What a reference shows, in words shared by all cards."""
    if reference_id in card.content:
        return card.content[reference_id]
    return card.content.get("*", f"{card.name}/{{}}").replace("{}", reference_id)


def independent_rows(train: Dataset, parts: pd.Series, test: Dataset, *, thumbnails: bool = True) -> Independent:
    """The rows of `test` whose references a model trained and validated on `train` has not seen.

    `parts`: the split of `train` (train and validation count as seen). Raises UsageError when no reference is left.
    """
    seen = train.table[parts.isin(["train", "validation"])]
    shared = shared_references(train, set(seen["reference_id"]), test, thumbnails=thumbnails)
    keep = ~test.table["reference_id"].isin(shared)
    if not keep.any():
        raise UsageError(f"every reference of {test.name} is also in what was trained on ({train.name}): nothing is left to test")
    if not shared:
        return Independent(keep, {}, "")
    count = test.table["reference_id"].nunique()
    dropped = f"{len(shared)} of {count} references ({int((~keep).sum())} of {len(keep)} pairs)"
    return Independent(keep, shared, f"without {dropped} that show what {train.name} trained on: {listed(sorted(shared))}")


def related(test: DatasetCard, train: DatasetCard, *, content_left_out: bool = False) -> bool:
    """Whether two datasets share labels or images, as far as their cards tell.

    `content_left_out`: references that show what was trained on are not among the tested ones.
    """
    words = [{word for key, word in card.content.items() if key != "*"} for card in (test, train)]
    shared = bool(words[0] & words[1]) and not content_left_out
    return shared or train.name in test.related or test.name in train.related


def shared_references(train: Dataset, train_ids: Collection[str], test: Dataset, *, thumbnails: bool = True) -> dict[str, str]:
    """Test references that show the same as one of `train_ids`, and what tells so (`kodim03`, or a correlation)."""
    known = {content_of(train.card, i): i for i in train_ids}
    test_ids = sorted(set(test.table["reference_id"]))
    shared = {i: content_of(test.card, i) for i in test_ids if content_of(test.card, i) in known}
    if not thumbnails or not (has_images(train.table) and has_images(test.table)):
        return shared
    rest = [i for i in test_ids if i not in shared]
    if not rest or len(rest) > _MOST_REFERENCES or len(train_ids) > _MOST_REFERENCES:
        return shared
    trained, tested = _thumbnails(train, sorted(train_ids)), _thumbnails(test, rest)
    if trained and tested:
        names = list(trained)
        correlations = np.stack(list(tested.values())) @ np.stack(list(trained.values())).T
        for reference, row in zip(tested, correlations, strict=True):
            best = int(row.argmax())
            if row[best] >= SAME:
                shared[reference] = f"{train.name} {names[best]} (thumbnails correlate at {row[best]:.3f})"
    return shared


def thumbnail(pixels: Pixels, side: int = 32) -> npt.NDArray[np.float32]:
    """An image as (side * side,) luma means of zero mean and unit length: their products are correlations.

    An image of one colour is all zeros, and like no other.
    """
    grey = Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float32).ravel()
    values = values - values.mean()
    length = float(np.linalg.norm(values))
    return values / length if length > 1e-3 else np.zeros_like(values)


def _thumbnails(data: Dataset, ids: Collection[str]) -> dict[str, npt.NDArray[np.float32]]:
    paths = data.table.drop_duplicates("reference_id").set_index("reference_id")["reference"]
    made = {}
    for reference in ids:
        try:
            made[reference] = thumbnail(decode.read(paths[reference]))
        except UsageError:
            continue  # a missing or broken reference is the run's and the check's to report
    return made
