"""The full check's part that decodes every image once: damage, copies of references, direction of labels, wrong pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.cards.schema import DatasetCard
from harness.datasets.overlap import thumbnail
from harness.imaging import decode
from harness.imaging.remarks import ZEROS
from harness.runtime.errors import UsageError
from harness.runtime.findings import Findings, counted

_SIDE = 16
_FEWEST = 3
_AGAINST = -0.2
_FAR, _NEAR = 0.5, 0.9


class _Seen(NamedTuple):
    psnr: float
    thumbnail: npt.NDArray[np.float32]


@dataclass
class Decoded:
    """The results of decoding."""

    seen: dict[str, _Seen] = field(default_factory=dict)
    """By the distorted image's name."""
    references: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Thumbnails by path."""
    sha256: dict[str, str] = field(default_factory=dict)
    """By path."""
    broken: dict[str, str] = field(default_factory=dict)
    """Why an image cannot be used, by path."""
    zeros: dict[str, None] = field(default_factory=dict)
    """Images, with details, that hold zero bytes where their coded pixels should be."""


def decode_all(frame: pd.DataFrame, skip: Collection[str], *, workers: int, step: Callable[[int], None]) -> Decoded:
    """Decode every image of a table except those of `skip`, which are known to be damaged; `step` counts pairs."""
    result = Decoded()
    done = 0
    groups = [group for _, group in frame.groupby("reference", sort=False)]

    def work(group: pd.DataFrame) -> Decoded:
        part = Decoded()
        reference = _read(str(group["reference"].iloc[0]), skip, part)
        if reference is not None:
            part.references[str(group["reference"].iloc[0])] = thumbnail(reference, _SIDE)
        for name, path in zip(group["name"], group["distorted"], strict=True):
            pixels = _read(str(path), skip, part)
            if pixels is not None and reference is not None and pixels.shape == reference.shape:
                error = float(np.mean(np.square(reference.astype(np.int16) - pixels, dtype=np.int32)))
                psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
                part.seen[str(name)] = _Seen(psnr, thumbnail(pixels, _SIDE))
        return part

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for group, part in zip(groups, pool.map(work, groups), strict=True):
            result.seen |= part.seen
            result.references |= part.references
            result.sha256 |= part.sha256
            result.broken |= part.broken
            result.zeros |= part.zeros
            done += len(group)
            step(done)
    return result


def judge(card: DatasetCard, frame: pd.DataFrame, result: Decoded, found: Findings, where: str) -> None:
    """Report the results of decoding: damage, copies of references, reversed labels, wrong pairs."""
    if result.broken:
        shown = [f"{path} ({why})" for path, why in result.broken.items()]
        found.error(counted(shown, "images cannot be used"), where, "unpack them again from the archive")
    if result.zeros:
        found.error(f"{ZEROS}: {counted(list(result.zeros), 'images')}", where, "unpack them again from the archive")
    rows = frame[frame["name"].isin(result.seen.keys())]
    psnr = rows["name"].map(lambda name: result.seen[name].psnr)
    identical = list(rows["name"][psnr == math.inf])
    if identical:
        message = counted(identical, "distorted images equal their reference in every pixel", len(frame), limit=5)
        found.warning(message, where, "copies of references raise correlations")
    correlations = []
    for _, group in rows[rows["score"].notna()].groupby("reference_id"):
        quality = group["score"] if card.higher_is_better else -group["score"]
        distances = psnr[group.index]
        if len(group) >= _FEWEST and quality.nunique() > 1 and distances.nunique() > 1:
            correlations.append(float(quality.rank().corr(distances.rank())))
    if len(correlations) >= 2 and float(np.mean(correlations)) < _AGAINST:
        found.error(
            f"labels contradict PSNR within references (mean rank correlation {np.mean(correlations):+.2f} over "
            f"{len(correlations)} references): reversed, or of other images",
            where,
            f"the card says: {'higher' if card.higher_is_better else 'lower'} is better",
        )
    if len(result.references) < 2 or rows.empty:
        return
    # Distorted images that are unlike their own reference and like another.
    places = {path: i for i, path in enumerate(result.references)}
    reference_thumbnails = np.stack(list(result.references.values()))
    names = list(result.references)
    wrong = []
    for name, reference in zip(rows["name"], rows["reference"], strict=True):
        likeness = reference_thumbnails @ result.seen[name].thumbnail
        best = int(likeness.argmax())
        if likeness[places[reference]] < _FAR and likeness[best] > _NEAR:
            wrong.append(f"{name} (looks like {names[best].rpartition('/')[2]})")
    if wrong:
        found.error(counted(wrong, "images look like another reference than their own", len(rows)), where, "wrong pairing")


def _read(path: str, skip: Collection[str], part: Decoded) -> decode.Pixels | None:
    if path in skip:
        return None
    try:
        image = decode.read_hashed(path)
    except UsageError as error:
        part.broken[path] = str(error).removeprefix(f"{path}: ")
        return None
    part.sha256[path] = image.sha256
    part.zeros |= dict.fromkeys(remark.what for remark in image.remarks if remark.kind == ZEROS)
    return image.pixels
