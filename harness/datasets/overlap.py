"""Shared content of two datasets: references that show the same image are left out when a trained model is tested.

Cards name the content (`DatasetCard.content`). Where they do not, thumbnails of the references are compared; they find
whole images in another size or format, but not crops, which only the cards can name.
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
"""Smallest correlation of two thumbnails that counts as the same image."""
_MOST_REFERENCES = 2000


class Independent(NamedTuple):
    """The rows of a further dataset that are independent of a model's training data."""

    keep: pd.Series
    """True for the rows to test, by the test table's index."""
    shared: Mapping[str, str]
    """The test references that are not independent, and the evidence."""
    note: str
    """A sentence for the tables; empty when nothing is shared."""


def content_of(card: DatasetCard, reference_id: str) -> str:
    """The name of a reference's content, shared by all cards."""
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
        raise UsageError(
            f"every reference of {test.name} is also in the training data ({train.name}): no reference is left to test"
        )
    if not shared:
        return Independent(keep, {}, "")
    count = test.table["reference_id"].nunique()
    dropped = f"{len(shared)} of {count} references ({int((~keep).sum())} of {len(keep)} pairs)"
    return Independent(keep, shared, f"without {dropped} that {train.name} trained on: {listed(sorted(shared))}")


def related(test: DatasetCard, train: DatasetCard, *, content_left_out: bool = False) -> bool:
    """Whether two datasets share labels or images, according to their cards.

    `content_left_out`: references with content of the training data are not tested.
    """
    words = [{word for key, word in card.content.items() if key != "*"} for card in (test, train)]
    shared = bool(words[0] & words[1]) and not content_left_out
    return shared or train.name in test.related or test.name in train.related


def shared_references(train: Dataset, train_ids: Collection[str], test: Dataset, *, thumbnails: bool = True) -> dict[str, str]:
    """Test references that show the same as one of `train_ids`, and the evidence (`kodim03`, or a correlation)."""
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

    An image of one colour is all zeros, and correlates with no other.
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
            continue  # the run and the check report a missing or damaged reference
    return made
