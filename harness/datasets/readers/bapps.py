"""Reader of BAPPS 2AFC: triplets of a reference and two distorted images, with the share of raters for each.

    2afc/{train,val}/traditional/{ref,p0,p1,judge}/000000.{png,npy}

`judge` is the fraction of raters who found p1 closer. Each triplet becomes two rows of one `pair`, whose `score` is
the share of votes for that image (1 - judge for p0, judge for p1), higher is better: scores are comparable within a
pair only.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness.cards.schema import DatasetCard
from harness.cards.tables import parse_table
from harness.datasets.file_index import how_to_get, open_tree
from harness.files.regular import require_regular
from harness.runtime.findings import counted

_FOLDERS = ("ref", "p0", "p1", "judge")
_LARGEST_VOTE = 4096


@dataclass(frozen=True)
class Votes:
    """The folders of each part."""

    parts: Mapping[str, str]
    """Part by the name of a folder above a subset: train, val."""


def read(card: DatasetCard, root: Path | None, layout: Mapping[str, Any]) -> pd.DataFrame:
    """The table of all triplets, two rows each; see `harness.datasets.readers` for what it raises."""
    parts = {folder.lower(): part for folder, part in parse_table(Votes, layout, card.path or card.name, "layout.").parts.items()}
    tree = open_tree(card, root)
    found = tree.findings()
    subsets: dict[str, dict[str, dict[str, str]]] = {}
    for file in tree.files:
        folder, _, name = file.rpartition("/")
        subset, _, kind = folder.rpartition("/")
        if kind.lower() in _FOLDERS and (subset and _part_of(subset, parts) is not None):
            subsets.setdefault(subset, {f: {} for f in _FOLDERS})[kind.lower()][name.rpartition(".")[0]] = file
    frames = []
    for subset, files in sorted(subsets.items()):
        stems = set().union(*files.values())
        for kind in _FOLDERS:
            missing = sorted(stems - files[kind].keys())
            if missing:
                found.error(counted(missing, f"missing in {kind}", len(stems), limit=5), tree.path(subset), how_to_get(card))
        whole = sorted(set.intersection(*(set(files[kind]) for kind in _FOLDERS)))
        with ThreadPoolExecutor(min(8, 4 * (os.cpu_count() or 1))) as pool:
            chunks = [[tree.path(files["judge"][stem]) for stem in whole[i : i + 256]] for i in range(0, len(whole), 256)]
            shares = [vote for votes in pool.map(lambda chunk: list(map(_vote, chunk)), chunks) for vote in votes]
        bad = [f"{stem}.npy" for stem, share in zip(whole, shares, strict=True) if not 0 <= share <= 1]
        if bad:
            what = counted(bad, "votes are not fractions", len(whole))
            found.error(what, tree.path(subset + "/judge"), "unpack the archive again")
        part, kind_of_subset = _part_of(subset, parts) or "", subset.rpartition("/")[2].lower()
        rows = []
        for stem, share in zip(whole, shares, strict=True):
            triplet, reference = f"{part}/{kind_of_subset}/{stem}", os.path.join(tree.root, files["ref"][stem])
            for kind, score in (("p0", 1.0 - share), ("p1", share)):
                path = os.path.join(tree.root, files[kind][stem])
                rows.append([f"{triplet}/{kind}", path, reference, triplet, triplet, score])
        frame = pd.DataFrame(rows, columns=["name", "distorted", "reference", "reference_id", "pair", "score"])
        frames.append(frame.assign(distortion=kind_of_subset, level=math.nan, part=part))
    if not frames:
        where = f"{', '.join(parts)} with subsets of folders {', '.join(_FOLDERS)}"
        found.error(f"no triplets (looked for {where})", tree.root, how_to_get(card))
        return found.finish(card.name, card.get.strip(), None)
    found.notes.append(f"{sum(len(f) for f in frames) // 2:,} triplets, two rows each; scores compare within pairs only")
    return found.finish(card.name, card.get.strip(), pd.concat(frames, ignore_index=True))


def _part_of(subset: str, parts: Mapping[str, str]) -> str | None:
    above = subset.lower().split("/")[:-1]
    # JND pairs are in folders of the same names (jnd/val/...), but they are not triplets.
    return next((parts[folder] for folder in reversed(above) if folder in parts and "jnd" not in above), None)


def _vote(path: str) -> float:
    """The single number in a .npy file; NaN where it holds anything else."""
    try:
        require_regular(path)
        with open(path, "rb") as stream:
            data = stream.read(_LARGEST_VOTE)
        values = np.load(io.BytesIO(data), allow_pickle=False)
        return float(values.item()) if values.size == 1 else math.nan
    except Exception:  # the parser may raise any error for a damaged file: no vote
        return math.nan
