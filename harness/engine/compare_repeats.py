"""Comparing two models over repeated splits, on the same test parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.datasets import Dataset
from harness.engine.measure import discrimination, oriented_labels
from harness.engine.score_source import Member
from harness.results.record import RepeatsRecord
from harness.runtime.errors import UsageError, listed
from harness.statistics.comparison import PairedComparison
from harness.statistics.split_comparison import SplitScores, compare_over_splits, medians_of


class SplitComparison(NamedTuple):
    """Two members on the same test parts."""

    images: list[str]
    """Names, by the comparison's rows."""
    comparison: PairedComparison
    discrimination: tuple[dict[str, object], dict[str, object]]
    """Of both members: medians over the splits."""
    splits: int


def compared_over_splits(members: Sequence[Member], data: Dataset, *, inner: bool) -> SplitComparison:
    """Compare two members, at least one of which is a record of repeated splits, on the same test parts.

    A member without splits (a file of scores, a model that is not trained) is compared on every part. Raises UsageError for
    members that were tested on other splits, that were trained on one split, and for images that one of them has not scored
    (unless `inner`).
    """
    over = [m for m in members if m.splits]
    records = [m.record for m in over if isinstance(m.record, RepeatsRecord)]
    if len({record.hashes.split for record in records}) > 1:
        about = [f"{m.name} ({m.folder}): {len(r.repeats)} splits of seed {r.seed}" for m, r in zip(over, records, strict=True)]
        hint = "they are compared on the same test parts: run both with the same --seed and --splits"
        raise UsageError("\n".join([*about, hint]))
    for m in members:
        record = m.record
        if not m.splits and record is not None and record.training is not None and record.dataset == records[0].dataset:
            runs = listed(sorted({repeat.run for repeat in records[0].repeats}))
            raise UsageError(
                f"{m.name} ({m.folder}): trained on one split, and {over[0].name} ({over[0].folder}) is over several: "
                f"run all splits ({record.command}), or name the other's run of the same split: {runs}"
            )
    table = data.table.set_index("name", drop=False)
    known = set(table.index)
    parts, missing = [], [set[str](), set[str]()]
    for number in range(len(over[0].splits)):
        scores = [m.splits[number] if m.splits else m.scores for m in members]
        wanted = {name for m in over for name in m.splits[number]} & known
        for i in (0, 1):
            missing[i] |= wanted - set(scores[i])
        parts.append([name for name in table.index if name in wanted and all(name in s for s in scores)])
    if any(missing) and not inner:
        lines = [
            f"{m.name}: {len(names)} tested images without a score: {listed(sorted(names))}"
            for m, names in zip(members, missing, strict=True)
            if names
        ]
        raise UsageError("\n".join([*lines, "they are compared on the same images; --inner uses those that both have"]))
    if not all(len(names) > 1 for names in parts):
        raise UsageError(f"{members[0].name} and {members[1].name} have no labelled images in common in some of the splits")
    tested = {name for names in parts for name in names}
    images = [name for name in table.index if name in tested]
    number_of = {name: i for i, name in enumerate(images)}
    rows = table.loc[images]
    if not (rows["reference_id"] != "").all():
        raise UsageError("the labels need a reference_id column: differences are paired by split, and splits are by reference")
    labels = oriented_labels(data, rows)
    splits: list[SplitScores] = []
    further = []
    for number, names in enumerate(parts):
        a, b = (np.array([(m.splits[number] if m.splits else m.scores)[n] for n in names]) for m in members)
        places = np.array([number_of[n] for n in names])
        splits.append(SplitScores(places, a, b, labels[places]))
        further.append([discrimination(data, rows.iloc[places], of_one) for of_one in (a, b)])
    comparison = compare_over_splits(
        splits,
        rows["reference_id"].tolist(),
        records[0].test_share,
        distortions=rows["distortion"].tolist() if (rows["distortion"] != "").any() else None,
        levels=rows["level"].tolist() if rows["level"].notna().all() else None,
    )
    first, second = (medians_of([split[i] for split in further]) for i in (0, 1))
    return SplitComparison(images, comparison, (first, second), len(splits))
